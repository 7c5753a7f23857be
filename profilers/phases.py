"""Exclusive time by phase on one thread: at any instant the thread is in one phase, and every nanosecond belongs to it.

`switch` is the whole mechanism, and what the always-on clock costs: keep it short. Whoever switches remembers the phase
before and switches back, so that nesting needs no stack and an exception cannot lose it.
"""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable
from threading import get_ident
from typing import Any, NamedTuple

now = time.time_ns  # the profiler stamps Unix nanoseconds as well


class Mark(NamedTuple):
    """From `time` (Unix ns) on, the loop is in `phase`; `cpu` is the thread's CPU clock at that moment (ns)."""

    time: int
    cpu: int
    phase: str


class Phases:
    """`current` and since when (`last`); `sums` since somebody took them; `marks` fills only while `recording`.

    `owner` is the thread it listens to, 0 for none: the wrappers it made then pass straight through.
    """

    __slots__ = ("current", "last", "marks", "owner", "recording", "sums")

    def __init__(self) -> None:
        self.current = "other"
        self.last = 0
        self.sums: defaultdict[str, int] = defaultdict(int)
        self.marks: list[Mark] = []
        self.recording = False
        self.owner = 0

    def switch(self, phase: str) -> int:
        """From now on `phase`; returns now."""
        t = now()
        self.sums[self.current] += t - self.last
        self.last = t
        self.current = phase
        if self.recording:
            # The CPU clock is a system call (0.6 us, six times a time stamp): only while recording.
            self.marks.append(Mark(t, time.thread_time_ns(), phase))
        return t

    def take(self) -> dict[str, int]:
        """The sums so far, by phase; they begin again."""
        taken, self.sums = self.sums, defaultdict(int)
        taken.default_factory = None  # to be read like any other dict: a phase that was not is not
        return taken

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
