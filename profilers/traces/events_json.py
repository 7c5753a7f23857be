"""Trace events out of a stream of JSON, a few thousand at a time, so that no file has to fit into memory.

A block is cut between two events, decoded into typed structs and forgotten. Whether a cut is right, the decoder says: an
array cut inside an event is truncated, and truncated arrays do not decode. What fails is mended and tried again (control
characters, NaN, bad escapes); what still fails is taken apart event by event, and the loss is counted.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from ..errors import UsageError
from .sources import Source

LARGEST = 64 << 20  # bytes: no header is longer
LARGEST_EVENT = 16 << 20
CUTS = 6  # how many ends of events to try before more of the file is read

GLOO = re.compile(rb'"backend"\s*:\s*"gloo"')
HEAD = re.compile(rb'"traceEvents"\s*:\s*\[')
BETWEEN = re.compile(rb"\}\s*,\s*(?=\{)")
END = re.compile(rb"\}\s*,?\s*(?=\])")
EVENT = re.compile(rb'(?<=\})\s*,\s*(?=\{\s*"(?:ph|name|cat|pid|tid|ts|args|id|dur)")')
UNREAL = re.compile(rb"(?<=[:,\[\s])[-+]?(?:nan|inf|infinity)(?=\s*[,}\]])", re.IGNORECASE)
ESCAPE = re.compile(rb'\\(u[0-9a-fA-F]{4}|["\\/bfnrt])|\\')
CONTROL = bytes(max(i, 32) for i in range(256))  # as white space outside strings, harmless inside

Raw = msgspec.Raw
NOT_SAID = Raw(b"")


class Args(msgspec.Struct, gc=False, frozen=True):
    """What of an event's `args` links it to others."""

    correlation: int = -1
    external: int = msgspec.field(name="External id", default=-1)
    external_old: int = msgspec.field(name="external id", default=-1)


NO_ARGS = Args()


class MessageArgs(Args, gc=False, frozen=True):
    """And what a collective says of itself, where there are any; the fields of `messages.FIELDS`."""

    group: Raw = msgspec.field(name="Process Group Ranks", default=NOT_SAID)
    group_name: Raw = msgspec.field(name="Process Group Name", default=NOT_SAID)
    collective: Raw = msgspec.field(name="Collective name", default=NOT_SAID)
    sent: Raw = msgspec.field(name="In msg nelems", default=NOT_SAID)
    dtype: Raw = msgspec.field(name="dtype", default=NOT_SAID)
    members: Raw = msgspec.field(name="Group size", default=NOT_SAID)
    target: Raw = msgspec.field(name="Dst Rank", default=NOT_SAID)


class Event(msgspec.Struct, gc=False):
    """One event; its time is kept as written, because a double would round it."""

    ph: str = ""
    cat: str | None = None
    name: str = ""
    pid: int | str | None = None
    tid: int | str | None = None
    ts: Raw = Raw(b"null")
    dur: int | float = 0
    id: int | str | None = None
    args: Args = NO_ARGS


class MessageEvent(Event, gc=False):
    args: MessageArgs = MessageArgs()  # pyright: ignore[reportIncompatibleVariableOverride]


class ShapedArgs(Args, gc=False, frozen=True):
    """And with what an operator was called, where that was recorded and is asked for."""

    dims: Raw = msgspec.field(name="Input Dims", default=NOT_SAID)
    types: Raw = msgspec.field(name="Input type", default=NOT_SAID)
    strides: Raw = msgspec.field(name="Input Strides", default=NOT_SAID)
    values: Raw = msgspec.field(name="Concrete Inputs", default=NOT_SAID)


class ShapedEvent(Event, gc=False):
    args: ShapedArgs = ShapedArgs()  # pyright: ignore[reportIncompatibleVariableOverride]


class MemoryArgs(Args, gc=False, frozen=True):
    """And what the allocator did, where that was recorded and is asked for."""

    address: int = msgspec.field(name="Addr", default=0)
    bytes: int = msgspec.field(name="Bytes", default=0)
    allocated: int = msgspec.field(name="Total Allocated", default=0)
    reserved: int = msgspec.field(name="Total Reserved", default=0)
    device_type: int = msgspec.field(name="Device Type", default=0)
    device_id: int = msgspec.field(name="Device Id", default=-1)


class MemoryEvent(Event, gc=False):
    args: MemoryArgs = MemoryArgs()  # pyright: ignore[reportIncompatibleVariableOverride]


class GlooArgs(MessageArgs, gc=False, frozen=True):
    """And what was handed to gloo, which of all that says no more than its tensors' shapes and types."""

    dims: Raw = msgspec.field(name="Input Dims", default=NOT_SAID)
    types: Raw = msgspec.field(name="Input type", default=NOT_SAID)


class GlooEvent(Event, gc=False):
    args: GlooArgs = GlooArgs()  # pyright: ignore[reportIncompatibleVariableOverride]


Detail = Literal["shapes", "memory"]  # what costs too much to be read every time
_DECODERS = {
    detail: (msgspec.json.Decoder(list[event]).decode, msgspec.json.Decoder(event).decode)
    for detail, event in (
        (None, MessageEvent),
        ("shapes", ShapedEvent),
        ("memory", MemoryEvent),
        ("alone", Event),
        ("gloo", GlooEvent),
    )
}
_each = msgspec.json.Decoder(list[Raw]).decode
_any = msgspec.json.Decoder().decode
WRONG = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class EventStream:
    """The events of one source. After `batches()` is exhausted, `header` and `losses` are complete."""

    def __init__(self, source: Source, detail: Detail | None = None) -> None:
        self._strict, self._strict_one = _DECODERS[detail]
        self._detail = detail
        self.header: dict[str, Any] = {}
        self.events = 0
        self.unreadable = 0  # further events
        self.mended = False
        self.missing_end = 0  # bytes after the last whole event
        self._source = source
        self._ended = False
        self.is_list = False
        self._rest = b""

    @property
    def losses(self) -> list[str]:
        """One sentence each."""
        said = [self._source.loss] if self._source.loss else []
        if self.missing_end:
            said.append(f"the file ends in the middle of an event: its last {self.missing_end:,} bytes are lost")
        elif not self._ended and not self.is_list and not said:
            said.append("the file is cut off after its last event")
        if self.unreadable:
            said.append(f"{self.unreadable:,} events could not be read")
        if self.mended:
            said.append("the file is no valid JSON (control characters, NaN or bad escapes): mended while reading")
        return said

    def batches(self) -> Iterator[list[Event]]:
        blocks = self._source.blocks()
        head, buffer = self._find_events(blocks)
        if self._detail is None and b'"schemaVersion"' in head and b'"distributedInfo"' not in head:
            self._strict, self._strict_one = _DECODERS["alone"]  # a rank by itself sends no messages: seven fields less
        elif self._detail is None and GLOO.search(head):
            self._strict, self._strict_one = _DECODERS["gloo"]
        tail = b""
        for block in blocks:
            if self._ended:
                tail = (tail + block)[:LARGEST]
                continue
            yield self._take(buffer, last=False)
            buffer = self._rest + block
        while not self._ended and buffer:
            yield self._take(buffer, last=True)
            if len(self._rest) == len(buffer):
                self.missing_end = len(buffer.strip(b" \t\r\n,"))
                break
            buffer = self._rest
        self.header = {} if self.is_list else _header(head, (self._rest if self._ended else b"") + tail)

    # -- where the events begin -----------------------------------------------------------------------------------

    def _find_events(self, blocks: Iterator[bytes]) -> tuple[bytes, bytes]:
        """(what comes before the first event, the bytes from there on)."""
        buffer = b""
        for block in blocks:
            buffer = (buffer + block).removeprefix(b"\xef\xbb\xbf")
            if buffer[:64].lstrip()[:1] == b"[":
                self.is_list = True
                return b"", buffer.lstrip()[1:]
            if found := HEAD.search(buffer):
                return buffer[: found.start()], buffer[found.end() :]
            if len(buffer) > LARGEST or buffer[:64].strip()[:1] not in (b"", b"{"):
                break
        raise UsageError(self._no_trace(buffer))

    def _no_trace(self, buffer: bytes) -> str:
        if not buffer.strip():
            return self._source.loss or "the file is empty: record the trace again"
        if b'"nodes"' in buffer and (b'"schema"' in buffer[:4096] or b'"start_ts"' in buffer):
            return "this is a PyTorch execution trace (a graph without times), not a timeline: pass the Kineto trace"
        found = "no `traceEvents` in it" if buffer.lstrip()[:1] == b"{" else "it is not JSON"
        return f"this is no trace, {found}: pass what torch.profiler's export_chrome_trace wrote"

    # -- a block ----------------------------------------------------------------------------------------------------

    def _take(self, buffer: bytes, last: bool) -> list[Event]:
        """The events of a block; what is left of it goes to `_rest`."""
        buffer = buffer.lstrip(b" \t\r\n,")
        if not buffer or buffer[:1] == b"]":
            return self._leave(buffer, 0, [])
        damaged = 0
        for cut in self._cuts(buffer, last):
            try:
                return self._leave(buffer, cut, self._decode(b"".join((b"[", memoryview(buffer)[:cut], b"]"))))
            except WRONG as error:
                if "trailing characters" in str(error):
                    end = _end_of_array(buffer, str(error))
                    return self._leave(buffer, end, self._decode(b"[" + buffer[: end + 1]))
                if "truncated" not in str(error):
                    damaged = cut
                    break
        if damaged or len(buffer) > LARGEST_EVENT or (last and BETWEEN.search(buffer)):
            return self._repair(buffer, damaged or (len(buffer) if last else buffer.rfind(b"}") + 1), last)
        self._rest = buffer
        return []

    def _decode(self, array: bytes) -> list[Event]:
        try:
            return self._strict(array)
        except msgspec.ValidationError:
            return self._one_by_one(_each(array))

    def _cuts(self, buffer: bytes, last: bool) -> Iterator[int]:
        """Ends of events, last ones first."""
        window = max(0, len(buffer) - (1 << 16 if last else 1 << 13))
        if last and (ends := list(END.finditer(buffer, window))):
            yield ends[-1].start() + 1
            yield ends[0].start() + 1
        between = list(BETWEEN.finditer(buffer, window))
        for found in between[: -CUTS - 1 : -1]:
            yield found.start() + 1
        if window and not between and (found := buffer.rfind(b"},")) >= 0:
            yield found + 1
        if last:
            yield len(buffer)

    def _leave(self, buffer: bytes, cut: int, events: list[Event]) -> list[Event]:
        self.events += len(events)
        rest = buffer[cut:].lstrip(b" \t\r\n,")
        if rest[:1] == b"]":
            self._ended = True
            rest = rest[1:]
        self._rest = rest
        return events

    # -- damage -------------------------------------------------------------------------------------------------------

    def _repair(self, buffer: bytes, cut: int, last: bool) -> list[Event]:
        text = _mend(buffer[:cut]).rstrip(b" ,")
        rest = buffer[cut:]
        try:
            events = self._one_by_one(_each(b"[" + text + b"]"))
            self.mended = True
        except WRONG as error:
            end = _end_of_array(text, str(error)) if "trailing characters" in str(error) else -1
            if end >= 0:
                events = self._one_by_one(_each(b"[" + text[: end + 1]))
                self.mended = True
                rest = text[end:] + rest
            else:
                events, after = self._salvage(text, last)
                rest = after + rest
        return self._leave(rest, 0, events)

    def _salvage(self, text: bytes, last: bool) -> tuple[list[Event], bytes]:
        """(every event that can be read by itself, what follows the last one)"""
        *pieces, piece = EVENT.split(text.strip(b" ,"))
        for end in END.finditer(piece) if last else ():
            with contextlib.suppress(*WRONG):
                _any(piece[: end.start() + 1])
                return self._one_by_one([*pieces, piece[: end.start() + 1]]), piece[end.end() :]
        return self._one_by_one([*pieces, piece]), b""

    def _one_by_one(self, texts: list[Any]) -> list[Event]:
        events = []
        for text in texts:
            try:
                events.append(self._strict_one(text))
            except msgspec.ValidationError:
                if (event := _coerced(text)) is not None:
                    events.append(event)
                else:
                    self.unreadable += 1
            except WRONG:
                self.unreadable += 1
        return events


def _end_of_array(text: bytes, said: str) -> int:
    """Where the bracket stands that closes the array; the decoder counts the bytes after it from 1, and one for "["."""
    at = re.search(r"byte (\d+)", said)
    return text.rfind(b"]", 0, int(at[1]) - 2) if at else -1


def _mend(text: bytes) -> bytes:
    """The same text with what JSON forbids made harmless."""
    text = text.translate(CONTROL).decode("utf-8", "replace").encode()
    text = ESCAPE.sub(lambda found: found[0] if found[1] else rb"\\", text)
    return UNREAL.sub(b"null", text)


# -- fields of the wrong type ----------------------------------------------------------------------------------------------


def _coerced(text: Any) -> Event | None:
    """An event whose fields have other types than we know, field by field; None if it is no object."""
    try:
        fields = _any(text)
    except WRONG:
        return None
    if not isinstance(fields, dict):
        return None
    args = fields.get("args")
    links = args if isinstance(args, dict) else {}
    return Event(
        ph=_text(fields.get("ph")) or "",
        cat=_text(fields.get("cat")),
        name=_text(fields.get("name")) or "",
        pid=_identity(fields.get("pid")),
        tid=_identity(fields.get("tid")),
        ts=_number(fields.get("ts")),
        dur=_length(fields.get("dur", 0)),
        id=_identity(fields.get("id")),
        args=MessageArgs(
            _whole(links.get("correlation")),
            _whole(links.get("External id")),
            _whole(links.get("external id")),
            *(Raw(_words(links.get(field))) for field in _SAID),
        ),
    )


_SAID = [field.encode_name for field in msgspec.structs.fields(MessageArgs)][3:]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None


def _words(value: Any) -> bytes:
    return str(value)[:1000].encode("utf-8", "replace") if value is not None else b""


def _identity(value: Any) -> int | str | None:
    return value if isinstance(value, int | str) else _text(value)


def _length(value: Any) -> float:
    try:
        return float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _number(value: Any) -> Raw:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return Raw(str(value).encode() if plain or isinstance(value, str) else b"null")


def _whole(value: Any) -> int:
    try:
        return int(value) if not isinstance(value, bool | None) else -1
    except (TypeError, ValueError, OverflowError):
        return -1


# -- what stands around the events -----------------------------------------------------------------------------------------


def _header(head: bytes, tail: bytes) -> dict[str, Any]:
    """The other keys of the root object, as many as can be read."""
    tail = tail if tail.strip() else b"}"
    for before in (head, head.rstrip(b" \t\r\n,"), b"{"):
        for after in (tail, b"}"):
            between = b'"traceEvents":[]' if before.rstrip().endswith((b"{", b",")) else b',"traceEvents":[]'
            try:
                header = _any(_mend(before + between + after))
            except WRONG:
                continue
            if isinstance(header, dict):
                return header
    return {}
