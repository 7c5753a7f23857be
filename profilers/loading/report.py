"""What `data` says: the causes first, then rates, stages, workers, and what other settings would give."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from ..views.busy_lanes import BusyLanes
from ..views.sheet import Bars, Curve, Figures, Grid, Part, Row, Sheet, Shown
from ..views.units import duration, number, percent, three
from . import causes
from .causes import Cause
from .model import Pipeline
from .samples import Worker, mean_parts
from .what_if import WhatIf, what_if

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from .doctor import Measured

SCHEMA_VERSION = 1
GROUPS = {  # how a stage's time went, in the words of the picture
    "on the CPU": ("cpu",),
    "waiting for a core": ("queued",),
    "storage": ("storage",),
    "GIL or a lock": ("gil", "feeder", "lock"),
    "other waits": ("network", "sleep", "child process", "library threads", "blocked", "unknown"),
}
MOST_SPANS = 200  # of a lane


@dataclass(frozen=True, slots=True)
class Settings:
    """Of the loader that was measured."""

    dataset: str
    workers: int
    prefetch: int | None
    batch: int | None
    pin_memory: bool
    persistent: bool
    start_method: str

    @classmethod
    def of(cls, loader: DataLoader) -> Self:
        import multiprocessing

        context = loader.multiprocessing_context
        method = (context or multiprocessing).get_start_method(allow_none=False) if loader.num_workers else "none"
        size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        return cls(type(loader.dataset).__name__, loader.num_workers, loader.prefetch_factor, size, bool(loader.pin_memory), bool(loader.persistent_workers), method)  # fmt: skip

    def __str__(self) -> str:
        batch = f"batch {self.batch}" if self.batch else "no batching by torch"
        if not self.workers:
            return f"{self.dataset}, {batch}, in the loop's own process (workers 0)"
        kept = ", persistent" if self.persistent else ""
        return f"{self.dataset}, {batch}, {self.workers} workers ({self.start_method}{kept}), prefetch {self.prefetch}"


@dataclass(frozen=True, slots=True)
class DataReport(Shown):
    """ns throughout. `wait` and `step` are of the loop as measured; rates are batches a second."""

    settings: Settings
    causes: tuple[Cause, ...]
    wait: float
    wall: float
    batches: int
    has_step: bool
    producer: float  # batches/s of the loader alone
    device: float | None  # batches/s of the step on one cached batch; None without a step
    first: float  # ns to an epoch's first batch, median
    receive: float
    unpickle: float
    pin: float
    workers: tuple[Worker, ...]
    pipeline: Pipeline
    predicted: WhatIf
    others: float | None  # cores that other processes used meanwhile
    notes: tuple[str, ...]

    @classmethod
    def of(cls, loader: DataLoader, found: Measured, at: Pipeline, named: tuple[Cause, ...]) -> Self:
        turns = found.loop.turns
        return cls(
            settings=Settings.of(loader),
            causes=named,
            wait=found.loop.wait,
            wall=found.loop.wall,
            batches=len(turns),
            has_step=found.loop.has_step,
            producer=1e9 / max(1.0, found.alone),
            device=1e9 / max(1.0, found.device_ns) if found.device_ns is not None else None,
            first=statistics.median(found.starts),
            receive=statistics.fmean(t.receive for t in turns),
            unpickle=statistics.fmean(t.unpickle for t in turns),
            pin=statistics.fmean(t.pin for t in turns),
            workers=found.workers,
            pipeline=at,
            predicted=what_if(at),
            others=None if found.loop.cpu is None else found.loop.cpu.others,
            notes=(*found.notes, *_noticed(found), *_not_predicted(at)),
        )

    @property
    def stall(self) -> float:
        """Share of a step that waits in `next`."""
        return self.wait / max(self.wall, 1.0)

    @property
    def verdict(self) -> str:
        waited = percent(self.stall)
        if not self.has_step:
            first = f"; {percent(self.causes[0].share)} of a batch is {self.causes[0].name}" if self.causes else ""
            return f"the loader alone gives {three(self.producer)} batches/s{first}"
        if self.causes:
            first = self.causes[0]
            return f"{first.name} costs {percent(first.share)} of a step; the loop waits for data in {waited}"
        return f"healthy: the loop waits for data in {waited} of a step, and no cause is worth {percent(causes.NAMED)}"

    def to_json(self) -> str:
        body: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "settings": asdict(self.settings),
            "causes": [asdict(cause) for cause in self.causes],
            "step_us": self.wall / 1000,
            "wait_us": self.wait / 1000,
            "stall_share": self.stall if self.has_step else None,
            "batches": self.batches,
            "producer_batches_per_s": self.producer,
            "device_batches_per_s": self.device,
            "first_batch_us": self.first / 1000,
            "receive_us": self.receive / 1000,
            "unpickle_us": self.unpickle / 1000,
            "pin_us": self.pin / 1000,
            "workers": [_worker_json(worker) for worker in self.workers],
            "what_if": {
                "workers_us": {str(n): ns / 1000 for n, ns in self.predicted.workers},
                "cached_us": {f"{share:g}": ns / 1000 for share, ns in self.predicted.cached},
                "disk_us": {str(times): ns / 1000 for times, ns in self.predicted.disk},
                "core_bound_us": self.predicted.core_bound / 1000,
                "not_predicted": self.predicted.unpredicted,
            },
            "other_processes_cores": self.others,
            "notes": list(self.notes),
        }
        return json.dumps(body, indent=1)

    def sheet(self) -> Sheet:
        parts: list[Part] = [_causes(self), _rates(self)]
        if self.workers:
            parts += [_stages(self), _timeline(self), _histogram(self)]
            if len(self.workers) > 1:
                parts.append(_workers(self))
            parts += _what_if(self)
        basis = f"{self.verdict[:1].upper()}{self.verdict[1:]}. {self.settings}; {self.batches} batches measured."
        first = self.causes[0].name if self.causes else "healthy" if self.has_step else "no stage stands out"
        return Sheet(f"Data loader: {first}", basis, tuple(parts), self.notes)


@dataclass(frozen=True, slots=True)
class OneShotReport(Shown):
    """A stream that reading would use up: nothing was read. Its consumer side, ns a step, is what the user's loop saw."""

    dataset: str
    what: str
    wait: float | None = None  # in `next`; None: the loop was not profiled
    wall: float | None = None

    def to_json(self) -> str:
        body = {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "one_shot": self.what,
            "causes": [],
            "wait_us": None if self.wait is None else self.wait / 1000,
            "step_us": None if self.wall is None else self.wall / 1000,
        }
        return json.dumps(body, indent=1)

    def sheet(self) -> Sheet:
        notes = (
            "Nothing was read: reading here would take these samples from your training.",
            "Not split: workers, stages, how their time went, nor what other settings would give.",
        )
        parts: tuple[Part, ...] = ()
        if self.wait is not None and self.wall:
            row = Row("waiting in next", duration(self.wait), f"of a step of {duration(self.wall)}, {percent(self.wait / self.wall)}")  # fmt: skip
            parts = (Figures("Its consumer side, in the loop as profiled last", (row,)),)
        else:
            notes += (
                "Its consumer side is timed by your own loop: put %%mlsys profile above it, run it, and ask again.",
            )
        return Sheet(f"Data loader: {self.dataset} can be read only once", f"It holds {self.what}.", parts, notes)


# -- the parts of the page -----------------------------------------------------------------------------------------------


def _causes(report: DataReport) -> Part:
    whole = "of a step" if report.has_step else "of a batch"
    rows = [
        Row(f"{i}. {c.name}", percent(c.share), f"{whole}, in {c.stage}: {c.evidence}. {c.advice[:1].upper()}{c.advice[1:]}" if c.stage else f"{whole}: {c.evidence}. {c.advice}")
        for i, c in enumerate(report.causes, 1)
    ]  # fmt: skip
    title = "Causes, each with what a step would gain without it and those above it"
    return Figures(title, tuple(rows) or (Row("none", "", "no cause costs 5 % of a step"),))


def _rates(report: DataReport) -> Part:
    rows = [
        Row("waiting in next", duration(report.wait), f"of {duration(report.wall)} a turn of the loop"),
        Row("loader alone", f"{three(report.producer)}/s", "batches; producer rate"),
    ]
    if report.device is not None:
        rows.append(Row("step alone", f"{three(report.device)}/s", "batches; one cached batch replayed"))
    rows.append(Row("first batch", duration(report.first), "from iter() on, workers' start included; median of epochs"))
    if report.settings.workers:
        rows.append(Row("receiving", duration(report.receive), f"a batch, in the loop; unpickling {duration(report.unpickle)}"))  # fmt: skip
        init = max((w.init for w in report.workers), default=0)
        rows.append(Row("worker_init_fn", duration(init), "once a worker, the slowest"))
    if report.settings.pin_memory:
        rows.append(Row("pinning", duration(report.pin), "a batch"))
    return Figures("Rates", tuple(rows))


def _stages(report: DataReport) -> Part:
    mean = mean_parts(report.workers)
    total = sum(mean.values()) or 1
    rows = []
    stages = sorted({stage for stage, _ in mean}, key=lambda s: -sum(ns for (at, _), ns in mean.items() if at == s))
    for stage in stages[:12]:
        parts = tuple(sum(mean.get((stage, how), 0.0) for how in hows) for hows in GROUPS.values())
        if sum(parts) >= 0.002 * total:
            rows.append((stage, f"{duration(sum(parts))} {percent(sum(parts) / total)}", parts))
    who = "of a worker's" if report.settings.workers else "of the"
    return Bars(f"Where and how: stages {who} time a batch, beside the shares above", tuple(GROUPS), tuple(rows))


def _timeline(report: DataReport) -> Part:
    rows = []
    for worker in report.workers[:16]:
        spans = tuple((float(at), float(at + wall)) for at, wall in zip(worker.starts, worker.walls, strict=True))
        busy = sum(worker.walls) / max(1.0, spans[-1][1] - spans[0][0])
        who = f"worker {worker.number}" if report.settings.workers else "loop"
        rows.append((who, f"{percent(busy)} busy", spans[:MOST_SPANS]))
    return BusyLanes("Fetching, over time", tuple(rows))


def _histogram(report: DataReport) -> Part:
    walls = sorted(wall for worker in report.workers for wall in worker.walls)
    low, high = walls[0], walls[-1] + 1
    edges = [low + (high - low) * i / 8 for i in range(9)]
    counts = [sum(a <= wall < b for wall in walls) for a, b in pairwise(edges)]
    rows = tuple((f"to {duration(b)}", str(n), (float(n),)) for b, n in zip(edges[1:], counts, strict=True))
    return Bars("Time to fetch a batch, how many batches", ("batches",), rows)


def _workers(report: DataReport) -> Part:
    rows = tuple(
        (
            f"worker {w.number}",
            str(len(w.walls)),
            duration(w.wall),
            percent(w.of("cpu") / max(w.wall, 1)),
            percent(w.of("queued") / max(w.wall, 1)),
            percent(1 - (w.of("cpu") + w.of("queued")) / max(w.wall, 1)),
            duration(w.feed.pickle_wall),
        )
        for w in report.workers[:32]
    )
    return Grid("Workers", ("", "batches", "a batch", "on CPU", "queued", "blocked", "pickling"), rows)


def _what_if(report: DataReport) -> list[Part]:
    at = report.predicted

    def rate(ns: float) -> float:
        return 1e9 / max(ns, 1.0)

    cores = ("core limit", rate(at.core_bound)) if at.core_bound else None
    parts: list[Part] = [Curve("What if: workers", "workers", "batches/s", tuple((float(n), rate(ns)) for n, ns in at.workers), cores)]  # fmt: skip
    rows = [(f"{n} workers", duration(ns), three(rate(ns))) for n, ns in at.workers]
    if at.cached[0][1] > 1.01 * at.cached[-1][1]:
        rows += [(f"{percent(share)} cached", duration(ns), three(rate(ns))) for share, ns in at.cached[1:]]
        rows += [(f"{number(times)}x faster storage", duration(ns), three(rate(ns))) for times, ns in at.disk[1:]]
    parts.append(Grid("Predicted", ("", "a step", "batches/s"), tuple(rows)))
    return parts


def _noticed(found: Measured) -> list[str]:
    said = []
    if found.workers and not any(w.of("queued") for w in found.workers):
        from .clocks import TASKS

        if not TASKS.exists():
            said.append("no /proc here: waiting for a core and waiting for storage could not be told apart")
    if found.loop.cpu is not None and found.loop.cpu.crowded:
        said.append(
            f"other processes used {three(found.loop.cpu.others)} of {number(found.loop.cpu.cores)} cores meanwhile"
        )
    if found.loop.turns and len(found.loop.turns) < 8:
        said.append(f"only {len(found.loop.turns)} batches were measured")
    stages = {stage for w in found.workers for stage, _ in w.parts}
    if not any(stage.startswith(("transform", "stage")) for stage in stages):
        said.append("no transform was found on the dataset: its reading and decoding are one call, split only by how the time went")  # fmt: skip
    return said


def _not_predicted(at: Pipeline) -> list[str]:
    why = what_if(at).unpredicted
    return [f"not predicted: {why}"] if why else []


def _worker_json(worker: Worker) -> dict[str, Any]:
    return {
        "number": worker.number,
        "batches": len(worker.walls),
        "batch_us": worker.wall / 1000,
        "parts_us": {f"{stage}: {how}": ns / 1000 for (stage, how), ns in worker.parts.items()},
        "pickle_us": worker.feed.pickle_wall / 1000,
        "send_us": worker.feed.send_wall / 1000,
        "bytes_through_pipe": worker.feed.bytes,
        "bytes_read": worker.bytes_read,
        "bytes_from_device": worker.from_device,
        "major_faults": worker.major_faults,
        "files_opened": worker.opens,
    }
