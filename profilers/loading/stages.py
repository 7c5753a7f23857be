"""Where a batch's time went: the fetcher's parts, timed from inside the process that fetches.

Stages are an exclusive stack, as the ledger's phases are: a transform inside `__getitem__` is not `__getitem__`'s time.
Reading the clocks at a stage's edges costs about 5 µs, so where samples are small only every so many are timed (at most
`PRICE` of the time); the totals of a batch are exact all the same, and the timed samples say how to divide them.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import stat
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from .clocks import NOTHING, Input, Spent, own_clock
from .draws import drawn, random_state
from .waiting import Sampler

PRICE = 0.02  # of a sample's time, for timing it
PRICED = 2  # the batch after which a file's price is asked once
WATCHED = 16  # of so many batches one has its files counted, and is asked whether it drew random numbers
COLLATE, GETITEM, GETITEMS, NEXT = "collate", "__getitem__", "__getitems__", "next"
Place = tuple[Any, Any, Any]  # (owner, attribute name or index, what was there)


class Stages:
    """The stack, one a fetching thread. `spent` and `times` are of the timed samples since `restart`."""

    def __init__(self, sampler: Sampler) -> None:
        self.clock = own_clock()
        self.sampler = sampler
        self.timed = True  # this sample
        self.spent: dict[str, Spent] = defaultdict(lambda: NOTHING)
        self.samples = 0  # timed ones
        self._stack: list[str] = []
        self._since = NOTHING
        self._every = 1  # of so many samples one is timed
        self._left = 0
        self._thread = threading.get_ident()

    def restart(self) -> None:
        self.spent.clear()
        self.samples = 0

    def sample(self, name: str, call: Callable[[], Any]) -> Any:
        """One sample, or one call for several: timed if it is its turn."""
        if self._left:
            self._left -= 1
            self.timed = False
            self.sampler.stage = name
            try:
                return call()
            finally:
                self.timed = True
        began = time.perf_counter_ns()
        try:
            return self.stage(name, call)
        finally:
            took = time.perf_counter_ns() - began
            self.samples += 1
            self._every = max(1, min(200, round(15_000 / (PRICE * max(took, 1)))))
            self._left = self._every - 1

    def stage(self, name: str, call: Callable[[], Any]) -> Any:
        """What runs inside belongs to `name`, unless it is in a stage of its own."""
        if not self.timed or threading.get_ident() != self._thread:
            return call()
        self._turn()
        self._stack.append(name)
        self.sampler.stage = name
        try:
            return call()
        finally:
            self._turn()
            self._stack.pop()
            self.sampler.stage = self._stack[-1] if self._stack else ""

    def _turn(self) -> None:
        now = self.clock()
        if self._stack:
            self.spent[self._stack[-1]] += now - self._since
        self._since = now


class Fetching:
    """Wraps one fetcher of torch's: `write` gets a record of every batch."""

    def __init__(self, stages: Stages, write: Callable[[dict[str, Any]], None]) -> None:
        self._stages = stages
        self._write = write
        self._number = 0
        self._feed: dict[str, int] = {}  # of the feeder thread since the last batch
        self._sampler = stages.sampler
        self._dataset: Any = None

    def wrap(self, fetcher: Any) -> Any:
        """Its `fetch`, its dataset's calls and its `collate_fn`, from now on timed. The fetcher itself is changed."""
        collate, fetch, self._dataset = fetcher.collate_fn, fetcher.fetch, fetcher.dataset
        if hasattr(fetcher, "dataset_iter"):
            fetcher.dataset_iter = TimedIterator(fetcher.dataset_iter, self._stages)
        else:
            kind = TimedBatches if getattr(fetcher.dataset, "__getitems__", None) else TimedItems
            fetcher.dataset = kind(fetcher.dataset, self._stages)
        fetcher.collate_fn = lambda samples: self._collate(collate, samples)
        fetcher.fetch = lambda index: self._fetch(fetch, index)
        return fetcher

    def _collate(self, collate: Callable[[Any], Any], samples: Any) -> Any:
        self._stages.timed = True
        return self._stages.stage(COLLATE, lambda: collate(samples))

    def _fetch(self, fetch: Callable[[Any], Any], index: Any) -> Any:
        stages, sampler, thread = self._stages, self._sampler, threading.get_native_id()
        stages.restart()
        sampler.found.clear()
        opens = Opens() if self._number % WATCHED == PRICED else None
        states = random_state(self._dataset) if opens is not None else {}
        read, process, began = Input.now(thread), time.process_time_ns(), stages.clock()
        sampler.inside = began.wall
        try:
            with opens or contextlib.nullcontext():
                return fetch(index)
        finally:
            sampler.inside = 0
            took = stages.clock() - began
            now = Input.now(thread)
            record = {
                "number": self._number,
                "began": began.wall,
                "spent": _plain(took),
                "process_cpu": time.process_time_ns() - process,
                "process_at": process,
                "stages": {name: _plain(spent) for name, spent in stages.spent.items()},
                "timed": stages.samples,
                "size": len(index) if isinstance(index, (list, tuple)) else 1,
                "waits": [[stage, kind, ns] for (stage, kind), ns in sampler.found.copy().items()],
                "delays": [[stage, why, ns] for (stage, why), ns in sampler.delays.copy().items()],
                "read": None if read is None or now is None else _input(now.since(read)),
                "opens": None if opens is None else opens.count,
                "feed": self._feed,
                "draws": drawn(states, random_state(self._dataset)) if opens is not None else [],
            }
            if opens is not None and opens.count and self._number == PRICED:
                record["file"] = opens.price()
            self._number += 1
            self._feed = {}
            self._write(record)

    def fed(self, what: str, wall: int, cpu: int, size: int) -> None:
        """The feeder thread has pickled or sent a batch."""
        feed, self._sampler.feeder = self._feed, threading.get_native_id()
        feed[f"{what}_wall"] = feed.get(f"{what}_wall", 0) + wall
        feed[f"{what}_cpu"] = feed.get(f"{what}_cpu", 0) + cpu
        feed["bytes"] = max(feed.get("bytes", 0), size)


def _plain(spent: Spent) -> list[int | None]:
    return [spent.wall, spent.cpu, spent.queued]


def _input(read: Input) -> list[int]:
    return [read.bytes, read.calls, read.from_device, read.major_faults]


# -- what stands in the fetcher's place for a dataset ------------------------------------------------------------------


class _Through:
    """Everything but what is timed goes through to the thing itself, as a StatefulDataLoader's `state_dict` does."""

    def __init__(self, inner: Any, stages: Stages) -> None:
        self._inner = inner
        self._stages = stages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class TimedItems(_Through):
    def __getitem__(self, index: Any) -> Any:
        return self._stages.sample(GETITEM, lambda: named(self._inner.__getitem__, index))


class TimedBatches(_Through):
    def __getitem__(self, index: Any) -> Any:  # without automatic batching
        return self._stages.sample(GETITEM, lambda: named(self._inner.__getitem__, index))

    def __getitems__(self, indices: Sequence[Any]) -> Any:
        return self._stages.sample(GETITEMS, lambda: named(self._inner.__getitems__, indices))


class TimedIterator(_Through):
    def __iter__(self) -> TimedIterator:
        return self

    def __next__(self) -> Any:
        return self._stages.sample(NEXT, lambda: next(self._inner))


def named(call: Callable[[Any], Any], index: Any) -> Any:
    """The user's own exception, with a note of which item it was."""
    try:
        return call(index)
    except Exception as error:
        error.add_note(f"mlsys: item {str(index)[:60]}")
        raise


# -- transforms --------------------------------------------------------------------------------------------------------


def transforms(dataset: Any, depth: int = 4) -> Iterator[tuple[Any, Any, str]]:
    """(owner, attribute or index, name) of every callable a dataset keeps, those of a Compose one by one.

    A Subset's or ConcatDataset's own datasets are looked into as well.
    """
    if depth == 0 or not hasattr(dataset, "__dict__"):
        return
    for name, value in list(vars(dataset).items()):
        if name in ("dataset", "source"):
            yield from transforms(value, depth - 1)
        elif name == "datasets" and isinstance(value, (list, tuple)):
            for inner in value:
                yield from transforms(inner, depth - 1)
        elif _is_transform(value):
            steps = getattr(value, "transforms", None)
            if isinstance(steps, list) and all(map(callable, steps)):
                yield from ((steps, i, step_name(step)) for i, step in enumerate(steps))
            else:
                yield vars(dataset), name, step_name(value, name)


def _is_transform(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and not hasattr(value, "__getitem__")


def step_name(step: Any, attribute: str = "") -> str:
    """Its own name; a lambda's is where it is kept."""
    own = getattr(step, "__name__", None) or type(step).__name__
    return own if own != "<lambda>" else attribute or "lambda"


def time_transforms(dataset: Any, stages: Stages) -> list[Place]:
    """Put a timed call in each transform's place; `restore` takes it back."""
    places = []
    for owner, key, name in list(transforms(dataset)):
        before = owner[key]
        owner[key] = Timed(before, f"transform {name}", stages)
        places.append((owner, key, before))
    pipeline = getattr(dataset, "pipeline", None)
    if isinstance(pipeline, list) and all(map(callable, pipeline[1:])):  # webdataset's
        for i, step in enumerate(pipeline):
            places.append((pipeline, i, step))
            pipeline[i] = TimedStep(step, f"stage {i} {_pipe_name(step)}", stages)
    return places


def restore(places: Sequence[Place]) -> None:
    for owner, key, before in reversed(places):
        owner[key] = before


class Timed(_Through):
    def __init__(self, inner: Any, name: str, stages: Stages) -> None:
        super().__init__(inner, stages)
        self._name = name

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._stages.stage(self._name, lambda: self._inner(*args, **keywords))


class TimedStep(Timed):
    """A stage of a pipeline gives an iterator: what is timed is each of its samples."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        source: Any = (
            self._inner(*args, **keywords) if callable(self._inner) else self._inner
        )  # the first is the shards
        return self._samples(iter(source))

    def _samples(self, source: Iterator[Any]) -> Iterator[Any]:
        end = object()
        while (sample := self._stages.stage(self._name, lambda: next(source, end))) is not end:
            yield sample


def _pipe_name(step: Any) -> str:
    return step_name(getattr(step, "f", step))


# -- files opened ------------------------------------------------------------------------------------------------------


class Opens:
    """Files opened through Python's `open` by this process inside `with`, and the calls of the first few.

    Nothing of them is changed. C libraries open files by themselves and are not seen. Seeing a call costs about as much
    as a tenth of it, so only some batches are watched.
    """

    def __init__(self) -> None:
        self.count = 0
        self._calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
        self._original: Any = builtins.open

    def __enter__(self) -> Self:
        self._original = original = builtins.open

        def opened(file: Any, *args: Any, **keywords: Any) -> Any:
            self.count += 1
            if len(self._calls) < 16 and not isinstance(file, int):
                mode = str(args[0] if args else keywords.get("mode", "r"))
                if not set(mode) & set("wax+"):
                    self._calls.append((file, args, keywords))
            return original(file, *args, **keywords)

        builtins.open = io.open = opened
        return self

    def __exit__(self, *_: object) -> None:
        builtins.open = io.open = self._original

    def price(self) -> tuple[int, int] | None:
        """(CPU ns of opening, reading and closing one of them again, its mean bytes); None where there are too few.

        They are in the page cache by now. Only regular files: a pipe would lose what is read.
        """
        files = [c for c in self._calls if os.path.exists(c[0]) and stat.S_ISREG(os.stat(c[0]).st_mode)]
        size = sum(os.stat(call[0]).st_size for call in files)
        if len(files) < 4 or size > len(files) << 20:
            return None
        began = time.thread_time_ns()
        for path, args, keywords in files:
            with self._original(path, *args, **keywords) as file:
                file.read()
        return (time.thread_time_ns() - began) // len(files), size // len(files)
