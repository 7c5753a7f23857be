"""The loader's remedy, fitted by the tuner: its settings are raced beside a stand-in of the step; the trial then proves them.

The stand-in takes as long as the profiled step did without its waiting: asleep where a device computes, in matrix
products on as many threads where the cores do, so that workers find as few of them free as in the loop itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...profilers.errors import UsageError
from .remedies import LoaderSettings, Subjects

SECONDS = 10.0  # of the race, about
SIDE = 192  # of the stand-in's matrices: they stay in a core's cache, as the step's may not


def fitted(remedy: LoaderSettings, subjects: Subjects) -> LoaderSettings:
    """The remedy with what won the race. Raises UsageError where nothing is faster, or the loader cannot be read."""
    from ...profilers.loading.tuner import tune_loader

    # Other draws are the remedy's to allow: the trial compares the loss.
    tuned = tune_loader(subjects.loader, stand_in(subjects.rest, subjects.loop.device), seconds=SECONDS, redraw=True)
    after = tuned.after
    if after == tuned.before:
        raise UsageError(f"{len(tuned.points)} settings of the loader were raced beside a step of {subjects.rest / 1e6:.2f} ms: {tuned.reason}")  # fmt: skip
    chosen: dict[str, Any] = dict(num_workers=after.workers, persistent_workers=True, prefetch_factor=after.prefetch)
    if not after.workers:
        chosen |= dict(persistent_workers=False, multiprocessing_context=None, timeout=0)
    if after.pin != tuned.before.pin:
        chosen["pin_memory"] = after.pin
    if after.threads != tuned.before.threads:
        chosen["worker_init_fn"] = tuned.loader.worker_init_fn
    return replace(remedy, choose=lambda _: chosen)


def stand_in(ns: float, device: str) -> Callable[[Any], None]:
    """A step of so many ns that needs what the loop's own needs of this machine."""
    if device != "cpu":
        return lambda _: time.sleep(ns / 1e9)
    import torch

    a = torch.rand(SIDE, SIDE)
    torch.mm(a, a)
    began = time.perf_counter_ns()
    for _ in range(20):
        torch.mm(a, a)
    products = max(1, round(20 * ns / (time.perf_counter_ns() - began)))

    def step(_: Any) -> None:
        for _ in range(products):
            torch.mm(a, a)

    return step
