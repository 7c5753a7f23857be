"""What every step of the loop was for: each in exactly one group, so that the groups add up to the loop's steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .step import Step, StepClock

WARM, CLEAN, WINDOW = "warm-up", "clean", "profiled"
SHAPED = "shapes recorded"
SETTLING = "settling after the profiler"
AGAIN = "profiled, taken again"
UNUSED = "profiled, not used"
LINES_COUNTED, LINES = "lines counted", "lines recorded"
MEMORY_LED, MEMORY = "memory recorded before", "memory recorded"

AFTER = 64  # clean steps after the window that are kept: the last ones


@dataclass(frozen=True, slots=True)
class Groups:
    """Steps by role. `dropped`: how many more there were, of which nothing is kept."""

    steps: dict[str, list[Step]]
    dropped: int

    def __getitem__(self, role: str) -> list[Step]:
        return self.steps.get(role, [])


class Roles:
    """A step that nobody marked is clean. Marks are few: those of the schedule, which is bounded."""

    def __init__(self) -> None:
        self._marked: dict[int, tuple[str, Step]] = {}  # by the step's end: where steps are joined, it stays
        self._anew = 0

    def mark(self, steps: Iterable[Step], role: str) -> None:
        self._marked |= {step.end: (role, step) for step in steps}

    def start_over(self, step: Step) -> None:
        """All steps up to this one were none of the training's."""
        self._marked.clear()
        self._anew = step.end

    def marked(self, role: str) -> list[Step]:
        return [step for known, step in self._marked.values() if known == role]

    def warmed(self, clock: StepClock) -> list[Step]:
        """Those of the warm-up so far, and those that were none of the training's."""
        return [*(step for step in clock.steps if step.end <= self._anew), *self.marked(WARM)]

    def groups(self, clock: StepClock) -> Groups:
        """A loop too short for a schedule has the first step as its warm-up, and clean ones."""
        kept = list(clock.steps)
        older = (step for _, step in self._marked.values() if not kept or step.end <= kept[0].start)
        found: dict[str, list[Step]] = {}
        after: list[Step] = []
        for step in chain(older, kept):
            role, _ = self._marked.get(step.end, (WARM if step.end <= self._anew else "", step))
            (found.setdefault(role, []) if role else after).append(step)
        found.setdefault(CLEAN, []).extend(after[-AFTER:])
        if not self._marked or not (found[CLEAN] or found.keys() - {WARM, CLEAN}):
            whole = [*found.get(WARM, []), *found[CLEAN]]
            found |= {WARM: whole[:1], CLEAN: whole[1:]}
        return Groups(found, clock.count - sum(map(len, found.values())))
