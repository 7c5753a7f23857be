"""`data_doctor`: run a loader's double as the loop would, and say which cause makes the loop wait, and how long.

1  the loop        the step on batches as they come, with clocks everywhere: how long `next` takes, by cause
2  the bare loop   the same without clocks, with the step and without: what a turn takes, and the producer rate
3  the step        one cached batch again and again: the device rate
4  a worker        of a loader that has none: what it would make of a batch
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..limits import Limits
from . import causes
from .consumer import Consumed, Loop, Step, length, replay
from .handing import can_be_sent, handing
from .report import DataReport, OneShotReport
from .samples import Worker, read_workers
from .shadow import OneShot, plain_loader, random_states, shadow
from .stages import Fetching, Stages, restore, time_transforms
from .trouble import explained, of_a_worker
from .waiting import Sampler
from .worker import Watch, writer

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SECONDS = 12.0  # for all of it, where batches come fast enough
LEAST = 8  # batches, and never fewer than two of each worker


@dataclass(frozen=True, slots=True)
class Measured:
    """What the runs gave. `alone`: ns a batch of the bare loader without a step."""

    loop: causes.Loop
    workers: tuple[Worker, ...]
    starts: tuple[int, ...]
    alone: float
    device_ns: float | None
    sendable: bool  # a worker could send its batches
    notes: tuple[str, ...]


def data_doctor(loader: Any, step_fn: Step | None = None, *, seconds: float = SECONDS) -> DataReport | OneShotReport:
    """Where the time of this loader goes and what makes the loop wait, without changing the training.

    step_fn(batch) does what a step of the loop does; it is called for most of `seconds`, and what it changes, such as
    weights, it changes: give it a copy of the model if that matters. Without it the loader is run alone.
    The loader's sampler, generator and the global random states stay where they are. A stream that can be read only once
    is not read. Raises UsageError where the loader cannot be measured, such as one whose dataset raises.
    """
    if step_fn is not None and not callable(step_fn):
        raise UsageError(f"step_fn is a {type(step_fn).__name__}; give a function of one batch: lambda batch: train_step(batch)")  # fmt: skip
    if seconds <= 0:
        raise UsageError(f"seconds must be more than 0, and is {seconds:g}")
    notes: list[str] = []
    plain = plain_loader(loader)
    if plain is not loader:
        notes.append(f"{type(loader).__name__} has a loop of its own: what it does around its DataLoader is not split")
    try:
        found = measure(plain, step_fn, seconds, notes)
    except OneShot as refused:
        return OneShotReport(type(plain.dataset).__name__, refused.what)
    cores = Limits().cpu_limit
    at = causes.pipeline(found.loop, found.workers, plain.num_workers, cores, getattr(plain, "in_order", True))
    return DataReport.of(plain, found, at, causes.charge(found.loop, found.workers, at))


def measure(loader: DataLoader, step: Step | None, seconds: float, notes: list[str]) -> Measured:
    """The runs. Raises OneShot and UsageError; no process and no file is left behind."""
    count, prefetch = loader.num_workers, loader.prefetch_factor or 0
    least, skip = max(LEAST, 4 * count), max(1, count * prefetch)
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="mlsys-data-"))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.enter_context(random_states())
        step = None if step is None else own(step)
        loops: list[Loop] = []
        try:
            with ExitStack() as watching:
                double = shadow(loader, Watch(folder, loader.worker_init_fn) if count else None, notes)
                loop = Loop(double, None if count else here(double, folder, watching), watched=True)
                loops.append(loop)
                watching.callback(loop.close)
                pinning(loop, double, watching)
                begun(loop, loader)
                together = loop.run(step, skip, least, 0.4 * seconds, 4 * least)
            loops.append(Loop(shadow(loader, loader.worker_init_fn, [])))
            bare, alone = paces(loops[-1], step, skip, max(LEAST // 2, 2 * count), 0.3 * seconds)
        except (OneShot, UsageError):
            raise
        except Exception as error:
            raise explained(error, folder, loops[-1].exits() if loops else None) from error
        device = statistics.median(replay(step, together.batch, 5, 0.1 * seconds)) if step is not None else None
        handed, sendable = None, count > 0 or can_be_sent(together.batch)
        if not count and sendable:
            handed = handing(loader, alone, step, bare - alone, Limits().cpu_limit, 0.2 * seconds)
        workers = read_workers(folder, together.began, together.ended)
    return Measured(
        loop=causes.Loop(
            turns=tuple(together.turns),
            first_excess=first_excess(double, together),
            epoch=length(loader),
            bare=bare,
            cpu=together.cpu,
            has_step=step is not None,
            copy_excess=copy_excess(loader, together.batch) if step is not None else 0.0,
            handing=handed,
        ),
        workers=workers,
        starts=tuple(together.starts),
        alone=alone,
        device_ns=device,
        sendable=sendable,
        notes=tuple(notes),
    )


def begun(loop: Loop, loader: DataLoader) -> None:
    try:
        loop.first()
    except StopIteration:
        raise UsageError(f"the loader is empty: its dataset {type(loader.dataset).__name__} gave no batch") from None


def own(step: Step) -> Step:
    """The step, whose errors are not the dataset's."""

    def run(batch: Any) -> object:
        try:
            return step(batch)
        except Exception as error:
            if of_a_worker(error):  # torch raises it wherever the loop is
                raise
            said = str(error).strip().partition("\n")[0][:200] or "it says nothing"
            raise UsageError(f"step_fn raised {type(error).__name__}: {said}; it is called with one batch, and does what a step of your loop does") from error  # fmt: skip

    return run


def paces(loop: Loop, step: Step | None, skip: int, least: int, seconds: float) -> tuple[float, float]:
    """ns a turn of the bare loop, with the step and without."""
    try:
        alone = loop.pace(None, skip, least, 0.4 * seconds)
        return alone if step is None else loop.pace(step, skip, least, 0.6 * seconds), alone
    finally:
        loop.close()


def here(double: DataLoader, folder: Path, undo: ExitStack) -> Callable[[Any], None]:
    """Without workers the fetcher is in this process: what a worker does to its own, done here and taken back."""
    sampler = Sampler()
    stages = Stages(sampler)
    fetching = Fetching(stages, writer(folder / "0.jsonl"))
    undo.callback(restore, time_transforms(double.dataset, stages))
    sampler.start()
    undo.callback(sampler.stop)

    def prepare(iterator: Any) -> None:
        fetching.wrap(iterator._dataset_fetcher)

    return prepare


def pinning(loop: Loop, double: DataLoader, undo: ExitStack) -> None:
    """Pinning is timed wherever it runs: in the loop, or in torch's own thread."""
    if not double.pin_memory:
        return
    from torch.utils.data._utils import pin_memory as module

    before = module.pin_memory

    def timed(data: Any, device: Any = None) -> Any:
        began = time.perf_counter_ns()
        module.pin_memory = before  # it calls itself for what a batch holds
        try:
            return before(data, device)
        finally:
            module.pin_memory = timed
            loop.receiving.pin += time.perf_counter_ns() - began

    module.pin_memory = timed
    undo.callback(setattr, module, "pin_memory", before)


def first_excess(loader: DataLoader, run: Consumed) -> float:
    """ns by which each epoch's first batch is later than another. Only what comes again in every epoch."""
    again = run.starts if loader.num_workers and not loader.persistent_workers else run.starts[1:]
    usual = statistics.median(turn.wait.wall for turn in run.turns)
    return max(0.0, statistics.fmean(again) - usual) if again else 0.0


def copy_excess(loader: DataLoader, batch: Any) -> float:
    """ns a step by which copying this batch to the GPU takes longer than from pinned memory; 0 without a GPU."""
    import torch

    if not torch.cuda.is_available() or loader.pin_memory:
        return 0.0
    tensors = [t for t in flat(batch) if isinstance(t, torch.Tensor) and t.device.type == "cpu"]
    if not tensors:
        return 0.0
    pinned = [t.pin_memory() for t in tensors]

    def took(group: list[Any]) -> float:
        times = []
        for _ in range(7):
            torch.cuda.synchronize()
            began = time.perf_counter_ns()
            for tensor in group:
                tensor.to("cuda", non_blocking=True)
            torch.cuda.synchronize()
            times.append(time.perf_counter_ns() - began)
        return statistics.median(times)

    return max(0.0, took(tensors) - took(pinned))


def flat(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in flat(value)]
    if isinstance(batch, (list, tuple)):
        return [leaf for value in batch for leaf in flat(value)]
    return [batch]
