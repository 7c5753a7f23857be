"""`profile`: a cell, or a script from the command line, measured without touching it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from ...profilers.errors import UsageError
from ...profilers.profile import Profile
from ..registry import Call, verb
from ..results import Profiled


@verb(cell="optional")
def profile(
    script: Annotated[Path | None, "a Python script to profile; its own arguments follow `--`"] = None,
    *arguments: Annotated[str, "the script's own arguments"],
    mode: Annotated[Literal["full", "light"], "a ledger, or step times and phases only"] = "full",
    steps: Annotated[int, "profiled steps in the window"] = 5,
    into: Annotated[str | None, "keep the Profile under this name in the notebook"] = None,
    out: Annotated[Path | None, "also write it: .html, .json or .md"] = None,
    compare: Annotated[Path | None, "a Profile saved as JSON: say what changed, exit with 1 on a regression"] = None,
    bound: Annotated[float, "slower than the compared one by more than this share is a regression"] = 0.05,
    call: Call,
) -> Profiled | None:
    """Profile a training loop: where every second went, adding up to 100 %, and what to change."""
    from ..profiling import disabled, profile as profiling
    from ..report import export
    from ..script import Script

    if (script is None) == (call.cell is None):
        usage = (
            "put `%%mlsys profile` above the cell with your loop"
            if call.face == "magic"
            else "type `mlsys profile train.py`"
        )
        raise UsageError(f"profile takes a cell or a script, one of them: {usage}")
    if into is not None and not into.isidentifier():
        raise UsageError(f"--into {into!r} is not a name; type for example --into before")
    baseline = None if compare is None else read(compare)
    code = call.cell if call.cell is not None else Script(script, arguments)  # type: ignore[arg-type]
    run = profiling(title="cell" if call.cell is not None else str(script), mode=mode, steps=steps)
    try:
        with run:
            code.run()
    except BaseException:
        if run.profile is not None:
            call.show(run.profile)
        raise
    if disabled() or run.profile is None or run.recording is None:
        return None
    if call.cell is not None and call.namespace is not None:
        from ..session import Session, remember

        assert run.recording.clock is not None
        remember(Session.of(run.profile, call.cell, call.namespace, run.recording.clock))
        if into:
            call.namespace[into] = run.profile
    if out is not None:
        export(run.profile, out)
    return Profiled(run.profile, baseline, bound)


def read(path: Path) -> Profile:
    """A saved Profile, or one sentence about what is wrong with the file."""
    try:
        return Profile.from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {str(path)!r} ({error}); save one with `mlsys profile train.py --out base.json`"
        ) from None
