"""What the hooks of the always-on clock write: one integer an event, and nothing else.

An event is its Unix time in ns with the lowest four bits replaced by what happened: a phase entered, a phase left, a
step ended. Cold, between the operators of a loop, every Python instruction costs some 25 ns; so a hook appends
`now() & TIME | ENTER[...]`, and `Reader` says later, if anybody asks, what that meant.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from .phases import now

TIME = ~0b1111  # the bits of an event that are its time
WORKS = ("data", "forward", "backward", "optimizer", "checkpoint", "logging", "iterator")  # the last: making one
ENTER = {work: 2 * i for i, work in enumerate(WORKS)}
LEAVE = {work: 2 * i + 1 for i, work in enumerate(WORKS)}
STEP = 14  # the optimizer was left, and that ended a step
LOST = 15  # events are missing here
KEPT = 1 << 13  # events; some 900 steps of a plain loop


class Tape:
    """The latest events of the thread `owner` (0: of none; the wrappers made here then pass straight through).

    `note` takes an event: it is kept until `drain`, the last `KEPT` of them, unless somebody listens. `recording`: the
    hooks are to keep what else they see.
    """

    __slots__ = ("_events", "note", "owner", "recording")

    def __init__(self) -> None:
        self.owner = 0
        self.recording = False
        self._events: deque[int] = deque(maxlen=KEPT)  # a loop may go on for weeks before anybody asks
        self.note: Callable[[int], object] = self._events.append

    def listen(self, heard: Callable[[int], object] | None) -> None:
        """Give each event to `heard` as it happens, or keep them again."""
        self.note = heard or self._events.append

    def drain(self) -> list[int]:
        """The events kept so far; they are kept no more."""
        events = [*((LOST,) if len(self._events) == KEPT else ()), *self._events]
        self._events.clear()
        return events

    def last_step(self) -> list[int]:
        """The events of the step that just ended, from the end of the one before; [] where they are not all kept."""
        found: list[int] = []
        for event in reversed(self._events):
            found.append(event)
            if event & ~TIME == STEP and len(found) > 1:
                return found[::-1]
        return []

    def within(self, work: str, call: Callable) -> Callable:
        """`call`, on the tape as `work`; recursion (state_dict) and other threads pass through."""
        enter, leave = ENTER[work], LEAVE[work]
        inside = False

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            if get_ident() != self.owner or inside:
                return call(*args, **kwargs)
            inside = True
            self.note(now() & TIME | enter)
            try:
                return call(*args, **kwargs)
            finally:
                inside = False
                self.note(now() & TIME | leave)

        return timed
