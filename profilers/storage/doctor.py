"""`storage_doctor`: what lies under a path, how fast it is read, and whether that is fast enough for a loader."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..limits import memory_total
from . import files, page_cache, reading
from .caching import Tier, checkpoint_every, tier
from .filesystems import Filesystem
from .report import Saving, StorageReport

SECONDS = 10.0
PROBE = 64 << 20  # bytes written to learn what a checkpoint costs
LINES = 200


def storage_doctor(
    path: str | os.PathLike[str],
    *,
    need: float | None = None,
    checkpoint: float | None = None,
    step: float = 1.0,
    seconds: float = SECONDS,
) -> StorageReport:
    """Look at the data under `path` and read samples of it, without changing anything there.

    need: bytes a second that the loader reads (the doctor of `data` says it). checkpoint: bytes of one, to be saved under
    `path`; step: seconds of a step, for the advice how often. Raises UsageError where nothing may be read.
    """
    where = Path(path)
    for name, value in (("need", need), ("checkpoint", checkpoint), ("step", step), ("seconds", seconds)):
        if value is not None and value <= 0:
            raise UsageError(f"{name} must be more than 0, and is {value:g}")
    found = files.look(where, 0.4 * seconds)
    readable = [(p, size) for p, size in found.sample if os.access(p, os.R_OK)]
    if not readable:
        raise UsageError(f"none of the files under {where} may be read by this user; type: chmod -R u+rX {where}")
    found = replace(found, denied=found.denied + len(found.sample) - len(readable))
    before = page_cache.resident_share(p for p, _ in readable)
    rates = reading.measure(readable, 0.6 * seconds)
    return StorageReport(
        path=str(where),
        files=found,
        filesystem=Filesystem.of(where),
        resident=before,
        rates=rates,
        need=need,
        tiers=tiers(found.bytes, rates),
        saving=None if checkpoint is None else saving(where, checkpoint, step),
        shm=_free(Path("/dev/shm")),
        open_files=_open_files(),
    )


def tiers(data: int, rates: reading.Rates) -> tuple[Tier, ...]:
    """Memory, and a local disk if the data lies elsewhere: what each would hold and bring."""
    memory = memory_total()
    found = []
    if memory:
        found.append(tier("half of memory", memory // 2, data, rates.sequential_cold, rates.sequential_warm))
    if (free := _free(Path(tempfile.gettempdir()))) is not None:
        found.append(tier(f"half of what is free in {tempfile.gettempdir()}", free // 2, data, None, None))
    return tuple(found)


def saving(where: Path, size: float, step: float) -> Saving:
    """Write and sync a part of a checkpoint's bytes beside the data, and a few log lines; both are removed again."""
    folder = where if where.is_dir() else where.parent
    if not os.access(folder, os.W_OK):
        raise UsageError(
            f"{folder} may not be written, so no checkpoint can be saved there; give the folder they go to"
        )
    probe = int(min(PROBE, size))
    if (free := shutil.disk_usage(folder).free) < size + probe:
        raise UsageError(f"{folder} has {free / 1e9:.1f} GB free, and a checkpoint is {size / 1e9:.1f} GB; free some, or give another folder")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix=".mlsys-probe-", dir=folder) as own:
        rate = probe / _timed(lambda: _write(Path(own) / "checkpoint", os.urandom(1 << 20), probe))
        line = _timed(lambda: _log(Path(own) / "log")) / LINES
    seconds = size / rate
    return Saving(int(size), rate, seconds, step, checkpoint_every(seconds, step), line)


def _write(path: Path, block: bytes, size: int) -> None:
    with open(path, "wb", buffering=0) as file:
        file.writelines(block for _ in range(max(1, size // len(block))))
        os.fsync(file.fileno())


def _log(path: Path) -> None:
    with open(path, "a") as file:
        for i in range(LINES):
            print(f"step {i} loss {0.1234:.4f}", file=file, flush=True)


def _timed(act: Callable[[], Any]) -> float:
    began = time.perf_counter()
    act()
    return max(time.perf_counter() - began, 1e-9)


def _free(path: Path) -> int | None:
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
