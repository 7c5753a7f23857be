"""What workers need of this machine before they are started: shared memory for batches, memory for themselves."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..forecast import free_memory

SHARE = 0.5  # of what is free: the training needs memory too


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes. None: the system does not tell, and nothing is ruled out by it."""

    shm: int | None
    memory: int | None

    @classmethod
    def now(cls, shm: Path = Path("/dev/shm")) -> Room:
        try:
            disk = os.statvfs(shm)
            free: int | None = disk.f_bavail * disk.f_frsize
        except OSError:
            free = None
        return cls(free, free_memory())

    def refusal(self, workers: int, prefetch: int, batch: int, worker: int) -> str:
        """Why so many workers do not fit, or "". batch: bytes of one; worker: of one process, its own pages only."""
        waiting = batch * workers * prefetch
        if self.shm is not None and waiting > SHARE * self.shm:
            return f"{workers} workers x {prefetch} batches of {batch >> 20} MiB need more than half of /dev/shm's free {self.shm >> 20} MiB"
        if self.memory is not None and worker * workers + waiting > SHARE * self.memory:
            return f"{workers} workers of {worker >> 20} MiB need more than half of the {self.memory >> 20} MiB of free memory"
        return ""


def batch_bytes(batch: Any) -> int:
    """Of its tensors and arrays, and of bytes and texts."""
    if hasattr(batch, "nbytes"):
        return int(batch.nbytes)
    if isinstance(batch, (bytes, bytearray, str)):
        return len(batch)
    if isinstance(batch, dict):
        return sum(map(batch_bytes, batch.values()))
    if isinstance(batch, (list, tuple)):
        return sum(map(batch_bytes, batch))
    return 0


def private_bytes(processes: Iterable[int]) -> int:
    """The largest process's own pages, which no other shares; 0 where the system does not tell."""
    found = [0]
    for pid in processes:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        found.append(sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_")))
    return max(found)
