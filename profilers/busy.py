"""Rule 1 of the ledger: every instant of the window is some operator's, or it is idle and has another cause.

What is busy comes out operator by operator, for the roofline to split; what is idle is charged to its cause at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .cells import Cells
from .cost import DISPATCH, Cost
from .events import COLLECTIVES, HostEvent
from .idle import WHOLE, Host, charges, drained, launches
from .pricing import price
from .timeline import Labels, Spans, cut, gaps, innermost, union

if TYPE_CHECKING:
    from .capture import Capture  # loads torch; a saved trace needs none


@dataclass(frozen=True, slots=True)
class Busy:
    """One operator's charged time in one phase. `event` may be a kernel that no operator launched."""

    event: HostEvent
    phase: str
    nanoseconds: int
    cost: Cost


def on_thread(
    events: Sequence[HostEvent], phases: Labels, compiling: Spans, collecting: Spans, t0: int, t1: int
) -> Iterator[tuple[int, int, int, str, str, str]]:
    """[t0, t1) of the thread that is the device, in stretches (start, end, event, phase, cause, what): rule 1 on a CPU.

    Without a cause the stretch is the event's own work. `events`: one thread's, outer before inner.
    """
    cuts = sorted({*phases.times, *collecting.edges, *compiling.edges})
    for a, b, i in cut(innermost(events, t0, t1), cuts):
        phase = phases.at(a)
        if phase in WHOLE:
            yield a, b, i, phase, WHOLE[phase], events[i].name if i >= 0 else "outside operators"
        elif a in compiling:
            yield a, b, i, phase, "compile", "compiling"
        elif i >= 0:
            yield a, b, i, phase, "comm" if events[i].name.startswith(COLLECTIVES) else "", events[i].name
        elif a in collecting:
            yield a, b, i, phase, "gc", "garbage collection"
        elif phase == "backward":
            yield a, b, i, phase, "launch", "autograd engine between nodes"
        else:
            yield a, b, i, phase, "python", f"Python in {phase}"


def on_cpu(capture: Capture, phases: Labels, cells: Cells) -> Iterator[Busy]:
    """Self times of the loop's thread; what no operator covers is charged at once."""
    t0, t1 = capture.start, capture.end
    events = [h for h in capture.host if h.thread == capture.thread and h.end > t0 and h.start < t1]
    collecting, compiling = (Spans(capture.spans[cause]) for cause in ("gc", "compile"))
    own: Counter[tuple[int, str]] = Counter()
    for a, b, i, phase, cause, what in on_thread(events, phases, compiling, collecting, t0, t1):
        if cause:
            cells.add(phase, cause, b - a, what)
        else:
            own[i, phase] += b - a
    priced = price(events, capture.optimizer_bytes)
    charged: Counter[tuple[int, str]] = Counter()
    position = {id(e): i for i, e in enumerate(events)}
    for (i, phase), ns in own.items():
        charged[position[id(priced[i].owner)], phase] += ns
    for (i, phase), ns in charged.items():
        yield Busy(events[i], phase, ns, priced[i].cost)


def waits_in_collectives(capture: Capture, phases: Labels) -> Counter[str]:
    """{phase: ns} the loop's thread was outside operators while a collective of another thread was pending.

    From the collective's start to the end of the gap: the thread wakes up a little after the collective is done.
    """
    own = [(h.start, h.end) for h in capture.host if h.thread == capture.thread]
    pending = union(capture.spans["comm"])
    found: Counter[str] = Counter()
    for g0, g1 in gaps(own, capture.start, capture.end):
        began = next((max(a, g0) for a, b in pending if a < g1 and b > g0), None)
        if began is not None:
            for a, b, _ in cut([(began, g1, 0)], phases.times):
                found[phases.at(a)] += b - a
    return found


def on_cuda(capture: Capture, phases: Labels, cells: Cells) -> Iterator[Busy]:
    """The union of all streams; each instant to compute, else copy, else communication, else idle."""
    t0, t1 = capture.start, capture.end
    device = [d for d in capture.on_device if d.end > d.start and d.end > t0 and d.start < t1]
    device.sort(key=lambda d: (d.start, d.end, d.stream, d.correlation))
    launched = launches(capture.host, device)
    hosts = [h for h in capture.host if not h.runtime]
    operators = {
        h.id: p for h, p in zip(hosts, price(hosts, capture.optimizer_bytes), strict=True) if h.id
    }  # 0: launched by none
    host_phase = [phases.at(launched[i].start) if i in launched else phases.at(d.start) for i, d in enumerate(device)]
    shares: Counter[tuple[int, str]] = Counter()
    kernels: dict[int, str] = {}
    for a, b, running in _concurrent(device, t0, t1):
        kind = next((k for k in ("compute", "copy", "comm") if any(device[i].kind == k for i in running)), "")
        chosen = [i for i in running if device[i].kind == kind]
        for n, i in enumerate(chosen):
            part = (b - a) // len(chosen) + (n < (b - a) % len(chosen))
            d = device[i]
            if kind == "compute":
                key = operators[d.operator].owner.id if d.operator in operators else -1 - i
                kernels[key] = d.name
                shares[key, host_phase[i]] += part
            else:
                phase = "h2d" if "HtoD" in d.name and host_phase[i] in ("other", "data") else host_phase[i]
                cells.add(phase, kind, part, d.name)
    _cuda_idle(capture, phases, cells, device, launched)
    for (key, phase), ns in shares.items():
        known = operators.get(key)
        if known is None:  # a kernel launched outside any operator
            yield Busy(HostEvent(kernels[key], 0, 0, 0), phase, ns, None)
        else:
            # A kernel is work, whatever its operator's own account says: never "dispatch".
            yield Busy(known.owner, phase, ns, None if known.cost is DISPATCH else known.cost)


def _concurrent(device: list, t0: int, t1: int) -> Iterator[tuple[int, int, list[int]]]:
    """[t0, t1) in stretches with the indices of the device events running; idle stretches are left out."""
    changes = sorted(
        [(max(d.start, t0), 1, i) for i, d in enumerate(device)]
        + [(min(d.end, t1), 0, i) for i, d in enumerate(device)]
    )
    running: set[int] = set()
    for (t, begins, i), following in pairwise([*changes, (t1, 0, -1)]):
        if begins:
            running.add(i)
        else:
            running.discard(i)
        if running and following[0] > t:
            yield t, following[0], sorted(running)


def _cuda_idle(capture: Capture, phases: Labels, cells: Cells, device: list, launched: dict) -> None:
    t0, t1 = capture.start, capture.end
    threads: dict[int, list[HostEvent]] = defaultdict(list)
    for h in capture.host:
        threads[h.thread].append(h)
    compiling, collecting = Spans(capture.spans["compile"]), Spans(capture.spans["gc"])
    hosts = {t: Host(events, t0, t1, phases, compiling, collecting) for t, events in threads.items()}
    waits = drained(capture.host, device, launched)
    excess = max(0, capture.wall - len(capture.edges) * capture.clean_wall) if capture.clean_wall else 0
    first = device[0].start if device else t1
    for c in charges((t0, t1), device, launched, hosts, capture.thread, waits):
        for a, b, _ in cut([(c.start, c.end, 0)], phases.times):
            ours = min(b - a, excess) if b <= first else 0  # the window begins with a queue that we drained
            excess -= ours
            cells.add(phases.at(a), "measurement", ours, "refilling the queue the profiler drained")
            cells.add(phases.at(a), c.cause, b - a - ours, c.what)
