"""Which of a file's bytes are in memory already, and how to put them out of it, without root.

mincore(2) tells page by page of a mapping; posix_fadvise(2, DONTNEED) drops clean pages that nobody maps. The kernel may
refuse silently, so a drop is believed only once mincore says so: else "cold" was not measured.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterable

PAGE = mmap.PAGESIZE
CHUNK = 1 << 30  # bytes mapped at once
UNWRITTEN = 120  # seconds: the kernel writes dirty pages after 30 (vm.dirty_expire_centisecs)
DROPPED = 0.05  # of the pages may stay: read ahead by others, or being written


def resident(path: str) -> float | None:
    """Share of the file's pages in memory; None where the system does not tell (no mincore, or no right to read)."""
    counted = _pages(path)
    return None if counted is None or not counted[1] else counted[0] / counted[1]


def resident_share(paths: Iterable[str]) -> float | None:
    """Of several files together, by pages."""
    found = [counted for path in paths if (counted := _pages(path)) is not None]
    total = sum(pages for _, pages in found)
    return sum(inside for inside, _ in found) / total if total else None


def drop(paths: Iterable[str]) -> bool:
    """Put these files out of memory; True only if they are out. What was not yet written is written first."""
    paths = list(paths)
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in paths:
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            return False
        try:
            if time.time() - os.fstat(file).st_mtime < UNWRITTEN:
                os.fsync(file)  # dirty pages stay; older ones the kernel has written by itself
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            return False
        finally:
            os.close(file)
    left = resident_share(paths)
    return left is not None and left <= DROPPED


def _pages(path: str) -> tuple[int, int] | None:
    """(in memory, in all)."""
    libc = _libc()
    if libc is None:
        return None
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        size = os.fstat(file).st_size
        if not size:
            return 0, 0
        inside = 0
        for start in range(0, size, CHUNK):
            found = _mapped(libc, file, start, min(CHUNK, size - start))
            if found is None:
                return None
            inside += found
        return inside, -(-size // PAGE)
    finally:
        os.close(file)


def _mapped(libc: ctypes.CDLL, file: int, start: int, size: int) -> int | None:
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file, start)
    if address in (None, ctypes.c_void_p(-1).value):
        return None
    try:
        vector = (ctypes.c_ubyte * (-(-size // PAGE)))()
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), vector):
            return None
        return sum(page & 1 for page in vector)
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))


def _libc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        libc.mincore  # noqa: B018 - is there one
    except (OSError, AttributeError, TypeError):
        return None
    return libc
