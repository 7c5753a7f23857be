"""The last whole steps of a loop. What looked like several may turn out to be one, and is joined."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import NamedTuple

KEPT = 4096  # a clock may run for weeks


class Step(NamedTuple):
    """One whole step, in Unix ns. `phases` is the exclusive time of each phase and adds up to end - start."""

    start: int
    end: int
    phases: Mapping[str, int]
    skipped: bool = False  # a GradScaler found an overflow and did not step

    @property
    def wall(self) -> int:
        return self.end - self.start


class Steps(deque[Step]):
    """The last `KEPT` of those appended, oldest first."""

    def __init__(self) -> None:
        super().__init__(maxlen=KEPT)

    def join(self, count: int) -> int:
        """Make the last `count` steps one; returns how many it was. What lay between them still belongs to no step."""
        parts = [self.pop() for _ in range(min(count, len(self)))]
        phases: Counter[str] = Counter()
        for part in parts:
            phases.update(part.phases)
        end, wall = parts[0].end, sum(part.wall for part in parts)
        self.append(Step(end - wall, end, dict(phases), any(part.skipped for part in parts)))
        return len(parts)
