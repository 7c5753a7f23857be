"""`roofline`: the operators of a saved trace under the limits of their device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..registry import verb
from .trace import progress_of

if TYPE_CHECKING:
    from ...profilers.traces.roofline import TraceRoofline


@verb
def roofline(
    file: Annotated[Path, "a trace of torch.profiler on a device, recorded with record_shapes=True"],
    *,
    device: Annotated[str | None, "whose published limits, such as H100-SXM5-80GB; without it the trace's own"] = None,
    html: Annotated[Path | None, "also write the page, which opens offline"] = None,
    figure: Annotated[Path | None, "also write a figure to zoom into; needs plotly"] = None,
) -> TraceRoofline:
    """Place every operator of a trace under the ceiling that limits it: compute, memory or launching; and the time lost.

    The trace's own device is held to what was measured on this machine, if it has that device; else to published limits.
    """
    from ...profilers.traces.report import place_under_roofline
    from ..report import with_files

    return with_files(lambda: place_under_roofline(file, progress_of, device), html, figure, f"Roofline of {file.name}")
