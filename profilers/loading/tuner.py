"""`tune_loader`: the loader's best setting, from a model of it and a few short races; the loader is left alone below 3 %.

1  the doctor measures the loader as it is; `what_if` estimates the rest and picks the numbers of workers worth a try
2  these race, four batches ahead: short bouts in turns, so that a machine that gets slower gets slower for all; the
   slow ones drop out
3  the best two race on against themselves with fewer batches ahead, worker threads or pinning
4  the last two, before and after, are run in pairs: only 3 % or more, of which chance is not the reason, is a gain
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..limits import Limits
from . import causes
from .consumer import Loop, Step, length
from .doctor import measure
from .room import Room, batch_bytes, private_bytes
from .samples import Worker
from .settings import Setting, changed, more_workers_than_cores
from .shadow import OneShot, plain_loader, random_states, shadow
from .trouble import explained
from .tuned import Point, Tuned
from .what_if import estimates

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SECONDS = 20.0
GAIN = 1.03
HOPE = 1.35  # predicted to be slower than the best by more than this is not tried: predictions are good to 15 %
LAGGING = 1.08  # slower than the best by this in every bout so far: drops out
EQUAL = 1.02  # a race tells no smaller difference
AHEAD = 4  # batches a worker may fetch ahead: more never make a loop wait longer, they only cost memory
PAIRS = 6


def tune_loader(loader: Any, step_fn: Step | None = None, *, seconds: float = SECONDS, redraw: bool = False) -> Tuned:
    """The setting under which `loader` gives batches to step_fn fastest. Changes nothing: `.loader` is a new one.

    Same samples, same order, same random draws: batch size, sampler and drop_last stay, and where the dataset draws random
    numbers so does the number of workers, unless `redraw` allows it to draw others. Raises UsageError where the loader
    cannot be measured.
    """
    plain = plain_loader(loader)
    before, notes, began = Setting.of(plain), [], time.monotonic()
    try:
        found = measure(plain, step_fn, 0.15 * seconds, notes)
    except OneShot as refused:
        return Tuned.kept(plain, before, f"it holds {refused.what}, which reading would use up: nothing was measured")
    at = causes.pipeline(
        found.loop, found.workers, plain.num_workers, Limits().cpu_limit, getattr(plain, "in_order", True)
    )
    predicted = estimates(at)
    with ExitStack() as undo:
        undo.enter_context(random_states())
        undo.enter_context(more_workers_than_cores())
        race = Race(plain, step_fn, notes, seconds / 40)
        undo.callback(race.close)
        tied = is_stream(plain)
        if not found.sendable:
            tied = True
            notes.append("workers stay 0: none could send what collate_fn returns, which cannot be pickled")
        if (draws := drawing(found.workers)) and not redraw and not tied:
            tied = True
            notes.append(
                f"workers stay {before.workers}: the dataset draws random numbers ({', '.join(draws)}), and would draw others; --redraw allows it"
            )
        race.enter(before)
        for workers in worth_trying(predicted, before.workers, tied):
            race.enter(before.with_workers(workers, AHEAD))
        race.run(until=began + 0.5 * seconds)
        for leader in race.leaders(2):
            for setting in variations(leader, Limits().cpu_limit, on_cuda()):
                race.enter(setting)
        race.run(until=began + 0.75 * seconds)
        best = race.best
        low, middle, high = race.pairs(before, best, until=began + seconds) if best != before else (1.0, 1.0, 1.0)
    if best == before or middle < GAIN or low <= 1:
        why = (
            "no other setting was faster"
            if best == before
            else f"{best} is {middle:.2f}x as fast ({low:.2f} to {high:.2f}), no sure gain of 3 %"
        )
        return Tuned.kept(plain, before, why, race.points(predicted), time.monotonic() - began, notes)
    return Tuned(plain, before, best, changed(plain, best), (low, middle, high), race.points(predicted),
                 time.monotonic() - began, "", tuple(notes))  # fmt: skip


def drawing(workers: Sequence[Worker]) -> list[str]:
    """What the dataset draws from: its own generators by their kind, without the number of each."""
    return sorted({name.rstrip("0123456789 ") for worker in workers for name in worker.draws})


def worth_trying(predicted: dict[int, float], current: int, tied: bool) -> list[int]:
    """Numbers of workers, the most promising first, with the current one. Tied: a stream's number says who reads what."""
    if tied:
        return [current]
    fastest = min(predicted.values())
    hopeful = sorted((ns, n) for n, ns in predicted.items() if ns <= HOPE * fastest)
    return list(dict.fromkeys([current, *(n for _, n in hopeful[:4])]))


def variations(best: Setting, cores: float, cuda: bool) -> list[Setting]:
    """What else may help a leader, or do as well: fewer batches ahead, a second thread where cores are free, pinning."""
    found = []
    if best.workers:
        if best.prefetch == AHEAD:
            found.append(Setting(best.workers, AHEAD // 2, best.threads, best.pin))
        if 2 * best.workers <= cores and best.threads == 1:
            found.append(Setting(best.workers, best.prefetch, 2, best.pin))
    if cuda and not best.pin:
        found.append(Setting(best.workers, best.prefetch, best.threads, True))
    return found


def is_stream(loader: DataLoader) -> bool:
    from torch.utils.data import IterableDataset

    return isinstance(loader.dataset, IterableDataset)


def on_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@dataclass(slots=True)
class Runner:
    """A setting in the race; its workers stay, so a bout costs no start."""

    setting: Setting
    loop: Loop
    bouts: list[float] = field(default_factory=list)  # seconds a step
    start: float = 0.0  # seconds a step, of an epoch's start
    out: bool = False

    @property
    def seconds(self) -> float:
        return statistics.median(self.bouts) + self.start if self.bouts else math.inf


class Race:
    def __init__(self, loader: DataLoader, step: Step | None, notes: list[str], bout: float) -> None:
        self._bout_seconds = bout
        self._loader = loader
        self._step = step
        self._notes = notes
        self._runners: dict[Setting, Runner] = {}
        self._epoch = None if loader.persistent_workers else length(loader)
        self._room = Room.now()
        self._worker = 0  # bytes of one, once one was seen

    def enter(self, setting: Setting) -> None:
        """Unless it is in already, or would not fit into memory."""
        if setting in self._runners:
            return
        if (batch := self._batch()) is not None:
            refusal = self._room.refusal(setting.workers, setting.prefetch or 0, batch_bytes(batch), self._worker)
            if refusal:
                self._notes.append(f"not tried: {refusal}")
                return
        double = shadow(changed(self._loader, setting), changed(self._loader, setting).worker_init_fn, [])
        self._runners[setting] = Runner(setting, Loop(double))

    def _batch(self) -> Any:
        return next((r.loop.result.batch for r in self._runners.values() if r.bouts), None)

    @property
    def best(self) -> Setting:
        """Among equals the one with fewer workers and batches ahead: they cost memory."""
        fastest = min(r.seconds for r in self._runners.values())
        near = [r.setting for r in self._runners.values() if r.seconds <= EQUAL * fastest]
        return min(near, key=lambda s: (s.workers, s.threads, s.prefetch or 0, s.pin))

    def leaders(self, count: int) -> list[Setting]:
        """The fastest that have not dropped out."""
        running = sorted((r for r in self._runners.values() if not r.out), key=lambda r: r.seconds)
        return [r.setting for r in running[:count]]

    def run(self, until: float) -> None:
        """Bouts in turns, at least one of each; those that lag after two drop out."""
        while True:
            running = [r for r in self._runners.values() if not r.out]
            for runner in sorted(running, key=lambda r: len(r.bouts)):
                if runner.bouts and time.monotonic() > until:
                    return
                runner.bouts.append(self._bout(runner))
            self._share_starts()
            fastest = min(r.seconds for r in running)
            for runner in running:
                runner.out = len(runner.bouts) >= 2 and min(runner.bouts) > LAGGING * fastest
            if sum(not r.out for r in running) == 1 and all(len(r.bouts) >= 2 for r in running):
                return

    def _share_starts(self) -> None:
        """An epoch's first batch is the later the more workers start: a line through all that was seen, by the epoch's steps."""
        seen = [(r.setting.workers, ns / 1e9 - statistics.median(r.bouts)) for r in self._runners.values() if r.setting.workers and r.bouts for ns in r.loop.result.starts]  # fmt: skip
        if self._epoch is None or len({workers for workers, _ in seen}) < 2:
            return
        more, first = statistics.linear_regression(*zip(*seen, strict=True))
        for runner in self._runners.values():
            workers = runner.setting.workers
            runner.start = max(0.0, first + more * workers) / self._epoch if workers else 0.0

    def pairs(self, before: Setting, after: Setting, until: float) -> tuple[float, float, float]:
        """(lower, median, upper) of after's speed over before's, from runs in turns; 95 % bounds by Student's t."""
        ratios: list[float] = []
        while len(ratios) < 3 or (len(ratios) < PAIRS and time.monotonic() < until):
            a, b = (self._bout(self._runners[s]) + self._runners[s].start for s in (before, after))
            ratios.append(a / b)
        return bounds(ratios)

    def _bout(self, runner: Runner) -> float:
        """Seconds a step, from enough batches that each worker gives two.

        What was fetched ahead in between is skipped, and the workers are idle when the next one's bout begins.
        """
        setting = runner.setting
        ahead, least = setting.workers * (setting.prefetch or 0), max(6, 2 * setting.workers)
        try:
            turn = runner.loop.pace(self._step, max(1, ahead), least, self._bout_seconds)
        except Exception as error:
            raise explained(error, exits=runner.loop.exits()) from error
        if setting.workers and not self._worker:
            self._worker = private_bytes(runner.loop.processes())
        runner.loop.settle(self._bout_seconds)
        return turn / 1e9

    def points(self, predicted: dict[int, float]) -> tuple[Point, ...]:
        return tuple(
            Point(r.setting, r.seconds, predicted.get(r.setting.workers, math.nan) / 1e9, len(r.bouts))
            for r in self._runners.values()
        )

    def close(self) -> None:
        for runner in self._runners.values():
            runner.loop.close()


T95 = {
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    6: 2.447,
    7: 2.365,
    8: 2.306,
    9: 2.262,
}  # two-sided, by degrees of freedom


def bounds(ratios: Sequence[float]) -> tuple[float, float, float]:
    """95 % bounds of the geometric mean, and the median between them."""
    logs = [math.log(ratio) for ratio in ratios]
    off = T95.get(len(logs) - 1, 2.0) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return math.exp(middle - off), math.exp(middle), math.exp(middle + off)
