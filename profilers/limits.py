"""What this container may use and what it uses, by its control group: version 2, version 1, or the whole machine.

The limit that kills is the smallest one on the way from the process's group up to the root, so the use that counts is
that group's. Page cache that can be given back is no use: a limit is only felt by what remains (the "working set").
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .pseudo_files import text

Read = Callable[[Path], float | None]


@dataclass(frozen=True, slots=True)
class Limited:
    """A resource: the folder of the group whose limit binds, and that limit; no folder: the machine's own."""

    folder: Path | None
    limit: float


class Limits:
    """Found once; what is in use is read anew each time. `root` is / outside tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._unified = (root / "sys/fs/cgroup/cgroup.controllers").exists()
        self._mine = {name: list(_upwards(root, name, path)) for name, path in _groups(root).items()}

    @cached_property
    def memory_limited(self) -> Limited:
        return self._smallest("memory", ("memory.max", "memory.limit_in_bytes"), _bytes)

    @cached_property
    def cpu_quota(self) -> Limited:
        return self._smallest("cpu", ("cpu.max", "cpu.cfs_quota_us"), _cores)

    @cached_property
    def cpu_limited(self) -> Limited:
        cores = float(cores_allowed())
        return self.cpu_quota if self.cpu_quota.limit < cores else Limited(self.cpu_quota.folder, cores)

    @property
    def memory_limit(self) -> float:
        return self.memory_limited.limit

    @property
    def cpu_limit(self) -> float:
        """Cores this process may use: its affinity, or its group's quota where that is less."""
        return self.cpu_limited.limit

    def memory_free(self) -> float | None:
        """Bytes this process may still take: the kernel's estimate for the machine, or less where its group has less."""
        machine = _meminfo(self._root).get("MemAvailable")
        used = self.memory() if self.memory_limited.folder is not None else None
        if used is None:
            return machine
        ours = max(0.0, self.memory_limit - used)
        return ours if machine is None else min(machine, ours)

    def memory(self) -> float | None:
        """Bytes in use that cannot be given back."""
        folder = self.memory_limited.folder
        if folder is None:
            return _machine_memory(self._root)
        name, cache = ("memory.current", "inactive_file") if self._unified else ("memory.usage_in_bytes", "total_inactive_file")  # fmt: skip
        used = number(folder / name)
        return None if used is None else used - _keyed(folder / "memory.stat").get(cache, 0)

    def cpu_seconds(self) -> float | None:
        """CPU time used so far by the group that is limited, else by the machine."""
        folder = self.cpu_limited.folder
        if folder is not None and self._unified:
            used = _keyed(folder / "cpu.stat").get("usage_usec")
            return None if used is None else used / 1e6
        if folder is not None:
            used = number(self._root / "sys/fs/cgroup/cpuacct" / folder.relative_to(self._root / "sys/fs/cgroup/cpu") / "cpuacct.usage")  # fmt: skip
            return None if used is None else used / 1e9
        words = text(self._root / "proc/stat").partition("\n")[0].split()
        busy = [int(words[i]) for i in (1, 2, 3, 6, 7, 8)] if len(words) > 8 else []
        return sum(busy) / os.sysconf("SC_CLK_TCK") if busy else None

    def oom_kills(self) -> float | None:
        folder = self.memory_limited.folder
        if folder is not None:
            name = "memory.events" if self._unified else "memory.oom_control"
            return _keyed(folder / name).get("oom_kill")
        return _keyed(self._root / "proc/vmstat").get("oom_kill")

    def _smallest(self, controller: str, names: tuple[str, str], read: Read) -> Limited:
        whole = memory_total(self._root) if controller == "memory" else None
        found = Limited(None, float("inf") if whole is None else whole)
        for folder in self._mine.get("" if self._unified else controller, []):
            limit = read(folder / names[0 if self._unified else 1])
            if limit is not None and limit < found.limit:
                found = Limited(folder, limit)
        return found


def cores_allowed() -> int:
    """By the affinity of this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(root: Path) -> dict[str, str]:
    """{controller: path}; of version 2 the controller is ""."""
    rows = (line.split(":", 2) for line in text(root / "proc/self/cgroup").splitlines())
    return {name: row[2] for row in rows if len(row) == 3 for name in row[1].split(",")}


def _upwards(root: Path, controller: str, path: str) -> Iterator[Path]:
    """The group's folder and those above it. A container often sees its own group at the root, under a path it lacks."""
    base = root / "sys/fs/cgroup" / controller
    folder = base / path.strip("/")
    if not folder.is_dir():
        folder = base
    while True:
        yield folder
        if folder == base:
            return
        folder = folder.parent


def _bytes(file: Path) -> float | None:
    return number(file)  # "max" is no number


def _cores(file: Path) -> float | None:
    words = text(file).split()
    if len(words) == 1 and file.name == "cpu.cfs_quota_us":
        words.append(text(file.with_name("cpu.cfs_period_us")))
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def memory_total(root: Path = Path("/")) -> int | None:
    """The machine's memory, bytes."""
    total = _meminfo(root).get("MemTotal")
    return None if total is None else int(total)


def _machine_memory(root: Path) -> float | None:
    rows = _meminfo(root)
    return rows["MemTotal"] - rows["MemAvailable"] if {"MemTotal", "MemAvailable"} <= rows.keys() else None


def _meminfo(root: Path) -> dict[str, float]:
    """/proc/meminfo in bytes."""
    rows = (line.replace(":", " ").split() for line in text(root / "proc/meminfo").splitlines())
    return {row[0]: 1024.0 * int(row[1]) for row in rows if len(row) == 3 and row[1].isdigit() and row[2] == "kB"}


def number(file: Path) -> float | None:
    """The one number in a file."""
    stated = text(file).strip()
    return float(stated) if stated.isdigit() else None


def _keyed(file: Path) -> dict[str, float]:
    """A file of "name number" lines."""
    rows = (line.split() for line in text(file).splitlines())
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}
