"""A file that holds the last records of two writers and is read by anybody, without a lock.

One page of header, then two lanes of fixed records: the sampler writes the first, the kernel's training thread the
second. A record carries its sequence number and a checksum over both, so that one that is half written, or overwritten
while it is read, is recognised and skipped. The file belongs to its user alone (0600), and its blocks are allocated
before anybody maps it: a full disk is an error at creation and never a signal that kills a kernel.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from .records import GPU, HOST, STEP

MAGIC = b"MLSYSRNG"
VERSION = 1
HEADER = 16_384
SLOTS = 6_144  # ten minutes at 10 Hz
MOST_GPUS = 64

_GEOMETRY = struct.Struct("<8sIIIII")  # magic, version, GPUs, slots, bytes and checksum of the facts
_WISH = struct.Struct("<dd")  # monotonic time of the last reader, samples a second it wants
_COUNT = struct.Struct("<Q")
_count, _sign = _COUNT.pack_into, struct.Struct("<I").pack_into
_HEAD = struct.Struct("<IIQ")  # checksum, nothing, sequence number from 1
_WISH_AT, _COUNTS_AT, _FACTS_AT = 64, 128, 256


class RingError(Exception):
    """The file is no ring that can be read: one sentence."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Where the records of one writer lie."""

    index: int
    start: int
    values: int

    @property
    def size(self) -> int:
        return _HEAD.size + 8 * self.values

    @property
    def count_at(self) -> int:
        return _COUNTS_AT + 8 * self.index

    def at(self, sequence: int) -> int:
        return self.start + (sequence - 1) % SLOTS * self.size

    @property
    def end(self) -> int:
        return self.start + SLOTS * self.size


def lanes(gpus: int) -> tuple[Lane, Lane]:
    """Of the samples, of the steps."""
    samples = Lane(0, HEADER, len(HOST) + gpus * len(GPU))
    return samples, Lane(1, samples.end, len(STEP))


class Writer:
    """The one writer of a lane. The training thread calls `put` every step: what it needs is looked up beforehand."""

    def __init__(self, memory: mmap.mmap, lane: Lane) -> None:
        self._memory, self._lane, self._start, self._size = memory, lane, lane.start, lane.size
        self._pack = struct.Struct(f"<Q{lane.values}d").pack
        (self._sequence,) = _COUNT.unpack_from(memory, lane.count_at)

    def put(self, values: tuple[float, ...]) -> None:
        """All of the lane's values. A reader that meets the old checksum with the new body, or half of one, skips it."""
        memory, size = self._memory, self._size
        self._sequence = sequence = self._sequence + 1
        body = self._pack(sequence, *values)
        at = self._start + (sequence - 1) % SLOTS * size
        memory[at + 8 : at + size] = body
        _sign(memory, at, crc32(body))
        _count(memory, self._lane.count_at, sequence)


class Ring:
    """An open ring. `facts` is what the sampler said once about the machine; `sampler` is its process id."""

    def __init__(self, descriptor: int, path: Path, gpus: int, facts: Mapping[str, Any]) -> None:
        self._descriptor, self.path, self.gpus, self.facts = descriptor, path, gpus, facts
        self.samples, self.steps = lanes(gpus)
        self._memory: mmap.mmap | None = None

    # -- life ----------------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, path: Path, gpus: int, facts: Mapping[str, Any]) -> Ring:
        """It appears under its name only once it is whole. OSError where there is no room or no permission."""
        if gpus > MOST_GPUS:
            raise RingError(f"{gpus} GPUs do not fit into a ring, which holds {MOST_GPUS}")
        text = json.dumps(facts).encode()
        if len(text) > HEADER - _FACTS_AT:
            raise RingError("what there is to say about this machine does not fit into the ring's header")
        draft = path.with_suffix(f".{os.getpid()}.new")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _allocate(descriptor, lanes(gpus)[1].end)
            os.pwrite(descriptor, text, _FACTS_AT)
            os.pwrite(descriptor, _WISH.pack(time.monotonic(), 10.0), _WISH_AT)
            os.pwrite(descriptor, _GEOMETRY.pack(MAGIC, VERSION, gpus, SLOTS, len(text), crc32(text)), 0)
            os.replace(draft, path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            raise
        return cls(descriptor, path, gpus, facts)

    @classmethod
    def open(cls, path: Path) -> Ring:
        """RingError for a file that is none, or was spoiled; FileNotFoundError where there is none yet."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            head = os.pread(descriptor, HEADER, 0)
            if len(head) < HEADER:
                raise RingError(f"{path.name} is cut off; restart the kernel for a new one")
            magic, version, gpus, slots, length, checksum = _GEOMETRY.unpack_from(head)
            if magic != MAGIC:
                raise RingError(f"{path.name} is no ring of samples; restart the kernel for a new one")
            if version != VERSION or slots != SLOTS:
                raise RingError(f"{path.name} was written by another version of mlsys-studio; restart the kernel")
            text = head[_FACTS_AT : _FACTS_AT + min(length, HEADER)]
            if gpus > MOST_GPUS or crc32(text) != checksum or os.fstat(descriptor).st_size < lanes(gpus)[1].end:
                raise RingError(f"{path.name} is spoiled; restart the kernel for a new one")
            return cls(descriptor, path, gpus, json.loads(text))
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Writers of it may live on: the memory goes with the last of them."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def current(self) -> bool:
        """Is it still the file of that name?"""
        try:
            named = os.stat(self.path)
        except OSError:
            return False
        return (named.st_ino, named.st_dev) == (os.fstat(self._descriptor).st_ino, os.fstat(self._descriptor).st_dev)

    # -- writing and reading -------------------------------------------------------------------------------------------

    def writer(self, lane: Lane) -> Writer:
        if self._memory is None:
            self._memory = mmap.mmap(self._descriptor, self.steps.end)
        return Writer(self._memory, lane)

    def wish(self, hertz: float) -> None:
        """A reader is here, and wants that many samples a second."""
        os.pwrite(self._descriptor, _WISH.pack(time.monotonic(), hertz), _WISH_AT)

    def wished(self) -> tuple[float, float]:
        """(monotonic time of the last reader, hertz)"""
        return _WISH.unpack(os.pread(self._descriptor, _WISH.size, _WISH_AT))

    def newest(self, lane: Lane) -> int:
        """The sequence number written last, 0 before the first."""
        (newest,) = _COUNT.unpack(os.pread(self._descriptor, _COUNT.size, lane.count_at))
        return newest

    def read(self, lane: Lane, since: int = 0, most: int = SLOTS) -> list[tuple[int, tuple[float, ...]]]:
        """(sequence, values) of the records after `since`, oldest first; of more than `most`, evenly spread ones."""
        newest = self.newest(lane)
        first = max(since + 1, newest - SLOTS + 1, 1)
        stride = max(1, -(-(newest - first + 1) // most))
        wanted = range(newest - (newest - first) // stride * stride, newest + 1, stride)
        packed = self._slots(lane, first, newest)
        every = ((n, packed[(n - first) * lane.size :][: lane.size]) for n in wanted)
        return [(n, values) for n, each in every if (values := _record(lane, n, each)) is not None]

    def _slots(self, lane: Lane, first: int, last: int) -> memoryview:
        """In one piece: each system call gives the GIL away, and beside a training loop it is slow to come back."""
        begin, end = lane.at(first), lane.at(last) + lane.size
        if last < first:
            return memoryview(b"")
        if begin < end:
            return memoryview(os.pread(self._descriptor, end - begin, begin))
        rest = os.pread(self._descriptor, end - lane.start, lane.start)
        return memoryview(os.pread(self._descriptor, lane.end - begin, begin) + rest)


def _record(lane: Lane, sequence: int, packed: memoryview) -> tuple[float, ...] | None:
    if len(packed) < lane.size:
        return None
    checksum, _, found = _HEAD.unpack_from(packed)
    if found != sequence or crc32(packed[8:]) != checksum:
        return None
    return struct.unpack_from(f"<{lane.values}d", packed, _HEAD.size)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:  # macOS
        os.pwrite(descriptor, bytes(size), 0)
