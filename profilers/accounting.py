"""From a capture to its ledger: rules 1-7 of the definition, in their order.

    busy time, operator by operator  ->  split by the roofline            (useful .. inefficiency, uncounted)
    idle time, instant by instant    ->  what the host did instead        (data stall, io, sync, python, gc ...)
    the profiler's own price         ->  `measurement`, phase by phase
    what is left                     ->  `unattributed`

On a CPU the loop's thread is the device: operators' self time is busy, everything else idle. On CUDA the union of all
device work is busy, and idle gaps are explained by the thread that should have launched the next kernel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from .busy import Busy, on_cpu, on_cuda, waits_in_collectives
from .capture import Capture
from .cells import Cells
from .cost import DISPATCH, OpCost, dtype_of
from .events import HostEvent
from .hardware import Device
from .idle import WHOLE
from .ledger import Basis, Ledger
from .precision import Retype, Sample, net_savings, reasons
from .profile import OperatorRow
from .split import Rates, bound, limits, split
from .timeline import Labels, Spans

FASTER = 1.2  # another dtype becomes the reference only where its measured rate is this much higher
BEATEN = 0.05  # a ceiling is raised where an operator beats it by more than this share of its time ...
MATTERS = 0.01  # ... and such operators hold more than this share of the wall
ROOM = 8  # operators tried in another dtype may take this part of the memory
PAID_FROM = ("launch", "python", "data stall", "io", "inefficiency")  # where the profiler's price hides


@dataclass(frozen=True, slots=True)
class Counted:
    """An operator with its compute dtype and the FLOPs that were really executed."""

    busy: Busy
    dtype: str
    flops: int  # 0 where the event stands for work that was not done
    again: bool  # a recomputation's

    @property
    def sample(self) -> Sample | None:
        """What is run again to learn what another dtype would save; None without FLOPs, and for what no autocast casts."""
        call = self.busy.event.call
        if call is None or not self.flops or self.dtype != "float32":
            return None
        return Sample(call, forward=self.again or self.busy.phase != "backward")


@dataclass(frozen=True, slots=True)
class Accounted:
    """A window's ledger, its operators by time, and the device with what this run taught about its ceilings."""

    ledger: Ledger
    operators: tuple[OperatorRow, ...]
    device: Device
    disturbed: int  # ns a step that neither clean steps nor the profiler's price explain


def account(capture: Capture, device: Device, retype: Retype | None = None) -> Accounted:
    """The ledger of a captured window. `device` brings peaks and measured ceilings.

    `retype` tries operators in another dtype; without it (on CUDA) `precision` is what the peaks promise.
    """
    cells, notes = Cells(), list(capture.notes)
    phases = Labels([(m.time, m.phase) for m in capture.marks])
    busy = list((on_cpu if capture.device == "cpu" else on_cuda)(capture, phases, cells))
    differentiable = Spans(capture.spans.get("create_graph", ()))
    counted = [_count(b, capture, device, differentiable) for b in busy]
    device, raised = _raise_ceilings(counted, device, capture.wall)
    notes += [*raised, *(device.ceilings.notes if device.ceilings else ())]
    basis = _basis(counted, device)
    savings, reserve = _savings(counted, device, basis, retype, len(capture.edges))
    rows = _split_all(counted, device, basis, cells, savings)
    notes += reserve
    _off_cpu(capture, phases, cells)
    disturbed = _measurement(capture, device, phases, cells) // len(capture.edges)
    if disturbed * len(capture.edges) > 0.01 * capture.wall:
        notes.append(f"window disturbed by {disturbed / 1e6:.2f} ms a step beyond the profiler's price")
    flops = sum(c.flops for c in counted if not c.again)
    ledger = Ledger(
        capture.wall, len(capture.edges), cells.entries(capture.wall), basis, flops, tuple(dict.fromkeys(notes))
    )
    return Accounted(ledger, rows, device, disturbed)


# -- rules 2 and 3: costs and their split ----------------------------------------------------------------------------------


def _count(busy: Busy, capture: Capture, device: Device, differentiable: Spans) -> Counted:
    """`differentiable`: backward passes with create_graph. In any other, grad mode is on only for a recomputation."""
    event = busy.event
    again = busy.phase == "backward" and event.sequence >= 0 and event.start not in differentiable
    call, cost = event.call, busy.cost
    if call is None or not isinstance(cost, OpCost):
        return Counted(busy, "float32" if isinstance(cost, OpCost) else "", 0, again)
    dtype = dtype_of(call)
    if dtype == "float32" and capture.device == "cuda" and cost.flops:
        allowed = capture.tf32_convolution if "conv" in busy.event.name else capture.tf32_matmul
        dtype = "tf32" if allowed and "tf32" in device.peak_flops else dtype
    peak = _peak(device, dtype)
    if again and peak is not None and busy.nanoseconds < 0.5e9 * cost.flops / peak:
        return Counted(
            busy, dtype, 0, again
        )  # a checkpoint stops inside the last operator it recomputes; its event stays
    return Counted(busy, dtype, cost.flops, again)


def _peak(device: Device, dtype: str) -> float | None:
    """P(d): the spec peak, on a CPU the measured ceiling; None where unknown."""
    if device.kind == "cpu":
        return _ceiling(device, dtype)
    if not device.peak_flops:
        return None
    return device.peak_flops.get(dtype) or _ceiling(device, dtype)  # nobody publishes every dtype


def _ceiling(device: Device, dtype: str) -> float | None:
    return device.ceilings.matmul.get(dtype) if device.ceilings else None


def _rates(device: Device, dtype: str, cost: OpCost, reference: float) -> Rates | None:
    """None where the operator's FLOPs cannot be judged; one without FLOPs (a copy of integers) needs no peak."""
    peak = _peak(device, dtype) or (None if cost.flops else reference)
    if not peak or device.ceilings is None:
        return None
    ceiling = min(peak, _ceiling(device, dtype) or peak)
    return Rates(
        max(reference, peak), peak, ceiling, device.ceilings.bandwidth(max(1, cost.bytes)), device.ceilings.dispatch_ns
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
    if "bfloat16" in rivals and measured[best] < FASTER * measured["bfloat16"]:
        best = "bfloat16"  # as fast, and it needs no loss scaling
    faster = used in measured and measured.get(best, 0.0) >= FASTER * measured[used]
    reference = best if faster and used not in ("bfloat16", "float16") else used
    peak = _peak(device, reference)
    source = device.peak_source
    if device.kind == "cpu" and device.ceilings is not None:
        count = device.ceilings.threads
        source = f"measured on {count} thread{'s' if count > 1 else ''} of this machine"
    return Basis(device.name, reference, used, peak, source if peak else "no known peak")


def _savings(
    counted: list[Counted], device: Device, basis: Basis, retype: Retype | None, steps: int
) -> tuple[Mapping[Sample, float] | None, list[str]]:
    """The share of its time each operator would save in the reference dtype, and why it is no more; None: the peaks say."""
    if retype is None:
        return None, []
    spent: Counter[Sample] = Counter()
    nbytes: dict[Sample, int] = {}
    for c in counted:
        if c.sample and isinstance(c.busy.cost, OpCost):
            spent[c.sample] += c.busy.nanoseconds
            nbytes[c.sample] = c.busy.cost.bytes
    if not spent or basis.dtype not in ("bfloat16", "float16"):
        return {}, []
    room, chosen = device.memory / ROOM, []
    for sample, needed in nbytes.items():  # in the order of the step
        if needed <= room:
            chosen.append(sample)
            room -= needed
    ratios = retype(chosen, basis.dtype)
    return net_savings(spent, ratios), reasons(basis.dtype, spent, ratios, steps)


def _split_all(
    counted: list[Counted], device: Device, basis: Basis, cells: Cells, savings: Mapping[Sample, float] | None
) -> tuple[OperatorRow, ...]:
    """Every operator's time into its causes; returns the operator table, largest first.

    `savings`: the share of its time an operator would save in the reference dtype; None: what the peaks promise.
    """
    sums: dict[tuple, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for c in counted:
        b, what = c.busy, described(c.busy.event)
        if c.busy.cost is DISPATCH:
            cells.add(b.phase, "launch", b.nanoseconds, b.event.name)
            continue
        rates = (
            _rates(device, c.dtype, c.busy.cost, basis.peak_flops or 0.0) if isinstance(c.busy.cost, OpCost) else None
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
            faster = None if savings is None else b.nanoseconds * (savings.get(c.sample, 0.0) if c.sample else 0.0)
            for cause, ns in split(b.nanoseconds, c.flops, c.busy.cost.bytes, rates, c.again, faster).items():
                cells.add(b.phase, cause, ns, what)
    return tuple(_row(key, row, device, basis) for key, row in sorted(sums.items(), key=lambda kv: -kv[1][1]))


def _row(key: tuple, sums: list[int], device: Device, basis: Basis) -> OperatorRow:
    (name, phase, shapes, dtype, known, _), (calls, ns, flops, nbytes) = key, sums
    each = OpCost(flops // calls, nbytes // calls)
    rates = _rates(device, dtype, each, basis.peak_flops or 0.0) if known else None
    binds, share = "uncounted", None
    if rates is not None:
        binds = bound(each.flops, each.bytes, rates)
        share = min(1.0, max(limits(flops, nbytes, rates)) / ns) if ns else None
    counted = (flops, nbytes) if known else (None, None)
    return OperatorRow(name, phase, shapes, dtype, calls, ns, *counted, binds, share)


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


def _off_cpu(capture: Capture, phases: Labels, cells: Cells) -> None:
    """On a CPU, time off the CPU is no Python: it is a collective's where one was pending, else nobody's.

    The thread's own CPU clock says how long it was off, phase by phase; a sleep in the loop body is found by it.
    """
    if capture.device != "cpu":
        return
    off: Counter[str] = Counter()
    for a, b in pairwise(capture.marks):
        if capture.start <= a.time < capture.end and a.phase not in WHOLE:
            off[a.phase] += max(0, (b.time - a.time) - (b.cpu - a.cpu))
    waits = waits_in_collectives(capture, phases)
    for phase, ns in off.items():
        waiting = min(ns, waits[phase])
        for source in ("python", "launch"):
            taken = cells.move(phase, source, "comm", waiting, "waiting in a collective")
            waiting, ns = waiting - taken, ns - taken
        cells.move(phase, "python", "unattributed", ns, "the loop's thread was off the CPU")


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
    # A host's excess behind a busy GPU costs nothing: there the window's own excess is the most there is to pay.
    paid = sum(ns for (_, cause), ns in cells.sums.items() if cause == "measurement")
    room = max(0, capture.wall - n * capture.clean_wall - paid) if capture.device == "cuda" else capture.wall
    for phase, count in events.items():
        price = 3 * count * device.ceilings.event_ns
        due = int(min(max(0, spent[phase] - n * capture.clean_phases.get(phase, 0)), price, room))
        for cause in PAID_FROM:
            taken = cells.move(phase, cause, "measurement", due, "profiler events")
            due, room = due - taken, room - taken
    paid = sum(ns for (_, cause), ns in cells.sums.items() if cause == "measurement")
    return max(0, capture.wall - n * capture.clean_wall - paid)
