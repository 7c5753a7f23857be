"""`monitor`: what the machine does for this kernel; above a cell, a picture that follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ...profilers.errors import UsageError
from ..registry import Call, verb

if TYPE_CHECKING:
    from ..following import Following
    from ..monitoring import Look


@verb(cell="optional")
def monitor(
    *,
    seconds: Annotated[float, "how long one look takes, as rates are means; not above a cell"] = 1.0,
    follow: Annotated[bool, "a picture that follows all cells from now on, with a button to pause it"] = False,
    call: Call,
) -> Look | Following | None:
    """Show GPU, CPU, memory and IO against this container's limits, for this kernel on the machine where it runs.

    Above a cell the picture follows while it runs, with the steps of its training loop, and stays in the notebook.
    """
    from ..monitoring import Live, once

    if not 0.1 <= seconds <= 60:
        raise UsageError(f"--seconds {seconds:g} is no time for one look: give 0.1 to 60")
    if call.cell is None:
        if follow:
            from ..following import follow as following

            return following(call.face)
        return once(seconds)
    if follow:
        raise UsageError("--follow is for a line of its own: above a cell the picture follows that cell; leave it out")
    try:
        from ...profilers.step import StepClock
    except ModuleNotFoundError:  # no torch, no steps
        with Live():
            call.cell.run()
        return None
    with Live(), StepClock():
        call.cell.run()
    return None
