"""What went wrong last in this notebook: the exception that stands, or the diagnosis, whichever is newer.

Both are numbered in the order in which they came. An exception carries its number, for its id may be the next one's.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..profilers.diagnosis.diagnosis import Diagnosis


@dataclass(frozen=True, slots=True)
class Trouble:
    number: int  # another one for each
    what: BaseException | Diagnosis


_numbers = itertools.count(1)
_diagnosed: Trouble | None = None


def remember(found: Diagnosis) -> None:
    """From now on the newest."""
    global _diagnosed
    _standing()
    _diagnosed = Trouble(next(_numbers), found)


def newest() -> Trouble | None:
    return max(filter(None, (_standing(), _diagnosed)), key=lambda trouble: trouble.number, default=None)


def _standing() -> Trouble | None:
    """What IPython keeps of the last cell that failed, if there is something to explain.

    An interrupt is the user's own doing, and a UsageError, IPython's or ours, says what to type instead.
    """
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None or type(error).__name__ in ("KeyboardInterrupt", "UsageError"):
        return None
    if "_mlsys_number" not in error.__dict__:
        error.__dict__["_mlsys_number"] = next(_numbers)
    return Trouble(error.__dict__["_mlsys_number"], error)
