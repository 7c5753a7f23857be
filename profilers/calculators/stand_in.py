"""A model without its data: fake tensors stand in for parameters and buffers, and everything is put back afterwards.

The modules themselves are kept, not copied: hooks, patched forwards and closures refer to them, and a copy would leave
those with the real weights. While the stand-ins are in, no other thread may use the model.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..errors import UsageError


class Fakes:
    """One fake tensor for each real one, of its shape, strides, dtype and need of a gradient, on the CPU whatever it
    was on: one device needs no copies between devices, and a model on "meta" or a missing GPU can be counted.

    Must be used under a FakeTensorMode.
    """

    def __init__(self) -> None:
        self._made: dict[int, tuple[Tensor, Tensor]] = {}  # the real one is kept, or its id might be used again
        self._grads: list[tuple[Tensor, Tensor | None]] = []

    def of(self, real: Tensor) -> Tensor:
        made = self._made.get(id(real))
        if made is not None:
            return made[1]
        if is_traceable_wrapper_subclass(real) or torch.nn.parameter.is_lazy(real):
            raise UsageError(
                f"a {type(real).__name__} has no plain shape to count with; give the model as it is before it is sharded "
                "or quantized, and run a lazy one once"
            )
        if real.layout is torch.strided:
            fake = torch.empty_strided(real.shape, real.stride(), dtype=real.dtype, device="cpu")
        else:
            fake = torch.empty(real.shape, dtype=real.dtype, device="cpu")
        fake.requires_grad_(real.requires_grad)
        if isinstance(real, torch.nn.Parameter):
            fake._is_param = True  # what isinstance asks for; torch.nn.Parameter(fake) would dispatch once more
        self._made[id(real)] = real, fake
        return fake

    def of_stranger(self, real: Tensor) -> Tensor:
        """For a tensor met on the way, in a closure or a global, whose gradient the backward will write to."""
        if id(real) not in self._made and real.is_leaf and real.requires_grad:
            self._grads.append((real, real.grad))
        return self.of(real)

    def restore_grads(self) -> None:
        for real, grad in self._grads:
            real.grad = grad


@contextmanager
def standing_in(model: nn.Module, fakes: Fakes) -> Iterator[None]:
    """`model` with fake parameters and buffers; on the way out each module has the attributes it had, by identity.

    What a forward does to an attribute that is a list, dict or set is undone too; what it does inside other objects,
    or outside the model, is not.
    """
    kept = [_Kept(vars(module)) for module in model.modules()]
    try:
        for each in kept:
            each.replace(fakes)
        yield
    finally:
        for each in kept:
            each.restore()
        fakes.restore_grads()


_CONTAINERS = (dict, list, set)


class _Kept:
    """The attributes of one module, and what the containers among them hold (its parameters are in such a one)."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        self.attributes = attributes
        self.copy = attributes.copy()
        self.contents: list[tuple[Any, Any]] = [
            (each, each.copy()) for each in attributes.values() if isinstance(each, _CONTAINERS)
        ]

    def replace(self, fakes: Fakes) -> None:
        holders: list[tuple[Any, Any]] = [(self.attributes, self.copy), *self.contents]
        for holder, content in holders:
            if not isinstance(holder, set):
                for key, value in list(content.items() if isinstance(content, dict) else enumerate(content)):
                    if isinstance(value, torch.Tensor):
                        holder[key] = fakes.of(value)

    def restore(self) -> None:
        self.attributes.clear()
        self.attributes.update(self.copy)
        for container, content in self.contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Python's, numpy's and torch's generators as they were, whatever a forward draws."""
    numpy = sys.modules.get("numpy")
    states = random.getstate(), torch.get_rng_state(), numpy.random.get_state() if numpy else None
    try:
        yield
    finally:
        random.setstate(states[0])
        torch.set_rng_state(states[1])
        if numpy:
            numpy.random.set_state(states[2])
