"""What a blocked thread waits for, seen by a second thread of its process every few milliseconds.

The second thread sleeps, and then needs the GIL. Two things tell the causes apart without root and without stopping
anything:

- How late it gets the GIL, its own wait for a core aside. A thread that blocks as it should (a read, a sleep, a lock) has
  given the GIL away, and the sampler is on time. When it is late although the watched thread was not on a CPU, somebody
  holds the GIL in C. A timer that is late itself wakes the sampler once; the GIL is waited for asleep, and wakes it again.
- /proc/self/task/<tid>/syscall: the system call the watched thread is in. A process may always read its own.

A blocked thread whose process computes in other threads meanwhile (a decoder's pool) waits for these.

The second thread is a sample of any other thread of its process, such as the one that answers the loop's request for a
tensor's memory: what keeps it from getting going keeps these as well. `delays` says what that was.
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

PERIOD = 0.004  # seconds; a tick takes about 50 µs: 1.3 % of a core, and 3 % of a thread that opens files all the time
LISTED = 25  # ticks between two looks at which threads there are
LATE = 0.5  # of the lateness: so much must be neither on the CPU nor queued for the GIL to be the cause
SLACK = 300_000  # ns: what a sleep overshoots by itself on a busy machine
Times = tuple[int, int, int]  # of a thread: ns on a core, ns queued for one, times put on one

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


def split_delay(overshoot: int, queued: int, busy: int, running: int) -> dict[str, float]:
    """Why a thread that should have gone on did not, ns by "queued" | "cpu" | "gil" | "none".

    queued: it waited for a core itself; overshoot: the rest. Above what a sleep overshoots by itself it waited for the
    GIL: of the watched thread as long as that was busy (`running` of it on a core, else queued with the GIL in its
    hands), of somebody else beyond.
    """
    late = max(0, overshoot - SLACK)
    own = min(late, busy)
    computing = own * running / busy if busy else 0.0
    return {"queued": queued + own - computing, "cpu": computing, "gil": late - own, "none": max(0, overshoot) - late}


class Sampler:
    """Watches the thread that makes it. `found` counts ns by (stage, kind) since `inside`, the perf_counter ns of a fetch's begin.

    `delays` counts ns by which the sampler itself got going later than it should, by (stage, why), inside or not.
    """

    def __init__(self) -> None:
        self.inside = 0  # outside
        self.stage = ""
        self.feeder = 0  # its thread, once it is known
        self.found: Counter[tuple[str, Kind]] = Counter()
        self.delays: Counter[tuple[str, str]] = Counter()
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
            now = time.perf_counter_ns()
            took, since = now - began, self.inside
            after = self._times()
            parts = self._split(took, before, after, self._seen(syscall), self.stage or stage)
            for kind, ns in parts.items():
                # What came before a fetch is a wait for work; a held GIL is the same on both sides of its edges.
                if kind in ("gil", "feeder"):
                    self.found[self.stage or stage, kind] += ns if inside or since else 0
                elif since:
                    self.found[self.stage or stage, kind] += min(ns, max(0, now - since))
            before = after
        if syscall is not None:
            os.close(syscall)

    def _split(
        self,
        took: int,
        before: dict[int, Times],
        after: dict[int, Times],
        seen: Kind | None,
        stage: str,
    ) -> dict[Kind, int]:
        passed = {thread: [b - a for a, b in zip(before.get(thread, now), now, strict=True)] for thread, now in after.items()}  # fmt: skip
        _, queued, times = passed.pop(threading.get_native_id(), (0, 0, 0))
        running, *_ = passed.get(self._watched, (0, 0, 0))
        spent = {thread: on_cpu + waiting for thread, (on_cpu, waiting, _) in passed.items()}
        busy = spent.pop(self._watched, took)
        feeder = spent.pop(self.feeder, 0)
        overshoot = took - queued - int(PERIOD * 1e9)
        if times < 2:  # woken once, by its timer
            overshoot = min(overshoot, SLACK)
        for why, ns in split_delay(overshoot, queued, busy, min(running, busy)).items():
            self.delays[stage if why == "cpu" else "", why] += round(ns)
        late = max(0, overshoot - SLACK)
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

    def _times(self) -> dict[int, Times]:
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
