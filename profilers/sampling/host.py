"""The processor's side of a sample: CPU and memory against the container's limits, and what the kernel's processes do.

Counters of the system only grow; a rate is their growth over the time between two readings. Where a file is missing
the value is unknown, never 0.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..limits import Limits
from ..pseudo_files import text
from .records import UNKNOWN

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
TREE_EVERY = 1.0  # seconds between two looks for new children


@dataclass(frozen=True, slots=True)
class Usage:
    """Of some processes together, since each began: seconds, bytes, faults; `resident` is what they hold now."""

    cpu: float = 0.0
    resident: float = 0.0
    read: float = 0.0
    written: float = 0.0
    faults: float = 0.0
    faults_minor: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, n) + getattr(other, n) for n in self.__slots__))


class Host:
    """`sample()` is a record's HOST part. `process` is the Jupyter kernel; `root` is / outside tests."""

    def __init__(self, process: int, root: Path = Path("/")) -> None:
        self.limits = Limits(root)
        self.processes: tuple[int, ...] = (process,)  # the kernel and its descendants
        self._root, self._process = root, process
        self._looked = -TREE_EVERY
        self._before: dict[str, float] = {}
        self._each: dict[int, Usage] = {}
        self._time = 0.0

    def sample(self, now: float | None = None) -> tuple[float, ...]:
        """`now` is monotonic, s. The first one knows no rates."""
        now = time.monotonic() if now is None else now
        if now - self._looked >= TREE_EVERY:
            self._looked, self.processes = now, tree(self._process, self._root)
        span, self._time = now - self._time, now
        each = {p: u for p in self.processes if (u := usage(p, self._root)) is not None}
        resident = sum(u.resident for u in each.values())
        # A process that is new or gone since the last look has no growth: sums of all would jump with it.
        grown = sum((_growth(u, self._each[p]) for p, u in each.items() if p in self._each), Usage())
        first, self._each = not self._each, each
        rates = [value / span if not first and span > 0 else UNKNOWN for value in
                 (grown.cpu, grown.read, grown.written, grown.faults, grown.faults_minor)]  # fmt: skip
        received, sent = network(self._root)
        stalled = [pressure(name, self._root) for name in ("cpu", "memory", "io")]
        return (
            now,
            time.time(),
            self._rate("cpu", self.limits.cpu_seconds(), span),
            self.limits.cpu_limit,
            rates[0],
            _known(self.limits.memory()),
            self.limits.memory_limit if math.isfinite(self.limits.memory_limit) else UNKNOWN,
            resident if each else UNKNOWN,
            rates[1],
            rates[2],
            self._rate("in", received, span),
            self._rate("out", sent, span),
            rates[3],
            rates[4],
            *stalled,
            _known(self.limits.oom_kills()),
        )

    def _rate(self, name: str, total: float | None, span: float) -> float:
        if total is None:
            return UNKNOWN
        before, self._before[name] = self._before.get(name), total
        return UNKNOWN if before is None or span <= 0 else max(0.0, total - before) / span


def tree(process: int, root: Path = Path("/")) -> tuple[int, ...]:
    """A process and its descendants, by the kernel's own lists of children."""
    found, waiting = [], [process]
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += (child for child in children(one, root) if child != os.getpid() and child not in found)
    return tuple(found)


def children(process: int, root: Path = Path("/")) -> Iterable[int]:
    """Each thread has a list of its own."""
    tasks = root / f"proc/{process}/task"
    try:
        threads = os.listdir(tasks)
    except OSError:
        return
    for thread in threads:
        yield from map(int, text(tasks / thread / "children").split())


def usage(process: int, root: Path = Path("/")) -> Usage | None:
    """Of one process; None once it is gone. Reads and writes of another user's process are 0: they cannot be read."""
    words = text(root / f"proc/{process}/stat").rpartition(")")[2].split()
    if len(words) < 22:
        return None
    moved = dict(line.split(": ") for line in text(root / f"proc/{process}/io").splitlines() if ": " in line)
    return Usage(
        cpu=(int(words[11]) + int(words[12])) / TICK,
        resident=int(words[21]) * PAGE,
        read=float(moved.get("read_bytes", 0)),
        written=float(moved.get("write_bytes", 0)),
        faults=float(words[9]),
        faults_minor=float(words[7]),
    )


def network(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """Bytes received and sent by all interfaces but loopback."""
    rows = [line.partition(":") for line in text(root / "proc/net/dev").splitlines()[2:]]
    counters = [words.split() for name, _, words in rows if name.strip() != "lo"]
    if not rows:
        return None, None
    return sum(float(c[0]) for c in counters), sum(float(c[8]) for c in counters)


def pressure(resource: str, root: Path = Path("/")) -> float:
    """Percent of the last 10 s in which some task waited for it: the container's own, else the machine's."""
    for file in (root / f"sys/fs/cgroup/{resource}.pressure", root / f"proc/pressure/{resource}"):
        for word in text(file).split():
            if word.startswith("avg10="):
                return float(word[6:])
    return UNKNOWN


def _growth(now: Usage, before: Usage) -> Usage:
    return Usage(*(max(0.0, getattr(now, n) - getattr(before, n)) for n in Usage.__slots__))


def _known(value: float | None) -> float:
    return UNKNOWN if value is None else value
