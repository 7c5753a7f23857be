"""Of a log of any size, the lines worth parsing: its beginning, its end, and what stands around a word of failure.

A few literals are looked for in blocks of bytes (`bytes.find` runs at gigabytes a second); only the lines around a hit
are decoded. A message that comes again and again, with other numbers, is taken three times. Line numbers are those of
the file.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..traces.sources import Source
from .lines import Line, parse
from .origin import origin

# What failures say, in as few texts as possible: each costs a pass over the file.
STEMS = (
    b"rror",
    b"RROR",
    b"raceback",
    b"ailed",
    b"illed",
    b" WARN ",
    b"nan",
    b"imeo",
    b"of memory",
    b"NVRM",
    b"ception",
)
METRIC = b"loss"
BEFORE, AFTER = 40, 12  # lines around a hit
HEAD, TAIL = 150, 400  # lines at both ends, read whatever they say
BLOCK = 1 << 20  # bytes
SAMPLES = 4  # metric lines a block
REPEATS = 3  # how often one message is taken
MOST_LINES = 40_000  # parsed of one file
MOST_FILES = 4096
LONGEST_LINE = 1 << 16  # bytes decoded of one line, from both ends
SMALL = 64 << 10  # bytes: read whole

_DIGITS = bytes(b"0"[0] if chr(i).isdigit() or chr(i) in "abcdefABCDEF" else i for i in range(256))
_LOGS = {".log", ".out", ".err", ".txt", ".gz", ".zst", ".json", ".stderr", ".stdout", ""}


@dataclass(slots=True)
class Input:
    """The lines read, and what was left out."""

    lines: list[Line] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_text(text: str, name: str = "") -> Input:
    read = Input()
    _take(read, [text.encode("utf-8", "replace")], name)
    return read


def read_path(path: Path) -> Input:
    """One file, or all logs of a folder. Raises `UsageError` where there is nothing to read."""
    if not path.exists():
        raise UsageError(
            f"no file or folder {str(path)!r}; name a log, a folder with one a rank, or - for standard input"
        )
    read = Input()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in _LOGS)
        if not files:
            raise UsageError(f"{str(path)!r} holds no logs ({', '.join(sorted(_LOGS - {''}))})")
        if len(files) > MOST_FILES:
            read.notes.append(f"{len(files) - MOST_FILES} files beyond the first {MOST_FILES} were not read")
        for file in files[:MOST_FILES]:
            _file(read, file, str(file.relative_to(path)), whole=False)
    else:
        _file(read, path, path.name, whole=True)
    return read


def read_stream(blocks: Iterable[bytes]) -> Input:
    read = Input()
    _take(read, blocks, "")
    return read


def _file(read: Input, path: Path, name: str, *, whole: bool) -> None:
    try:
        source = Source(path)
        blocks = source.blocks()
        first = next(blocks, b"")
    except OSError as error:
        raise UsageError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    if _binary(first):
        if whole:
            raise UsageError(f"{str(path)!r} is not a text; name a log")
        read.notes.append(f"{name}: not a text, left out")
        return
    if not first:
        read.notes.append(f"{name} is empty")
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = b"".join([first, *blocks]).decode("utf-16", "replace")
        _take(read, [text.encode("utf-8", "replace")], name)
    elif first[:1] == b"{" and source.size < SMALL:
        content = b"".join([first, *blocks])
        _take(read, [_error_file(content) or content], name)
    else:
        _take(read, _chained(first, blocks), name)
    if source.loss:
        read.notes.append(f"{name}: {source.loss}")


def _error_file(content: bytes) -> bytes | None:
    """The traceback in a torchelastic error file, which a child writes when its main is decorated with @record."""
    try:
        message = json.loads(content)["message"]
        said = (
            message
            if isinstance(message, str)
            else message.get("extraInfo", {}).get("py_callstack") or message["message"]
        )
        return str(said).encode("utf-8", "replace")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _binary(first: bytes) -> bool:
    sample = first[:4096]
    return sample[:2] not in (b"\xff\xfe", b"\xfe\xff") and sample.count(0) > len(sample) // 20


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _take(read: Input, blocks: Iterable[bytes], name: str) -> None:
    """Parse what is worth it of one source."""
    rank, host = origin(name)
    chosen, skipped = _Selection(), 0
    for block in _whole_lines(blocks):
        skipped += chosen.feed(block)
    for number, raw in chosen.lines():
        read.lines.append(parse(raw, number, name, rank, host))
    if skipped:
        what = f"{name}: " if name else ""
        read.notes.append(f"{what}{skipped} suspicious lines beyond the first {MOST_LINES} were not read")


def _whole_lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Blocks of about `BLOCK` bytes that end with a line. A line of megabytes is cut in its middle."""
    parts: list[bytes] = []
    held = 0
    for block in blocks:
        parts.append(block)
        held += len(block)
        if held < BLOCK:
            continue
        joined = b"".join(parts)
        cut = joined.rfind(b"\n") + 1
        if cut:
            yield joined[:cut]
        elif held > 4 * BLOCK:
            joined = joined[:LONGEST_LINE] + b" ... " + joined[-LONGEST_LINE:]
        parts, held = [joined[cut:]], len(joined) - cut
    if held:
        yield b"".join(parts)


class _Selection:
    """Numbers and bytes of the lines to parse, from blocks in order."""

    def __init__(self) -> None:
        self._found: dict[int, bytes] = {}
        self._before: list[bytes] = []  # the last lines of the block before
        self._number = 1  # of the block's first line
        self._open_until = 0  # a hit near the end of a block asks for lines of the next
        self._seen: dict[bytes, int] = {}
        self._ends_open = False  # the last line has no end

    def feed(self, block: bytes) -> int:
        """Look at one block; how many hits were too many."""
        skipped = 0
        if self._number <= HEAD or self._open_until >= self._number:
            last = max(HEAD, self._open_until)
            for offset, line in enumerate(block.split(b"\n", max(1, last - self._number + 1))[:-1]):
                self._keep(self._number + offset, line)
        hits = sorted(_hits(block))
        starts, number, place = _Places(block), self._number, 0
        covered = 0
        for start, end in hits:
            number += block.count(b"\n", place, start)
            place = start
            template = block[start : min(end, start + 400)].translate(_DIGITS)
            count = self._seen.get(template, 0)
            if count >= REPEATS and number > covered:
                continue
            if len(self._seen) < 4 * MOST_LINES:
                self._seen[template] = count + 1
            if len(self._found) >= MOST_LINES:
                skipped += 1
                continue
            covered = max(covered, number + AFTER)
            self._window(block, starts, start, number)
        for start in _samples(block):
            end = block.find(b"\n", start)
            self._keep(self._number + block.count(b"\n", 0, start), block[start : end if end >= 0 else len(block)])
        self._number += block.count(b"\n")
        self._before = block.rsplit(b"\n", TAIL + 1)[-TAIL - 1 :]
        if self._before and not self._before[-1]:
            self._before.pop()
        self._ends_open = not block.endswith(b"\n")
        return skipped

    def lines(self) -> Iterator[tuple[int, str]]:
        last = self._number - (not self._ends_open)
        for offset, line in enumerate(reversed(self._before)):
            self._keep(last - offset, line)
        for number in sorted(self._found):
            yield number, self._found[number].decode("utf-8", "replace").rstrip("\r\n")

    def _window(self, block: bytes, places: _Places, start: int, number: int) -> None:
        """The lines around the one that begins at `start`."""
        at = places.index(start)
        for i in range(max(0, at - BEFORE), at + AFTER + 1):
            line = places.line(i)
            if line is None:
                self._open_until = number + AFTER
                break
            self._keep(number + i - at, line)
        missing = BEFORE - at
        if missing > 0:
            for offset, line in enumerate(reversed(self._before[-missing:]), 1):
                self._keep(number - at - offset, line)

    def _keep(self, number: int, line: bytes) -> None:
        if number >= 1 and number not in self._found:
            self._found[number] = (
                line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE // 2] + b" ... " + line[-LONGEST_LINE // 2 :]
            )


class _Places:
    """Where the lines of a block begin; found only when asked for."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._starts: list[int] | None = None

    def index(self, start: int) -> int:
        return bisect.bisect_right(self._all(), start) - 1

    def line(self, i: int) -> bytes | None:
        starts = self._all()
        if i >= len(starts):
            return None
        end = starts[i + 1] - 1 if i + 1 < len(starts) else len(self._block)
        return self._block[starts[i] : end].removesuffix(b"\n")

    def _all(self) -> list[int]:
        if self._starts is None:
            starts, place, block = [0], self._block.find(b"\n"), self._block
            while 0 <= place < len(block) - 1:
                starts.append(place + 1)
                place = block.find(b"\n", place + 1)
            self._starts = starts
        return self._starts


def _hits(block: bytes) -> set[tuple[int, int]]:
    """Begin and end of every line that holds a stem."""
    found: set[tuple[int, int]] = set()
    for stem in STEMS:
        place = block.find(stem)
        while place >= 0:
            end = block.find(b"\n", place)
            end = len(block) if end < 0 else end
            found.add((block.rfind(b"\n", 0, place) + 1, end))
            place = block.find(stem, end)
    return found


def _samples(block: bytes) -> list[int]:
    """Begins of a few lines with a metric, spread over the block; all of them where it is small."""
    found: list[int] = []
    step = len(block) // SAMPLES if len(block) > SMALL else 0
    place = block.find(METRIC)
    while place >= 0:
        found.append(block.rfind(b"\n", 0, place) + 1)
        end = block.find(b"\n", place)
        if end < 0:
            break
        place = block.find(METRIC, max(end, found[-1] + step))
    return found
