"""Exclusive time by phase on one thread: at any instant the thread is in one phase, and every nanosecond belongs to it.

Notes say from when on the loop was in which phase; `spent` adds them up, `joined` shortens them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

now = time.time_ns  # the profiler stamps Unix nanoseconds as well

Note = tuple[int, str]  # from this moment on (Unix ns), in this phase


class Mark(NamedTuple):
    """From `time` (Unix ns) on, the loop is in `phase`; `cpu` is the thread's CPU clock at that moment (ns)."""

    time: int
    cpu: int
    phase: str


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
