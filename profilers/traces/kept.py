"""A large trace's columns, kept in the user's cache so that the second look at a file costs a small part of the first.

A kept file is numbers and a JSON header, nothing that could run, with a digest over all of it. It belongs to one file as it
was: path, size, time of change and this format are in its name. Whatever is wrong with it, the trace itself is read.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..ceilings import cache_folder
from ..trace import Trace, read
from .dialects import Kind
from .messages import Message
from .sources import Progress

FORMAT = 3  # to be raised with every change of what `read` finds or of how it is kept
WORTH = 256 << 10  # bytes of a trace file: what is smaller is read in no time
MOST = 1 << 30  # bytes of all that is kept; the longest unused goes first
DIGEST = 16  # bytes
COLUMNS = ("name", "kind", "lane", "start", "end", "correlation", "external", "message", "call")
TYPES = dict(zip(COLUMNS, (np.int32, np.uint8, np.int32, *[np.int64] * 4, np.int32, np.int32), strict=True))
NARROW = ("u1", "u2", "u4", "i1", "i2", "i4")  # the first that holds a column, else all 8 bytes


class Header(msgspec.Struct, frozen=True):
    columns: dict[str, str]  # numpy's name of the type each is written in
    events: int
    first: int  # ns, the earliest start: others are kept as differences to the one before
    names: tuple[str, ...]
    messages: tuple[Message, ...]
    lanes: tuple[tuple[int | str | None, int | str | None], ...]
    rank: int | None
    world: int | None
    devices: tuple[str, ...]
    autograd: tuple[tuple[int, int, int, int], ...]
    uncounted: tuple[str, ...]
    warnings: tuple[str, ...]


def read_kept(path: Path, progress: Progress | None = None) -> Trace:
    """As `read(path)`, from what an earlier call kept if the file has not changed since. Raises UsageError."""
    before = _name(path)
    if before is None:
        return read(path, progress)
    place = cache_folder() / "traces" / before
    with suppress(OSError, ValueError, msgspec.MsgspecError):
        trace = _unpacked(place.read_bytes(), str(path))
        os.utime(place)
        return trace
    trace = read(path, progress)
    with suppress(OSError, ValueError, UnicodeError):  # a full disk, a home that cannot be written
        if _name(path) == before:
            _keep(_packed(trace), place)
    return trace


def _name(path: Path) -> str | None:
    """None where keeping is not worth it."""
    try:
        about = path.stat()
    except OSError:
        return None  # whoever reads it says why
    if about.st_size < WORTH:
        return None
    key = f"{path.resolve()}\0{about.st_size}\0{about.st_mtime_ns}\0{FORMAT}"
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".columns"


def _keep(content: bytes, place: Path) -> None:
    """Whole or not at all; then as much of the rest goes as is too much."""
    if len(content) > MOST // 4:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, suffix=".part", delete=False) as file:
        try:
            file.write(content)
            file.close()
            Path(file.name).replace(place)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
    found = [(p.stat().st_mtime, p.stat().st_size, p) for p in place.parent.iterdir()]
    room = MOST
    for _, size, path in sorted(found, reverse=True):
        room -= size
        if room < 0:
            path.unlink(missing_ok=True)


# -- bytes ---------------------------------------------------------------------------------------------------------------------


def _packed(trace: Trace) -> bytes:
    columns: dict[str, np.ndarray[Any, Any]] = {c: getattr(trace, c) for c in COLUMNS}
    columns["start"], columns["end"] = np.diff(trace.start, prepend=trace.start[:1]), trace.end - trace.start
    written = {c: column.astype(_narrow(column)) for c, column in columns.items()}
    others = {f.name: getattr(trace, f.name) for f in fields(trace) if f.name in Header.__struct_fields__}
    others["autograd"] = trace.autograd.tolist()
    header = Header(
        columns={c: column.dtype.str for c, column in written.items()},
        events=len(trace),
        first=int(trace.start[0]) if len(trace) else 0,
        **others,
    )
    head = msgspec.json.encode(header)
    body = b"".join([len(head).to_bytes(8, "little"), head, *(written[c].tobytes() for c in COLUMNS)])
    return hashlib.blake2b(body, digest_size=DIGEST).digest() + body


def _narrow(column: np.ndarray) -> str:
    if not len(column):
        return "<u1"
    low, high = int(column.min()), int(column.max())
    fits = (t for t in NARROW if np.iinfo(t).min <= low and high <= np.iinfo(t).max)
    return f"<{next(fits, 'i8')}"


def _unpacked(content: bytes, path: str) -> Trace:
    """Raises ValueError where anything is not as `_packed` wrote it."""
    body = memoryview(content)[DIGEST:]
    if hashlib.blake2b(body, digest_size=DIGEST).digest() != content[:DIGEST]:
        raise ValueError("damaged")
    at = 8 + int.from_bytes(body[:8], "little")
    header = msgspec.json.decode(body[8:at], type=Header)
    columns = {}
    for c in COLUMNS:
        kept = np.dtype(header.columns[c])
        columns[c] = np.frombuffer(body, kept, header.events, at).astype(TYPES[c])
        at += kept.itemsize * header.events
    columns["start"] = header.first + np.cumsum(columns["start"])
    columns["end"] += columns["start"]
    sizes = {
        "name": len(header.names),
        "lane": len(header.lanes),
        "message": len(header.messages),
        "kind": len(Kind),
        "call": 1,
    }
    if any(len(columns[c]) and not 0 <= columns[c].min() <= columns[c].max() < n for c, n in sizes.items()):
        raise ValueError("a code of nothing")
    others = {
        name: getattr(header, name) for name in Header.__struct_fields__ if name not in ("columns", "events", "first")
    }
    others["autograd"] = np.array(header.autograd, np.int64).reshape(-1, 4)
    return Trace(path, **columns, calls=((),), **others)
