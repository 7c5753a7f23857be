"""How a thread's wall time went: on a CPU, runnable but waiting for one, or blocked. Nanoseconds.

    blocked = wall - CPU clock of the thread - run-queue delay

Wall against CPU alone is a trap: a thread that waits for a busy core looks like one that waits for a disk. Linux adds
the run-queue delay up in /proc/self/task/<tid>/schedstat (Documentation/scheduler/sched-stats.rst); elsewhere it is not
known, and `queued` says so by being None.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class Spent:
    """A stretch of one thread's time. `queued`: runnable without a core; None where the system does not tell."""

    wall: int
    cpu: int
    queued: int | None

    @property
    def blocked(self) -> int:
        """Neither on a core nor waiting for one. Where the delay is unknown, everything off the CPU."""
        return max(0, self.wall - self.cpu - (self.queued or 0))

    def __add__(self, other: Spent) -> Spent:
        queued = None if self.queued is None or other.queued is None else self.queued + other.queued
        return Spent(self.wall + other.wall, self.cpu + other.cpu, queued)

    def __sub__(self, other: Spent) -> Spent:
        queued = None if self.queued is None or other.queued is None else self.queued - other.queued
        return Spent(self.wall - other.wall, self.cpu - other.cpu, queued)


NOTHING = Spent(0, 0, 0)


class Delay:
    """The run-queue delay of one thread. A reading takes 0.9 µs (Linux 6.18): the file stays open."""

    def __init__(self, thread: int) -> None:
        try:
            self._file: int | None = os.open(TASKS / str(thread) / "schedstat", os.O_RDONLY)
        except OSError:
            self._file = None

    def read(self) -> tuple[int, int, int] | None:
        """(ns on a CPU as of the scheduler's last tick, ns waiting for one, times put on one); None where nothing tells."""
        if self._file is None:
            return None
        try:
            cpu, waiting, times = os.pread(self._file, 80, 0).split()
        except (OSError, ValueError):  # the thread has ended; a kernel without the figures writes zeros or nothing
            return None
        return int(cpu), int(waiting), int(times)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def own_clock() -> Callable[[], Spent]:
    """A function that reads the clocks of the thread which makes it: the difference of two readings is a stretch."""
    from threading import get_native_id

    delay = Delay(get_native_id())

    def read() -> Spent:
        queued = delay.read()
        return Spent(time.perf_counter_ns(), time.thread_time_ns(), None if queued is None else queued[1])

    return read


@dataclass(frozen=True, slots=True)
class Input:
    """What a thread read: bytes through read(), calls of it, bytes that came from a device, pages that had to be fetched."""

    bytes: int
    calls: int
    from_device: int
    major_faults: int

    @classmethod
    def now(cls, thread: int) -> Self | None:
        """Of the calling thread; None where /proc/self/task/<tid>/io cannot be read."""
        import resource

        try:
            text = (TASKS / str(thread) / "io").read_text()
        except OSError:
            return None
        fields = dict(line.split(": ") for line in text.splitlines())
        try:
            read = int(fields["rchar"]), int(fields["syscr"]), int(fields["read_bytes"])
        except (KeyError, ValueError):
            return None
        faults = resource.getrusage(getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)).ru_majflt
        return cls(*read, faults)

    def since(self, before: Input) -> Input:
        return Input(
            self.bytes - before.bytes,
            self.calls - before.calls,
            self.from_device - before.from_device,
            self.major_faults - before.major_faults,
        )
