"""Which storages are alive while a counted step runs: the allocator's view, of tensors without data."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

from .counting import Counting
from .module_tree import Whereabouts
from .stand_in import Fakes


@dataclass(frozen=True, slots=True)
class Birth:
    operator: str
    module: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Peak:
    bytes: int
    phase: str
    alive: dict[int, Birth]  # by the number of the storage


class Living(Counting):
    """Follows every storage an operator makes, from its first result until its last reference goes.

    What a kernel takes for itself and gives back is not seen. Sizes are rounded up to `granule`, as allocators do.
    """

    def __init__(self, where: Whereabouts, fakes: Fakes, granule: int = 1) -> None:
        self._granule = granule
        self._phase = ""
        self._before: set[int] = set()
        self._kept: list[torch.UntypedStorage] = []  # of before: held, or their ids would be used again
        self._references: dict[int, weakref.ref] = {}  # by id, which is free again only when the reference has gone
        self._changes: list[tuple[int, int, str]] = []  # number, bytes, phase
        self._births: list[Birth] = []
        self.kept = 0  # bytes alive when the forward was done
        super().__init__(where, fakes)

    @property
    def phase(self) -> str:
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        self.kept, self._phase = self.alive(), phase

    def ignore(self, tensors: Any) -> None:
        """What was there before."""
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, torch.Tensor):
                self._kept.append(tensor.untyped_storage())
                self._before.add(id(self._kept[-1]))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
                self._see(leaf.untyped_storage(), func)
        return result

    def alive(self) -> int:
        """Bytes now."""
        return sum(size for _, size, _ in self._changes)

    def peak(self) -> Peak:
        """Of all moments the fullest, and what was alive then."""
        now = most = at = 0
        for i, (_, size, _) in enumerate(self._changes):
            now += size
            if now > most:
                most, at = now, i + 1
        alive: dict[int, Birth] = {}
        for number, size, _ in self._changes[:at]:
            if size > 0:
                alive[number] = self._births[number]
            else:
                del alive[number]
        return Peak(most, self._changes[at - 1][2] if at else self.phase, alive)

    def _see(self, storage: torch.UntypedStorage, func: Any) -> None:
        key = id(storage)
        if key in self._references or key in self._before or not storage.nbytes():
            return
        size = -(-storage.nbytes() // self._granule) * self._granule
        number = len(self._births)
        self._births.append(Birth(func._schema.name, self._where.here(), size))
        self._changes.append((number, size, self._phase))

        def gone(_: object) -> None:
            del self._references[key]
            self._changes.append((number, -size, self._phase))

        self._references[key] = weakref.ref(storage, gone)
