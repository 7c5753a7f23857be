"""What `mlsys trace` says: one account a trace, who made whom wait, and which files are no traces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..hardware import lookup
from ..ledger import CAUSES
from ..trace import read
from ..views.busy_lanes import BusyLanes
from ..views.sheet import Bars, Figures, Grid, Part, Row, Sheet, Shown
from ..views.units import duration, percent
from .diff import TraceDiff, diff
from .engines import Name
from .explaining import Explained
from .kernels import short
from .one import Failure, explain_one
from .ranks import explain_files, files
from .sources import Progress
from .together import Together, together
from .waits import Straggler

if TYPE_CHECKING:
    from .roofline import TraceRoofline

SCHEMA_VERSION = 1
MOST_KERNELS = 12
MOST_MODULES = 20
MOST = 32  # ranks in a table or a picture; the JSON has them all


@dataclass(frozen=True, slots=True)
class TraceReport(Shown):
    """`traces` in the order given; `exit_code` is 1 if a file could not be read."""

    traces: tuple[Explained, ...]
    together: Together
    errors: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        return int(bool(self.errors))

    @property
    def stragglers(self) -> tuple[Straggler, ...]:
        return self.together.stragglers

    def to_json(self) -> str:
        traces = [_fields(trace) for trace in self.traces]
        errors = [{"path": e.path, "message": e.message} for e in self.errors]
        inside = [
            {"path": t.path, "name": m.name, "depth": m.depth, "runs": m.runs, "forward_us": m.forward_ns / 1000, "backward_us": m.backward_ns / 1000}
            for t in self.traces
            for m in t.modules
        ]  # fmt: skip
        said = {
            "schema_version": SCHEMA_VERSION,
            "traces": traces,
            **self.together.fields(),
            "modules": inside,
            "errors": errors,
        }
        return json.dumps(said, indent=1)

    def sheet(self) -> Sheet:
        parts: list[Part] = []
        if len(self.traces) == 1:
            parts += _one(self.traces[0])
        elif self.traces:
            parts += _several(self.traces)
        parts += self.together.parts()
        if self.errors:
            parts.append(Figures("Not read", tuple(Row(Path(e.path).name, "", e.message) for e in self.errors)))
        notes = (*_notes(self.traces), *self.together.notes())
        return Sheet(_title(self.traces), _basis(self.traces), tuple(parts), notes)


def explain_traces(
    paths: Sequence[Path],
    progress: Callable[[Path], Progress | None] = lambda path: None,
    engine: Name = "processes",
    link: str | None = None,
) -> TraceReport:
    """The report of these files; a folder stands for the traces in it. link: between the ranks, by name."""
    explained, waits, failures = explain_files(files(paths), progress, engine)
    return TraceReport(tuple(explained), together(explained, waits, link), tuple(failures))


def compare_traces(before: Path, after: Path, progress: Callable[[Path], Progress | None]) -> TraceDiff:
    """What got slower. Raises UsageError where one of the two is no trace."""
    found = []
    for path in (before, after):
        result = explain_one(path, progress(path))
        if isinstance(result, Failure):
            raise UsageError(f"{path.name}: {result.message}")
        found.append(result)
    return diff(*found)


def place_under_roofline(
    path: Path, progress: Callable[[Path], Progress | None], device: str | None = None
) -> TraceRoofline:
    """Every operator of one trace under the limits of its device, or of the one named. Raises UsageError."""
    try:
        from .roofline import roofline  # loads torch, and nothing else here does
    except ModuleNotFoundError as missing:
        raise UsageError(f"a roofline needs {missing.name}: pip install 'mlsys-studio[torch]'") from None
    return roofline(read(path, progress(path), detail="shapes"), None if device is None else lookup(device))


def _fields(trace: Explained) -> dict[str, Any]:
    return {
        "path": trace.path,
        "rank": trace.rank,
        "device": trace.device,
        "span_us": trace.span_ns / 1000,
        "device_busy_us": trace.busy_ns / 1000,
        "device_idle_us": trace.idle_ns / 1000,
        "compute_us": trace.compute_ns / 1000,
        "communication_us": trace.communication_ns / 1000,
        "memory_op_us": trace.memory_op_ns / 1000,
        "overlap_us": trace.overlap_ns / 1000,
        "exposed_communication_us": trace.exposed_ns / 1000,
        "idle_by_cause_us": {cause: ns / 1000 for cause, ns in trace.idle.items()},
        "steps": len(trace.steps_ns),
        "uncounted": list(trace.uncounted),
        "warnings": list(trace.warnings),
    }


# -- on a page -----------------------------------------------------------------------------------------------------------


def _title(traces: Sequence[Explained]) -> str:
    if len(traces) == 1:
        return f"Trace {Path(traces[0].path).name}"
    return f"{len(traces)} traces" if traces else "No trace"


def _basis(traces: Sequence[Explained]) -> str:
    if not traces:
        return "Nothing could be read."
    devices = ", ".join(dict.fromkeys(t.device for t in traces if t.device != "none"))
    where = (
        "the loop's own thread, within its steps" if devices == "cpu" else "from its first work to the end of its last"
    )
    return f"Device: {devices or 'none'}, {where}. Idle time by the rules of the ledger."


def _one(t: Explained) -> list[Part]:
    steps = f"{len(t.steps_ns)} steps" if t.steps_ns else "no steps are marked"
    rows = [
        Row("span", duration(t.span_ns), steps),
        Row("busy", duration(t.busy_ns), _of(t.busy_ns, t.span_ns)),
        Row("· compute", duration(t.compute_ns), _of(t.compute_ns, t.span_ns)),
        Row("· communication", duration(t.communication_ns), f"{duration(t.exposed_ns)} of it not hidden by compute"),
        Row("· copies", duration(t.memory_op_ns), _of(t.memory_op_ns, t.span_ns)),
        Row("idle", duration(t.idle_ns), f"{_of(t.idle_ns, t.span_ns)}, in {t.gaps:,} gaps" if t.gaps else _of(t.idle_ns, t.span_ns)),
    ]  # fmt: skip
    return [
        Figures("Device", tuple(rows)),
        *([_lanes(t)] if t.lanes else []),
        _causes(t),
        *([_kernels(t)] if t.kernels else []),
        *([_modules(t)] if t.modules else []),
    ]


def _lanes(t: Explained) -> BusyLanes:
    rows = []
    for name, shares in t.lanes:
        slot = t.span_ns / len(shares)
        spans = tuple((i * slot, (i + share) * slot) for i, share in enumerate(shares) if share > 0)
        rows.append((name, percent(sum(shares) / len(shares)), spans))
    return BusyLanes("What ran when", tuple(rows))


def _causes(t: Explained) -> Figures:
    rows = []
    for cause, ns in sorted(t.idle.items(), key=lambda item: -item[1]):
        phases = Counter({phase: n for phase, c, n in t.cells if c == cause and phase != "other"})
        where = ", ".join(f"{percent(n / ns)} in {phase}" for phase, n in phases.most_common(2))
        note = f"{percent(ns / max(1, t.idle_ns))}: {CAUSES[cause]}{f' ({where})' if where and cause != 'data stall' else ''}"
        rows.append(Row(cause, duration(ns), note))
    return Figures("Idle by cause", tuple(rows))


def _kernels(t: Explained) -> Grid:
    shown = t.kernels[:MOST_KERNELS]
    rows = [
        (short(k.name), k.operator, f"{k.calls:,}", duration(k.nanoseconds), duration(k.nanoseconds / k.calls))
        for k in shown
    ]
    if rest := t.kernels[MOST_KERNELS:]:
        calls, ns = sum(k.calls for k in rest), sum(k.nanoseconds for k in rest)
        rows.append((f"{len(rest)} more", "", f"{calls:,}", duration(ns), duration(ns / calls)))
    return Grid("Work on the device", ("kernel", "launched by", "runs", "time", "each"), tuple(rows), left=2)


def _modules(t: Explained) -> Grid:
    """The longest, in the order of the model: what is around a long one is longer still."""
    longest = sorted(range(len(t.modules)), key=lambda i: -t.modules[i].nanoseconds)[:MOST_MODULES]
    whole = sum(m.nanoseconds for m in t.modules if not m.depth) + t.outside_ns
    rows = [
        ("· " * m.depth + m.name, f"{m.runs:,}", duration(m.forward_ns), duration(m.backward_ns), percent(m.nanoseconds / max(1, whole)))
        for m in (t.modules[i] for i in sorted(longest))
    ]  # fmt: skip
    rows.append(("(outside of modules)", "", "", duration(t.outside_ns), percent(t.outside_ns / max(1, whole))))
    return Grid("Work by module, with all inside it", ("module", "runs", "forward", "backward", "of all"), tuple(rows))


def _several(traces: Sequence[Explained]) -> list[Part]:
    shown = sorted(traces, key=lambda t: (t.rank is None, t.rank))[:MOST]
    rows, bars = [], []
    for t in shown:
        largest = max(t.idle, key=lambda cause: t.idle[cause])
        rows.append((_called(t), largest if t.idle_ns else "", duration(t.span_ns), percent(t.busy_ns / max(1, t.span_ns)),
                     duration(t.exposed_ns), duration(t.idle_ns)))  # fmt: skip
        exposed = min(t.exposed_ns, t.busy_ns)
        bars.append((_called(t), percent(t.busy_ns / max(1, t.span_ns)), (t.busy_ns - exposed, exposed, t.idle_ns)))
    heads = ("trace", "idle mostly by", "span", "busy", "exposed comm", "idle")
    parts: list[Part] = [
        Grid("Every trace", heads, tuple(rows), left=2),
        Bars("Share of the time busy", ("compute and copies", "exposed communication", "idle"), tuple(bars)),
    ]
    if len(traces) > len(shown):
        parts.append(Figures("", (Row("not shown", str(len(traces) - len(shown)), "--json has every trace"),)))
    return parts


def _called(t: Explained) -> str:
    return f"rank {t.rank}" if t.rank is not None else Path(t.path).name


def _of(ns: int, span: int) -> str:
    return f"{percent(ns / span)} of the span" if span else ""


def _notes(traces: Sequence[Explained]) -> list[str]:
    said = []
    for t in traces:
        where = f"{_called(t)}: " if len(traces) > 1 else ""
        said += [f"{where}{warning}" for warning in t.warnings]
        said += [f"{where}uncounted: {kind}" for kind in t.uncounted]
    return said[:MOST]
