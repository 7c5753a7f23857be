"""What a blocked thread waits for, seen by a second thread of its process every few milliseconds.

The second thread sleeps, and then needs the GIL. Two things tell the causes apart without root and without stopping
anything:

- How late it gets the GIL, its own wait for a core aside. A thread that blocks as it should (a read, a sleep, a lock) has
  given the GIL away, and the sampler is on time. When it is late although the watched thread was not on a CPU, somebody
  holds the GIL in C.
- /proc/self/task/<tid>/syscall: the system call the watched thread is in. A process may always read its own.

A blocked thread whose process computes in other threads meanwhile (a decoder's pool) waits for these.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections import Counter
from typing import Literal

from . import clocks
from .clocks import Delay

Kind = Literal["storage", "network", "sleep", "lock", "child process", "gil", "feeder", "library threads", "unknown"]

PERIOD = 0.002  # seconds; a tick takes about 15 µs: below 1 % of a core
LISTED = 25  # ticks between two looks at which threads there are
LATE = 0.5  # of the lateness: so much must be neither on the CPU nor queued for the GIL to be the cause

_FILE, _SLEEP, _LOCK, _SOCKET, _CHILD = "file", "sleep", "lock", "network", "child process"
SYSCALLS: dict[str, dict[int, str]] = {  # by machine; asm/unistd_64.h, asm-generic/unistd.h
    "x86_64": {
        **dict.fromkeys((0, 17, 19, 295, 2, 257, 4, 5, 6, 262, 332, 217, 3, 8, 187, 40, 326, 21, 269), _FILE),
        **dict.fromkeys((35, 230), _SLEEP),
        202: _LOCK,
        **dict.fromkeys((7, 271, 23, 270, 232, 281, 45, 47, 299, 42, 43, 288), _SOCKET),
        **dict.fromkeys((61, 247), _CHILD),
    },
    "aarch64": {
        **dict.fromkeys((63, 67, 65, 69, 56, 79, 80, 291, 61, 57, 62, 213, 71, 285, 48), _FILE),
        **dict.fromkeys((101, 115), _SLEEP),
        98: _LOCK,
        **dict.fromkeys((73, 72, 22, 207, 212, 243, 203, 202, 242), _SOCKET),
        **dict.fromkeys((260, 95), _CHILD),
    },
}
_READS = {"x86_64": {0, 17, 19, 295}, "aarch64": {63, 67, 65, 69}}  # whose first argument is an open file


def kind_of(syscall: str, machine: str, target: str | None = None) -> Kind | None:
    """What the text of a `syscall` file means; `target` is what its first argument, an open file, links to.

    None where the thread runs, or waits for a core.
    """
    number = syscall.partition(" ")[0]
    if number in ("", "running\n", "running"):
        return None
    if number == "-1":  # blocked outside a system call: a page of a mapped file is being fetched
        return "storage"
    found = SYSCALLS.get(machine, {}).get(int(number), "unknown")
    if found == _FILE:
        return "network" if target and target.startswith("socket:") else "storage"
    return found  # type: ignore[return-value]


def split_tick(blocked: int, late: int, busy: int, feeder: int, others: int, seen: Kind | None) -> dict[Kind, int]:
    """One tick's blocked ns by what they waited for. The parts add up to `blocked`, or there are none.

    late: ns the GIL was waited for, beyond the sleep; busy: of the whole tick, ns the watched thread was on a core or
    queued for one; feeder, others: ns the feeder thread and the busiest other thread were; seen: by the system call.
    """
    if blocked <= 0:
        return {}
    held = min(1.0, max(0, late - busy) / late) if late > 0 else 0.0
    if held > LATE:
        return {"feeder" if feeder > late / 2 else "gil": blocked}
    if seen is None:  # it runs: the scheduler's figures of a running thread are a tick old, and it was not blocked
        return {}
    library = min(blocked, others) if seen in ("lock", "unknown") else 0
    parts: dict[Kind, int] = {"library threads": library} if library else {}
    if blocked > library:
        parts[seen] = blocked - library
    return parts


class Sampler:
    """Watches the thread that makes it. `found` counts ns by (stage, kind) while `inside` is true.

    `held` of `watched` ns the GIL was held by somebody else, inside or not: other threads, which answer the loop, wait too.
    """

    def __init__(self) -> None:
        self.inside = False
        self.stage = ""
        self.feeder = 0  # its thread, once it is known
        self.found: Counter[tuple[str, Kind]] = Counter()
        self.held = self.watched = 0
        self._watched = threading.get_native_id()
        self._machine = platform.machine()
        self._stop = False
        self._delays: dict[int, Delay] = {}
        self._thread = threading.Thread(target=self._run, name="mlsys-sampler", daemon=True)

    def start(self) -> None:
        """Where /proc does not tell a thread's times, nothing is watched and `found` stays empty."""
        if Delay(self._watched).read() is not None:
            self._thread.start()

    def stop(self) -> None:
        self._stop = True
        if self._thread.is_alive():
            self._thread.join()
        for delay in self._delays.values():
            delay.close()

    def _run(self) -> None:
        tick = 0
        try:
            syscall: int | None = os.open(clocks.TASKS / str(self._watched) / "syscall", os.O_RDONLY)
        except OSError:
            syscall = None
        before = self._times()
        while not self._stop:
            if tick % LISTED == 0:
                self._list()
                before = self._times()
            tick += 1
            stage, inside, began = self.stage, self.inside, time.perf_counter_ns()
            time.sleep(PERIOD)
            took = time.perf_counter_ns() - began
            after = self._times()
            parts = self._split(took, before, after, self._seen(syscall))
            self.watched += took
            self.held += parts.get("gil", 0)
            within = inside and self.inside
            for kind, ns in parts.items():
                # A tick that reaches over the edge of a fetch may hold a wait for work; a held GIL is the same on both sides.
                if within or ((inside or self.inside) and kind in ("gil", "feeder")):
                    self.found[self.stage or stage, kind] += ns
            before = after
        if syscall is not None:
            os.close(syscall)

    def _split(
        self, took: int, before: dict[int, tuple[int, int]], after: dict[int, tuple[int, int]], seen: Kind | None
    ) -> dict[Kind, int]:
        own = threading.get_native_id()
        queued = after[own][1] - before[own][1] if own in before and own in after else 0
        spent = {thread: sum(now) - sum(before.get(thread, now)) for thread, now in after.items() if thread != own}
        busy = spent.pop(self._watched, took)
        feeder = spent.pop(self.feeder, 0)
        # 0.3 ms: what a sleep overshoots by itself on a busy machine
        late = max(0, took - queued - int(PERIOD * 1e9) - 300_000)
        return split_tick(took - busy, late, busy, feeder, max(spent.values(), default=0), seen)

    def _list(self) -> None:
        try:
            threads = {int(name) for name in os.listdir(clocks.TASKS)}
        except OSError:
            threads = {self._watched, threading.get_native_id()}
        for gone in self._delays.keys() - threads:
            self._delays.pop(gone).close()
        for thread in threads - self._delays.keys():
            self._delays[thread] = Delay(thread)

    def _times(self) -> dict[int, tuple[int, int]]:
        return {thread: now for thread, delay in self._delays.items() if (now := delay.read()) is not None}

    def _seen(self, syscall: int | None) -> Kind | None:
        if syscall is None:
            return None
        try:
            text = os.pread(syscall, 200, 0).decode("ascii", "replace")
        except OSError:
            return None
        words, target = text.split(), None
        if len(words) > 1 and words[0].isdigit() and int(words[0]) in _READS.get(self._machine, ()):
            try:
                target = os.readlink(f"/proc/self/fd/{int(words[1], 16)}")
            except (OSError, ValueError):
                target = None
        return kind_of(text, self._machine, target)
