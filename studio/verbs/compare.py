"""`compare`: two saved traces or two saved profiles: what got slower, in rows that add up to the difference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ...profilers.errors import UsageError
from ..registry import verb
from .trace import progress_of

if TYPE_CHECKING:
    from ...profilers.diff import Diff
    from ...profilers.traces.diff import TraceDiff

HEAD = 200  # bytes that tell a profile from a trace


@verb
def compare(
    before: Annotated[Path, "a trace, or a Profile saved as JSON (`mlsys profile train.py --out base.json`)"],
    after: Annotated[Path, "another one of the same kind"],
    *,
    html: Annotated[Path | None, "also write the page, which opens offline"] = None,
) -> Diff | TraceDiff:
    """Say what got slower from one run to another: kernel by kernel, cause by cause, adding up to the difference."""
    from ..report import with_files

    return with_files(lambda: _compared(before, after), html, None, f"{before.name} → {after.name}")


def _compared(before: Path, after: Path) -> Diff | TraceDiff:
    profiles = [_is_profile(path) for path in (before, after)]
    if all(profiles):
        from .profile import read

        return read(before).diff(read(after))
    if any(profiles):
        profile, trace = (before, after) if profiles[0] else (after, before)
        raise UsageError(f"{profile.name} is a Profile and {trace.name} is not: compare two of a kind")
    from ...profilers.traces.report import compare_traces

    return compare_traces(before, after, progress_of)


def _is_profile(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b'"mlsys.profile"' in file.read(HEAD)
    except OSError:
        return False  # the reader of traces says what is wrong with it
