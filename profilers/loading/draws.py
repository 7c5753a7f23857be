"""Which random states a dataset draws from while it is read: read by another number of workers, it draws other numbers.

Without workers a dataset draws from the states of the loop's own process; worker k draws from states seeded by k, and
has a copy of the dataset's own generators (torch.utils.data, "Randomness in multi-process data loading"). So a dataset
that draws gives other samples under another number of workers, though the order of the samples stays.
"""

from __future__ import annotations

import pickle
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from .shadow import inside


def random_state(dataset: Any) -> dict[str, Any]:
    """Where each state stands: the process's, and those of generators that the dataset keeps."""
    return dict(_states(dataset))


def drawn(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names of those that have moved, or are new."""
    return [name for name, state in after.items() if before.get(name) != state]


def _states(dataset: Any) -> Iterator[tuple[str, Any]]:
    import torch

    yield "random", random.getstate()
    yield "torch", torch.get_rng_state().numpy().tobytes()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        yield "numpy", pickle.dumps(numpy.random.get_state())
    for number, value in enumerate(inside(dataset)):
        if isinstance(value, torch.Generator):
            yield f"its own torch.Generator {number}", value.get_state().numpy().tobytes()
        elif isinstance(value, random.Random):
            yield f"its own random.Random {number}", value.getstate()
        elif numpy is not None and isinstance(value, numpy.random.Generator):
            yield f"its own numpy Generator {number}", pickle.dumps(value.bit_generator.state)
        elif numpy is not None and isinstance(value, numpy.random.RandomState):
            yield f"its own numpy RandomState {number}", pickle.dumps(value.get_state())
