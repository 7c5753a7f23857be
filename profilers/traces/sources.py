"""The bytes of a trace file, block by block: plain, gzip or Zstandard, told apart by their first bytes.

A file may be cut off, damaged or a decompression bomb. What can be read is read; `Source.loss` says what happened to the
rest. (A thread that decompresses ahead was tried and lost: on two cores it fought the decoder for the interpreter's lock.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

try:
    from zlib_ng import zlib_ng as zlib  # zlib's own interface, three times as fast
except ImportError:  # a bare GPU box
    import zlib

from ..errors import UsageError

BLOCK = 1 << 19  # decompressed bytes at a time: fits the cache of a core, and is soon forgotten
RATIO = 300  # no trace shrinks more: Kineto's own reach 60
BOMB = 256 << 20  # below this many bytes a ratio harms nobody

Progress = Callable[[int, int], None]  # (bytes of the file read, all of them)


class Source:
    """One trace file. `blocks()` yields its decompressed bytes; `loss` is a sentence if not all could be had."""

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.read = 0  # bytes of the file
        self.given = 0  # decompressed bytes
        self.loss = ""
        self._progress = progress

    def blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            for block in self._pieces(file):
                self.given += len(block)
                if self._progress is not None:
                    self._progress(self.read, self.size)
                if self.given > BOMB and self.given > RATIO * max(1, self.read):
                    self.loss = (
                        f"reading stopped after {self.given >> 20} MiB: the file expands more than {RATIO} times"
                    )
                    return
                yield block

    def _pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        magic = file.read(4)
        file.seek(0)
        if magic[:2] == b"\x1f\x8b":
            return self._gzip(file)
        if magic == b"\x28\xb5\x2f\xfd":
            return self._zstandard(file)
        return self._plain(file)

    def _plain(self, file: IO[bytes]) -> Iterator[bytes]:
        while block := file.read(BLOCK):
            self.read += len(block)
            yield block

    def _gzip(self, file: IO[bytes]) -> Iterator[bytes]:
        """Every member of the file, each as far as it goes."""
        inflater, waiting = zlib.decompressobj(31), b""
        try:
            while True:
                if not waiting:
                    waiting = file.read(BLOCK // 4)
                    self.read += len(waiting)
                    if not waiting:
                        break
                block = inflater.decompress(waiting, BLOCK)
                waiting = inflater.unconsumed_tail
                if block:
                    yield block
                if inflater.eof:
                    waiting = inflater.unused_data.lstrip(b"\0") or file.read(BLOCK // 4).lstrip(b"\0")
                    if not waiting:
                        return
                    inflater = zlib.decompressobj(31)
            while block := inflater.decompress(inflater.unconsumed_tail, BLOCK):
                yield block
            self.loss = "the compressed file is cut off"
        except zlib.error as error:  # pyright: ignore[reportGeneralTypeIssues]  its stub calls it a plain Exception
            self.loss = f"the compressed file is damaged ({error})"

    def _zstandard(self, file: IO[bytes]) -> Iterator[bytes]:
        stream, failure = _zstandard_stream(file)
        try:
            while block := stream.read(BLOCK):
                self.read = file.tell()
                yield block
        except failure as error:
            self.loss = f"the compressed file is damaged ({error})"


def _zstandard_stream(file: IO[bytes]) -> tuple[Any, type[Exception] | tuple[type[Exception], ...]]:
    """A reader and what it raises: Python's own from 3.14 on, else the package."""
    try:
        from compression import zstd  # type: ignore[import-not-found]

        return zstd.ZstdFile(file), (zstd.ZstdError, EOFError)
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise UsageError(
            "a .zst file needs a package that is not installed: pip install 'mlsys-studio[zst]', or unpack it with `unzstd`"
        ) from None
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        file, read_across_frames=True
    ), zstandard.ZstdError
