"""What the workers wrote, as means a batch: each stage's time by how it went. Pure functions over records.

    parts[stage, how]   ns a batch; how is "cpu", "queued", or what a blocked thread waited for (waiting.Kind)

The parts of a worker add up to the wall time of its `fetch`, whatever was sampled and whatever was not seen.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .clocks import NOTHING, Spent

REST = "fetcher"  # time in fetch outside every stage
Parts = Mapping[tuple[str, str], float]
COLLATE = "collate"


@dataclass(frozen=True, slots=True)
class Feed:
    """The feeder thread's part of a batch, ns and bytes: pickling and writing to the pipe."""

    pickle_wall: float = 0.0
    pickle_cpu: float = 0.0
    send_wall: float = 0.0
    send_cpu: float = 0.0
    bytes: float = 0.0

    @property
    def work(self) -> float:
        """ns it takes by itself: its wall time is the GIL's, and the reader's, who may be busy."""
        return self.pickle_cpu + self.send_cpu


@dataclass(frozen=True, slots=True)
class Worker:
    """One fetching process, means a batch. `walls`: each batch's ns, in order; `starts`: when each began."""

    number: int
    walls: tuple[int, ...]
    starts: tuple[int, ...]
    parts: Parts
    process_cpu: float  # of all its threads, from one fetch to the next
    feed: Feed
    bytes_read: float | None  # None: the system does not tell
    from_device: float | None
    major_faults: float | None
    opens: float
    file_cpu: float | None  # ns of opening, reading and closing one of its files; None: it opens none, or too few
    file_size: float | None
    samples: float  # of a batch
    delays: Parts = field(default_factory=dict)  # why its other threads get going late, by (stage, why), as shares
    init: int = 0  # ns in the user's worker_init_fn
    draws: tuple[str, ...] = ()  # names of the random states that a fetch moved on

    @property
    def wall(self) -> float:
        return statistics.fmean(self.walls)

    def of(self, how: str) -> float:
        return sum(ns for (_, each), ns in self.parts.items() if each == how)


def read_records(path: Path) -> list[dict[str, Any]]:
    """The lines of one worker; a last line cut off by its death is left out."""
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def read_workers(folder: Path, began: int, ended: int) -> tuple[Worker, ...]:
    """Of the files that the workers wrote there, those that fetched within [began, ended)."""
    found = []
    for path in sorted(folder.glob("*.jsonl"), key=lambda path: int(path.stem)):
        each = worker(int(path.stem), read_records(path), began, ended)
        if each is not None:
            found.append(each)
    return tuple(found)


def worker(number: int, records: Sequence[Mapping[str, Any]], began: int, ended: int) -> Worker | None:
    """Means over the batches whose fetch began within [began, ended); None where there was none."""
    batches = [r for r in records if "spent" in r and began <= r["began"] < ended]
    if not batches:
        return None
    price = next((r["file"] for r in records if r.get("file")), None)
    n = len(batches)
    read = [r["read"] for r in batches if r["read"] is not None]
    feeds = [r["feed"] for r in batches]

    def fed(key: str) -> float:
        return sum(feed.get(key, 0) for feed in feeds) / n

    def bytes_of(column: int) -> float | None:
        return statistics.fmean(each[column] for each in read) if read else None

    waits = waited(batches)
    total: Counter[tuple[str, str]] = Counter()
    for record in batches:
        total.update(split(record, waits))
    return Worker(
        number=number,
        walls=tuple(r["spent"][0] for r in batches),
        starts=tuple(r["began"] for r in batches),
        parts={key: ns / n for key, ns in total.items() if ns},
        process_cpu=_process_cpu(batches),
        feed=Feed(*(fed(key) for key in ("pickle_wall", "pickle_cpu", "send_wall", "send_cpu", "bytes"))),
        bytes_read=bytes_of(0),
        from_device=bytes_of(2),
        major_faults=bytes_of(3),
        opens=_opens(records, batches),
        file_cpu=price[0] if price else None,
        file_size=price[1] if price else None,
        samples=sum(r["size"] for r in batches) / n,
        delays=_delays(batches),
        init=next((r["init"] for r in records if "init" in r), 0),
        draws=tuple(dict.fromkeys(name for r in records for name in r.get("draws", ()))),
    )


def _process_cpu(batches: Sequence[Mapping[str, Any]]) -> float:
    """A fetch's own CPU time, or that of whole turns where there are several: the feeder thread works between fetches."""
    first, last = batches[0], batches[-1]
    between = (last["process_at"] - first["process_at"]) / (len(batches) - 1) if len(batches) > 1 else 0.0
    return max(between, statistics.fmean(r["process_cpu"] for r in batches))


def _opens(records: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]]) -> float:
    """Files a batch, of those batches in which they were counted; before these, where none of these was."""
    for group in (batches, records):
        counted = [r["opens"] for r in group if r.get("opens") is not None]
        if counted:
            return statistics.fmean(counted)
    return 0.0


def _delays(batches: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """Shares, of what was counted between the first of these batches and the last."""
    found = Counter({(stage, why): ns for stage, why, ns in batches[-1]["delays"]})
    found.subtract({(stage, why): ns for stage, why, ns in batches[0]["delays"]})
    total = sum(ns for ns in found.values() if ns > 0)
    return {key: ns / total for key, ns in found.items() if ns > 0}


Waits = Mapping[str, Mapping[str, float]]  # what a stage's blocked time waited for, in shares; "" of all stages


def waited(records: Iterable[Mapping[str, Any]]) -> Waits:
    """Over all batches: a wait is seen every few milliseconds, and a short stage may not be seen in each of them."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        for stage, kind, ns in record["waits"]:
            seen[stage][kind] += ns
            seen[""][kind] += ns
    return {
        stage: {kind: ns / kinds.total() for kind, ns in kinds.items()}
        for stage, kinds in seen.items()
        if kinds.total()
    }


def split(record: Mapping[str, Any], waits: Waits) -> dict[tuple[str, str], float]:
    """One batch's wall time by stage and how; the parts add up to it."""
    whole = Spent(*record["spent"])
    stages = scaled(whole, {name: Spent(*spent) for name, spent in record["stages"].items()}, record["timed"], record["size"])  # fmt: skip
    parts: dict[tuple[str, str], float] = defaultdict(float)
    for stage, (wall, cpu, queued) in stages.items():
        parts[stage, "cpu"] += cpu
        parts[stage, "queued"] += queued
        for kind, share in (waits.get(stage) or waits.get("") or {"blocked": 1.0}).items():
            parts[stage, kind] += share * (wall - cpu - queued)
    return {key: ns for key, ns in parts.items() if ns}


def scaled(whole: Spent, stages: Mapping[str, Spent], timed: int, size: int) -> dict[str, tuple[float, float, float]]:
    """(wall, cpu, queued) by stage, adding up to the whole: what was sampled stands for the samples that were not.

    The batch's own clocks bound each sum, so sampling moves time between stages and never changes how it went.
    """
    collate = _within(stages.get(COLLATE, NOTHING), whole)
    rest = _triple(whole - collate)
    sampled = {name: _triple(spent) for name, spent in stages.items() if name != COLLATE}
    seen = [sum(each[i] for each in sampled.values()) for i in range(3)]
    factors = [1.0, 1.0, 1.0]
    for i in range(3):
        if seen[i] > 0 and (timed < size or seen[i] > rest[i]):  # sampled, or rounding
            factors[i] = rest[i] / seen[i]
    found = {name: (a * factors[0], b * factors[1], c * factors[2]) for name, (a, b, c) in sampled.items()}
    left = [max(0.0, rest[i] - seen[i] * factors[i]) for i in range(3)]
    found = {COLLATE: _triple(collate), REST: (left[0], left[1], left[2]), **found}
    return _blocked_not_negative(found)


def _blocked_not_negative(found: dict[str, tuple[float, float, float]]) -> dict[str, tuple[float, float, float]]:
    """A stage of which more was on a core than there was wall time, by clocks read one after the other, is cut to it."""
    return {
        name: (wall, min(cpu, wall), min(queued, max(0.0, wall - min(cpu, wall))))
        for name, (wall, cpu, queued) in found.items()
    }


def _within(part: Spent, whole: Spent) -> Spent:
    """Clocks are read one after the other, so a part may seem longer than what it is in."""
    return Spent(min(part.wall, whole.wall), min(part.cpu, whole.cpu), min(part.queued or 0, whole.queued or 0))


def _triple(spent: Spent) -> tuple[float, float, float]:
    return float(max(0, spent.wall)), float(max(0, spent.cpu)), float(max(0, spent.queued or 0))


def slow_worker(workers: Sequence[Worker]) -> Worker | None:
    """The one that takes 1.3 times as long as the median of the others, and by more than chance would have it."""
    if len(workers) < 2:
        return None
    slowest = max(workers, key=lambda w: w.wall)
    others = [w for w in workers if w is not slowest]
    usual = statistics.median(w.wall for w in others)
    spread = math.hypot(_error(slowest.walls), max(_error(w.walls) for w in others))
    return slowest if slowest.wall > max(1.3 * usual, usual + 4 * spread) else None


def _error(walls: Sequence[int]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(walls) / math.sqrt(len(walls)) if len(walls) > 1 else float(walls[0])


def mean_parts(workers: Iterable[Worker]) -> dict[tuple[str, str], float]:
    """Over workers: what a batch costs one of them."""
    workers = list(workers)
    total: Counter[tuple[str, str]] = Counter()
    for each in workers:
        total.update(dict(each.parts))
    return {key: ns / len(workers) for key, ns in total.items()}
