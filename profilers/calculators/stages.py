"""What each pipeline stage of a layout holds: its parameters, and what a token leaves there for the backward.

Embedding, layers and head are units in a row, cut into as many runs as there are stages (times chunks, dealt in turn).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from ..errors import UsageError
from .activations import Kept, Kernels, ends_kept, layer_kept, layer_moment
from .architecture import Transformer
from .kv_cache import numbers_a_token
from .parameters import weights
from .partition import even
from .recompute import Recompute
from .shards import NOTHING, Held, stack, tied_copy, units


@dataclass(frozen=True, slots=True)
class Load:
    """Of one device; `kept` and `moment` in bytes a token."""

    held: Held
    largest: int  # parameters of its largest unit
    kept: float  # for the backward
    moment: float = 0.0  # beside it, while one layer runs forward or backward
    cached: int = 0  # numbers a token in caches that grow with the sequence
    windowed: tuple[tuple[int, int], ...] = ()  # (window, numbers a token) of those that stop growing


@dataclass(frozen=True, slots=True)
class Stage:
    index: int
    last: bool
    load: Load


@dataclass(frozen=True, slots=True)
class Slicing:
    """How each unit is cut, and how it is computed."""

    tp: int
    ep: int
    sequence_parallel: bool
    kernels: Kernels
    sequence: int
    recompute: Recompute


@lru_cache(4096)
def stages(
    model: Transformer, slicing: Slicing, pp: int, chunks: int = 1, cuts: tuple[int, ...] | None = None
) -> tuple[Stage, ...]:
    """Of stages that are alike only the first, which holds the most micro-batches."""
    runs, row = pp * chunks, load(model, slicing)
    if runs > len(row):
        said = f"pp={pp}" + (f" x {chunks} chunks" if chunks > 1 else "")
        raise UsageError(f"{said} is more than the {model.layers} layers of {model.name} and both ends; give less")
    bounds = list(pairwise(even_cuts(model, runs) if cuts is None else cuts))
    if len(bounds) != runs or any(a >= b for a, b in bounds) or bounds[0][0] != 0 or bounds[-1][1] != len(row):
        raise UsageError(f"cuts must be {runs + 1} growing places from 0 to {len(row)}, and {cuts} are not")
    found: dict[tuple[bool, Load], Stage] = {}
    for index in range(pp):
        own = [row[i] for a, b in bounds[index::pp] for i in range(a, b)]
        last = index == pp - 1
        copy = tied_copy(model, slicing.tp) if last and pp > 1 else NOTHING
        whole = together(own, copy)
        found.setdefault((last, whole), Stage(index, last, whole))
    return tuple(found.values())


def together(loads: Sequence[Load], copy: Held = NOTHING) -> Load:
    """All of them on one device."""
    windowed: Counter[int] = Counter()
    for each in loads:
        for window, numbers in each.windowed:
            windowed[window] += numbers
    return Load(
        sum((each.held for each in loads), copy),
        max(each.largest for each in loads),
        sum(each.kept for each in loads),
        max(each.moment for each in loads),
        sum(each.cached for each in loads),
        tuple(sorted(windowed.items())),
    )


@lru_cache(1024)
def load(model: Transformer, slicing: Slicing) -> tuple[Load, ...]:
    """Embedding, each layer (an encoder's first), head."""
    first, *runs, last = units(model, slicing.tp, slicing.ep)
    ends = [end.on_device(slicing.tp, slicing.sequence_parallel) for end in ends_kept(model, slicing.kernels)]
    encoding = len(model.encoder.stack) if model.encoder else 0
    row = [Load(first[1], first[1].total, ends[0])]
    for i, (each, (count, part)) in enumerate(zip(stack(model), runs, strict=True)):
        kept = layer_kept(each.block, model, keys=slicing.sequence, kernels=slicing.kernels)
        stays, returns = _recomputed(kept, model.hidden, slicing)
        moment = returns + layer_moment(each.block, model, keys=slicing.sequence, kernels=slicing.kernels) / slicing.tp
        own = numbers_a_token(each.block.attention, slicing.tp) if i >= encoding else 0
        cross = numbers_a_token(each.block.cross, slicing.tp) if each.block.cross else 0
        window = each.block.attention.window
        cached, windowed = (cross, ((window, own),)) if window else (cross + own, ())
        row += [Load(part, part.total, stays, moment, cached, windowed)] * count
    return (*row, Load(last[1], last[1].total, ends[1]))


def _recomputed(kept: Kept, hidden: int, slicing: Slicing) -> tuple[float, float]:
    """Bytes a token that a layer keeps, and those that come back while its own backward runs."""
    tp, split_whole = slicing.tp, slicing.sequence_parallel
    everything = kept.on_device(tp, split_whole)
    if slicing.recompute == "none":
        return everything, 0.0
    if slicing.recompute == "selective":
        return everything - kept.scores / tp, kept.scores / tp
    return hidden * slicing.kernels.itemsize / (tp if split_whole else 1), everything


@lru_cache(1024)
def even_cuts(model: Transformer, runs: int) -> tuple[int, ...]:
    """By the weights a token is multiplied with, which its FLOP follow."""
    layers = [float(weights(each.block, model.hidden)) for each in stack(model) for _ in range(each.count)]
    return tuple(even([1.0, *layers, 1.0 + model.head * model.hidden * model.vocab], runs))
