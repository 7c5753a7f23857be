"""Profile a block as a user does, with made-up ceilings (measuring the machine's takes seconds), and look at the rest."""

from __future__ import annotations

import builtins
import contextlib
import gc
import logging
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from mlsys_studio.profilers import ceilings
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.step import StepClock
from mlsys_studio.studio.profiling import Profiling, profile

MADE_UP = ceilings.Ceilings(
    matmul={"float32": 1e11},
    copy=((1, 1e10), (1 << 40, 1e10)),
    dispatch_ns=500.0,
    event_ns=250.0,
    event_shaped_ns=500.0,
    measured_at="",
    torch="",
    threads=1,
)


@pytest.fixture
def quick(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "measure", lambda *_, **__: MADE_UP)


def places() -> list[object]:
    """Whatever a clock replaces or registers."""
    return [
        vars(_BaseDataLoaderIter)["__next__"],
        vars(DataLoader)["__iter__"],
        torch.autograd._engine_run_backward,
        torch.autograd.graph._engine_run_backward,
        torch.autograd.backward,
        torch.save,
        vars(nn.Module)["state_dict"],
        vars(nn.Module)["__getstate__"],
        vars(torch.optim.Optimizer)["state_dict"],
        vars(torch.amp.GradScaler)["step"],
        vars(torch.autograd.profiler.record_function)["__enter__"],
        builtins.print,
        vars(logging.Logger)["callHandlers"],
        *gc.callbacks,
        *_global_optimizer_pre_hooks.values(),
        *_global_optimizer_post_hooks.values(),
        StepClock._active,
    ]


@contextlib.contextmanager
def profiled(*modules: nn.Module, **options) -> Iterator[Profiling]:
    """No hook of ours may stay, on `modules` neither. The block may raise."""
    before = places()
    try:
        with profile(**options) as run:
            yield run
    finally:
        after = places()
        assert len(before) == len(after) and all(a is b for a, b in zip(before, after, strict=True))
        assert not [hook for m in modules for hook in _hooks(m) if "mlsys_studio" in str(hook.__module__)]
        assert not torch.autograd._profiler_enabled()


def _hooks(model: nn.Module) -> list:
    return [
        hook for m in model.modules() for hooks in (m._forward_hooks, m._forward_pre_hooks) for hook in hooks.values()
    ]


def whole(
    found: Profile | None,
    steps: int,
    phases: set[str] = frozenset({"data", "forward", "backward", "optimizer"}),  # type: ignore[assignment]
    before: bool = False,
) -> Profile:
    """The profile of a loop that made `steps` steps by its own count: it adds up, and shows these phases."""
    assert found is not None
    # Each is in one group; what came before was taken for steps, too, until the training began, and is warm-up.
    assert found.steps.count == steps or (before and found.steps.count > steps)
    assert set(found.steps.phases) >= phases
    ledger = found.ledger
    assert ledger is not None, found.notes
    assert sum(e.nanoseconds for e in ledger.entries) == ledger.wall_ns == sum(found.steps.window)
    assert all(e.nanoseconds >= 0 for e in ledger.entries)
    assert ledger.steps == len(found.steps.window)
    assert set(ledger.by_phase()) >= phases
    assert Profile.from_json(found.to_json()) == found
    assert found.text() and found.html()
    return found
