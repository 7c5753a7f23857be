"""Uneven layers to pipeline stages: the split whose slowest part is fastest.

`partition` is PipeDream's dynamic programme (Narayanan et al., SOSP 2019, 3.1). With T the seconds of a layer, a the
bytes it hands on, w its weights' bytes and B the bandwidth, a stage of layers i..j on m replicas passes a micro-batch
every

    T(i, j, m) = max(Σ T, 2 (m-1) Σ w / B) / m

and the best pipeline of the first j layers on n devices has the slowest part

    A(j, n) = min over i, m of  max(A(i, n-m), 2 a_i / B, T(i+1, j, m)).

`even` splits without communication or replicas, and fast: it is what the planner asks for thousands of times.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf

from ..errors import UsageError
from ..views.sheet import Grid, Sheet, Shown
from ..views.units import duration
from .amounts import whole

MOST_TRIED = 10**8  # stages: half a minute


@dataclass(frozen=True, slots=True)
class Layer:
    seconds: float  # forward and backward of one micro-batch
    activation: float = 0.0  # bytes handed to the next layer, and as many gradients back
    weights: float = 0.0  # bytes its replicas have to agree on


@dataclass(frozen=True, slots=True)
class Stage:
    """Layers first..last, inclusive, on `replicas` devices."""

    first: int
    last: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Partition(Shown):
    stages: tuple[Stage, ...]
    seconds: float  # of the slowest stage or message: one micro-batch leaves the pipeline every so often

    def sheet(self) -> Sheet:
        rows = tuple((f"{s.first} to {s.last}", f"{s.replicas}") for s in self.stages)
        return Sheet(
            "Pipeline stages",
            f"a micro-batch every {duration(self.seconds * 1e9)}",
            (Grid("", ("layers", "devices"), rows),),
            ("the split whose slowest part is fastest; PipeDream, Narayanan et al., SOSP 2019, 3.1",),
        )


def partition(
    layers: Sequence[Layer | float], devices: int, bandwidth: float = inf, *, replicate: bool = True
) -> Partition:
    """Best stages over at most `devices` devices; with `replicate=False` each stage has one. A number is its seconds."""
    layers = [each if isinstance(each, Layer) else Layer(each) for each in layers]
    amounts = [amount for each in layers for amount in (each.seconds, each.activation, each.weights)]
    if not all(isinstance(amount, int | float) and 0 <= amount < inf for amount in amounts):
        raise UsageError("a layer's seconds and bytes are numbers from 0; give partition([0.2, 0.1, 0.3], devices=2)")
    if not layers or not bandwidth > 0:
        raise UsageError(
            f"{len(layers)} layers on {devices} devices at {bandwidth!r} B/s: each must be more than nothing"
        )
    if len(layers) ** 2 * whole("devices", devices) * (devices if replicate else 1) > MOST_TRIED:
        raise UsageError(f"{len(layers)} layers on {devices} devices are too many ways; join layers into fewer")
    seconds = [0.0, *accumulate(layer.seconds for layer in layers)]
    weights = [0.0, *accumulate(layer.weights for layer in layers)]
    most = devices if replicate else 1

    def stage(i: int, j: int, m: int) -> float:
        return max(seconds[j] - seconds[i], 2 * (m - 1) * (weights[j] - weights[i]) / bandwidth) / m

    best: dict[tuple[int, int], tuple[float, tuple[Stage, ...]]] = {(0, n): (0.0, ()) for n in range(devices + 1)}
    for j in range(1, len(layers) + 1):
        for n in range(1, devices + 1):
            slowest, chosen = inf, ()
            for i in range(j):
                message = 2 * layers[i - 1].activation / bandwidth if i else 0.0
                for m in range(1, min(most, n) + 1):
                    if (i, n - m) not in best:
                        continue
                    before, stages = best[i, n - m]
                    worst = max(before, message, stage(i, j, m))
                    if worst < slowest:
                        slowest, chosen = worst, (*stages, Stage(i, j - 1, m))
            best[j, n] = slowest, chosen
    slowest, chosen = best[len(layers), devices]
    return Partition(chosen, slowest)


def even(costs: Sequence[float], parts: int) -> list[int]:
    """Cuts of `costs` into `parts` contiguous runs, the dearest of them as cheap as can be: 0, …, len(costs).

    By bisection on the limit that a greedy filling needs; a float's 53 bits bound it.
    """
    if not 1 <= parts <= len(costs):
        raise UsageError(f"{len(costs)} layers cannot fill {parts} stages; give from 1 to {len(costs)}")
    total = [0.0, *accumulate(costs)]
    low, high = max(max(costs), total[-1] / parts), total[-1]
    for _ in range(60):
        middle = (low + high) / 2
        if len(_filled(total, middle)) - 1 <= parts:
            high = middle
        else:
            low = middle
    cuts = _filled(total, high)
    unused = [cut for cut in range(1, len(costs)) if cut not in cuts]
    return sorted(cuts + unused[: parts + 1 - len(cuts)])  # where fewer parts would do, any may be split


def _filled(total: Sequence[float], limit: float) -> list[int]:
    """Cuts of a greedy filling in which no part exceeds `limit`."""
    cuts, last = [0], len(total) - 1
    slack = 1e-12 * total[-1]  # sums of equal layers differ in their last bit
    while cuts[-1] < last:
        cuts.append(max(cuts[-1] + 1, bisect_right(total, total[cuts[-1]] + limit + slack) - 1))
    return cuts
