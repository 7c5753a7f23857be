"""Amounts as a user gives them: above zero, and whole where they count things; anything else is one sentence.

Far beyond anything that exists a figure would overflow, or be swallowed by rounding, so that such an amount is refused.
"""

from __future__ import annotations

from typing import Any

from ..errors import UsageError

LARGEST = 10**9  # of a model's size: more is no model but a mistake
MOST = 10**15  # of things that are counted: a thousand times all tokens a model was ever trained with
LEAST_REAL, MOST_REAL = 1e-30, 1e40  # of quantities: no FLOP, second or watt is beyond


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UsageError(f"{name} must be a number above 0, and {value!r} is not")
    if not LEAST_REAL <= value <= MOST_REAL:
        raise UsageError(f"{name} must be from {LEAST_REAL:g} to {MOST_REAL:g}, and the number given is not")
    return value


def share(name: str, value: Any) -> float:
    """A part of a whole, from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise UsageError(f"{name} is a share from 0 to below 1, and {value!r} is not")
    return value


def efficiency(value: Any) -> float:
    """What is reached of a device's peak; below a thousandth it is a mistake, and times lose their sense."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.001 <= value <= 1:
        raise UsageError(f"efficiency is a share of the peak from 0.001 to 1, and {value!r} is not")
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, and {value!r} is not")
    return value


def whole(name: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} must be a whole number of at least 1, and {value!r} is not")
    if value > MOST:
        raise UsageError(f"{name} must be at most {MOST:,}, and a number of {value.bit_length()} bits is not")
    return value
