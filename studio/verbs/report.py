"""`report`: the last profile, or a saved one, as one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from ...profilers.errors import UsageError
from ...profilers.profile import Profile
from ..registry import Call, Expression, verb
from ..results import Sentence


@verb
def report(
    path: Annotated[Path, "where to write: .html, .md or .json"],
    *,
    of: Annotated[Any, Expression("a Profile of the notebook; without it the last one")] = None,
    saved: Annotated[Path | None, "a Profile saved as JSON, instead"] = None,
    redact: Annotated[bool, "replace host name, user names and paths"] = False,
    call: Call,
) -> str:
    """Export a profile as one self-contained file."""
    from ..report import export
    from .profile import read

    if of is not None and not isinstance(of, Profile):
        raise UsageError(
            f"--of names a {type(of).__name__}, not a Profile; keep one with `%%mlsys profile --into before`"
        )
    if saved is not None:
        profile = read(saved)
    elif of is not None:
        profile = of
    elif call.namespace is not None:
        from ..session import last

        profile = last().profile
    else:
        raise UsageError("a shell has no last profile; type `mlsys report out.html --saved base.json`")
    export(profile, path, redact=redact)
    return Sentence(f"wrote {path}")
