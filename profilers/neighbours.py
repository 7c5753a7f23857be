"""What else computed meanwhile: CPU time that other processes took, from Linux's /proc. Seconds of one core.

A process of ours is this one or a descendant (loader workers, compilers). What a virtual machine's host took away
(steal) counts as others'. Elsewhere than on Linux nothing is known, and None is said.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROC = Path("/proc")
BUSY = 0.1  # of the cores: less is what an idle system does by itself


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds since some beginning, over the cores this process may use."""

    cores: int
    ours: float
    busy: float  # ours and others'
    idle: float

    @classmethod
    def now(cls, proc: Path = PROC, pid: int | None = None, cpus: Collection[int] | None = None) -> Self | None:
        """None where the system does not tell."""
        try:
            cpus = os.sched_getaffinity(0) if cpus is None else cpus
            tick = 1 / os.sysconf("SC_CLK_TCK")
            cores = [spent for core, *spent in _cores(proc) if core in cpus]
            ours = sum(_tree(proc, os.getpid() if pid is None else pid))
            idle = sum(idle + waiting for _, _, _, idle, waiting, _, _, _ in cores)  # for input and output, idle too
        except (OSError, ValueError, IndexError, AttributeError):
            return None
        everything = sum(map(sum, cores))
        return cls(len(cores), ours * tick, (everything - idle) * tick, idle * tick) if everything else None

    def since(self, before: CpuTime) -> CpuTime:
        """What was spent from `before` until this."""
        return CpuTime(self.cores, self.ours - before.ours, self.busy - before.busy, self.idle - before.idle)

    @property
    def others(self) -> float:
        """How many cores the other processes had, on average; of a difference."""
        return max(0.0, self.busy - self.ours) * self.cores / max(self.busy + self.idle, 1e-9)

    @property
    def crowded(self) -> bool:
        """They had more than was left over: some of it may have been wanted here."""
        spare = self.cores * self.idle / max(self.busy + self.idle, 1e-9)
        return self.others > max(spare, BUSY * self.cores)


def _cores(proc: Path) -> Iterator[list[int]]:
    """[core, user, nice, system, idle, iowait, irq, softirq, steal] in ticks; guests are in user and nice already."""
    for line in (proc / "stat").read_text().splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            yield [int(name[3:]), *map(int, ticks[:8])]


def _tree(proc: Path, root: int) -> Iterator[int]:
    """Ticks of the process and of each descendant, with those of the children it has waited for."""
    children, ticks = defaultdict(list), {}
    for folder in proc.iterdir():
        if folder.name.isdigit():
            try:
                # The name before the last bracket may hold blanks and brackets; behind it the fields are numbered from 3.
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
            children[int(fields[1])].append(int(folder.name))
            ticks[int(folder.name)] = sum(map(int, fields[11:15]))
    waiting = [root]
    while waiting:
        process = waiting.pop()
        yield ticks.get(process, 0)
        waiting += children[process]
