"""Why a device was idle: for each gap, what the host thread did that should have launched the next work.

A gap [g0, g1) is closed by a kernel that some thread launched in [l0, l1). Launched before the gap began, the device
itself was late; else the gap is charged, instant by instant, to what that thread was doing (ledger.md, rule 5).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .events import DeviceEvent, HostEvent
from .timeline import Labels, Span, Spans, gaps, innermost, union

WAITS_FOR_DEVICE = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "hipStreamSynchronize",
                    "hipDeviceSynchronize", "hipEventSynchronize", "aten::_local_scalar_dense")  # fmt: skip
WHOLE = {"data": "data stall", "checkpoint": "io", "logging": "io"}  # phases charged whole, by cause


@dataclass(frozen=True, slots=True)
class Charge:
    """A stretch of idle time [start, end) with its cause; `what` is the evidence."""

    start: int
    end: int
    cause: str
    what: str


class Host:
    """What one host thread was doing at any time, in the order of rule 5: the first that applies wins."""

    def __init__(
        self, events: Sequence[HostEvent], t0: int, t1: int, phases: Labels, compile_: Spans, gc: Spans
    ) -> None:
        self._events = [e for e in events if e.end > t0 and e.start < t1]
        self._pieces = innermost(self._events, t0, t1)
        self._starts = [a for a, _, _ in self._pieces]
        self._waits = Spans((e.start, e.end) for e in self._events if e.name in WAITS_FOR_DEVICE)
        self._phases, self._compile, self._gc = phases, compile_, gc
        self._cuts = sorted({*phases.times, *self._waits.edges, *compile_.edges, *gc.edges})

    def doing(self, a: int, b: int) -> Iterator[Charge]:
        """[a, b) in stretches of one cause each."""
        i = max(0, bisect.bisect_right(self._starts, a) - 1)
        while i < len(self._pieces) and self._pieces[i][0] < b:
            x, y, event = self._pieces[i]
            edges = [max(x, a), *self._cuts[bisect.bisect_right(self._cuts, max(x, a)) : bisect.bisect_left(self._cuts, min(y, b))], min(y, b)]  # fmt: skip
            for u, v in itertools.pairwise(edges):
                if v > u:
                    cause, what = self._cause(u, event)
                    yield Charge(u, v, cause, what)
            i += 1

    def _cause(self, t: int, event: int) -> tuple[str, str]:
        phase = self._phases.at(t)
        name = self._events[event].name if event >= 0 else ""
        if phase == "data":
            return "data stall", "waiting for the next batch"
        if t in self._waits:
            return "sync", name or "synchronisation"
        if phase == "checkpoint":
            return "io", "checkpoint"
        if t in self._compile:
            return "compile", "compiling"
        if t in self._gc:
            return "gc", "garbage collection"
        if phase == "logging":
            return "io", "logging"
        return ("launch", name) if name else ("python", f"Python in {phase}")


@dataclass(frozen=True, slots=True)
class Launch:
    """The host call that put one device event on its stream."""

    thread: int
    start: int
    end: int


def charges(
    window: Span,
    device: Sequence[DeviceEvent],
    launched: Mapping[int, Launch],
    hosts: Mapping[int, Host],
    main: int,
    waits: Sequence[tuple[int, int, int]],
) -> Iterator[Charge]:
    """What every instant of `window` without work in `device` (by start) is charged to.

    `launched` and `waits` as `launches` and `drained` give them; `main` is the thread that answers for a gap whose closing
    launch is unknown.
    """
    ends = sorted(l.end for l in launched.values())
    starts = [d.start for d in device]
    finishing = sorted((d.end, d.stream) for d in device)
    for g0, g1 in gaps(((d.start, d.end) for d in device), *window):
        k = bisect.bisect_left(starts, g1)
        closing = device[k] if k < len(device) and device[k].start == g1 else None
        launch = launched.get(k) if closing else None
        before = bisect.bisect_right(finishing, (g0, 1 << 62)) - 1
        crosses = closing is not None and before >= 0 and finishing[before][1] != closing.stream
        last = bisect.bisect_right(ends, g0) - 1
        host = hosts.get(launch.thread if launch else main)
        yield from explain((g0, g1), launch, host, waits, ends[last] if last >= 0 else 0, crosses)


def launches(host: Sequence[HostEvent], device: Sequence[DeviceEvent]) -> dict[int, Launch]:
    """{index of a device event: its launch}, by runtime correlation, else by the operator that owns it."""
    runtime = {h.id: h for h in host if h.runtime and h.id}
    operators = {h.id: h for h in host if not h.runtime and h.id}
    found = {}
    for i, d in enumerate(device):
        h = runtime.get(d.correlation) or operators.get(d.operator)
        if h is not None:
            found[i] = Launch(h.thread, h.start, h.end if h.runtime else h.start)
    return found


def drained(
    host: Sequence[HostEvent], device: Sequence[DeviceEvent], launched: dict[int, Launch]
) -> list[tuple[int, int, int]]:
    """Every blocking wait with the run-ahead it destroyed: (wait start, wait end, deepest queue before it in ns)."""
    waits = union((h.start, h.end) for h in host if h.name in WAITS_FOR_DEVICE)  # .item() holds a stream's
    ahead = sorted((launched[i].end, max(0, d.start - launched[i].end)) for i, d in enumerate(device) if i in launched)
    times = [t for t, _ in ahead]
    out, last = [], -(1 << 62)
    for a, b in waits:
        lo, hi = bisect.bisect_left(times, last), bisect.bisect_right(times, a)
        out.append((a, b, max((depth for _, depth in ahead[lo:hi]), default=0)))
        last = b
    return out


def explain(
    gap: Span,
    launch: Launch | None,
    host: Host | None,
    waits: Sequence[tuple[int, int, int]],
    last_launch: int,
    crosses: bool,
) -> list[Charge]:
    """A gap's charges, covering it exactly.

    `launch` is the closing event's; `last_launch` the end of the last launch before the gap on any thread; `crosses`
    says that the closing event runs on another stream than the one that ended at the gap's start.
    """
    g0, g1 = gap
    if launch is not None and launch.end <= g0:
        if crosses:
            return [Charge(g0, g1, "dependency", "a stream waited for another one")]
        return [Charge(g0, g1, "launch", "queued work started late")]
    if host is None:
        return [Charge(g0, g1, "unattributed", "no host event covers this gap")]
    until = min(g1, max(g0, launch.start)) if launch is not None else g1
    charges = list(host.doing(g0, until))
    if until < g1:
        charges.append(Charge(until, g1, "launch", "launching the kernel that ends the gap"))
    covered = sum(c.end - c.start for c in charges)
    if covered < g1 - g0:
        charges.append(Charge(g0 + covered, g1, "unattributed", "no host event covers this gap"))
    return _as_sync(charges, gap, waits, last_launch)


def _as_sync(charges: list[Charge], gap: Span, waits: Sequence[tuple[int, int, int]], last_launch: int) -> list[Charge]:
    """After a wait drained the queue, the host's own pace is the sync's price, up to the run-ahead it destroyed."""
    g0, g1 = gap
    drain = bisect.bisect_left(waits, g1, key=lambda wait: wait[1]) - 1  # the last to return before the gap's end
    if drain < 0 or waits[drain][1] < min(g0, last_launch):
        return charges
    left, out = waits[drain][2], []
    for c in charges:
        length = c.end - c.start
        if c.cause not in ("launch", "python") or left <= 0:
            out.append(c)
        elif length <= left:
            out.append(Charge(c.start, c.end, "sync", "refilling the queue a synchronisation drained"))
            left -= length
        else:
            out.append(Charge(c.start, c.start + left, "sync", "refilling the queue a synchronisation drained"))
            out.append(Charge(c.start + left, c.end, c.cause, c.what))
            left = 0
    return out
