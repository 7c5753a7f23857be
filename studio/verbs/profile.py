"""`profile`: a cell, or a script from the command line, measured without touching it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ...profilers.errors import UsageError
from ...profilers.profile import Profile
from ..registry import Call, verb
from ..results import Profiled

if TYPE_CHECKING:
    from ..profiling import Profiling


@verb(cell="optional")
def profile(
    script: Annotated[Path | None, "a Python script to profile; its own arguments follow `--`"] = None,
    *arguments: Annotated[str, "the script's own arguments"],
    mode: Annotated[Literal["full", "light"], "a ledger, or step times and phases only"] = "full",
    steps: Annotated[int, "profiled steps in the window"] = 5,
    stacks: Annotated[bool, "also the time of your own lines, from two more steps"] = False,
    memory: Annotated[bool, "also the memory of a step by category, from two more steps"] = False,
    into: Annotated[str | None, "keep the Profile under this name in the notebook"] = None,
    out: Annotated[Path | None, "also write it: .html, .json or .md"] = None,
    compare: Annotated[Path | None, "a Profile saved as JSON: say what changed, exit with 1 on a regression"] = None,
    bound: Annotated[float, "slower than the compared one by more than this share is a regression"] = 0.05,
    call: Call,
) -> Profiled | None:
    """Profile a training loop: where every second went, adding up to 100 %, and what to change."""
    from ..profiling import profile as profiling
    from ..report import kind
    from ..script import Script

    if (script is None) == (call.cell is None):
        usage = (
            "put `%%mlsys profile` above the cell with your loop"
            if call.face == "magic"
            else "type `mlsys profile train.py`"
        )
        raise UsageError(f"profile takes a cell or a script, one of them: {usage}")
    if into is not None and (call.namespace is None or not into.isidentifier()):
        raise UsageError(
            f"--into names a variable of the notebook, which {into!r} is not; type for example --into before"
        )
    if out is not None:
        kind(out)  # before anything is measured
    baseline = None if compare is None else read(compare)
    code = call.cell if script is None else Script.at(script, arguments)
    assert code is not None
    title = script.name if script is not None else first_line(code.source)
    run = profiling(title=title, mode=mode, steps=steps, stacks=stacks, memory=memory)
    try:
        with run:
            code.run()
    except BaseException as error:
        if run.profile is not None and run.profile.steps.count:  # else the last profile stays the last one
            keep(run, call, into)
            call.show(run.profile)
            if out is not None:
                write(run.profile, out)
        if isinstance(code, Script) and isinstance(error, Exception) and run.began:
            code.show_error(error)
            raise SystemExit(1) from None
        raise
    if run.profile is None:  # MLSYS_DISABLE
        return None
    keep(run, call, into)
    try:
        if out is not None:
            write(run.profile, out)
        verdict = None if baseline is None else run.profile.regression(baseline, bound)
    except UsageError:
        call.show(run.profile)  # measuring took long, and a wrong word must not lose it
        raise
    return Profiled(run.profile, baseline, verdict, script=None if script is None else str(script))


def keep(run: Profiling, call: Call, into: str | None) -> None:
    """For `fix`, `report` and the user's own name, also of a cell that was interrupted."""
    if run.profile is None or run.parts is None or call.cell is None or call.namespace is None:
        return
    from ..advisor.findings import asking, findings
    from ..session import Session, remember

    session = Session(run.profile, call.cell, call.namespace, run.parts)
    remember(session)
    found = findings(run.profile)  # with their remedies: `fix` can run this cell again
    if found and (name := session.loader_name()):
        found = asking(found, name)
    run.profile = session.profile = replace(run.profile, findings=found, kept=session.kept())
    if into:
        call.namespace[into] = run.profile


def write(profile: Profile, path: Path) -> None:
    from ..report import export

    export(profile, path)


def first_line(source: str) -> str:
    """The first that does something: a name for a cell."""
    lines = (line.strip() for line in source.splitlines())
    return next((line for line in lines if line and not line.startswith("#")), "cell")


def read(path: Path) -> Profile:
    """A saved Profile, or one sentence about what is wrong with the file."""
    how = "save a profile with `mlsys profile train.py --out base.json`"
    try:
        return Profile.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {(error.strerror or str(error)).lower()}; {how}") from None
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {str(path)!r}: it is not text; {how}") from None
    except UsageError as error:
        raise UsageError(f"cannot read {str(path)!r}, {error}; {how}") from None
