"""What a tape of events means: in which phase the loop was from when on, and which steps ended.

The phases entered and not yet left lie on a stack. Whoever leaves takes along what was entered inside and never left:
torch calls no hook where a KeyboardInterrupt ended a forward, nor where an optimizer's step raised.
"""

from __future__ import annotations

from collections.abc import Iterable

from .phases import Note, joined
from .steps import Step, Steps
from .tape import LOST, STEP, TIME, WORKS

PHASES = tuple({"iterator": "data"}.get(work, work) for work in WORKS)

# Phases charged whole (a model inside a dataset is not the loop's forward), and recomputation inside a checkpoint.
NOT_FORWARD = frozenset(("data", "checkpoint", "logging", "backward"))
LONG = 256  # notes; a loop may print or skip batches a million times within a step


class Reader:
    """`current`: the phase we are in; `notes`: of the step so far; `steps`: the last that ended.

    `by_difference`: no model takes a hook, and forward is what lies between a batch and its backward.
    """

    def __init__(self) -> None:
        self.current = "other"
        self.notes: list[Note] = [(0, self.current)]
        self.steps = Steps()
        self.by_difference = False
        self._inside: list[tuple[str, str]] = []  # (the phase entered, the one it was entered from)
        self._lost = False  # events of the step so far

    def read(self, event: int) -> None:
        what = event & ~TIME
        if what == STEP:
            self._leave("optimizer")
            self.end(event & TIME)
        elif what == LOST:
            self._lost = True
        else:
            phase = PHASES[what >> 1]
            if what & 1:
                self._leave(phase)
            else:
                self._enter(phase)
            if self.current != self.notes[-1][1]:
                self._note(event & TIME)

    def inside(self, phase: str) -> bool:
        return any(entered == phase for entered, _ in self._inside)

    def end(self, t: int, skipped: bool = False) -> None:
        """A step ends; the next one begins."""
        self._abandon("forward", "optimizer")  # no model steps its own optimizer
        if not self._lost:
            self.steps.append(Step(self.notes[0][0], t, self.notes, skipped))
        self.begin(t)

    def begin(self, t: int) -> None:
        """The step begins here: what was before belongs to none."""
        self.notes, self._lost = [(t, self.current)], False

    def _note(self, t: int) -> None:
        self.notes.append((t, self.current))
        if len(self.notes) > LONG:
            self.notes = [*joined([(self.notes, t)], t), (t, self.current)]

    def _enter(self, phase: str) -> None:
        if phase == "data":
            self._abandon("forward")  # no model fetches its own batches
        self._inside.append((phase, self.current))
        if phase != "forward" or self.current not in NOT_FORWARD:
            self.current = phase

    def _leave(self, phase: str) -> None:
        inside = self._inside
        if not inside or (inside[-1][0] != phase and not self.inside(phase)):
            return
        left, before = inside.pop()
        while left != phase:
            left, before = inside.pop()
        if self.by_difference:
            before = {("data", "other"): "forward", ("backward", "forward"): "other"}.get((phase, before), before)
        self.current = before

    def _abandon(self, *phases: str) -> None:
        while self._inside and self._inside[-1][0] in phases:
            self.current = self._inside.pop()[1]


def last_step(events: Iterable[int], by_difference: bool) -> Step:
    """Of a tape's `last_step`, without the steps before it: those are read when somebody asks for them."""
    first, *rest = events
    reader = Reader()
    reader.by_difference = by_difference
    reader.begin(first & TIME)
    for event in rest:
        reader.read(event)
    return reader.steps[-1]
