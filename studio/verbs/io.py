"""`io`: the doctor of storage, and packing into shards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from ...profilers.errors import UsageError
from ..registry import verb

if TYPE_CHECKING:
    from ...profilers.storage.packing import Packed
    from ...profilers.storage.report import StorageReport
    from ...profilers.storage.shards import Progress


@verb
def io(
    path: Annotated[Path, "the folder or file that the data lies in; of a packed folder, the shards are verified"],
    *,
    need: Annotated[float | None, "MB/s that the loader reads: is it fast enough"] = None,
    checkpoint: Annotated[float | None, "GB of a checkpoint saved there: what it costs, and how often"] = None,
    step: Annotated[float, "seconds of a step, for that advice"] = 1.0,
    seconds: Annotated[float, "to measure for"] = 10.0,
    pack: Annotated[Path | None, "pack the folder's files into shards in this new folder; again goes on"] = None,
    shards: Annotated[Literal["tar", "parquet"], "of webdataset, or parquet"] = "tar",
    shard_size: Annotated[float, "MB of a shard"] = 256.0,
) -> StorageReport | Packed:
    """How fast data can be read from there: small files, page cache, cold and warm rates, traps of the filesystem."""
    for name, value in (("need", need), ("checkpoint", checkpoint), ("step", step), ("seconds", seconds), ("shard-size", shard_size)):  # fmt: skip
        if value is not None and not value > 0:
            raise UsageError(f"--{name} must be more than 0, and is {value:g}")
    if pack is not None:
        from ...profilers.storage.packing import pack_shards

        return pack_shards(path, pack, format=shards, shard_bytes=int(shard_size * 1e6), progress=_progress("packing"))
    from ...profilers.storage.shards import is_packed

    if is_packed(path):
        from ...profilers.storage.packing import verified

        return verified(path, _progress("verifying"))
    from ...profilers.storage.doctor import storage_doctor

    return storage_doctor(
        path,
        need=None if need is None else need * 1e6,
        checkpoint=None if checkpoint is None else checkpoint * 1e9,
        step=step,
        seconds=seconds,
    )


def _progress(doing: str) -> Progress:
    """A bar on stderr, where somebody looks at it."""

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            filled = 30 * done // max(1, total)
            end = "\n" if done == total else ""
            print(f"\r{doing} {'█' * filled}{'░' * (30 - filled)} {done:,}/{total:,}", end=end, file=sys.stderr, flush=True)  # fmt: skip

    return show
