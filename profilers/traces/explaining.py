"""From a trace to where the time of its device went: busy by class, idle by cause, both to the nanosecond.

The rules are those of the live profile: `../busy.py` itself where a CPU is the device, and for the gaps of another device
what `../idle.py` says, in columns (`gaps.py`). The device is the union of all streams, from its first work to the end of
its last. In a trace without a device the loop's thread is the device, and its operators are the work.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ..busy import on_thread
from ..calculators.collectives import Collective as Operation
from ..events import COLLECTIVES
from ..idle import WAITS_FOR_DEVICE
from ..ledger import CAUSES
from ..timeline import Spans, cut
from ..trace import Trace
from .communication import traffic
from .dialects import Kind
from .gaps import BEGINNING, UNKNOWN, Charged, Gaps, Labelled, activity, charge
from .host import COLLECTING, COMPILING, host_events, labelled, loop_thread, phases, spans
from .intervals import Intervals, both, clip, complement, filled, total, union
from .kernels import CLASSES, Kernel, kernels
from .modules import ModuleTime, modules

DEVICE_KINDS = (Kind.COMPUTE, Kind.COPY, Kind.COMM)
GLOO = re.compile(r"^gloo:")
OPERATORS = (Kind.OPERATOR, Kind.RUNTIME)
STRETCHES = 200  # of a timeline


@dataclass(frozen=True, slots=True)
class Collective:
    """One collective's run: the `number`th of its name and process group in step `step` (-1: before any).

    `name` is the collective's where the trace tells it, else the kernel's: NCCL's SendRecv may be an all-to-all.
    """

    name: str
    group: str
    step: int
    number: int
    nanoseconds: int
    bytes: int = 0  # of a rank, at the larger end; 0: the trace does not say
    ranks: int = 0  # of the group
    operation: Operation | None = None


@dataclass(frozen=True, slots=True)
class Explained:
    """One trace's account. Times are ns; `idle` holds causes in the ledger's order and sums to `idle_ns` exactly."""

    path: str
    rank: int | None
    device: str
    span_ns: int
    busy_ns: int
    compute_ns: int
    communication_ns: int
    memory_op_ns: int
    overlap_ns: int
    idle: dict[str, int]
    cells: tuple[tuple[str, str, int], ...]  # (phase, cause, ns), largest first: the same, by phase as well
    gaps: int
    lanes: tuple[
        tuple[str, tuple[float, ...]], ...
    ] = ()  # what ran, and the share of each stretch of the span it filled
    steps_ns: tuple[int, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    collectives: tuple[Collective, ...] = ()
    sent: dict[int, int] = field(default_factory=dict)  # {rank: bytes}
    unsized: int = 0  # collectives of which the trace says no bytes
    modules: tuple[ModuleTime, ...] = ()
    outside_ns: int = 0  # work of no module, where there are modules
    uncounted: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def idle_ns(self) -> int:
        return self.span_ns - self.busy_ns

    @property
    def exposed_ns(self) -> int:
        """Communication that no compute hides."""
        return self.communication_ns - self.overlap_ns


def explain(trace: Trace) -> Explained:
    """The account of one trace; it may be empty, it may have no device."""
    if len(trace.on_device()):
        return _on_device(trace)
    return _on_thread(trace, loop_thread(trace))


# -- a device ------------------------------------------------------------------------------------------------------------


def _on_device(trace: Trace) -> Explained:
    work = trace.on_device()
    window = int(trace.start[work[0]]), int(trace.end[work].max())
    sets = {k: union(trace.start[w], trace.end[w]) for k in DEVICE_KINDS for w in [work[trace.kind[work] == k]]}
    busy = union(trace.start[work], trace.end[work])
    main = loop_thread(trace)
    phase = labelled(phases(trace, main))
    gaps = _gaps(trace, work, complement(busy, *window))
    threads = {t: _activity(trace, t, phase) for t in {main, *np.unique(gaps.thread).tolist()} if t >= 0}
    sizes = {
        "busy_ns": total(busy),
        "compute_ns": total(sets[Kind.COMPUTE]),
        "communication_ns": total(sets[Kind.COMM]),
        "memory_op_ns": total(sets[Kind.COPY]),
        "overlap_ns": both(sets[Kind.COMM], sets[Kind.COMPUTE]),
        "gaps": len(gaps.start),
    }
    found = charge(gaps, threads, main, phase)
    ran = {CLASSES[k]: intervals for k, intervals in sets.items()}
    return _account(trace, _device(trace), window, sizes, found, _many_devices(trace, work), ran)


def _gaps(trace: Trace, work: np.ndarray, idle: Intervals) -> Gaps:
    """The idle stretches with what is known of the work that closes each: the first that starts at its end."""
    start, end = idle
    thread, launch_start, launch_end = _launches(trace, work)
    closing = np.searchsorted(trace.start[work], end, "left")
    ending = np.lexsort((trace.lane[work], trace.end[work]))
    before = ending[np.searchsorted(trace.end[work][ending], start, "right") - 1]
    ends = np.sort(launch_end[thread != UNKNOWN])
    last = np.append(0, ends)[np.searchsorted(ends, start, "right")]
    return Gaps(
        start,
        end,
        thread[closing],
        launch_start[closing],
        launch_end[closing],
        trace.lane[work][before] != trace.lane[work][closing],
        last,
        _drained(trace, start, end, last, *_run_ahead(trace, work, thread, launch_end)),
    )


def _launches(trace: Trace, work: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(thread, start, end) of each launch: the runtime call of its correlation, else its operator's begin."""
    thread, start, end = (np.full(len(work), UNKNOWN, np.int64) for _ in range(3))
    for kind, ids in ((Kind.OPERATOR, trace.external), (Kind.RUNTIME, trace.correlation)):  # the latter is surer
        calls = trace.of(kind)
        calls = calls[ids[calls] >= 0]
        calls = calls[np.argsort(ids[calls], kind="stable")]
        if len(calls):
            at = np.searchsorted(ids[calls], ids[work], "right") - 1  # an identity given twice: the later, as in a dict
            hits = np.flatnonzero((ids[calls[at]] == ids[work]) & (ids[work] >= 0))
            call = calls[at[hits]]
            thread[hits], start[hits] = trace.lane[call], trace.start[call]
            end[hits] = trace.end[call] if kind == Kind.RUNTIME else trace.start[call]
    return thread, start, end


def _run_ahead(trace: Trace, work: np.ndarray, thread: np.ndarray, launch_end: np.ndarray) -> tuple[np.ndarray, ...]:
    """(launch ends, how long each queued), by launch end."""
    known = np.flatnonzero(thread != UNKNOWN)
    times, depth = launch_end[known], np.maximum(0, trace.start[work][known] - launch_end[known])
    order = np.argsort(times, kind="stable")
    return times[order], depth[order]


def _drained(trace: Trace, start: np.ndarray, end: np.ndarray, last: np.ndarray, times: np.ndarray, depth: np.ndarray) -> np.ndarray:  # fmt: skip
    """For each gap the deepest queue before the wait that drained it, in ns; 0 where no wait did, or launches followed."""
    codes = [i for i, name in enumerate(trace.names) if name in WAITS_FOR_DEVICE]
    hits = np.flatnonzero(np.isin(trace.name, codes) & (trace.kind < Kind.WAIT))
    waits = union(trace.start[hits], trace.end[hits])
    lows = np.searchsorted(times, np.append(BEGINNING, waits[1][:-1]), "left") if len(hits) else ()
    highs = np.searchsorted(times, waits[0], "right") if len(hits) else ()
    deepest = np.array([0, *(int(depth[a:b].max(initial=0)) for a, b in zip(lows, highs, strict=True))])
    wait = np.searchsorted(waits[1], end, "left")  # 1 + the last to return before the gap's end
    returned = np.append(BEGINNING, waits[1])[wait]
    return np.where(returned >= np.minimum(start, last), deepest[wait], 0)


def _activity(trace: Trace, lane: int, phase: Labelled) -> Labelled:
    own = np.flatnonzero((trace.lane == lane) & (trace.kind < Kind.COMPUTE))
    seen = (int(trace.start[own[0]]), int(trace.end[own].max())) if len(own) else (0, 0)
    calls = own[np.isin(trace.kind[own], OPERATORS) & (trace.end[own] > trace.start[own])]
    waits = [code for code in np.unique(trace.name[calls]).tolist() if trace.names[code] in WAITS_FOR_DEVICE]
    waits = calls[np.isin(trace.name[calls], waits)]
    return activity(
        phase,
        union(trace.start[calls], trace.end[calls]),
        union(trace.start[waits], trace.end[waits]),
        spans(trace, lane, COMPILING),
        spans(trace, lane, COLLECTING),
        seen,
    )


def _device(trace: Trace) -> str:
    return trace.devices[0] if trace.devices else "a device without a name"


def _many_devices(trace: Trace, work: np.ndarray) -> list[str]:
    processes = {trace.lanes[lane][0] for lane in np.unique(trace.lane[work]).tolist()}
    if len(processes) < 2:
        return []
    return [f"{len(processes)} devices in one trace: it is busy while any of them is"]


# -- no device -----------------------------------------------------------------------------------------------------------


def _on_thread(trace: Trace, lane: int) -> Explained:
    """The loop's thread as the device: within its steps if there are any, else from its first operator to the last work."""
    mine = np.flatnonzero((trace.lane == lane) & np.isin(trace.kind, OPERATORS) & (trace.end > trace.start))
    steps = trace.steps()
    if not len(mine) and not steps:
        nothing = ["no event of this trace is work: neither a device's nor an operator"]
        return _account(trace, "none", (0, 0), {"busy_ns": 0, **_NO_WORK}, Counter(), nothing, {})
    pending = _collectives_elsewhere(trace, lane)
    if steps:
        t0, t1 = steps[0][1], max(end for _, _, end in steps)
    else:  # the last thing a loop does may be to wait
        t0, t1 = int(trace.start[mine[0]]), int(max(trace.end[mine].max(), pending[1].max(initial=0)))
    pending = clip(pending, t0, t1)
    edges = np.stack(pending, 1).ravel().tolist()
    compiling, collecting = (
        Spans(zip(*(s.tolist() for s in spans(trace, lane, pattern)), strict=True))
        for pattern in (COMPILING, COLLECTING)
    )
    working, talking, found = [], [], Counter()
    pieces = on_thread(list(host_events(trace, mine)), phases(trace, lane), compiling, collecting, t0, t1)
    for a, b, _, phase, cause, _ in pieces:
        if not cause:
            working.append((a, b))
        elif cause == "comm":
            talking.append((a, b))
        else:
            for x, y, _ in cut([(a, b, 0)], edges):
                waiting = cause in ("python", "launch") and bisect.bisect_right(edges, x) % 2 == 1
                found[phase, "comm" if waiting else cause] += y - x
    work, talk = (union(*_columns(pairs)) for pairs in (working, talking))
    communication = union(*_by_start(np.concatenate([talk[0], pending[0]]), np.concatenate([talk[1], pending[1]])))
    sizes = {
        "busy_ns": total(work) + total(talk),
        "compute_ns": total(work),
        "communication_ns": total(communication),
        "memory_op_ns": 0,
        "overlap_ns": both(communication, work),
        "gaps": 0,
    }
    return _account(trace, "cpu", (t0, t1), sizes, found, [], {"compute": work, "comm": communication})


_NO_WORK = {"gaps": 0, "compute_ns": 0, "communication_ns": 0, "memory_op_ns": 0, "overlap_ns": 0}


def _collectives_elsewhere(trace: Trace, lane: int) -> Intervals:
    codes = [i for i, name in enumerate(trace.names) if name.startswith(COLLECTIVES)]
    hits = np.flatnonzero(np.isin(trace.name, codes) & (trace.lane != lane) & (trace.end > trace.start))
    return union(trace.start[hits], trace.end[hits])


def _columns(pairs: list[tuple[int, int]]) -> Intervals:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _by_start(start: np.ndarray, end: np.ndarray) -> Intervals:
    order = np.argsort(start, kind="stable")
    return start[order], end[order]


# -- the account ---------------------------------------------------------------------------------------------------------


def _account(
    trace: Trace,
    device: str,
    window: tuple[int, int],
    sizes: dict[str, int],
    found: Charged,
    warnings: list[str],
    ran: dict[str, Intervals],
) -> Explained:
    """Refuses an account that does not add up."""
    idle = window[1] - window[0] - sizes["busy_ns"]
    if sum(found.values()) != idle or min(found.values(), default=0) < 0:
        raise AssertionError(f"idle causes sum to {sum(found.values())} of {idle} ns: {found}")
    causes: Counter[str] = Counter()
    for (_, cause), ns in found.items():
        causes[cause] += ns
    inside, outside = modules(trace)
    hits = _communicating(trace)
    said = Counter(trace.message[hits].tolist())
    return Explained(
        path=trace.path,
        rank=trace.rank,
        device=device,
        span_ns=window[1] - window[0],
        idle={c: causes[c] for c in CAUSES if causes[c] or c == "unattributed"},
        cells=tuple((*key, ns) for key, ns in found.most_common() if ns),
        lanes=tuple((name, tuple(filled(i, *window, STRETCHES).tolist())) for name, i in ran.items() if len(i[0])),
        steps_ns=tuple(b - a for _, a, b in trace.steps()),
        kernels=kernels(trace),
        collectives=tuple(_collectives(trace, hits)),
        sent=traffic(((trace.messages[m], runs) for m, runs in said.items()), -1 if trace.rank is None else trace.rank),
        modules=inside,
        outside_ns=outside,
        unsized=sum(runs for m, runs in said.items() if not trace.messages[m].bytes),
        uncounted=trace.uncounted,
        warnings=(*trace.warnings, *warnings, *_too_long(window)),
        **sizes,
    )


def _too_long(window: tuple[int, int]) -> list[str]:
    days = (window[1] - window[0]) / 86_400e9
    return [f"its events lie {days:.0f} days apart: some time stamp is damaged"] if days > 2 else []


def _communicating(trace: Trace) -> np.ndarray:
    hits = trace.of(Kind.COMM)
    if not len(hits):  # gloo runs them on threads of the host
        hits = np.flatnonzero(np.isin(trace.name, trace.codes(GLOO, Kind.RANGE, Kind.OPERATOR)))
    return hits


def _collectives(trace: Trace, hits: np.ndarray) -> list[Collective]:
    """Collectives in the order they ran, numbered so that the same one has the same number on every rank."""
    steps = trace.steps()
    starts = [a for _, a, _ in steps]
    counts: Counter[tuple[str, str, int]] = Counter()
    found = []
    columns = (c[hits].tolist() for c in (trace.name, trace.message, trace.start, trace.end))
    for code, said, start, end in zip(*columns, strict=True):
        at = bisect.bisect_right(starts, start) - 1
        m = trace.messages[said]
        key = m.name or trace.names[code].partition("(")[0], m.group, steps[at][0] if at >= 0 else -1
        found.append(Collective(*key, counts[key], end - start, m.bytes, m.size, m.operation))
        counts[key] += 1
    return found
