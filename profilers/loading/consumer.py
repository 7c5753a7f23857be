"""The loop's side: how long `next` takes, what in it is receiving, and what else a step waits for.

A shadow loader is run as the user's loop would run it, with the user's step or without one, and the clocks of the loop's
own thread are read at each edge. Each epoch's first batch is kept apart: it pays for the workers' start.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..neighbours import CpuTime
from .clocks import NOTHING, Spent, own_clock

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

Step = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the loop, ns. `receive` and `unpickle` are within `wait`; `places`, such as checkpoint, in `work`.

    `answer` is within `unpickle`: blocked until the worker hands over a file descriptor, which takes it a thread and the GIL.
    """

    wait: Spent  # in next
    work: Spent  # between two nexts
    receive: int = 0
    unpickle: int = 0
    answer: int = 0
    receiving_cpu: int = 0  # of `receive` and `unpickle`, on a core
    pin: int = 0  # in the pinning thread, beside the loop
    places: dict[str, Spent] = field(default_factory=dict)


@dataclass(slots=True)
class Consumed:
    """What a run of the loop gave. `cpu` is of the whole machine during `turns`, None where not known."""

    turns: list[Turn] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # ns from iter() to an epoch's first batch
    began: int = 0  # perf_counter ns of the first of `turns`, and of the end of the last
    ended: int = 0
    cpu: CpuTime | None = None
    batch: Any = None  # the last
    epochs: int = 0  # that were read to their end


class Receiving:
    """Times a shadow iterator's result queue: waiting for a batch apart from receiving and unpickling it."""

    def __init__(self) -> None:
        self.receive = self.unpickle = self.answer = self.cpu = self.pin = 0
        self._clock = own_clock()

    def watch(self, iterator: Any) -> None:
        queue = getattr(iterator, "_worker_result_queue", None)
        if queue is None or not hasattr(queue, "_recv_bytes"):
            return
        get, receive = queue.get, queue._recv_bytes
        received: list[Spent] = []

        def timed_receive(*args: Any) -> Any:
            began = self._clock()
            data = receive(*args)
            received.append(self._clock())
            took = received[0] - began
            self.receive += took.wall
            self.cpu += took.cpu
            return data

        def timed_get(*args: Any, **keywords: Any) -> Any:
            received.clear()
            result = get(*args, **keywords)
            if received:
                took = self._clock() - received[0]
                self.unpickle += took.wall
                self.answer += took.blocked
                self.cpu += took.cpu
            return result

        queue._recv_bytes, queue.get = timed_receive, timed_get

    def take(self) -> tuple[int, int, int, int, int]:
        took = self.receive, self.unpickle, self.answer, self.cpu, self.pin
        self.receive = self.unpickle = self.answer = self.cpu = self.pin = 0
        return took


class Loop:
    """Runs a shadow loader epoch after epoch, with clocks (`run`) or bare (`pace`). Close it: its workers end with it."""

    def __init__(
        self, loader: DataLoader, prepare: Callable[[Any], None] | None = None, *, watched: bool = False
    ) -> None:
        self._loader = loader
        self._watched = watched  # time the result queue of each new iterator
        self._prepare = prepare  # called with each new iterator
        self._iterator: Any = None  # between epochs
        self._workers: list[Any] = []  # processes, also once they have ended
        self._clock = own_clock()
        self.receiving = Receiving()
        self.result = Consumed()

    def first(self) -> Any:
        """Begin an epoch: its first batch. Raises StopIteration for an empty loader."""
        self.close()
        began = time.perf_counter_ns()
        self._iterator = iterator = iter(self._loader)
        self._workers = list(getattr(iterator, "_workers", ()))
        if self._watched:
            self.receiving.watch(iterator)
        if self._prepare is not None:
            self._prepare(iterator)
        self.result.batch = next(iterator)
        self.result.starts.append(time.perf_counter_ns() - began)
        return self.result.batch

    def run(self, step: Step | None, skip: int, least: int, seconds: float, most: int) -> Consumed:
        """At least `least` turns after the first `skip`, and as fit into `seconds`; at most `most`, or half a second of them."""
        kept, self.result = self.result, Consumed(starts=self.result.starts, epochs=self.result.epochs)
        batch = kept.batch
        if self._iterator is None:
            batch = self.first()
        assert self._iterator is not None
        alone = True  # no other batch of this epoch was seen
        with _places() as places:
            began, cpu = time.perf_counter(), CpuTime.now()
            deadline, brief = began + seconds, began + min(0.5, seconds)
            number, fresh = -skip, True
            self.receiving.take()
            while number < least or ((now := time.perf_counter()) < deadline and (number < most or now < brief)):
                if number == 0 and fresh:
                    self.result.began, cpu, fresh = time.perf_counter_ns(), CpuTime.now(), False
                places.clear()
                clock = self._clock()
                if step is not None:
                    step(batch)
                worked = self._clock()
                inside = dict(places)
                try:
                    batch = next(self._iterator)
                except StopIteration:
                    self.result.epochs += 1
                    batch = self.first()
                    if not alone:
                        self.receiving.take()
                        alone = True
                        continue
                else:
                    alone = False
                wait = self._clock() - worked
                received = self.receiving.take()
                if number >= 0:
                    self.result.turns.append(Turn(wait, worked - clock, *received, inside))
                number += 1
            self.result.ended = time.perf_counter_ns()
            after = CpuTime.now()
            self.result.cpu = None if after is None or cpu is None else after.since(cpu)
        self.result.batch = batch
        return self.result

    def pace(self, step: Step | None, skip: int, least: int, seconds: float) -> float:
        """ns a turn of the bare loop, epochs' starts aside: as long as `run`, and without the price of its clocks."""
        batch, alone = (self.first(), True) if self._iterator is None else (self.result.batch, False)
        assert self._iterator is not None
        number, began = -skip, time.perf_counter()
        while number < least or time.perf_counter() - began < seconds:
            if number == 0:
                began = time.perf_counter()
            if step is not None:
                step(batch)
            try:
                batch = next(self._iterator)
            except StopIteration:
                stopped = time.perf_counter()
                self.result.epochs += 1
                batch = self.first()
                if not alone:
                    began, alone = began + time.perf_counter() - stopped, True
                    continue
            else:
                alone = False
            number += 1
        self.result.batch = batch
        return (time.perf_counter() - began) / number * 1e9

    def settle(self, seconds: float) -> None:
        """Wait until the workers have fetched as far ahead as they may: until then they take cores from what runs next."""
        iterator, until = self._iterator, time.perf_counter() + seconds
        fetched = getattr(iterator, "_worker_result_queue", None)
        if iterator is None or fetched is None:
            return
        pinned = iterator._data_queue if iterator._data_queue is not fetched else None
        with contextlib.suppress(NotImplementedError):  # macOS does not count what is in a queue
            while (
                fetched.qsize() + (pinned.qsize() if pinned else 0) < iterator._tasks_outstanding
                and time.perf_counter() < until
            ):
                time.sleep(0.001)

    def processes(self) -> list[int]:
        """Of the workers that run now."""
        return [worker.pid for worker in getattr(self._iterator, "_workers", ())]

    def exits(self) -> dict[int, int]:
        """Exit codes of the last epoch's workers that ended badly, by process; negative: the signal."""
        return {worker.pid: worker.exitcode for worker in self._workers if worker.exitcode}

    def close(self) -> None:
        """End the iterator's workers, and wait for them."""
        iterator, self._iterator = self._iterator, None
        if hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
        if self._loader is not None and vars(self._loader).get("_iterator") is not None:
            vars(self._loader)["_iterator"] = None


def length(loader: DataLoader) -> int | None:
    """Batches of an epoch."""
    try:
        return len(loader) or None
    except TypeError:  # an IterableDataset of unknown length
        return None


def replay(step: Step, batch: Any, least: int, seconds: float) -> list[int]:
    """ns of each step on one batch that is there already: as fast as the step can go."""
    synchronize = _synchronize()
    took: list[int] = []
    deadline = time.perf_counter() + seconds
    step(batch)
    while len(took) < least or (time.perf_counter() < deadline and len(took) < 4 * least):
        synchronize()
        began = time.perf_counter_ns()
        step(batch)
        synchronize()
        took.append(time.perf_counter_ns() - began)
    return took


def _synchronize() -> Callable[[], None]:
    import torch

    return torch.cuda.synchronize if torch.cuda.is_available() else lambda: None


@contextlib.contextmanager
def _places() -> Iterator[dict[str, Spent]]:
    """Time by phase, in this thread, in the functions whose whole time is one: what saves a model, what writes a line."""
    from ..places import places

    spent: dict[str, Spent] = defaultdict(lambda: NOTHING)
    owner, inside, clock = threading.get_ident(), [False], own_clock()

    def timed(function: Any, phase: str) -> Any:
        def call(*args: Any, **keywords: Any) -> Any:
            if inside[0] or threading.get_ident() != owner:
                return function(*args, **keywords)
            inside[0], began = True, clock()
            try:
                return function(*args, **keywords)
            finally:
                spent[phase] += clock() - began
                inside[0] = False

        return call

    with contextlib.ExitStack() as undo:
        for thing, name, phase in places():
            before = vars(thing)[name]
            setattr(thing, name, timed(before, phase))
            undo.callback(setattr, thing, name, before)
        yield spent
