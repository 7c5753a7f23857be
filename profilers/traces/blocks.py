"""Blocks of a device's memory, each from being taken to being given back, and what they were for.

What a block is for shows in its life: taken in the forward and given back in the backward it held an activation, taken
in the backward and outliving it a gradient, taken by the optimizer and kept its state. Whatever was there before the
recording is called so: parameters, and what nobody saw being taken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CATEGORIES = (
    "parameters",
    "there before",
    "optimizer state",
    "gradients",
    "kept over steps",
    "activations",
    "temporaries",
)
CODE = {category: i for i, category in enumerate(CATEGORIES)}
STAGES = ("forward", "backward", "optimizer", "loading")  # loading: parameters being made or moved
BEFORE = -1
NOWHERE = 0


@dataclass(frozen=True, slots=True)
class Layer:
    """A module, or a function called `forward`, in which blocks are taken; `parent` indexes the same list, -1: none.

    `kind` is what its repetitions have in common: the module's class, or the function itself.
    """

    name: str
    kind: str
    parent: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the program blocks are taken: the lines or the operator, and the layer, -1: none."""

    site: str  # "": nobody knows
    layer: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """One device's. Instants are numbers of the allocator's events; `time` tells when each was. Nothing here changes.

    taken: BEFORE for a block older than the recording; given: len(time) for one that is still there.
    """

    device: str
    time: np.ndarray  # int64 ns, of every event
    taken: np.ndarray  # int64
    given: np.ndarray  # int64
    bytes: np.ndarray  # int64
    place: np.ndarray  # int32, of `places`; the first is nowhere: nobody knows who took it
    places: tuple[Place, ...]
    layers: tuple[Layer, ...]
    stage: np.ndarray  # uint8, of STAGES, of every event: what the program was at
    steps: tuple[int, ...]  # the first event of each marked step
    unseen: int  # bytes beyond these blocks that were allocated all the time

    def __len__(self) -> int:
        return len(self.taken)

    @property
    def end(self) -> int:
        return len(self.time)


def stretches(stage: np.ndarray) -> np.ndarray:
    """For every event the number of the stretch it lies in: events in a row at the same stage."""
    return np.cumsum(np.append(False, stage[1:] != stage[:-1])) if len(stage) else np.zeros(0, np.int64)


def categories(blocks: Blocks) -> np.ndarray:
    """uint8, of CATEGORIES, for every block."""
    found = np.full(len(blocks), CODE["there before"], np.uint8)
    seen = np.flatnonzero(blocks.taken > BEFORE)
    if not len(seen):
        return found
    taken, given = blocks.taken[seen], blocks.given[seen]
    number = stretches(blocks.stage)
    until = np.append(number, number[-1] + 1)[given]  # a block that is still there outlives the last stretch
    stage = blocks.stage[taken]
    backward = blocks.stage == STAGES.index("backward")
    ended = np.append(0, np.cumsum(backward[:-1] & ~backward[1:]))  # backward passes that are over, at every event
    passes = np.append(ended, ended[-1] + backward[-1])[given] - ended[taken]
    rules = (
        (stage == STAGES.index("loading"), "parameters"),
        (until == number[taken], "temporaries"),
        (stage == STAGES.index("optimizer"), "optimizer state"),
        (stage == STAGES.index("backward"), "gradients"),
        (passes > 1, "kept over steps"),
    )
    found[seen] = np.select(
        [holds for holds, _ in rules], [CODE[category] for _, category in rules], CODE["activations"]
    )
    return found


def pair(address: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(taken, given, bytes) of the blocks behind events in their order; size < 0: given back.

    An address taken twice was given back unseen: the first block ends where the second begins.
    """
    taken: list[int] = []
    given: list[int] = []
    count: list[int] = []
    alive: dict[int, int] = {}
    for i, (where, size_) in enumerate(zip(address.tolist(), size.tolist(), strict=True)):
        block = alive.pop(where, None)
        if block is not None:
            given[block] = i
        elif size_ < 0:
            taken.append(BEFORE)
            given.append(i)
            count.append(-size_)
        if size_ > 0:
            alive[where] = len(taken)
            taken.append(i)
            given.append(len(address))
            count.append(size_)
    return np.array(taken, np.int64), np.array(given, np.int64), np.array(count, np.int64)
