"""Exclusive time by phase on one thread: at any instant the thread is in one phase, and every nanosecond belongs to it.

This is what the always-on clock costs, so a switch only notes when and into which phase; `spent` adds the notes up for
whoever asks. Whoever switches remembers the phase before and switches back, so that nesting needs no stack and an
exception cannot lose it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from threading import get_ident
from typing import Any, NamedTuple

now = time.time_ns  # the profiler stamps Unix nanoseconds as well
LONG = 256  # notes; a loop may print or skip batches a million times within a step

Note = tuple[int, str]  # from this moment on (Unix ns), in this phase


class Mark(NamedTuple):
    """From `time` (Unix ns) on, the loop is in `phase`; `cpu` is the thread's CPU clock at that moment (ns)."""

    time: int
    cpu: int
    phase: str


class Phases:
    """`current`, and the `notes` since somebody cut them; `marks` fills only while `record`ing.

    `owner` is the thread it listens to, 0 for none: the wrappers it made then pass straight through. `note((now(),
    phase))` beside `current = phase` is `switch` without its call, for the places every step passes; whoever notes so
    looks at `LONG` once in a while.
    """

    __slots__ = ("current", "marks", "note", "notes", "owner", "recording")

    def __init__(self) -> None:
        self.current = "other"
        self.owner = 0
        self.recording = False
        self.marks: list[Mark] = []
        self.notes: list[Note] = []
        self.note: Callable[[Note], object] = self.notes.append

    def switch(self, phase: str) -> int:
        """From now on `phase`; returns now."""
        t = now()
        self.current = phase
        self.note((t, phase))
        if len(self.notes) > LONG:
            self.shorten()
        return t

    def cut(self, t: int) -> list[Note]:
        """The notes so far; they begin again at `t`, in the phase we are in."""
        done, self.notes = self.notes, [(t, self.current)]
        if not self.recording:
            self.note = self.notes.append
        return done

    def shorten(self) -> None:
        end = self.notes.pop()
        self.notes[:] = [*joined([(self.notes, end[0])], end[0]), end]

    def record(self, on: bool) -> None:
        self.recording = on
        self.note = self._note_with_cpu if on else self.notes.append

    def _note_with_cpu(self, note: Note) -> None:
        # The CPU clock is a system call (0.6 us, six times a time stamp): only while recording.
        self.notes.append(note)
        self.marks.append(Mark(note[0], time.thread_time_ns(), note[1]))

    def within(self, phase: str, call: Callable) -> Callable:
        """`call`, with its time in `phase`; recursion (state_dict) and other threads pass through."""

        @functools.wraps(call)
        def timed(*args: Any, **kwargs: Any) -> Any:
            before = self.current
            if before == phase or get_ident() != self.owner:
                return call(*args, **kwargs)
            self.switch(phase)
            try:
                return call(*args, **kwargs)
            finally:
                self.switch(before)

        return timed


def spent(notes: Sequence[Note], end: int) -> dict[str, int]:
    """ns in each phase, from the first note to `end`."""
    sums: dict[str, int] = {}
    for (t, phase), (until, _) in pairwise([*notes, (end, "")]):
        sums[phase] = sums.get(phase, 0) + until - t
    return sums


def joined(parts: Iterable[tuple[Sequence[Note], int]], end: int) -> list[Note]:
    """Notes that end at `end` and spend in each phase what these parts (notes, end) did together."""
    sums: dict[str, int] = {}
    for notes, until in parts:
        for phase, ns in spent(notes, until).items():
            sums[phase] = sums.get(phase, 0) + ns
    made, t = [], end - sum(sums.values())
    for phase, ns in sums.items():
        made.append((t, phase))
        t += ns
    return made
