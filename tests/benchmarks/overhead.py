"""What measuring costs: the step clock on a real loop, and the capture window. Interleaved A/B/A in one process.

    python tests/benchmarks/overhead.py

Step clock: its own calls, timed directly. A loop step passes one data fetch, one forward, one backward and one
optimizer step; the difference of two loops cannot show 10 us under the noise of a 10 ms step, so the marks are driven
thousands of times without the work between them, against the same calls without a clock (target: 10 us together,
0.1 % of 10 ms). Of that, empty hooks at the same places already cost what the line calls floor. Capture window:
profiled against clean steps of the same run, alternating (target: 15 % on a step of at most 200 operators a ms), and
steps outside the window against a loop that was never profiled (target: nothing).
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from heading import heading
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter
from workloads import steps

from mlsys_studio.profilers.recording import Recording
from mlsys_studio.profilers.sampling.steps import attach
from mlsys_studio.profilers.step import StepClock

ROUNDS, WARM, STEPS = 15, 50, 2000
CLOCK_TARGET_US, WINDOW_TARGET, OUTSIDE_TARGET = 10.0, 0.15, 0.01


class Nothing(Dataset):
    def __len__(self) -> int:
        return WARM + STEPS

    def __getitem__(self, i: int) -> int:
        return i


class Identity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x


class NoStep(torch.optim.SGD):
    def step(self, closure=None):
        return None


def bare_loop(model: nn.Module | None = None) -> float:
    """Seconds a step of a loop with every mark and no work: fetch, forward, a minimal backward, an empty optimizer."""
    model = model or Identity()
    optimizer = NoStep(model.parameters())
    batches = iter(DataLoader(Nothing(), batch_size=None))
    loss = model.weight.sum()
    began = 0.0
    for n in range(WARM + STEPS):
        if n == WARM:  # the clock looks for the model in the first steps
            began = time.perf_counter()
        next(batches)
        model(loss)
        loss.backward(retain_graph=True)
        optimizer.step()
    return (time.perf_counter() - began) / STEPS


def clocked() -> float:
    with StepClock():
        return bare_loop()


def asked() -> float:
    """Somebody wants to hear of each step, as a profile does of its first ones, until its window has passed."""
    with StepClock(lambda _: None):
        return bare_loop()


def watched() -> float:
    """A panel is open: each step is published, here to a reader that throws it away."""

    class Nowhere:
        def put(self, record: tuple) -> None:
            pass

    attach(Nowhere())  # pyright: ignore[reportArgumentType]
    try:
        return clocked()
    finally:
        attach(None)


def hooked() -> float:
    """With hooks that do nothing, where the clock has its own."""
    model = Identity()
    with empty_hooks(model):
        return bare_loop(model)


@contextlib.contextmanager
def empty_hooks(model: nn.Module) -> Iterator[None]:
    def nothing(*_: object) -> None:
        pass

    def around(call: Callable) -> Callable:
        def passes(*args: Any, **kwargs: Any) -> Any:
            return call(*args, **kwargs)

        return passes

    with contextlib.ExitStack() as undo:
        for place, name in ((_BaseDataLoaderIter, "__next__"), (torch.autograd, "_engine_run_backward")):
            undo.enter_context(mock.patch.object(place, name, around(getattr(place, name))))
        for handle in (
            model.register_forward_pre_hook(nothing),
            model.register_forward_hook(nothing, always_call=True),
            register_optimizer_step_pre_hook(nothing),
            register_optimizer_step_post_hook(nothing),
        ):
            undo.callback(handle.remove)
        yield


def interleaved(a: Callable[[], float], b: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """(without, with): a b a b ... a; each with is compared with the mean of its neighbours."""
    without, with_it = [a()], []
    for _ in range(rounds):
        with_it.append(b())
        without.append(a())
    return without, with_it


def differences(without: list[float], with_it: list[float]) -> list[float]:
    """us a step, of each against the mean of its neighbours."""
    return [1e6 * (w - (a + b) / 2) for w, a, b in zip(with_it, without, without[1:], strict=False)]


def step_clock() -> bool:
    floor, told, shown = (
        statistics.median(differences(*interleaved(bare_loop, loop, ROUNDS))) for loop in (hooked, asked, watched)
    )
    without, with_it = interleaved(bare_loop, clocked, ROUNDS)
    costs = differences(without, with_it)
    cost, low, high = statistics.median(costs), min(costs), max(costs)
    passed = cost <= CLOCK_TARGET_US
    print(
        f"step clock: {cost:.1f} us a step (from {low:.1f} to {high:.1f} in {ROUNDS} rounds) = {cost / 100:.3f} % of a 10 ms step; "
        f"floor {floor:.1f} us; bare loop {1e6 * statistics.median(without):.0f} us; target {CLOCK_TARGET_US:.0f} us: {'pass' if passed else 'FAIL'}"
    )
    print(f"            where somebody hears of each step {told:.1f} us; with a panel open {shown:.1f} us")
    return passed


def window(model: str) -> bool:
    """The window's own steps against the clean ones of the same run, several runs."""
    ratios, outside, density = [], [], 0.0
    plain = [unprofiled(model)]
    for _ in range(5):
        loop = steps(model, frozenset())
        with Recording(progress=lambda _: None) as recording:
            for _ in range(45):
                next(loop)
        profile = recording.profile
        assert profile is not None and profile.ledger is not None
        clean = profile.steps.median
        ratios.append(statistics.median(profile.steps.window) / clean - 1)
        density = sum(r.calls for r in profile.operators) / profile.ledger.steps / (clean / 1e6)
        plain.append(unprofiled(model))
        outside.append(clean / 1e9 / statistics.mean(plain[-2:]) - 1)
    cost, spread = statistics.median(ratios), max(ratios) - min(ratios)
    beside, beside_spread = statistics.median(outside), max(outside) - min(outside)
    passed = cost <= WINDOW_TARGET and beside <= max(OUTSIDE_TARGET, beside_spread)
    print(
        f"capture window, {model}: {cost:+.1%} (spread {spread:.1%}) on {density:.0f} counted operators/ms; target {WINDOW_TARGET:.0%}; "
        f"steps outside it {beside:+.1%} (spread {beside_spread:.1%}): {'pass' if passed else 'FAIL'}"
    )
    return passed


def unprofiled(model: str) -> float:
    """Median seconds a step without any clock."""
    loop, walls = steps(model, frozenset()), []
    for _ in range(30):
        began = time.perf_counter()
        next(loop)
        walls.append(time.perf_counter() - began)
    return statistics.median(walls[5:])


def main() -> int:
    print(heading(), flush=True)
    passed = [step_clock(), *(window(model) for model in ("gpt", "cnn", "lstm"))]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
