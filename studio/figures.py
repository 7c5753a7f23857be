"""Figures to zoom into, by plotly: a trace's lanes, a roofline in powers of ten, memory over time.

They show what the pages show without it, so that nothing is lost where plotly is not installed. Names come from anywhere
and plotly reads them as HTML: each is escaped.
"""

from __future__ import annotations

from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profilers.errors import UsageError
from ..profilers.traces.blocks import CATEGORIES
from ..profilers.traces.memory import TraceMemory
from ..profilers.traces.report import TraceReport
from ..profilers.views.columns import crop, plain
from ..profilers.views.palette import series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from ..profilers.traces.explaining import Explained
    from ..profilers.traces.roofline import TraceRoofline

_LONGEST = 80  # letters of a name


def figure(result: TraceReport | TraceMemory | TraceRoofline) -> Figure:
    """The figure of traces, of a trace's memory or of its roofline. UsageError without plotly."""
    need_plotly()
    import plotly.graph_objects as go

    if isinstance(result, TraceReport):
        return _lanes(go, result.traces[0]) if len(result.traces) == 1 else _shares(go, result)
    return _memory(go, result) if isinstance(result, TraceMemory) else _roofline(go, result)


def need_plotly() -> None:
    if find_spec("plotly") is None:
        raise UsageError("a figure to zoom into needs plotly: pip install 'mlsys-studio[figures]'")


def _lanes(go: Any, trace: Explained) -> Figure:
    """Every lane over time, as dark as it was busy."""
    slot = trace.span_ns / 1e6 / max(1, max((len(shares) for _, shares in trace.lanes), default=1))
    heat = go.Heatmap(
        z=[shares for _, shares in trace.lanes],
        x=[(i + 0.5) * slot for i in range(max((len(shares) for _, shares in trace.lanes), default=0))],
        y=[_safe(name) for name, _ in trace.lanes],
        zmin=0,
        zmax=1,
        colorscale=[(0, "rgba(53,118,184,0)"), (1, series(1)[0])],
        showscale=False,
        hovertemplate="%{y}: %{z:.0%} busy at %{x:.3f} ms<extra></extra>",
    )
    title = f"What ran when in {_safe(Path(trace.path).name)}"
    return go.Figure(heat).update_layout(title=title, xaxis_title="ms", yaxis_autorange="reversed")


def _shares(go: Any, report: TraceReport) -> Figure:
    """Of several traces what each one's time was, side by side."""
    names = [_safe(f"rank {t.rank}" if t.rank is not None else Path(t.path).name) for t in report.traces]
    parts = {
        "compute and copies": [t.busy_ns - min(t.exposed_ns, t.busy_ns) for t in report.traces],
        "exposed communication": [min(t.exposed_ns, t.busy_ns) for t in report.traces],
        "idle": [t.idle_ns for t in report.traces],
    }
    drawn = go.Figure()
    for (said, amounts), colour in zip(parts.items(), series(len(parts)), strict=True):
        drawn.add_trace(go.Bar(x=names, y=[ns / 1e6 for ns in amounts], name=said, marker_color=colour))
    title = f"{len(names)} traces"
    return drawn.update_layout(title=title, barmode="stack", yaxis_title="ms", hovermode="x unified")


def _memory(go: Any, memory: TraceMemory) -> Figure:
    """Bytes in use by category, one on top of the other; an amount holds until the next."""
    used = [i for i in range(len(CATEGORIES)) if any(moment.bytes[i] for moment in memory.timeline)]
    times = [moment.time_ns / 1e6 for moment in memory.timeline]
    drawn = go.Figure()
    for i, colour in zip(used, series(len(used)), strict=True):
        amounts = [moment.bytes[i] for moment in memory.timeline]
        line = {"shape": "hv", "color": colour, "width": 0.5}
        drawn.add_trace(go.Scatter(x=times, y=amounts, name=CATEGORIES[i], stackgroup="all", line=line))
    title = f"Memory of {_safe(memory.device)} in {_safe(Path(memory.path).name)}"
    return drawn.update_layout(title=title, xaxis_title="ms", yaxis_title="bytes", hovermode="x unified")


def _roofline(go: Any, roofline: TraceRoofline) -> Figure:
    """Operators by FLOP/B and FLOP/s, as large as their time, under the limits of the device."""
    picture = roofline.picture()
    names, x, y, shares = zip(*picture.points, strict=True) if picture.points else ((), (), (), ())
    sizes = [8 + 40 * share**0.5 for share in shares]
    drawn = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            marker={"size": sizes, "color": series(1)[0], "opacity": 0.65},
            text=[_safe(name) for name in names],
            customdata=shares,
            name="operators",
            hovertemplate="%{text}<br>%{y:.3s}FLOP/s at %{x:.3s} FLOP/B, %{customdata:.1%} of the time<extra></extra>",
        )
    )
    for name, roof in picture.roofs:
        ridge, first, last = roof / picture.slope, min((*x, 0.1)), 10 * max((*x, roof / picture.slope))
        corner = {"x": [first, ridge, last], "y": [first * picture.slope, roof, roof]}
        drawn.add_trace(go.Scatter(**corner, mode="lines", name=_safe(name), line={"color": series(3)[2]}))
    title = f"Roofline of {_safe(Path(roofline.path).name)} on {_safe(roofline.device.name)}"
    return drawn.update_layout(
        title=title, xaxis={"type": "log", "title": "FLOP/B"}, yaxis={"type": "log", "title": "FLOP/s"}
    )


def _safe(name: str) -> str:
    return escape(crop(plain(name), _LONGEST))
