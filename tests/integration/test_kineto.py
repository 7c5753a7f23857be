"""A take's end: nothing writes into the memory it gave back."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.profiler import record_function

from mlsys_studio.profilers.kineto import Take
from mlsys_studio.profilers.step import StepClock


def buffers() -> list[bytearray]:
    """60 MB of zeros, in pieces of all sizes: where a take's memory was, there is now one of them."""
    sizes = (77_815, 70_000, 40_000, 20_000, 4_000, 1_000)  # the first is that of torch's block of 512 events
    return [bytearray(size) for size in sizes for _ in range(10_000_000 // size)]


@pytest.mark.parametrize("end", ["finish", "off"])
def test_an_annotation_that_outlives_its_take_writes_into_nobodys_memory(end):
    """Witness: memory of our own. torch 2.13 wrote the end of `outer` into what it had given back to the allocator."""
    enter = vars(record_function)["__enter__"]
    with StepClock() as clock:
        for _ in range(3):
            first, second, outer = Take("cpu"), Take("cpu"), record_function("outer")
            first.begin(clock)
            with outer:
                torch.ones(3)
                first.finish(clock) if end == "finish" else first.off()
                first = None
                ours = buffers()
                second.begin(clock)
            second.finish(clock)
            assert not any(map(any, ours))
            assert vars(record_function)["__enter__"] is enter
            assert [h.name for h in second.events.host] == ["aten::empty"]  # `outer` is none of its own
