"""From a capture to its ledger: rules 1-7 of the definition, in their order.

    busy time, operator by operator  ->  split by the roofline            (useful .. inefficiency, uncounted)
    idle time, instant by instant    ->  what the host did instead        (data stall, io, sync, python, gc ...)
    the profiler's own price         ->  `measurement`, phase by phase
    what is left                     ->  `unattributed`

On a CPU the loop's thread is the device: operators' self time is busy, everything else idle. On CUDA the union of all
device work is busy, and idle gaps are explained by the thread that should have launched the next kernel.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from .capture import Capture
from .cost import DISPATCH, Cost, OpCost, dtype_of
from .events import HostEvent
from .hardware import Device
from .idle import WHOLE, Host, drained, explain, launches
from .ledger import CAUSES, PHASES, Basis, Entry, Evidence, Ledger
from .pricing import price
from .profile import OperatorRow
from .split import Rates, bound, limits, split
from .timeline import Labels, Spans, cut, gaps, innermost

FASTER = 1.2  # another dtype becomes the reference only where its measured rate is this much higher
BEATEN = 0.05  # a ceiling is raised where an operator beats it by more than this share of its time ...
MATTERS = 0.01  # ... and such operators hold more than this share of the wall
PAID_FROM = ("launch", "python", "data stall", "io", "inefficiency")  # where the profiler's price hides


@dataclass(slots=True)
class Cells:
    """Cells being filled, with their evidence. `add` is the only way in."""

    sums: Counter = field(default_factory=Counter)
    evidence: dict[tuple[str, str], Counter] = field(default_factory=lambda: defaultdict(Counter))
    counts: dict[tuple[str, str], Counter] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, phase: str, cause: str, ns: int, what: str) -> None:
        if ns:
            self.sums[phase, cause] += ns
            self.evidence[phase, cause][what] += ns
            self.counts[phase, cause][what] += 1

    def move(self, phase: str, source: str, target: str, ns: int, what: str) -> int:
        """At most `ns` from one cause of a phase to another; returns what was moved."""
        taken = max(0, min(ns, self.sums[phase, source]))
        self.sums[phase, source] -= taken
        self.add(phase, target, taken, what)
        return taken

    def entries(self, wall: int, most: int = 5) -> tuple[Entry, ...]:
        """In printing order; refuses an account that does not add up."""
        if min(self.sums.values(), default=0) < 0 or sum(self.sums.values()) != wall:
            raise AssertionError(f"cells sum to {sum(self.sums.values())} ns of {wall} ns: {dict(self.sums)}")
        order = list(CAUSES)
        keys = sorted((k for k, v in self.sums.items() if v), key=lambda k: (order.index(k[1]), PHASES.index(k[0])))
        return tuple(Entry(p, c, self.sums[p, c], self.sums[p, c] / wall, self._why(p, c, most)) for p, c in keys)

    def _why(self, phase: str, cause: str, most: int) -> tuple[Evidence, ...]:
        """The largest reasons; what was moved out of a cell left each of them in proportion."""
        reasons = self.evidence[phase, cause]
        kept = min(1.0, self.sums[phase, cause] / max(1, sum(reasons.values())))
        return tuple(
            Evidence(what, int(ns * kept), self.counts[phase, cause][what]) for what, ns in reasons.most_common(most)
        )


@dataclass(frozen=True, slots=True)
class Busy:
    """One operator's charged time in one phase. `event` may be a kernel that no operator launched."""

    event: HostEvent
    phase: str
    nanoseconds: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Counted:
    """An operator with its compute dtype and the FLOPs that were really executed."""

    busy: Busy
    dtype: str
    flops: int  # 0 where the event stands for work that was not done

    @property
    def again(self) -> bool:
        """Grad mode is on inside a backward only for a recomputation (or a double backward)."""
        return self.busy.phase == "backward" and self.busy.event.sequence >= 0


def account(capture: Capture, device: Device) -> tuple[Ledger, tuple[OperatorRow, ...]]:
    """The ledger of a captured window, and its operators. `device` brings peaks and measured ceilings."""
    cells, notes = Cells(), list(capture.notes)
    phases = Labels([(m.time, m.phase) for m in capture.marks])
    busy = list((_cpu if capture.device == "cpu" else _cuda)(capture, phases, cells))
    counted = [_count(b, capture, device) for b in busy]
    device, raised = _raise_ceilings(counted, device, capture.wall)
    notes += raised
    basis = _basis(counted, device)
    rows = _split_all(counted, device, basis, cells)
    _off_cpu(capture, cells)
    disturbed = _measurement(capture, device, phases, cells)
    if disturbed > 0.01 * capture.wall:
        notes.append(
            f"window disturbed by {disturbed / len(capture.edges) / 1e6:.2f} ms a step beyond the profiler's price"
        )
    flops = sum(c.flops for c in counted if not c.again)
    ledger = Ledger(
        capture.wall, len(capture.edges), cells.entries(capture.wall), basis, flops, tuple(dict.fromkeys(notes))
    )
    return ledger, rows


# -- rule 1: busy and idle ----------------------------------------------------------------------------------------------


def _cpu(capture: Capture, phases: Labels, cells: Cells) -> Iterator[Busy]:
    """Self times of the loop's thread; what no operator covers is charged at once."""
    t0, t1 = capture.start, capture.end
    events = [h for h in capture.host if h.thread == capture.thread and h.end > t0 and h.start < t1]
    collecting, compiling, communicating = (Spans(capture.spans[cause]) for cause in ("gc", "compile", "comm"))
    cuts = sorted({*phases.times, *collecting.edges, *compiling.edges, *communicating.edges})
    own: Counter[tuple[int, str]] = Counter()
    for a, b, i in cut(innermost(events, t0, t1), cuts):
        phase = phases.at(a)
        if phase in WHOLE:
            cells.add(phase, WHOLE[phase], b - a, events[i].name if i >= 0 else "outside operators")
        elif a in compiling:
            cells.add(phase, "compile", b - a, "compiling")
        elif i >= 0:
            own[i, phase] += b - a
        elif a in collecting:
            cells.add(phase, "gc", b - a, "garbage collection")
        elif a in communicating:
            cells.add(phase, "comm", b - a, "waiting in a collective")
        elif phase == "backward":
            cells.add(phase, "launch", b - a, "autograd engine between nodes")
        else:
            cells.add(phase, "python", b - a, f"Python in {phase}")
    priced = price(events, capture.optimizer_bytes)
    charged: Counter[tuple[int, str]] = Counter()
    position = {id(e): i for i, e in enumerate(events)}
    for (i, phase), ns in own.items():
        charged[position[id(priced[i].owner)], phase] += ns
    for (i, phase), ns in charged.items():
        yield Busy(events[i], phase, ns, priced[i].cost)


def _cuda(capture: Capture, phases: Labels, cells: Cells) -> Iterator[Busy]:
    """The union of all streams; each instant to compute, else copy, else communication, else idle."""
    t0, t1 = capture.start, capture.end
    device = [d for d in capture.on_device if d.end > t0 and d.start < t1]
    device.sort(key=lambda d: (d.start, d.end, d.stream, d.correlation))
    launched = launches(capture.host, device)
    hosts = [h for h in capture.host if not h.runtime]
    operators = {h.id: p for h, p in zip(hosts, price(hosts, capture.optimizer_bytes), strict=True)}
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
    ends = sorted(l.end for l in launched.values())
    starts = [d.start for d in device]
    finishing = sorted((d.end, d.stream) for d in device)
    for g0, g1 in gaps(((d.start, d.end) for d in device), t0, t1):
        k = bisect.bisect_left(starts, g1)
        closing = device[k] if k < len(device) and device[k].start == g1 else None
        launch = launched.get(k) if closing else None
        before = bisect.bisect_right(finishing, (g0, 1 << 62)) - 1
        crosses = closing is not None and before >= 0 and finishing[before][1] != closing.stream
        last = bisect.bisect_right(ends, g0) - 1
        host = hosts.get(launch.thread if launch else capture.thread)
        for c in explain((g0, g1), launch, host, waits, ends[last] if last >= 0 else 0, crosses):
            for a, b, _ in cut([(c.start, c.end, 0)], phases.times):
                cells.add(phases.at(a), c.cause, b - a, c.what)


# -- rules 2 and 3: costs and their split ----------------------------------------------------------------------------------


def _count(busy: Busy, capture: Capture, device: Device) -> Counted:
    call, cost = busy.event.call, busy.cost
    if call is None or not isinstance(cost, OpCost):
        return Counted(busy, "float32" if isinstance(cost, OpCost) else "", 0)
    dtype = dtype_of(call)
    if dtype == "float32" and capture.device == "cuda" and cost.flops:
        allowed = capture.tf32_convolution if "conv" in busy.event.name else capture.tf32_matmul
        dtype = "tf32" if allowed and "tf32" in device.peak_flops else dtype
    peak = _peak(device, dtype)
    skipped = peak is not None and busy.nanoseconds < 0.5e9 * cost.flops / peak
    return Counted(busy, dtype, 0 if skipped else cost.flops)  # skipped: a checkpoint stops inside its last operator


def _peak(device: Device, dtype: str) -> float | None:
    """P(d): the spec peak, on a CPU the measured ceiling; None where unknown."""
    if device.kind == "cpu":
        return _ceiling(device, dtype)
    if not device.peak_flops:
        return None
    return device.peak_flops.get(dtype) or _ceiling(device, dtype)  # nobody publishes every dtype


def _ceiling(device: Device, dtype: str) -> float | None:
    return device.ceilings.matmul.get(dtype) if device.ceilings else None


def _rates(device: Device, dtype: str, nbytes: int, reference: float) -> Rates | None:
    peak = _peak(device, dtype)
    if peak is None or device.ceilings is None:
        return None
    ceiling = min(peak, _ceiling(device, dtype) or peak)
    return Rates(
        max(reference, peak), peak, ceiling, device.ceilings.bandwidth(max(1, nbytes)), device.ceilings.dispatch_ns
    )


def _basis(counted: list[Counted], device: Device) -> Basis:
    """The reference dtype: the one most FLOPs ran in, or a faster one where this machine measures it faster."""
    ran: Counter[str] = Counter()
    for c in counted:
        ran[c.dtype] += c.flops
    used = ran.most_common(1)[0][0] if ran and ran.most_common(1)[0][1] else "float32"
    measured = dict(device.ceilings.matmul) if device.ceilings else {}
    rivals = [d for d in ("bfloat16", "float16", "tf32") if d in measured and _peak(device, d)]
    best = max(rivals, key=lambda d: measured[d], default=used)
    faster = used in measured and measured.get(best, 0.0) >= FASTER * measured[used]
    reference = best if faster and used not in ("bfloat16", "float16") else used
    peak = _peak(device, reference)
    source = device.peak_source if device.kind != "cpu" else "measured on this machine"
    return Basis(device.name, reference, used, peak, source if peak else "no known peak")


def _split_all(counted: list[Counted], device: Device, basis: Basis, cells: Cells) -> tuple[OperatorRow, ...]:
    """Every operator's time into its causes; returns the operator table, largest first."""
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for c in counted:
        b, what = c.busy, described(c.busy.event)
        if c.busy.cost is DISPATCH:
            cells.add(b.phase, "launch", b.nanoseconds, b.event.name)
            continue
        rates = (
            _rates(device, c.dtype, c.busy.cost.bytes, basis.peak_flops or 0.0)
            if isinstance(c.busy.cost, OpCost)
            else None
        )
        row = sums[
            b.event.name,
            b.phase,
            shapes_text(b.event),
            c.dtype,
            isinstance(c.busy.cost, OpCost),
            c.flops > 0 or (isinstance(c.busy.cost, OpCost) and not c.busy.cost.flops),
        ]
        row[0] += 1
        row[1] += b.nanoseconds
        if isinstance(c.busy.cost, OpCost):
            row[2] += c.flops
            row[3] += c.busy.cost.bytes
        if basis.peak_flops is None:
            cells.add(b.phase, "operators", b.nanoseconds, what)
        elif rates is None or not isinstance(c.busy.cost, OpCost):
            cells.add(b.phase, "uncounted", b.nanoseconds, what)
        else:
            for cause, ns in split(b.nanoseconds, c.flops, c.busy.cost.bytes, rates, c.again).items():
                cells.add(b.phase, cause, ns, what)
    return tuple(_row(key, row, device, basis) for key, row in sorted(sums.items(), key=lambda kv: -kv[1][1]))


def _row(key: tuple, sums: list[int], device: Device, basis: Basis) -> OperatorRow:
    (name, phase, shapes, dtype, known, _), (calls, ns, flops, nbytes) = key, sums
    rates = _rates(device, dtype, nbytes // max(1, calls), basis.peak_flops or 0.0) if known else None
    if rates is None:
        return OperatorRow(
            name,
            phase,
            shapes,
            dtype,
            calls,
            ns,
            flops if known else None,
            nbytes if known else None,
            "uncounted",
            None,
        )
    least = max(limits(flops, nbytes, rates))
    return OperatorRow(
        name,
        phase,
        shapes,
        dtype,
        calls,
        ns,
        flops,
        nbytes,
        bound(flops // calls, nbytes // calls, rates),
        min(1.0, least / ns) if ns else None,
    )


def _raise_ceilings(counted: list[Counted], device: Device, wall: int) -> tuple[Device, list[str]]:
    """Rule 3's last sentence: operators that beat a ceiling by more than noise raise it, once."""
    if device.ceilings is None:
        return device, []
    beating: dict[str, tuple[int, float]] = {}
    groups: dict[tuple[str, str, str], list[Counted]] = defaultdict(list)
    for c in counted:
        if c.flops:
            groups[c.busy.event.name, shapes_text(c.busy.event), c.dtype].append(c)
    for (_, _, dtype), members in groups.items():
        spent, flops = sum(c.busy.nanoseconds for c in members), sum(c.flops for c in members)
        ceiling = _ceiling(device, dtype)
        if ceiling and spent and 1e9 * flops / ceiling > (1 + BEATEN) * spent and spent > MATTERS * wall:
            seen, rate = beating.get(dtype, (0, 0.0))
            beating[dtype] = (seen + spent, max(rate, 1e9 * flops / spent))
    if not beating:
        return device, []
    raised = {d: rate for d, (_, rate) in beating.items()}
    notes = [
        f"{d} ceiling raised to {r / 1e9:.0f} GFLOP/s: operators of this run beat the measured one"
        for d, r in raised.items()
    ]
    return device.with_ceilings(device.ceilings.raise_to(matmul=raised)), notes


def shapes_text(event: HostEvent) -> str:
    """An operator's tensor shapes, e.g. "8x128x192, 192x576"."""
    if event.call is None:
        return ""
    return ", ".join("x".join(map(str, s)) for s in event.call.shapes if s and all(isinstance(n, int) for n in s))


def described(event: HostEvent) -> str:
    shapes = shapes_text(event)
    return f"{event.name} [{shapes}]" if shapes else event.name


# -- what the loop's thread was not doing, and what the profiler cost --------------------------------------------------------


def _off_cpu(capture: Capture, cells: Cells) -> None:
    """Time off the CPU that no call explains (a sleep in the loop body) leaves `python` for `unattributed`."""
    off: Counter[str] = Counter()
    for a, b in pairwise(capture.marks):
        if capture.start <= a.time < capture.end and a.phase not in WHOLE:
            off[a.phase] += max(0, (b.time - a.time) - (b.cpu - a.cpu))
    if capture.device == "cpu":
        for phase, ns in off.items():
            unexplained = ns - cells.sums[phase, "comm"]
            cells.move(phase, "python", "unattributed", unexplained, "the loop's thread was off the CPU")


def _measurement(capture: Capture, device: Device, phases: Labels, cells: Cells) -> int:
    """Rule 6: each phase's excess over its clean median, at most three times its events' calibrated price.

    Returns the excess (ns over the window) that stays where it fell: a disturbed window.
    """
    if not capture.clean_wall or device.ceilings is None:
        return 0
    n = len(capture.edges)
    events = Counter(phases.at(h.start) for h in capture.host if capture.start <= h.start < capture.end)
    spent: Counter[str] = Counter()
    for a, b in pairwise([*capture.marks, None]):
        if a is not None:
            end = b.time if b is not None else capture.end
            spent[a.phase] += max(0, min(end, capture.end) - max(a.time, capture.start))
    for phase, count in events.items():
        price = 3 * count * device.ceilings.event_ns
        due = int(min(max(0, spent[phase] - n * capture.clean_phases.get(phase, 0)), price))
        for cause in PAID_FROM:
            due -= cells.move(phase, cause, "measurement", due, "profiler events")
    paid = sum(ns for (_, cause), ns in cells.sums.items() if cause == "measurement")
    return max(0, capture.wall - n * capture.clean_wall - paid)
