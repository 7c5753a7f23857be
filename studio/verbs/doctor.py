"""`doctor`: is this machine ready, and what would mend it."""

from __future__ import annotations

from ..doctor import Examination
from ..registry import verb


@verb
def doctor() -> Examination:
    """This machine: GPU, driver, torch, memory, limits; what is wrong and how to mend it.

    Ends with code 1 if something fails; a warning does not.
    """
    from ..doctor import examine

    return examine()
