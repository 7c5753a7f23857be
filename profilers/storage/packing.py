"""`pack_shards`: pack, verify, and say by how much reading got faster and under which conditions."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..views.sheet import Figures, Grid, Part, Row, Sheet, Shown
from ..views.units import duration, ratio, size, three
from . import page_cache
from .samples import Folder, Source, folder_or_items
from .shards import LIBRARIES, READERS, Format, Progress, Shards, pack, verify

SHARD = 256 << 20  # bytes aimed at
MOST = 500  # samples read to compare
SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Packed(Shown):
    """Samples a second by way of reading and state of the page cache; None where that was not measured."""

    shards: Shards
    seconds: float
    before_warm: float | None
    before_cold: float | None
    after_warm: float | None
    after_cold: float | None
    compared: int  # samples

    @property
    def factor_warm(self) -> float | None:
        return self.after_warm / self.before_warm if self.after_warm and self.before_warm else None

    @property
    def factor_cold(self) -> float | None:
        return self.after_cold / self.before_cold if self.after_cold and self.before_cold else None

    def to_json(self) -> str:
        body = {
            "schema_version": 1,
            "folder": str(self.shards.folder),
            "format": self.shards.format,
            "samples": self.shards.samples,
            "shards": len(self.shards.shards),
            "bytes": self.shards.bytes,
            "seconds": self.seconds,
            "samples_per_s": {"before_warm": self.before_warm, "before_cold": self.before_cold,
                              "after_warm": self.after_warm, "after_cold": self.after_cold},
            "factor": {"warm": self.factor_warm, "cold": self.factor_cold},
            "compared_samples": self.compared,
        }  # fmt: skip
        return json.dumps(body, indent=1)

    def sheet(self) -> Sheet:
        s = self.shards
        rows = tuple(
            (state, *(f"{three(x)}/s" if x else "not measured" for x in (a, b)), ratio(factor))
            for state, a, b, factor in (
                ("from memory", self.before_warm, self.after_warm, self.factor_warm),
                ("cold", self.before_cold, self.after_cold, self.factor_cold),
            )
        )
        parts: list[Part] = [
            Figures("Packed", (Row("samples", f"{s.samples:,}"), Row("shards", str(len(s.shards)), f"{s.format}, {size(s.bytes)} in all, sha256 in shards.json"),
                               Row("took", duration(self.seconds * 1e9), "with reading every sample back"))),
        ]  # fmt: skip
        if self.compared:
            parts.append(Grid("Samples read by one process", ("", "before", "shards", "factor"), rows))
        notes = (f"compared on {self.compared:,} samples: before in shuffled order, shards in sequence, as they are read; nothing decoded",) if self.compared else ()  # fmt: skip
        return Sheet(f"{s.samples:,} samples in {len(s.shards)} shards", f"{s.folder}, from {s.source}. {_READ[s.format].format(folder=s.folder)}", tuple(parts), notes)  # fmt: skip


_READ = {
    "tar": "To read: webdataset.WebDataset(sorted(glob('{folder}/*.tar')), shardshuffle=100).shuffle(1000).",
    "parquet": "To read: datasets.load_dataset('parquet', data_files='{folder}/*.parquet').",
}


def pack_shards(
    source: Any,
    folder: str | Path,
    *,
    format: Format = "tar",
    shard_bytes: int = SHARD,
    progress: Progress | None = None,
) -> Packed:
    """Pack a folder of files, or a map-style Dataset, into shards in a new folder; type it again to go on after a stop.

    progress(done, total) is called after each shard. Raises UsageError; what is packed by then is kept.
    """
    if find_spec(LIBRARIES[format]) is None:
        raise UsageError(f"{format} shards need {LIBRARIES[format]}: pip install {LIBRARIES[format]}")
    if shard_bytes < 1 << 10:
        raise UsageError(f"a shard of {shard_bytes} bytes is a small file again; give at least 1048576")
    samples = folder_or_items(source)
    if isinstance(samples, Folder) and Path(folder).resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"{folder} lies within {source} and would be packed itself; give a folder beside it")
    shards, took = pack(samples, Path(folder), format, per_shard(samples, shard_bytes), progress)
    if not isinstance(samples, Folder):
        return Packed(shards, took, None, None, None, None, 0)
    return Packed(shards, took, *compared(samples, shards))


def per_shard(samples: Source, shard_bytes: int) -> int:
    """Samples of a shard, from the mean size: of all files, or of the first few items."""
    total = samples.bytes
    if total is None:
        first = [sum(map(len, samples.sample(i)[1].values())) for i in range(min(8, len(samples)))]
        mean = sum(first) / max(1, len(first))
    else:
        mean = total / len(samples)
    return max(1, int(shard_bytes / max(1.0, mean)))


def compared(samples: Folder, shards: Shards) -> tuple[float | None, float | None, float | None, float | None, int]:
    """(before warm, before cold, after warm, after cold, samples): whole samples a second."""
    count = min(MOST, len(samples))
    order = random.Random(0).sample(range(len(samples)), count)
    paths = [str(path) for i in order for path in samples.paths(i)]
    files = [str(shards.folder / shard.name) for shard in shards.shards]

    def before() -> float:
        return _rate(lambda i: samples.sample(order[i]), count)

    def after() -> float:
        stream = (sample for file in files for sample in READERS[shards.format](Path(file)))
        return _rate(lambda _: next(stream), count)

    before_cold = before() if page_cache.drop(paths) else None
    after_cold = after() if page_cache.drop(files) else None
    before()  # into memory
    after()
    return before(), before_cold, after(), after_cold, count


def _rate(read: Callable[[int], Any], count: int) -> float:
    began, done = time.perf_counter(), 0
    for i in range(count):
        read(i)
        done += 1
        if time.perf_counter() - began > SECONDS:
            break
    return done / (time.perf_counter() - began)


def verified(folder: Path, progress: Progress | None = None) -> Packed:
    """A packed folder, every shard read again."""
    began = time.monotonic()
    return Packed(verify(folder, progress), time.monotonic() - began, None, None, None, None, 0)
