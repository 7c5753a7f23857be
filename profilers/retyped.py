"""What a run's operators would take in another dtype: each is built anew and run in both, in turns.

A machine's best rate says little of one operator. On two cores with AMX the matmuls of a small GPT took a quarter of
their float32 time in bfloat16, its attention's backward took four times as long, and autocast gained nothing. So nobody
is promised what was not measured on an operator of this kind and these shapes. Operators run in the order of the step,
which leaves the caches as cold as there; a tight loop of each by itself made the gain a third too large.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from .cost import Call
from .operators import overload
from .precision import Sample

SECONDS = 1.0  # for the rounds after the first, which is always run to its end
ROUNDS = 9
ALWAYS_FLOAT32 = ("logsumexp",)  # whatever the dtype of the other arguments
_BLOCK = 1 << 16


def retyped(samples: Sequence[Sample], dtype: str) -> Mapping[Sample, float]:
    """{sample: its time in `dtype` over its time as it ran}, casts included; without those that cannot be built anew.

    On the CPU, with the threads torch has now. Neither the user's random numbers nor his gradients notice.
    """
    return _retyped(tuple(samples), dtype, torch.get_num_threads())


@functools.lru_cache(maxsize=16)  # profiling a cell again asks the same; `threads` tells the answers apart
def _retyped(samples: tuple[Sample, ...], dtype: str, threads: int) -> Mapping[Sample, float]:
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.autocast("cpu", enabled=False):
        trials = {s: trial for s in samples if (trial := _trial(s, dtype)) is not None}
        rounds = _take_turns(trials)
    usual = {s: [statistics.median(times) for times in zip(*took, strict=True)] for s, took in rounds.items()}
    return {s: (there + casts) / here for s, (here, there, casts) in usual.items()}


Trial = tuple[Callable[[], object], ...]  # the operator as it ran, the same in the other dtype, the casts


def _take_turns(trials: dict[Sample, Trial]) -> dict[Sample, list[list[float]]]:
    """Seconds of each call of each trial, a list a round."""
    took: dict[Sample, list[list[float]]] = {s: [] for s in trials}
    end = time.perf_counter() + SECONDS
    for each in range(ROUNDS):
        if each and time.perf_counter() > end:
            break
        for times in took.values():
            times.append([])
        for way in range(3):
            for sample, trial in trials.items():
                began = time.perf_counter()
                trial[way]()
                took[sample][-1].append(time.perf_counter() - began)
    return took


def _trial(sample: Sample, dtype: str) -> Trial | None:
    """None where the operator cannot be run on made-up numbers: of integers or lists, not torch's own, or refused."""
    call, target = sample.call, getattr(torch, dtype)
    found = overload(call.name, call.pattern)
    if found is None or not call.name.startswith("aten::") or "l" in call.pattern or {*call.dtypes} - {"", "float32"}:
        return None
    try:
        given = {a.name: _value(call, i) for i, a in enumerate(found._schema.arguments) if _given(call, i, a)}
        cast = {name: _cast(name, value, target) for name, value in given.items()}
        operands = [v for v in given.values() if sample.forward and isinstance(v, torch.Tensor)]
        trial = (
            functools.partial(found, **given),
            functools.partial(found, **cast),
            lambda: [operand.to(target).to(torch.float32) for operand in operands],
        )
        for way in trial:  # and its memory is mapped
            way()
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return None
    return trial


def _given(call: Call, i: int, argument: Any) -> bool:
    """A default is left to torch."""
    return call.shapes[i] is not None or call.concrete[i] is not None or not argument.has_default_value()


def _value(call: Call, i: int) -> Any:
    shape = call.shapes[i]
    if shape is None:
        return call.concrete[i]
    strides = call.strides[i] if call.strides else ()
    return _numbers(shape, strides if len(strides) == len(shape) else torch.empty(shape, device="meta").stride())


def _numbers(shape: Sequence[int], strides: Sequence[int]) -> torch.Tensor:
    """Random ones, laid out as the operator had them, an expanded dimension too."""
    room = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) if 0 not in shape else 0
    block = torch.randn(_BLOCK, generator=torch.Generator().manual_seed(0))
    return block.repeat(-(-room // _BLOCK)).as_strided(tuple(shape), tuple(strides))


def _cast(name: str, value: Any, dtype: torch.dtype) -> Any:
    """Strides are kept, as autocast keeps them."""
    return value.to(dtype) if isinstance(value, torch.Tensor) and name not in ALWAYS_FLOAT32 else value
