"""What `mlsys memory --trace` says: memory over time by category, what is alive at the peak, what grows, what to recompute.

One account for a profiler's trace and for the CUDA allocator's snapshot; `blocks.py` says what a block was for.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..trace import read
from ..views.sheet import Figures, Grid, Part, Row, Sheet, Shown
from ..views.stack import Stack
from ..views.units import duration, percent, size
from .blocks import BEFORE, CATEGORIES, CODE, STAGES, Blocks, categories, stretches
from .profiled_blocks import profiled_blocks
from .snapshot_blocks import Segments, load_snapshot, snapshot_blocks
from .sources import Progress

SCHEMA_VERSION = 1
POINTS = 400  # of a timeline; the peak is among them
MOST = 12  # rows of a table on a page; the JSON has more
ENOUGH_STEPS = 4  # for growth: the first allocates what stays, the last is not over


@dataclass(frozen=True, slots=True)
class Moment:
    """ns since the recording began; bytes by category, in the order of CATEGORIES."""

    time_ns: int
    stage: str
    bytes: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.bytes)


@dataclass(frozen=True, slots=True)
class Alive:
    """Blocks at the peak that one place took for one purpose."""

    site: str  # "": before the recording, or nobody knows
    category: str
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """A place whose blocks stay: every step between the first and the last left some of them."""

    site: str
    steps: int  # that left some
    blocks: int
    bytes: int  # of these steps


@dataclass(frozen=True, slots=True)
class Recomputable:
    """A layer whose activations would not be kept if it were checkpointed. Bytes at the peak, of all its runs."""

    layer: str
    runs: int
    kept: int
    saved: int  # all but what the layer hands on


@dataclass(frozen=True, slots=True)
class TraceMemory(Shown):
    """`timeline` holds the peak. `alive` and `recomputable` are at the peak, the largest first."""

    path: str
    device: str
    length_ns: int
    timeline: tuple[Moment, ...]
    alive: tuple[Alive, ...]
    growing: tuple[Growth, ...]
    steps: int  # marked, or backward passes; fewer than 4 say nothing of growth
    recomputable: tuple[Recomputable, ...]
    reserved: int  # by the allocator, at most or when the snapshot was taken; 0: not recorded
    segments: Segments | None  # None: no snapshot
    warnings: tuple[str, ...]

    @property
    def peak(self) -> Moment:
        return max(self.timeline, key=lambda moment: moment.total)

    def to_json(self) -> str:
        fields = asdict(self)
        points = [{"time_us": m.time_ns / 1000, "stage": m.stage, "bytes": m.bytes} for m in self.timeline]
        peak = self.peak
        top = {
            "time_us": peak.time_ns / 1000,
            "stage": peak.stage,
            "bytes": peak.total,
            "by_category": dict(zip(CATEGORIES, peak.bytes, strict=True)),
        }
        head = {"schema_version": SCHEMA_VERSION, "path": self.path, "device": self.device, "peak": top}
        body = {k: fields[k] for k in ("alive", "growing", "steps", "recomputable", "reserved", "segments", "warnings")}
        return json.dumps({**head, **body, "categories": CATEGORIES, "timeline": points}, indent=1)

    def sheet(self) -> Sheet:
        parts: list[Part] = [_peak(self), _timeline(self), _alive(self)]
        parts += [part(self) for part, wanted in ((_growing, self.growing), (_recomputable, self.recomputable), (_held, self.segments)) if wanted]  # fmt: skip
        notes = list(self.warnings)
        if self.steps < ENOUGH_STEPS:
            notes.append(f"growth over steps needs {ENOUGH_STEPS} of them, and {self.steps} are in it")
        basis = "Bytes in use; what a block is for is read off its life: taken where, given back where."
        return Sheet(f"Memory of {self.device} in {Path(self.path).name}", basis, tuple(parts), tuple(notes))


def memory_of(path: Path, progress: Progress | None = None) -> TraceMemory:
    """The account of a profiler's trace with memory, or of a CUDA memory snapshot. Raises UsageError."""
    if is_snapshot(path):
        blocks, segments, said = snapshot_blocks(load_snapshot(path))
        return account(str(path), blocks, segments.reserved, segments, said)
    trace = read(path, progress, "memory")
    blocks, reserved, said = profiled_blocks(trace)
    return account(str(path), blocks, reserved, None, [*trace.warnings, *said])


def is_snapshot(path: Path) -> bool:
    """By its first bytes: a pickle, or JSON of the allocator's segments."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return False  # the reader of traces says what is wrong with it
    return head[:1] == b"\x80" or (head.lstrip()[:1] == b"{" and b'"segments"' in head and b'"traceEvents"' not in head)


def account(path: str, blocks: Blocks, reserved: int, segments: Segments | None, said: list[str]) -> TraceMemory:
    what = categories(blocks)
    table = _bytes_by_category(blocks, what)
    peak = int(table.sum(1).argmax())  # 0: before the first event
    alive = (blocks.taken < peak) & (blocks.given >= peak)
    edges = _steps(blocks)
    time = np.append(blocks.time[:1], blocks.time) if blocks.end else np.zeros(1, np.int64)
    return TraceMemory(
        path,
        blocks.device,
        int(time[-1] - time[0]),
        tuple(_thinned(blocks, table, time - time[0])),
        tuple(_places(blocks, what, alive)),
        tuple(_growth(blocks, edges)),
        len(edges),
        tuple(_layers(blocks, alive & (what == CODE["activations"]))),
        reserved,
        segments,
        tuple(said),
    )


# -- over time ---------------------------------------------------------------------------------------------------------------


def _bytes_by_category(blocks: Blocks, what: np.ndarray) -> np.ndarray:
    """(events + 1, categories): bytes in use before the first event, and after each."""
    table = np.zeros((blocks.end + 2, len(CATEGORIES)), np.int64)
    np.add.at(table, (blocks.taken + 1, what), blocks.bytes)
    np.subtract.at(table, (blocks.given + 1, what), blocks.bytes)
    table[0, CODE["there before"]] += blocks.unseen
    return np.cumsum(table[:-1], axis=0)


def _thinned(blocks: Blocks, table: np.ndarray, time: np.ndarray) -> Iterator[Moment]:
    """Of every stretch of the recording its highest instant."""
    stretch = time * (POINTS - 1) // max(1, int(time[-1]))
    totals = table.sum(1)
    order = np.lexsort((-totals, stretch))
    chosen = np.sort(order[np.append(True, np.diff(stretch[order]) > 0)])
    for i in chosen.tolist():
        stage = STAGES[blocks.stage[max(0, i - 1)]] if blocks.end else STAGES[0]
        yield Moment(int(time[i]), stage, tuple(table[i].tolist()))


# -- at the peak -------------------------------------------------------------------------------------------------------------


def _places(blocks: Blocks, what: np.ndarray, alive: np.ndarray) -> list[Alive]:
    counts: Counter[tuple[str, int]] = Counter()
    sums: Counter[tuple[str, int]] = Counter()
    for place, category, count in _rows(alive, blocks.place, what, blocks.bytes):
        key = blocks.places[place].site, category
        counts[key] += 1
        sums[key] += count
    if blocks.unseen:
        sums["", CODE["there before"]] += blocks.unseen
    found = [Alive(site, CATEGORIES[c], counts[site, c], n) for (site, c), n in sums.items()]
    return sorted(found, key=lambda a: (-a.bytes, a.site, a.category))


def _layers(blocks: Blocks, kept: np.ndarray) -> list[Recomputable]:
    """Layers of one kind together. How often a layer ran is how often the place in it that took least often did."""
    inside: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # layer: (taken, place, bytes)
    for taken, place, count in _rows(kept, blocks.taken, blocks.place, blocks.bytes):
        layer = blocks.places[place].layer
        while layer >= 0:
            inside[layer].append((taken, place, count))
            layer = blocks.layers[layer].parent
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for layer, found in inside.items():
        runs = min(Counter(place for _, place, _ in found).values())
        total, last = sum(count for *_, count in found), max(found)[2]
        for i, n in enumerate((runs, total, max(0, total - runs * last))):
            sums[blocks.layers[layer].kind][i] += n
    rows = [Recomputable(kind, *of) for kind, of in sums.items()]
    return sorted((r for r in rows if r.saved), key=lambda r: (-r.saved, r.layer))


def _rows(chosen: np.ndarray, *columns: np.ndarray) -> Iterator[tuple[int, ...]]:
    return zip(*(column[chosen].tolist() for column in columns), strict=True)


# -- over steps --------------------------------------------------------------------------------------------------------------


def _steps(blocks: Blocks) -> tuple[int, ...]:
    """The first event of each step: as marked, else of what follows a backward pass."""
    if blocks.steps:
        return blocks.steps
    number, stage = stretches(blocks.stage), blocks.stage
    first = np.flatnonzero(np.append(True, number[1:] > number[:-1])) if len(number) else np.zeros(0, np.int64)
    backward = first[stage[first] == STAGES.index("backward")].tolist()
    forward = first[stage[first] == STAGES.index("forward")]
    before = [int(forward[i]) for i in np.searchsorted(forward, backward) - 1 if i >= 0]
    return tuple(dict.fromkeys(before))


def _growth(blocks: Blocks, edges: tuple[int, ...]) -> list[Growth]:
    """Places of which every step but the first and the last left a block that is still there at the end."""
    if len(edges) < ENOUGH_STEPS:
        return []
    left = (blocks.given == blocks.end) & (blocks.taken > BEFORE)
    step = np.searchsorted(np.array(edges), blocks.taken, "right") - 1
    between = left & (step > 0) & (step < len(edges) - 1)
    by_site: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for place, number, count in _rows(between, blocks.place, step, blocks.bytes):
        by_site[blocks.places[place].site].append((number, count))
    found = [
        Growth(site, len({number for number, _ in rows}), len(rows), sum(count for _, count in rows))
        for site, rows in by_site.items()
    ]
    return sorted((g for g in found if g.steps == len(edges) - 2), key=lambda g: (-g.bytes, g.site))


# -- on a page ---------------------------------------------------------------------------------------------------------------


def _peak(m: TraceMemory) -> Figures:
    peak = m.peak
    rows = [Row("peak", size(peak.total), f"{duration(peak.time_ns)} into the recording, in the {peak.stage}")]
    for category, count in zip(CATEGORIES, peak.bytes, strict=True):
        if count:
            rows.append(Row(f"· {category}", size(count), percent(count / max(1, peak.total))))
    if m.reserved:
        rows.append(Row("reserved", size(m.reserved), "by the allocator: what the device lacks"))
    return Figures("At the peak", tuple(rows))


def _timeline(m: TraceMemory) -> Stack:
    points = tuple((moment.time_ns, moment.bytes) for moment in m.timeline)
    return Stack("Bytes in use over time", CATEGORIES, points, ("the beginning", duration(m.length_ns)), lambda n: size(int(n)))  # fmt: skip


def _alive(m: TraceMemory) -> Grid:
    rows = [(a.site or "(nobody knows)", a.category, f"{a.blocks:,}", size(a.bytes)) for a in m.alive[:MOST]]
    if rest := m.alive[MOST:]:
        rows.append((f"{len(rest)} more", "", f"{sum(a.blocks for a in rest):,}", size(sum(a.bytes for a in rest))))
    return Grid("Alive at the peak", ("taken by", "for", "blocks", "bytes"), tuple(rows), left=2)


def _growing(m: TraceMemory) -> Grid:
    rows = [(g.site or "(nobody knows)", f"{g.blocks:,}", size(g.bytes), size(g.bytes // g.steps)) for g in m.growing[:MOST]]  # fmt: skip
    return Grid("Growing: every step leaves some of it", ("taken by", "blocks", "bytes", "a step"), tuple(rows))


def _recomputable(m: TraceMemory) -> Grid:
    rows = [(r.layer, f"{r.runs:,}", size(r.kept), size(r.saved), size(r.saved // r.runs)) for r in m.recomputable[:MOST]]  # fmt: skip
    heads = ("layer", "runs", "kept for backward", "freed by checkpointing", "each")
    return Grid("What checkpointing would free at the peak, at most", heads, tuple(rows))


def _held(m: TraceMemory) -> Figures:
    s = m.segments
    assert s is not None
    rows = (
        Row("in use", size(s.allocated), f"{size(s.allocated - s.requested)} of it rounding"),
        Row("free in pieces", size(s.free), f"{percent(s.free / max(1, s.reserved))} of what is reserved; the largest piece is {size(s.largest_free)}"),
        Row("free as a whole", size(s.whole), "torch.cuda.empty_cache() gives it back"),
    )  # fmt: skip
    return Figures("What the allocator holds at the end", rows)
