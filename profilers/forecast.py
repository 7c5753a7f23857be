"""What an extra step would take, told before it is recorded; a step too large for the free memory is refused.

The numbers of operators and lines are counted, in a step just before; the bytes of each are measured constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .limits import Limits
from .views.units import size

# Resident bytes a profiler event takes until its take is thrown away: measured over 60,000 and 97,000 events (torch
# 2.13, CPU), recording and reading them: 1,820 bare, 3,190 with shapes, of which an allocation takes no more.
OPERATOR, SHAPED = 1_900, 3_200
LINE = 16  # two int64: when, and which
ALLOCATIONS = 0.75  # blocks taken or given back an operator: 0.41 to 1.05 in the loops of test_forecast.py
SHARE = 0.10  # of the free memory: more than this is refused


@dataclass(frozen=True, slots=True)
class Forecast:
    events: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.events:,} events, about {size(self.bytes)}"


class TooLarge(Exception):
    """Refused: one sentence that says what to type instead."""


def of_stacks(operators: int, lines: int) -> Forecast:
    """One step of so many operators and executed lines."""
    return Forecast(operators + lines, operators * OPERATOR + lines * LINE)


def of_memory(operators: int) -> Forecast:
    """Two steps of so many operators each, with shapes, and what they allocate."""
    events = int(2 * operators * (1 + ALLOCATIONS))
    return Forecast(events, events * SHAPED)


def allow(forecast: Forecast, without: str) -> None:
    """Raises TooLarge where it would take more than a tenth of what is free."""
    free = free_memory()
    if forecast.bytes > SHARE * free:
        raise TooLarge(
            f"a step would record {forecast}, more than {SHARE:.0%} of the {size(free)} free: profile without "
            f"{without}, or a shorter step (fewer micro-batches, fewer layers)"
        )


def free_memory(root: Path = Path("/")) -> int:
    """Bytes this process may still take; very many where nobody says."""
    free = Limits(root).memory_free()
    return 2**62 if free is None else int(free)
