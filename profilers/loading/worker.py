"""Inside a loader's worker: everything that is timed there, set up by the one function torch calls in it.

`Watch` takes the place of the user's `worker_init_fn` in the shadow loader, calls it first, and then puts clocks around the
fetcher, the pickler and the pipe of this process. It works under fork and spawn, because it is an object that can be
pickled. Each worker writes a file of its own, a JSON line a batch, so that nothing is lost when it is killed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .stages import Fetching, Stages, time_transforms
from .waiting import Sampler


@dataclass(frozen=True, slots=True)
class Watch:
    """To be given to a DataLoader as `worker_init_fn`."""

    folder: Path
    user: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        began = time.perf_counter_ns()
        if self.user is not None:
            try:
                self.user(worker)
            except Exception as error:
                error.add_note("mlsys: in worker_init_fn")
                raise
        from torch.utils.data import get_worker_info

        info = get_worker_info()
        write = writer(self.folder / f"{worker}.jsonl")
        write({"pid": os.getpid(), "started": began, "init": time.perf_counter_ns() - began})
        sampler = Sampler()
        stages = Stages(sampler)
        fetching = Fetching(stages, write)
        if info is not None:
            time_transforms(info.dataset, stages)
        _time_fetchers(fetching)
        _time_feeder(fetching, write)
        sampler.start()


def writer(path: Path) -> Callable[[dict[str, Any]], None]:
    """A line a record, written at once: a killed process loses none."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(record: dict[str, Any]) -> None:
        os.write(file, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    return write


def _time_fetchers(fetching: Fetching) -> None:
    """Fetchers are made after this, and again for each epoch of persistent workers."""
    from torch.utils.data import _DatasetKind

    create = _DatasetKind.create_fetcher

    def created(*args: Any, **keywords: Any) -> Any:
        return fetching.wrap(create(*args, **keywords))

    _DatasetKind.create_fetcher = staticmethod(created)


def _time_feeder(fetching: Fetching, write: Callable[[dict[str, Any]], None]) -> None:
    """The queue's own thread pickles a batch and writes it to the pipe; it looks both up when it needs them."""
    from multiprocessing import connection, queues

    pickler, send = queues._ForkingPickler, connection.Connection.send_bytes  # type: ignore[attr-defined]

    class Pickler(pickler):  # type: ignore[misc, valid-type]
        @classmethod
        def dumps(cls, *args: Any, **keywords: Any) -> Any:
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            try:
                pickled = pickler.dumps(*args, **keywords)
            except Exception as error:  # noqa: BLE001 - torch would print it, and the loop wait for a batch that never comes
                write({"refused": f"{type(error).__name__}: {error}"[:200]})
                os._exit(1)
            took = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
            fetching.fed("pickle", *took, len(pickled))
            return pickled

    def sent(self: Any, data: Any, *args: Any, **keywords: Any) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        send(self, data, *args, **keywords)
        fetching.fed("send", time.perf_counter_ns() - wall, time.thread_time_ns() - cpu, len(data))

    queues._ForkingPickler = Pickler  # type: ignore[attr-defined]
    connection.Connection.send_bytes = sent  # type: ignore[method-assign, assignment]
