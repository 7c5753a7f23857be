"""Operators of a trace against what their device can do at best: a table of time, limit and time lost.

The limits are those measured on this machine where it has the device the trace names, else the published ones of it or
of the device asked for, and are called so. Needs a trace with shapes, and torch, whose schemas say what an operator reads and writes; nothing else in this folder does.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from ..accounting import shapes_text
from ..ceilings import cached
from ..cost import Call, OpCost, dtype_of
from ..errors import UsageError
from ..events import HostEvent
from ..hardware import Device, lookup
from ..pricing import price
from ..split import Rates, bound, limits
from ..trace import Trace
from ..views.loglog import LogLog
from ..views.sheet import Grid, Sheet, Shown
from ..views.units import bandwidth, duration, percent, rate
from .dialects import Kind
from .kernels import owners

SCHEMA_VERSION = 1
LATENCY = 2_000  # ns, the shortest kernel: what lies below is bound by launching
WORDS = re.compile(r"\b(True|False|None)\b")
BARE_POINT = re.compile(r"(\d)\.(?!\d)")  # 1. is no JSON
MOST = 30  # rows on a page; the JSON has them all


@dataclass(frozen=True, slots=True)
class RooflineRow:
    """All calls of one operator with the same shapes. ns are its kernels', added up; figures are of all calls."""

    operator: str
    shapes: str
    dtype: str
    calls: int
    nanoseconds: int
    flops: int | None  # None: uncounted
    bytes: int | None
    bound: str  # "compute" | "memory" | "launch" | "uncounted"
    least_ns: int | None  # at the device's limits

    @property
    def share(self) -> float | None:
        """Of the roofline; above 1 where the device beat the limit assumed."""
        return None if self.least_ns is None or not self.nanoseconds else self.least_ns / self.nanoseconds

    @property
    def lost_ns(self) -> int:
        return 0 if self.least_ns is None else max(0, self.nanoseconds - self.least_ns)


@dataclass(frozen=True, slots=True)
class TraceRoofline(Shown):
    """`rows`, the longest first. Work that no operator launched is in none of them: `unowned_ns`."""

    path: str
    device: Device  # with its ceilings where they were measured
    rows: tuple[RooflineRow, ...]
    unowned_ns: int

    def to_json(self) -> str:
        rows = [
            {"operator": r.operator, "shapes": r.shapes, "dtype": r.dtype, "calls": r.calls, "time_us": r.nanoseconds / 1000,
             "flops": r.flops, "bytes": r.bytes, "bound": r.bound, "share_of_roofline": r.share, "lost_us": r.lost_ns / 1000}
            for r in self.rows
        ]  # fmt: skip
        head = {"schema_version": SCHEMA_VERSION, "path": self.path, "device": self.device.name, "peak_source": self.device.peak_source,
                "measured": self.device.ceilings is not None}  # fmt: skip
        return json.dumps({**head, "unowned_us": self.unowned_ns / 1000, "operators": rows}, indent=1)

    def sheet(self) -> Sheet:
        d = self.device
        rows = [
            (r.operator, r.shapes, f"{r.calls:,}", duration(r.nanoseconds), r.bound, "" if r.share is None else percent(r.share),
             duration(r.lost_ns))
            for r in self.rows[:MOST]
        ]  # fmt: skip
        heads = ("operator", "shapes", "runs", "time", "bound by", "of limit", "lost")
        notes = (
            [f"{duration(self.unowned_ns)} of device time belong to no operator of the trace"]
            if self.unowned_ns
            else []
        )
        return Sheet(
            f"Roofline of {Path(self.path).name}",
            f"{d.name}, {'measured on this machine' if d.ceilings else 'published limits'}: {_limits(d)}.",
            (
                self.picture(),
                Grid("Operators, the longest first", heads, tuple(rows), left=2),
            ),
            tuple(notes),
        )

    def picture(self) -> LogLog:
        known = [(r, r.flops, r.bytes) for r in self.rows if r.flops and r.bytes and r.nanoseconds]
        whole = sum(r.nanoseconds for r in self.rows) or 1
        points = tuple(
            (r.operator, flops / moved, 1e9 * flops / r.nanoseconds, r.nanoseconds / whole) for r, flops, moved in known
        )
        used = {r.dtype for r, *_ in known}
        roofs = tuple((dtype, peak) for dtype, peak in _peaks(self.device).items() if dtype in used)
        return LogLog("Work per second over work per byte", points if roofs else (), roofs, _bandwidth(self.device))


def roofline(trace: Trace, device: Device | None = None) -> TraceRoofline:
    """Raises UsageError where the trace has no device, no shapes, or a device nobody has published limits of.

    device: whose limits to take instead of those of the device the trace names.
    """
    work = trace.on_device()
    name = Path(trace.path).name
    if not len(work):
        raise UsageError(f"{name} has no work on a device: for a CPU's own roofline type `mlsys profile SCRIPT`")
    if len(trace.calls) < 2:
        raise UsageError(
            f"{name} was recorded without shapes: record it with torch.profiler.profile(record_shapes=True)"
        )
    if device is None:
        if not trace.devices:
            raise UsageError(f"{name} does not name its device: give its name, such as --device A100-SXM4-80GB")
        device = _measured(lookup(trace.devices[0]), trace.devices[0])
    return TraceRoofline(trace.path, device, *_rows(trace, device))


def _rows(trace: Trace, device: Device) -> tuple[tuple[RooflineRow, ...], int]:
    operators = trace.of(Kind.OPERATOR)
    events = list(_operators(trace))
    priced = {int(i): p for i, p in zip(operators, price(events, 0), strict=True)}
    work = trace.on_device()
    spent: dict[int, int] = defaultdict(int)
    for i, ns in zip(owners(trace, work).tolist(), (trace.end[work] - trace.start[work]).tolist(), strict=True):
        spent[i] += ns
    groups: dict[tuple[str, str, str, bool], dict[int, tuple[int, OpCost | None]]] = defaultdict(dict)
    unowned = spent.pop(-1, 0)
    for i, ns in spent.items():
        owner, cost = priced[i].owner, priced[i].cost
        known = cost if isinstance(cost, OpCost) and (cost.flops or cost.bytes) else None
        dtype = dtype_of(owner.call) if owner.call else ""
        members = groups[owner.name, shapes_text(owner), dtype, known is not None]
        before = members.get(id(owner), (0, known))
        members[id(owner)] = before[0] + ns, known
    rows = [_row(*key[:3], list(members.values()), device) for key, members in groups.items()]
    return tuple(sorted(rows, key=lambda r: (-r.nanoseconds, r.operator, r.shapes))), unowned


def _row(name: str, shapes: str, dtype: str, members: list[tuple[int, OpCost | None]], device: Device) -> RooflineRow:
    ns, calls = sum(ns for ns, _ in members), len(members)
    costs = [cost for _, cost in members if cost is not None]
    flops, moved = sum(c.flops for c in costs), sum(c.bytes for c in costs)
    rates = _rates(device, dtype, flops, moved // calls, ns)
    if not costs or rates is None:
        return RooflineRow(name, shapes, dtype, calls, ns, None, None, "uncounted", None)
    least = int(max(limits(flops, moved, rates)))
    return RooflineRow(
        name, shapes, dtype, calls, ns, flops, moved, bound(flops // calls, moved // calls, rates), least
    )


def _rates(device: Device, dtype: str, flops: int, moved: int, ns: int) -> Rates | None:
    """None where nobody vouches for what this dtype can do. fp32 that outran its own peak ran as TF32."""
    peaks = _peaks(device)
    peak = peaks.get(dtype) or (None if flops else 1.0)
    if dtype == "float32" and peak and 1e9 * flops > peak * ns:
        peak = peaks.get("tf32", peak)
    width = device.ceilings.bandwidth(moved) if device.ceilings else device.bandwidth
    if not peak or not width:
        return None
    return Rates(peak, peak, peak, width, device.ceilings.dispatch_ns if device.ceilings else LATENCY)


def _measured(device: Device, name: str) -> Device:
    """With what was measured on this very machine for the device that torch calls `name`, if anything was."""
    found = cached(replace(device, name=name))
    return device if found is None else device.with_ceilings(found)


def _peaks(device: Device) -> Mapping[str, float]:
    """FLOP/s, measured where they were."""
    return {**device.peak_flops, **device.ceilings.matmul} if device.ceilings else device.peak_flops


def _bandwidth(device: Device) -> float:
    """B/s of what does not fit into caches."""
    return device.ceilings.bandwidth(1 << 40) if device.ceilings else device.bandwidth or 1.0


def _limits(device: Device) -> str:
    peaks = ", ".join(f"{dtype} {rate(peak)}" for dtype, peak in _peaks(device).items() if "int" not in dtype)
    return f"{peaks}; memory {bandwidth(_bandwidth(device))}"


# -- what an operator was called with --------------------------------------------------------------------------------------


def _operators(trace: Trace) -> Iterator[HostEvent]:
    calls: dict[tuple[int, int], Call | None] = {}
    indices = trace.of(Kind.OPERATOR)
    columns = (c[indices].tolist() for c in (trace.name, trace.start, trace.end, trace.lane, trace.call))
    for name, start, end, lane, call in zip(*columns, strict=True):
        if (name, call) not in calls:
            calls[name, call] = _call(trace.names[name], trace.calls[call])
        yield HostEvent(trace.names[name], start, end, lane, call=calls[name, call])


def _call(name: str, written: tuple[bytes, ...]) -> Call | None:
    """From dims, types, strides and values as a trace has them; None where they make no sense together."""
    try:
        dims, types, strides, values = (msgspec.json.decode(text) if text else [] for text in written)
        return Call.recorded(
            name, types, dims, [_value(v) for v in values], strides if len(strides) == len(dims) else ()
        )
    except (ValueError, TypeError, AttributeError, RecursionError):  # none was written, or it is damaged
        return None


def _value(text: Any) -> Any:
    """A scalar or a list of scalars, as Python would print it; None for anything else."""
    if not isinstance(text, str) or not text:
        return None
    plain = WORDS.sub(lambda found: found[0].lower() if found[0] != "None" else "null", text)
    plain = BARE_POINT.sub(r"\1.0", plain)
    try:
        return msgspec.json.decode(plain)
    except (ValueError, RecursionError):
        return text
