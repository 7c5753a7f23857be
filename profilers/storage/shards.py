"""Samples as shards: a few large files in place of many small ones, each with a checksum, written so that nothing is lost.

A shard is written beside its name, read back, compared with what was meant to be written, and only then renamed and put
into `shards.json`. So a run that ends in the middle goes on with the first shard that is missing, and a flipped bit is
found by `verify`. The formats are webdataset's tar and parquet, by their own libraries.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from ..views.units import size
from .samples import Sample, Source

Format = Literal["tar", "parquet"]
MANIFEST = "shards.json"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Shard:
    name: str
    first: int  # number of its first sample
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Shards:
    """A folder of shards. `source` says of what, so that another source does not go on with them."""

    folder: Path
    format: Format
    source: str
    per_shard: int
    shards: tuple[Shard, ...]
    complete: bool

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


Progress = Callable[[int, int], None]


def pack(
    source: Source, folder: Path, format: Format, per_shard: int, progress: Progress | None = None
) -> tuple[Shards, float]:
    """(the shards, seconds it took). Goes on where an earlier run ended. Raises UsageError, and keeps what is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}): give a folder that may be written") from None
    done = _earlier(source, folder, format, per_shard)
    began, total = time.monotonic(), len(source)
    _room(source, folder, done)
    while done.samples < total:
        first = done.samples
        count = min(per_shard, total - first)
        try:
            shard = _one(source, folder, format, first, count)
            more = Shards(folder, format, done.source, per_shard, (*done.shards, shard), first + count == total)
            _save(more)
        except OSError as error:
            raise UsageError(_lost(error, folder, done, total)) from error
        done = more
        if progress is not None:
            progress(done.samples, total)
    return done, time.monotonic() - began


def verify(folder: Path, progress: Progress | None = None) -> Shards:
    """Read every shard again. Raises UsageError with the first that is not what was written."""
    found = load(folder)
    for i, shard in enumerate(found.shards):
        path = folder / shard.name
        if not path.exists():
            raise UsageError(f"{path} is missing; remove it from {folder / MANIFEST} by packing again into an empty folder")  # fmt: skip
        if path.stat().st_size != shard.bytes or checksum(path) != shard.sha256:
            raise UsageError(f"{path} is damaged: its checksum is not that of what was written; delete the file and pack again, which writes only what is missing")  # fmt: skip
        if progress is not None:
            progress(i + 1, len(found.shards))
    return found


def load(folder: Path) -> Shards:
    """What `shards.json` says. Raises UsageError where it is damaged."""
    try:
        body = json.loads((folder / MANIFEST).read_text())
        shards = tuple(Shard(**each) for each in body["shards"])
        return Shards(folder, body["format"], body["source"], body["per_shard"], shards, body["complete"])
    except FileNotFoundError:
        raise UsageError(f"{folder} has no {MANIFEST}: nothing was packed there") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder / MANIFEST} cannot be read ({error}); delete it to pack again") from None


def is_packed(folder: Path) -> bool:
    return os.path.isfile(folder / MANIFEST)  # False where the folder may not be looked into


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _earlier(source: Source, folder: Path, format: Format, per_shard: int) -> Shards:
    """What an earlier run left complete, up to the first shard that is missing or damaged."""
    fresh = Shards(folder, format, source.name, per_shard, (), False)
    if not is_packed(folder):
        if any(folder.iterdir()) and not any(folder.glob("*.part")):
            raise UsageError(f"{folder} is not empty; give a new folder for the shards")
        return fresh
    old = load(folder)
    if (old.source, old.format, old.per_shard) != (source.name, format, per_shard):
        raise UsageError(f"{folder} holds {old.format} shards of {old.source}, {old.per_shard} samples each; give another folder, or the same options")  # fmt: skip
    kept: list[Shard] = []
    for shard in old.shards:
        path = folder / shard.name
        if not path.exists() or path.stat().st_size != shard.bytes or checksum(path) != shard.sha256:
            break
        kept.append(shard)
    return Shards(folder, format, source.name, per_shard, tuple(kept), len(kept) == len(old.shards) and old.complete)


def _room(source: Source, folder: Path, done: Shards) -> None:
    if source.bytes is None:
        return
    needed, free = source.bytes * 1.05 - done.bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(f"packing needs about {size(int(needed))} and {folder} has {size(free)} free; free some, or give another folder")  # fmt: skip


def _one(source: Source, folder: Path, format: Format, first: int, count: int) -> Shard:
    name = f"{first:09d}.{format}"
    part = folder / f"{name}.part"
    try:
        with open(part, "wb") as file:
            WRITERS[format](file, (source.sample(i) for i in range(first, first + count)))
            file.flush()
            os.fsync(file.fileno())
        _check(part, format, source, first, count)
        digest, written = checksum(part), part.stat().st_size
        os.replace(part, folder / name)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return Shard(name, first, count, written, digest)


def _check(part: Path, format: Format, source: Source, first: int, count: int) -> None:
    """Read back, sample by sample, against the source."""
    read = 0
    for i, sample in enumerate(READERS[format](part)):
        if sample != source.sample(first + i):
            raise UsageError(f"sample {first + i} reads back differently from {part.name}: the disk or memory is at fault; nothing of this shard was kept")  # fmt: skip
        read += 1
    if read != count:
        raise UsageError(f"{part.name} reads back {read} of {count} samples; two of the same name in {source.name}?")


def _save(shards: Shards) -> None:
    """Whole or not at all."""
    body = {"version": VERSION, "format": shards.format, "source": shards.source, "per_shard": shards.per_shard,
            "complete": shards.complete, "shards": [asdict(shard) for shard in shards.shards]}  # fmt: skip
    part = shards.folder / f"{MANIFEST}.part"
    with open(part, "w") as file:
        json.dump(body, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, shards.folder / MANIFEST)


def _lost(error: OSError, folder: Path, done: Shards, total: int) -> str:
    kept = f"{done.samples:,} of {total:,} samples are packed and kept"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{folder} is full: {kept}; free some space and type the same again, it goes on from there"
    return f"{error.strerror or error} ({error.filename or folder}): {kept}; mend that and type the same again"


# -- the two formats -----------------------------------------------------------------------------------------------------


def _write_tar(file: Any, samples: Iterator[Sample]) -> None:
    from webdataset.writer import TarWriter

    writer = TarWriter(file, encoder=False, mtime=0)  # no date in it: the same samples are the same bytes
    try:
        for key, fields in samples:
            writer.write({"__key__": key, **fields})
        writer.tarstream.close()
    except BaseException:
        # Else it would write its end when it is collected, to a file that is gone.
        writer.tarstream.fileobj.closed = True  # type: ignore[union-attr]
        raise


def _read_tar(path: Path) -> Iterator[Sample]:
    from webdataset.tariterators import group_by_keys, tar_file_expander

    with open(path, "rb") as file:
        members = tar_file_expander([{"url": str(path), "stream": file}])
        for sample in group_by_keys(members):
            yield sample["__key__"], {k: v for k, v in sample.items() if not k.startswith("__")}


def _write_parquet(file: Any, samples: Iterator[Sample]) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = [{"__key__": key, **fields} for key, fields in samples]
    names = sorted({name for row in rows for name in row if name != "__key__"})
    fields = [("__key__", pyarrow.string()), *((name, pyarrow.binary()) for name in names)]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields))
    # Small groups, because a loader reads one at a time; checksums of pages, because parquet readers can check them.
    parquet.write_table(table, file, row_group_size=256, compression="none", write_page_checksum=True)


def _read_parquet(path: Path) -> Iterator[Sample]:
    from pyarrow import parquet

    for batch in parquet.ParquetFile(path, page_checksum_verification=True).iter_batches(256):
        for row in batch.to_pylist():
            yield row.pop("__key__"), {name: value for name, value in row.items() if value is not None}


WRITERS: dict[str, Callable[[Any, Iterator[Sample]], None]] = {"tar": _write_tar, "parquet": _write_parquet}
READERS: dict[str, Callable[[Path], Iterator[Sample]]] = {"tar": _read_tar, "parquet": _read_parquet}
LIBRARIES = {"tar": "webdataset", "parquet": "pyarrow"}
