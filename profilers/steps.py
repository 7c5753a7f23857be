"""The last whole steps of a loop. What looked like several may turn out to be one, and is joined."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from .phases import Note, joined, spent

KEPT = 4096  # a clock may run for weeks


class Step(NamedTuple):
    """One whole step, in Unix ns: `notes` say from when on the loop was in which phase, the first of them at `start`."""

    start: int
    end: int
    notes: Sequence[Note]
    skipped: bool = False  # a GradScaler found an overflow and did not step

    @property
    def wall(self) -> int:
        return self.end - self.start

    @property
    def phases(self) -> dict[str, int]:
        """The exclusive time of each phase; adds up to the wall time."""
        return spent(self.notes, self.end)


class Steps(deque[Step]):
    """The last `KEPT` of those appended, oldest first."""

    def __init__(self) -> None:
        super().__init__(maxlen=KEPT)

    def join(self, count: int) -> int:
        """Make the last `count` steps one; returns how many it was. What lay between them still belongs to no step."""
        parts = [self.pop() for _ in range(min(count, len(self)))][::-1]
        end = parts[-1].end
        notes = joined([(part.notes, part.end) for part in parts], end)
        self.append(Step(notes[0][0], end, notes, any(part.skipped for part in parts)))
        return len(parts)
