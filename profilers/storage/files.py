"""What lies under a path: how many files of which size, found in bounded time. Links are not followed."""

from __future__ import annotations

import os
import random
import stat
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

SMALL = 64 << 10  # bytes: below it opening costs more than reading, on disks as on servers
EDGES = (4 << 10, 64 << 10, 1 << 20, 16 << 20, 256 << 20, 4 << 30)  # of the histogram
MOST = 2_000_000


@dataclass(frozen=True, slots=True)
class Files:
    """`sample`: paths spread over all, with their sizes. `whole`: False where time or number ended the search."""

    count: int
    bytes: int
    folders: int
    largest_folder: int  # files in it
    small: int  # files below SMALL
    histogram: tuple[int, ...]  # by EDGES, one more than there are
    suffixes: tuple[tuple[str, int], ...]  # the most frequent
    denied: int  # folders and files that could not be looked at
    sample: tuple[tuple[str, int], ...]
    whole: bool
    seconds: float

    @property
    def mean(self) -> float:
        return self.bytes / max(1, self.count)

    @property
    def per_second(self) -> float:
        """Names and sizes found a second: what listing this folder costs."""
        return self.count / max(self.seconds, 1e-9)


def look(path: Path, seconds: float = 5.0, sample: int = 512) -> Files:
    """Raises UsageError where nothing is there, or nothing may be read."""
    try:
        folder = stat.S_ISDIR(path.stat().st_mode)
        readable = os.access(path, os.R_OK | (os.X_OK if folder else 0))
    except PermissionError:
        readable = False
    except OSError:
        raise UsageError(f"{path} does not exist; give the folder or file that your data lies in") from None
    if not readable:
        raise UsageError(f"{path} may not be read by this user; type for example: chmod -R u+rX {path}")
    began = time.monotonic()
    denied, folders = [0], Counter[str]()
    histogram, suffixes = [0] * (len(EDGES) + 1), Counter[str]()
    count = total = small = 0
    kept: list[tuple[str, int]] = []
    draw, whole = random.Random(0), True
    for name, size in _walk(path, denied):
        if len(kept) < sample:
            kept.append((name, size))
        elif (place := draw.randrange(count + 1)) < sample:  # each file is as likely (Vitter 1985, algorithm R)
            kept[place] = (name, size)
        count, total, small = count + 1, total + size, small + (size < SMALL)
        histogram[sum(size >= edge for edge in EDGES)] += 1
        suffixes[os.path.splitext(name)[1] or "none"] += 1
        folders[os.path.dirname(name)] += 1
        if count >= MOST or (count % 1024 == 0 and time.monotonic() - began > seconds):
            whole = False
            break
    if not count:
        why = f", and {denied[0]} could not be looked at" if denied[0] else ""
        raise UsageError(f"{path} holds no file{why}; give the folder that your data lies in")
    return Files(count, total, len(folders), max(folders.values()), small, tuple(histogram), tuple(suffixes.most_common(4)),
                 denied[0], tuple(kept), whole, time.monotonic() - began)  # fmt: skip


def _walk(path: Path, denied: list[int]) -> Iterator[tuple[str, int]]:
    if path.is_file():
        yield str(path), path.stat().st_size
        return
    waiting = [str(path)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in sorted(entries, key=lambda e: e.name):
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            yield entry.path, entry.stat(follow_symlinks=False).st_size
                    except OSError:
                        denied[0] += 1
        except OSError:
            denied[0] += 1
