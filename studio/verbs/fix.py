"""`fix N`: apply finding N's remedy, measure again, keep it or take it back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from ...profilers.errors import UsageError
from ..registry import Call, verb
from ..results import Fixed, Sentence

if TYPE_CHECKING:
    from ..session import Session


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
    from ..advisor.trial import Unfinished, try_remedy
    from ..session import Applied, last

    session = last()
    if undo:
        return take_back(session, number)
    found = session.profile.findings
    if session.profile.ledger is None:
        why = next((note for note in session.profile.notes if note.startswith("no ledger")), "no ledger: mode light")
        raise UsageError(f"findings come from a ledger, and the last profile has {why}; then profile it again")
    if not 1 <= number <= len(found):
        known = f"type a number from 1 to {len(found)}" if found else "the last profile found nothing to change"
        raise UsageError(f"there is no finding {number}: {known}")
    finding = found[number - 1]
    remedy = remedy_for(finding)
    if remedy is None:
        raise UsageError(f"finding {number} has no automatic remedy; by hand: {finding.advice}")
    # Since this profile was made: one raised again by a later profile may be of new objects (a notebook run twice).
    kept = {trial.finding for trial in session.profile.trials if trial.kept}
    here = any(f.key in kept and f.remedy == finding.remedy for f in found)
    before = next((a for a in reversed(session.applied) if here and a.remedy == finding.remedy), None)
    if before is not None:
        raise UsageError(
            f"this remedy is in place already; `%mlsys fix {before.number} --undo` takes it back ({before.title})"
        )
    step, told = session.profile.steps.median / 1e9, partial(print, flush=True)
    try:
        trial, taken_back = try_remedy(finding, remedy, session.code, session.subjects(), step, told)
    except Unfinished as failed:
        session.record(failed.trial)  # a report says what was tried, also where that failed
        raise
    if taken_back is not None:
        session.applied.append(Applied(number, finding.title, finding.remedy or "", trial, taken_back))
    session.record(trial)
    return Fixed(trial, finding.title, number)


def take_back(session: Session, number: int) -> str:
    """Undo the remedy kept under that number. The last one goes first: one may stand on another."""
    if not session.applied:
        raise UsageError("no remedy is in place, so there is nothing to take back")
    kept = session.applied[-1]
    if kept.number != number:
        raise UsageError(
            f"the remedy applied last is taken back first: type `%mlsys fix {kept.number} --undo` ({kept.title})"
        )
    session.applied.pop().undo()
    session.took_back(kept.trial)
    return Sentence(f"taken back: {kept.title}")
