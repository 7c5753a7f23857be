"""Amounts as a user gives them: above zero, and whole where they count things; anything else is one sentence."""

from __future__ import annotations

import math
from typing import Any

from ..errors import UsageError


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{name} must be a number above 0, and {value!r} is not")
    return value


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, and {value!r} is not")
    return value
