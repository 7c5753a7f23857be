"""`trace`: saved traces explained, without torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ..registry import verb

if TYPE_CHECKING:
    from ...profilers.traces.diff import TraceDiff
    from ...profilers.traces.report import TraceReport
    from ...profilers.traces.roofline import TraceRoofline
    from ...profilers.traces.sources import Progress

LARGE = 100 << 20  # bytes


@verb
def trace(
    files: Annotated[list[Path], "traces of torch.profiler: .json, .json.gz, .zst, one a rank, or folders"],
    *,
    against: Annotated[Path | None, "an earlier trace: say what got slower since, row by row"] = None,
    link: Annotated[str | None, "between the ranks, such as InfiniBand-NDR; without it that of one node"] = None,
    engine: Annotated[Literal["processes", "ray"], "where the passes over the ranks run"] = "processes",
    roofline: Annotated[bool, "place every operator under the device's published limits; loads torch"] = False,
) -> TraceReport | TraceDiff | TraceRoofline:
    """Explain saved traces: busy, idle by cause, overlap, stragglers.

    Ends with code 1 if a file could not be read; the others are explained all the same.
    """
    from ...profilers.errors import UsageError
    from ...profilers.traces.report import compare_traces, explain_traces, place_under_roofline

    if against is None and not roofline:
        return explain_traces(files, progress_of, engine, link)
    if against is not None and roofline:
        raise UsageError("--against and --roofline are two questions: ask one at a time")
    if len(files) != 1:
        option = "--roofline" if roofline else "--against"
        raise UsageError(f"{option} takes one trace, and {len(files)} were given: name one")
    return (
        place_under_roofline(files[0], progress_of)
        if against is None
        else compare_traces(against, files[0], progress_of)
    )


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
