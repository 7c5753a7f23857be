"""Small files, shards, or memory: how much faster one process reads the same samples, and under which conditions.

    python tests/benchmarks/data_storage.py [--megabytes 64] [--folder DIR] [--turns 5]

Samples of 4 KiB, 64 KiB and 1 MiB of random bytes, as a file each (read in shuffled order), in webdataset tar and in
parquet shards (read in sequence, by their own libraries), and as bytes in a list, which are handed out and not
copied. Nothing is decoded. In turns, medians;
"cold" only where mincore says that the data was out of memory, names and inodes not: those stay in the kernel's caches.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from heading import heading

from mlsys_studio.profilers.storage import page_cache
from mlsys_studio.profilers.storage.filesystems import Filesystem
from mlsys_studio.profilers.storage.packing import pack_shards
from mlsys_studio.profilers.storage.shards import READERS, Format

SIZES = (4 << 10, 64 << 10, 1 << 20)
FORMATS: tuple[Format, ...] = ("tar", "parquet")
Way = tuple[str, list[str], Callable[[], Iterable[Any]]]  # name, files it reads, its samples


def ways(folder: Path, size: int, count: int) -> list[Way]:
    draw, files = random.Random(size), folder / "files"
    files.mkdir()
    paths = [files / f"{i:06}.bin" for i in range(count)]
    for path in paths:
        path.write_bytes(draw.randbytes(size))
    order = [str(path) for path in draw.sample(paths, count)]
    found: list[Way] = [("a file each", order, lambda: (Path(path).read_bytes() for path in order))]
    for kind in FORMATS:
        shards = pack_shards(files, folder / kind, format=kind, shard_bytes=16 << 20).shards
        names = [str(folder / kind / shard.name) for shard in shards.shards]
        found.append((f"{kind} shards", names, lambda names=names, kind=kind: (s for n in names for s in READERS[kind](Path(n)))))  # fmt: skip
    kept = [path.read_bytes() for path in paths]
    return [*found, ("a list in memory", [], lambda: map(bytes.__len__, kept))]


def rate(way: Way, count: int, cold: bool) -> float | None:
    """Samples a second; None where the files could not be put out of memory."""
    _, files, samples = way
    if cold and not page_cache.drop(files):
        return None
    began = time.perf_counter()
    assert sum(1 for _ in samples()) == count
    return count / (time.perf_counter() - began)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64, help="of each size")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the storage that is asked")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    print(heading())
    print(f"# {options.megabytes} MB of each size on {Filesystem.of(options.folder).kind}; samples/s, factor over a file each")  # fmt: skip
    for size in SIZES:
        count, folder = max(32, options.megabytes * 10**6 // size), Path(tempfile.mkdtemp(dir=options.folder))
        try:
            found = ways(folder, size, count)
            for cold in (False, True):
                measured: dict[str, list[float]] = {name: [] for name, *_ in found}
                for way in found * options.turns:
                    each = rate(way, count, cold and bool(way[1]))
                    measured[way[0]] += [] if each is None else [each]
                base = statistics.median(measured["a file each"] or [float("nan")])
                for name, rates in measured.items():
                    said = "not measured: it stays in memory" if not rates else f"{statistics.median(rates):12,.0f}/s  {statistics.median(rates) / base:8.2f}x  ({min(rates) / base:.2f} to {max(rates) / base:.2f})"  # fmt: skip
                    print(f"{size >> 10:5} KiB  {'cold' if cold else 'warm'}  {name:17} {said}", flush=True)
        finally:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
