"""A saved trace as columns: what ran when, on which thread or stream, and who launched it.

`read(path)` takes Kineto's and Chrome's JSON in every dialect we have met, plain or compressed, whole or cut off. Times
are int64 ns. Nothing here is trusted, evaluated or shown unescaped.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UsageError
from .events import device_kind
from .traces.clock import INVALID, in_nanoseconds, lengths, nanoseconds
from .traces.dialects import PROCESSES, Kind, kind, known
from .traces.events_json import Args, Detail, Event, EventStream, GlooArgs, MessageArgs, ShapedArgs
from .traces.memory_events import NAME as MEMORY, MemoryColumns, MemoryEvents
from .traces.messages import FIELDS, MOST_RANKS, UNSAID, Message, message, of_gloo
from .traces.sources import Progress, Source

STEP = re.compile(r"ProfilerStep\s*#\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Trace:
    """Events sorted by start, outer before inner; one entry of every column for each. Columns are never written to.

    `name` and `lane` index `names` and `lanes`; a lane is a host thread or a device's stream, as (process, thread).
    """

    path: str
    name: np.ndarray  # int32
    kind: np.ndarray  # uint8, of `Kind`
    lane: np.ndarray  # int32
    start: np.ndarray  # int64 ns
    end: np.ndarray  # int64 ns
    correlation: np.ndarray  # int64, a launch and its kernel share it; -1: none
    external: np.ndarray  # int64, an operator and its kernels share it; -1: none
    message: np.ndarray  # int32, of `messages`; 0: the event says nothing of a collective
    call: np.ndarray  # int32, of `calls`; 0: not recorded, or not asked for
    autograd: np.ndarray  # (links, 4) int64: lane and start of an operator, lane and start of the node of its backward
    names: tuple[str, ...]
    messages: tuple[Message, ...]
    calls: tuple[tuple[bytes, ...], ...]  # an operator's dims, types, strides and values, each as JSON
    lanes: tuple[tuple[int | str | None, int | str | None], ...]
    rank: int | None
    world: int | None
    devices: tuple[str, ...]  # names, as the trace tells them
    uncounted: tuple[str, ...]  # categories nobody here knows, with their events
    warnings: tuple[str, ...]  # what could not be read, and what looks odd
    memory: MemoryEvents | None = None  # None: not asked for

    def __len__(self) -> int:
        return len(self.start)

    def of(self, *kinds: Kind) -> np.ndarray:
        """Indices of the events of these kinds, by start."""
        return np.flatnonzero(np.isin(self.kind, kinds))

    def on_device(self) -> np.ndarray:
        """Indices of kernels, copies and communication, by start; those without duration are no work."""
        return np.flatnonzero((self.kind >= Kind.COMPUTE) & (self.end > self.start))

    def codes(self, pattern: re.Pattern[str], *kinds: Kind) -> list[int]:
        """The names, as codes, that events of these kinds have and that the pattern finds something in."""
        used = np.unique(self.name[np.isin(self.kind, kinds)]).tolist()
        return [code for code in used if pattern.search(self.names[code])]

    def steps(self) -> list[tuple[int, int, int]]:
        """(number, start, end) of every ProfilerStep, by start."""
        found = {}
        for i in np.flatnonzero(np.isin(self.name, self.codes(STEP, Kind.RANGE)) & (self.kind == Kind.RANGE)):
            if number := STEP.search(self.names[self.name[i]]):
                found.setdefault(int(number[1][:18]), (int(self.start[i]), int(self.end[i])))
        return sorted(((n, a, b) for n, (a, b) in found.items()), key=lambda step: step[1])


def read(path: str | Path, progress: Progress | None = None, detail: Detail | None = None) -> Trace:
    """The trace in a file. Raises UsageError where there is none; what was lost of one is in its `warnings`.

    detail: keep what operators were called with ("shapes", half the time again), or what the allocator did ("memory").
    """
    path = Path(path)
    try:
        stream = EventStream(Source(path, progress), detail)
        columns = _Columns(detail)
        for events in stream.batches():
            columns.add(events)
        if stream.is_list and stream.unreadable and not stream.events:
            raise UsageError("this is no trace, nothing in its list is an event: pass what export_chrome_trace wrote")
        return columns.trace(str(path), stream)
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror or error}") from None


class _Codes(dict):
    """{value: its code}, a new one for every new value."""

    def __missing__(self, value: Any) -> int:
        self[value] = code = len(self)
        return code


class _Names(_Codes):
    """And which of them are a collective's."""

    def __init__(self) -> None:
        super().__init__()
        self.talking: list[int] = []

    def __missing__(self, value: Any) -> int:
        code = super().__missing__(value)
        if device_kind(value) == "comm":
            self.talking.append(code)
        return code


class _Columns:
    """Columns being filled, a batch of events at a time."""

    def __init__(self, detail: Detail | None) -> None:
        self._names, self._categories, self._lanes = _Names(), _Codes(), _Codes()
        self._messages = _Codes({UNSAID: 0})
        self._calls = _Codes({(): 0})
        self._shapes = detail == "shapes"
        self._memory = MemoryColumns() if detail == "memory" else None
        self._pieces: list[tuple[np.ndarray, ...]] = []
        self._open: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)  # of "B", by lane
        self._links: tuple[dict[Any, tuple[int, int]], dict[Any, tuple[int, int]]] = {}, {}  # by id: begun, ended
        self._scale = 0  # ns in the unit of the file; 0: not known yet
        self._skipped = 0

    def add(self, events: list[Event]) -> None:
        whole = [e for e in events if e.ph == "X"]
        if self._scale == 0 and (first := [e.ts for e in events if e.ph in ("X", "B")][:64]):
            self._scale = 1 if in_nanoseconds(first) else 1000
        if whole:
            start = nanoseconds([e.ts for e in whole], self._scale)
            self._append(whole, start, lengths([e.dur for e in whole], self._scale))
        if len(whole) < len(events):
            others = [e for e in events if e.ph != "X" and e.cat != "ac2g"]  # correlations say what those arrows do
            if halves := [e for e in others if e.ph in ("B", "E")]:
                self._pair(halves)
            if links := [e for e in others if e.cat == "fwdbwd" and e.ph in ("s", "f")]:
                self._link(links)
        if self._memory is not None and (said := [e for e in events if e.name == MEMORY and e.ph.lower() == "i"]):
            self._memory.add([(e, self._lanes[e.pid, e.tid]) for e in said], self._scale or 1000)

    def _append(self, events: Sequence[Event], start: np.ndarray, length: np.ndarray) -> None:
        good = (start != INVALID) & (length >= 0)
        if not good.all():
            self._skipped += int((~good).sum())
            events = [e for e, fine in zip(events, good.tolist(), strict=True) if fine]
            start, length = start[good], length[good]
        args = [e.args for e in events]
        external = _int64(_EXTERNAL, args)
        if (older := np.flatnonzero(external < 0)).size:  # or those who wrote it in small letters
            external[older] = _int64(_EXTERNAL_OLD, [args[i] for i in older.tolist()])
        name = self._code(self._names, map(_NAME, events), len(events))
        self._pieces.append((
            name,
            self._code(self._categories, map(_CATEGORY, events), len(events)),
            self._code(self._lanes, map(_LANE, events), len(events)),
            start,
            start + length,
            _int64(_CORRELATION, args),
            external,
            self._said(name, args),
            self._code(self._calls, map(_call, args), len(args)) if self._shapes else np.zeros(len(args), np.int32),
        ))  # fmt: skip

    @staticmethod
    def _code(codes: _Codes, values: Iterable[Any], count: int) -> np.ndarray:
        return np.fromiter(map(codes.__getitem__, values), np.int32, count)

    def _said(self, name: np.ndarray, args: list[Args]) -> np.ndarray:
        """The messages of collectives; to ask every event would take longer than to ask every name once."""
        found, names = np.zeros(len(name), np.int32), tuple[str, ...]()
        talking = np.zeros(len(self._names), bool)
        talking[self._names.talking] = True
        for i in np.flatnonzero(talking[name]).tolist():
            if isinstance(a := args[i], GlooArgs):
                names = names or tuple(self._names)
                found[i] = self._messages[of_gloo(names[name[i]], bytes(a.dims), bytes(a.types))]
            elif isinstance(a, MessageArgs):
                found[i] = self._messages[tuple(map(bytes, _MESSAGE(a)))]
        return found

    def _pair(self, halves: list[Event]) -> None:
        """Chrome's other way to say it: a begin, and later an end on the same thread."""
        times = nanoseconds([e.ts for e in halves], self._scale or 1000)  # ends alone may come first
        rows = []
        for event, time in zip(halves, times.tolist(), strict=True):
            lane = self._lanes[event.pid, event.tid]
            if time == INVALID:
                self._skipped += 1
            elif event.ph == "B":
                self._open[lane].append((self._names[event.name], self._categories[event.cat], lane, time))
            elif self._open[lane]:
                *begun, began = self._open[lane].pop()
                rows.append((*begun, began, max(began, time), -1, -1, 0, 0))
        if rows:
            columns = zip(*rows, strict=True)
            self._pieces.append(tuple(np.array(c, t) for c, t in zip(columns, _TYPES, strict=True)))

    def _link(self, links: list[Event]) -> None:
        times = nanoseconds([e.ts for e in links], self._scale or 1000).tolist()
        for event, time in zip(links, times, strict=True):
            self._links[event.ph == "f"][event.id] = self._lanes[event.pid, event.tid], time

    def _autograd(self) -> np.ndarray:
        begun, ended = self._links
        pairs = [(*begun[i], *end) for i, end in ended.items() if i in begun]
        return np.array(pairs, np.int64).reshape(-1, 4)

    def trace(self, path: str, stream: EventStream) -> Trace:
        pieces = list(zip(*self._pieces, strict=True)) or [(np.empty(0, t),) for t in _TYPES]
        self._pieces.clear()
        columns = []
        while pieces:  # so that no two columns are in memory twice
            columns.append(np.concatenate(pieces.pop(0)))
        name, category, lane, start, end, correlation, external, said, call = columns
        category = self._by_process(category, lane)
        categories = [c or "" for c in self._categories]
        pairs, inverse = np.unique(category.astype(np.int64) * len(self._names) + name, return_inverse=True)
        names = tuple(self._names)
        kinds = np.array([kind(categories[p // len(names)], names[p % len(names)]) for p in pairs.tolist()], np.uint8)
        order = _by_start(start, end)
        counts = Counter(
            {categories[c]: n for c, n in enumerate(np.bincount(category, minlength=len(categories)).tolist())}
        )
        header = stream.header
        everyone = _only_group(header)
        return Trace(
            path,
            name[order],
            (kinds[inverse] if len(kinds) else np.empty(0, np.uint8))[order],
            lane[order],
            start[order],
            end[order],
            correlation[order],
            external[order],
            said[order],
            call[order],
            self._autograd(),
            names,
            tuple(message(raw, everyone) for raw in self._messages),
            tuple(self._calls),
            tuple(self._lanes),
            *_place(header),
            tuple(_devices(header)),
            tuple(f"{c} ({n:,} events)" for c, n in counts.most_common() if n and not known(c)),
            tuple(self._warnings(stream)),
            self._memory.events() if self._memory is not None else None,
        )

    def _by_process(self, category: np.ndarray, lane: np.ndarray) -> np.ndarray:
        """Events without a category get the one their process stands for."""
        for process, meant in PROCESSES.items():
            lanes = [code for (pid, _), code in self._lanes.items() if pid == process]
            if lanes and None in self._categories:
                bare = (category == self._categories[None]) & np.isin(lane, lanes)
                category = np.where(bare, self._categories[meant], category)
        return category

    def _warnings(self, stream: EventStream) -> Iterable[str]:
        yield from stream.losses
        if self._memory is not None and self._memory.skipped:
            yield f"{self._memory.skipped:,} of the allocator's events make no sense: left out"
        if self._skipped:
            yield f"{self._skipped:,} events have no possible time or a negative duration: left out"
        if never := sum(map(len, self._open.values())):
            yield f"{never:,} events begin and never end: left out"
        if self._scale == 1:
            yield "times are taken as nanoseconds: as microseconds they would lie after the year 5000"


_NAME, _CATEGORY, _LANE = attrgetter("name"), attrgetter("cat"), attrgetter("pid", "tid")  # faster than a loop
_MESSAGE = attrgetter(*FIELDS)
_EXTERNAL, _EXTERNAL_OLD, _CORRELATION = map(attrgetter, ("external", "external_old", "correlation"))
_TYPES = (np.int32, np.int32, np.int32, np.int64, np.int64, np.int64, np.int64, np.int32, np.int32)


def _call(args: Args) -> tuple[bytes, ...]:
    if not isinstance(args, ShapedArgs) or args.dims is args.types:
        return ()
    return bytes(args.dims), bytes(args.types), bytes(args.strides), bytes(args.values)


def _int64(of: Callable[[Args], int], args: Sequence[Args]) -> np.ndarray:
    try:
        return np.fromiter(map(of, args), np.int64, len(args))
    except OverflowError:  # identities only: wrapped, they still tell events apart
        return np.array([(of(a) + 2**63) % 2**64 - 2**63 for a in args], np.int64)


def _by_start(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Indices by start, and of events that begin together the longest first. Writers leave little out of order, so that a
    stable sort has little to do, and only what is tied is sorted by its end as well."""
    order = np.argsort(start, kind="stable")
    same = np.concatenate(([False], np.diff(start[order]) == 0, [False]))
    tied = np.flatnonzero(same[1:] | same[:-1])
    among = order[tied]
    order[tied] = among[np.lexsort((-end[among], start[among]))]
    return order


def _place(header: dict[str, Any]) -> tuple[int | None, int | None]:
    """(rank, number of ranks), where the trace knows them."""
    distributed = header.get("distributedInfo")
    info = distributed if isinstance(distributed, dict) else {}
    rank, world = (info.get(k) for k in ("rank", "world_size"))
    return tuple(v if isinstance(v, int) and not isinstance(v, bool) and v >= 0 else None for v in (rank, world))  # type: ignore[return-value]


def _only_group(header: dict[str, Any]) -> tuple[int, ...]:
    """The ranks of a job that has one group; () where it has several, or does not say."""
    distributed = header.get("distributedInfo")
    groups = distributed.get("pg_config") if isinstance(distributed, dict) else None
    only = groups[0] if isinstance(groups, list) and len(groups) == 1 else None
    ranks = only.get("ranks") if isinstance(only, dict) else None
    if not isinstance(ranks, list) or len(ranks) > MOST_RANKS:
        return ()
    return tuple(ranks) if all(type(rank) is int and rank >= 0 for rank in ranks) else ()


def _devices(header: dict[str, Any]) -> list[str]:
    properties = header.get("deviceProperties")
    listed = [d for d in properties if isinstance(d, dict)] if isinstance(properties, list) else []
    return list(dict.fromkeys(str(d["name"])[:80] for d in listed if d.get("name")))
