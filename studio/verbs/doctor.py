"""`doctor`: is this machine ready, and what would mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..registry import verb

if TYPE_CHECKING:
    from ..doctor import Examination


@verb
def doctor() -> Examination:
    """This machine: GPU, driver, torch, memory, limits; what to mend, and how.

    Ends with code 1 if something fails; a warning does not.
    """
    from ..doctor import examine

    return examine()
