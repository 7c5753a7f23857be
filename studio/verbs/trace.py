"""`trace`: saved traces explained, without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ..registry import verb

if TYPE_CHECKING:
    from ...profilers.traces.report import TraceReport
    from ...profilers.traces.sources import Progress

LARGE = 100 << 20  # bytes


@verb
def trace(
    files: Annotated[list[Path], "traces of torch.profiler: .json, .json.gz, .zst, one a rank, or folders"],
    *,
    link: Annotated[str | None, "between the ranks, such as InfiniBand-NDR; without it that of one node"] = None,
    html: Annotated[Path | None, "also write the page, which opens offline"] = None,
    figure: Annotated[Path | None, "also write a figure to zoom into; needs plotly"] = None,
    engine: Annotated[Literal["processes", "ray"], "where the passes over the ranks run"] = "processes",
) -> TraceReport:
    """Explain saved traces: busy, idle by cause, overlap, stragglers.

    Ends with code 1 if a file could not be read; the others are explained all the same.
    """
    from ...profilers.traces.report import explain_traces
    from ..report import with_files

    return with_files(lambda: explain_traces(files, progress_of, engine, link), html, figure, "Trace")


def progress_of(path: Path) -> Progress | None:
    """On stderr, for files that take seconds."""
    if not path.is_file() or path.stat().st_size < LARGE:
        return None
    last = -1

    def show(read: int, size: int) -> None:
        nonlocal last
        if (share := 100 * read // max(1, size)) != last:
            last = share
            end = "\n" if share == 100 else "\r"
            print(f"reading {path.name}: {share} %", end=end, file=sys.stderr, flush=True)

    return show
