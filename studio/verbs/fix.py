"""`fix N`: apply finding N's remedy, measure again, keep it or take it back."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Annotated

from ...profilers.errors import UsageError
from ..registry import Call, verb
from ..results import Fixed


@verb
def fix(
    number: Annotated[int, "the finding's number in the last profile"],
    *,
    undo: Annotated[bool, "take back a remedy that was kept"] = False,
    call: Call,
) -> Fixed | str:
    """Apply finding N's remedy, measure the same cell without and with it, keep it only if it wins."""
    if call.namespace is None:
        raise UsageError("fix works on the objects of a notebook: type `%mlsys fix 1` there, after `%%mlsys profile`")
    from ..advisor.remedies import remedy_for
    from ..advisor.trial import try_remedy
    from ..session import last

    session = last()
    found = session.profile.findings
    if not 1 <= number <= len(found):
        known = f"1 to {len(found)}" if found else "none: the last profile found nothing to change"
        raise UsageError(f"no finding {number}; there are {known}")
    finding = found[number - 1]
    if undo:
        if finding.key not in session.applied:
            raise UsageError(f"finding {number} ({finding.title}) has no remedy in place to take back")
        session.applied.pop(finding.key)()
        return f"taken back: {finding.title}"
    if finding.key in session.applied:
        raise UsageError(f"finding {number} is already fixed; `%mlsys fix {number} --undo` takes it back")
    remedy = remedy_for(finding)
    if remedy is None:
        raise UsageError(f"finding {number} has no automatic remedy; by hand: {finding.advice}")
    trial, taken_back = try_remedy(
        finding, remedy, session.code, session.subjects(), session.profile.steps.median / 1e9,
        lambda line: print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    if taken_back is not None:
        session.applied[finding.key] = taken_back
    session.profile = replace(session.profile, trials=(*session.profile.trials, trial))
    return Fixed(trial, finding.title)
