"""How fast files are read: in sequence, at random, and many small ones; from memory and from where they lie.

Every reading is bounded by bytes and seconds. "Cold" is measured on files that were put out of memory first, and only
if they verifiably were.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from . import page_cache

BLOCK = 1 << 20  # of a sequential read
RANDOM = 4096  # of a random one
MOST_BYTES = 256 << 20
Sample = Sequence[tuple[str, int]]  # (path, bytes)


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second, random reads a second, files a second, seconds. None: not measured; cold ones where not dropped."""

    sequential_warm: float | None
    sequential_cold: float | None
    random_warm: float | None
    random_cold: float | None
    files_warm: float | None  # opened, read and closed, of the small ones
    files_cold: float | None
    open_seconds: float  # median of opening and closing
    stat_seconds: float
    small_bytes: float  # mean size of the files that files_* are of


def measure(sample: Sample, seconds: float = 6.0) -> Rates:
    """Cold first, then warm: reading warms."""
    each = seconds / 6
    large = _bounded(sorted(sample, key=lambda s: -s[1]))
    small = _bounded([s for s in sample if s[1] < 64 << 10][:400])
    cold_large = page_cache.drop(path for path, _ in large)
    sequential_cold = sequential(large, each) if cold_large else None
    random_cold = None
    if cold_large and page_cache.drop(path for path, _ in large):
        random_cold = at_random(large, each)
    cold_small = bool(small) and page_cache.drop(path for path, _ in small)
    files_cold = whole_files(small, each) if cold_small else None
    return Rates(
        sequential_cold=sequential_cold,
        random_cold=random_cold,
        files_cold=files_cold,
        sequential_warm=_warm(large, each),
        random_warm=at_random(large, each) if _all_resident(large) else None,
        files_warm=(whole_files(small, each), whole_files(small, each))[1] if small else None,
        open_seconds=_median([_opened(path) for path, _ in list(sample)[:256]]),
        stat_seconds=_median([_stated(path) for path, _ in list(sample)[:256]]),
        small_bytes=statistics.fmean(size for _, size in small) if small else 0.0,
    )


def sequential(files: Sample, seconds: float) -> float | None:
    """Bytes a second, a file after the other."""
    buffer, read = bytearray(BLOCK), 0
    began = time.perf_counter()
    for path, _ in files:
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(buffer):
                read += got
                if time.perf_counter() - began > seconds:
                    return read / (time.perf_counter() - began)
    return read / max(time.perf_counter() - began, 1e-9) if read else None


def at_random(files: Sample, seconds: float, most: int = 4000) -> float | None:
    """Reads of 4 KiB a second, at places drawn over all files by their size."""
    usable = [(path, size) for path, size in files if size >= 16 * RANDOM]
    if not usable:
        return None
    draw, reads = random.Random(0), 0
    opened = {path: os.open(path, os.O_RDONLY) for path, _ in usable[:64]}
    try:
        for file in opened.values():
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)  # no reading ahead
        began = time.perf_counter()
        while reads < most and time.perf_counter() - began < seconds:
            path, size = draw.choice(usable[:64])
            os.pread(opened[path], RANDOM, draw.randrange(size // RANDOM) * RANDOM)
            reads += 1
        return reads / (time.perf_counter() - began)
    finally:
        for file in opened.values():
            os.close(file)


def whole_files(files: Sample, seconds: float) -> float | None:
    """Files a second: opened, read, closed."""
    done, began = 0, time.perf_counter()
    for path, _ in files:
        with open(path, "rb", buffering=0) as file:
            file.read()
        done += 1
        if time.perf_counter() - began > seconds:
            break
    return done / (time.perf_counter() - began) if done else None


def _warm(files: Sample, seconds: float) -> float | None:
    """The second of two passes, over what fits into the time of one."""
    sequential(files, seconds)
    return sequential(files, seconds) if _all_resident(files) else None


def _all_resident(files: Sample) -> bool:
    return (page_cache.resident_share(path for path, _ in files) or 0.0) > 0.95


def _bounded(files: Sample) -> list[tuple[str, int]]:
    kept, total = [], 0
    for path, size in files:
        if total + size > MOST_BYTES and kept:
            continue
        if os.access(path, os.R_OK):
            kept.append((path, size))
            total += size
    return kept


def _opened(path: str) -> float:
    began = time.perf_counter()
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        return 0.0
    return time.perf_counter() - began


def _stated(path: str) -> float:
    began = time.perf_counter()
    os.stat(path)
    return time.perf_counter() - began


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
