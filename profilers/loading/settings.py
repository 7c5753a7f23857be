"""What of a loader may be changed without changing the training: workers, prefetch, worker threads, pinning.

Batch size, sampler, order, drop_last and collation are another training, and are never touched. Nor is
persistent_workers: torch draws a seed whenever workers start, so without a start each epoch later draws would be others.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


@dataclass(frozen=True, slots=True)
class Setting:
    """`prefetch` is None without workers. `threads`: torch threads of a worker, 1 as torch has it."""

    workers: int
    prefetch: int | None
    threads: int
    pin: bool

    @classmethod
    def of(cls, loader: DataLoader) -> Self:
        init = loader.worker_init_fn
        threads = init.threads if isinstance(init, Threads) else 1
        return cls(loader.num_workers, loader.prefetch_factor, threads, bool(loader.pin_memory))

    def with_workers(self, workers: int, prefetch: int) -> Setting:
        """So many, and batches ahead: no fewer than it has now."""
        if not workers:
            return Setting(0, None, 1, self.pin)
        return Setting(workers, max(self.prefetch or 0, prefetch), self.threads, self.pin)

    def line(self, before: Setting, name: str = "loader") -> str:
        """The line a user would write: only what differs."""
        changes = []
        if self.workers != before.workers:
            changes.append(f"num_workers={self.workers}")
        if self.prefetch != before.prefetch and self.workers:
            changes.append(f"prefetch_factor={self.prefetch}")
        if self.pin != before.pin:
            changes.append(f"pin_memory={self.pin}")
        if self.threads != before.threads and self.workers:
            changes.append(f"worker_init_fn=lambda worker: torch.set_num_threads({self.threads})")
        return f"{name} = DataLoader(..., {', '.join(changes)})" if changes else f"{name} as it is"

    def __str__(self) -> str:
        if not self.workers:
            return "workers 0" + (", pinned" if self.pin else "")
        threads = f", {self.threads} threads" if self.threads != 1 else ""
        return f"workers {self.workers}, prefetch {self.prefetch}{threads}{', pinned' if self.pin else ''}"


@dataclass(frozen=True, slots=True)
class Threads:
    """A worker_init_fn: so many torch threads, then the user's own."""

    threads: int
    user: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        import torch

        torch.set_num_threads(self.threads)
        if self.user is not None:
            self.user(worker)


@contextlib.contextmanager
def more_workers_than_cores() -> Iterator[None]:
    """Without torch's warning of them: whether they help is being measured."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def changed(loader: DataLoader, setting: Setting) -> DataLoader:
    """The loader with this setting: a new one of the same class, over the same dataset, sampler and generator."""
    before = Setting.of(loader)
    init = loader.worker_init_fn
    user = init.user if isinstance(init, Threads) else init
    more: dict[str, Any] = {
        "num_workers": setting.workers,
        "prefetch_factor": setting.prefetch,
        "pin_memory": setting.pin,
        "worker_init_fn": Threads(setting.threads, user) if setting.threads != 1 else user,
        "_iterator": None,
    }
    if not setting.workers:
        more |= {"timeout": 0, "persistent_workers": False, "_DataLoader__multiprocessing_context": None}
    elif setting.workers and not before.workers:
        more |= {"timeout": 0}
    return _copied(loader, more)


def _copied(loader: DataLoader, more: Mapping[str, Any]) -> DataLoader:
    new = copy.copy(loader)
    vars(new).update(more)
    return new
