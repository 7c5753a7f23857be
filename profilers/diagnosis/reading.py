"""Of a log of any size, the lines worth parsing: its beginning, its end, and what stands around a word of failure.

A few literals are looked for in blocks of bytes (`bytes.find` runs at gigabytes a second); only the lines around a hit
are decoded. A message that comes again and again, with other numbers, is taken three times. Line numbers are those of
the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UsageError
from ..traces.sources import Source
from .lines import Line, parse
from .origin import attributed, origin

# What failures say, in as few texts as possible: each costs a pass over the file. In large ones only the common are
# looked for: what the others find seldom stands alone there (nearly every traceback ends with an ...Error), and the ends
# are read whatever they say.
COMMON = (b"rror", b"ailed", b"nan", b"of memory")
STEMS = (*COMMON, b"raceback", b"RROR", b"illed", b" WARN ", b"imeo", b"NVRM", b"ception")
LARGE = 4 << 20  # bytes
METRIC = b"loss"
BEFORE, AFTER = 40, 12  # lines around a hit
HEAD, TAIL = 150, 400  # lines at both ends, read whatever they say
BLOCK = 1 << 20  # bytes
SAMPLES = 4  # metric lines a block
REPEATS = 3  # how often one message is taken
MOST_LINES = 12_000  # parsed of one file
MOST_FILES = 4096
LONGEST_LINE = 1 << 16  # bytes decoded of one line, from both ends
SMALL = 64 << 10  # bytes: read whole

_DIGITS = bytes(b"0"[0] if chr(i).isdigit() or chr(i) in "abcdefABCDEF" else i for i in range(256))
_CONTROLS = bytes({*range(32)} - {*b"\b\t\n\r\f\x1b"})  # no text holds many
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
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return sample[:2] not in (b"\xff\xfe", b"\xfe\xff") and controls > len(sample) // 20


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _take(read: Input, blocks: Iterable[bytes], name: str) -> None:
    """Parse what is worth it of one source."""
    rank, host = origin(name)
    chosen, skipped = _Selection(), 0
    for block in _whole_lines(blocks):
        skipped += chosen.feed(block)
    read.lines += attributed(parse(raw, number, name, rank, host) for number, raw in chosen.lines())
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
        self._wanted = HEAD  # lines up to here are kept, whatever they say
        self._seen: dict[bytes, int] = {}
        self._size = 0
        self._ends_open = False  # the last line has no end

    def feed(self, block: bytes) -> int:
        """Look at one block; how many hits were too many."""
        self._size += len(block)
        if self._number <= self._wanted:
            for offset, line in enumerate(block.split(b"\n", self._wanted - self._number + 1)[:-1]):
                self._keep(self._number + offset, line)
        hits = _hits(block, COMMON if self._size > LARGE else STEMS)
        skipped, number, place = 0, self._number, 0
        for start, end, suspicious in sorted([*hits, *_samples(block)]):
            number += block.count(b"\n", place, start)
            place = start
            if not suspicious:
                self._keep(number, block[start:end])
            elif self._new(block[start : min(end, start + 300)]):
                if len(self._found) >= MOST_LINES:
                    skipped += 1
                else:
                    self._window(block, start, number)
        self._number = number + block.count(b"\n", place)
        self._before = block.rsplit(b"\n", TAIL + 1)[-TAIL - 1 :]
        self._ends_open = not block.endswith(b"\n")
        if not self._ends_open:
            self._before.pop()
        return skipped

    def lines(self) -> Iterator[tuple[int, str]]:
        last = self._number - (not self._ends_open)
        for offset, line in enumerate(reversed(self._before)):
            self._keep(last - offset, line)
        for number in sorted(self._found):
            yield number, self._found[number].decode("utf-8", "replace").rstrip("\r\n")

    def _new(self, line: bytes) -> bool:
        template = line.translate(_DIGITS, b" ")
        count = self._seen.get(template, 0)
        if count < REPEATS and len(self._seen) < 4 * MOST_LINES:
            self._seen[template] = count + 1
        return count < REPEATS

    def _window(self, block: bytes, start: int, number: int) -> None:
        """The lines around the one that begins at `start`."""
        end, at = start - 1, number
        for back in range(1, BEFORE + 1):  # towards the block's beginning, and on into the one before
            if end < 0:
                for offset, line in enumerate(reversed(self._before[-(BEFORE + 1 - back) :])):
                    self._keep(at - 1 - offset, line)
                break
            begin = block.rfind(b"\n", 0, end) + 1
            at = number - back
            if at in self._found:
                break
            self._keep(at, block[begin:end])
            end = begin - 1
        begin = start
        for ahead in range(AFTER + 1):
            end = block.find(b"\n", begin)
            if end < 0:
                self._keep(number + ahead, block[begin:])
                self._wanted = number + AFTER
                return
            self._keep(number + ahead, block[begin:end])
            begin = end + 1

    def _keep(self, number: int, line: bytes) -> None:
        if number >= 1 and number not in self._found:
            half = LONGEST_LINE // 2
            self._found[number] = line if len(line) <= LONGEST_LINE else line[:half] + b" ... " + line[-half:]


def _hits(block: bytes, stems: Iterable[bytes]) -> set[tuple[int, int, bool]]:
    """Begin and end of every line that holds a stem."""
    found: set[tuple[int, int, bool]] = set()
    for stem in stems:
        place = block.find(stem)
        while place >= 0:
            end = block.find(b"\n", place)
            end = len(block) if end < 0 else end
            found.add((block.rfind(b"\n", 0, place) + 1, end, True))
            place = block.find(stem, end)
    return found


def _samples(block: bytes) -> list[tuple[int, int, bool]]:
    """Begin and end of a few lines with a metric, spread over the block; of all of them where it is small."""
    found: list[tuple[int, int, bool]] = []
    step = len(block) // SAMPLES if len(block) > SMALL else 0
    place = block.find(METRIC)
    while place >= 0:
        start, end = block.rfind(b"\n", 0, place) + 1, block.find(b"\n", place)
        if end < 0:
            break
        found.append((start, end, False))
        place = block.find(METRIC, max(end, start + step))
    return found
