"""Whose FLOPs they are: the module an operator ran in, forward and backward, as a tree.

Forward, the module is the innermost whose call is open. Backward, no module is called; but every autograd node carries
the number at which it was made, and numbers only grow, so the calls cut the numbers into stretches with one module each.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = ""


@dataclass(frozen=True, slots=True)
class Flops:
    """By phase. `recompute` is forward work that the backward did again (activation checkpointing)."""

    forward: int = 0
    backward: int = 0
    recompute: int = 0

    @property
    def model(self) -> int:
        """What the model asks for, recomputation apart: the numerator of MFU."""
        return self.forward + self.backward

    @property
    def total(self) -> int:
        """What is executed, recomputation included: the numerator of HFU."""
        return self.forward + self.backward + self.recompute

    def __add__(self, other: Flops) -> Flops:
        return Flops(self.forward + other.forward, self.backward + other.backward, self.recompute + other.recompute)


@dataclass(frozen=True, slots=True)
class ModuleFlops:
    """`own`: outside any child; `whole`: with all that is below. `path` as in `named_modules`, "" the model itself."""

    path: str
    kind: str
    own: Flops
    whole: Flops
    children: tuple[ModuleFlops, ...] = ()

    def __iter__(self) -> Iterator[ModuleFlops]:
        """This module and all below it, in the order they were registered."""
        yield self
        for child in self.children:
            yield from child


def tree(model: nn.Module, own: Mapping[str, Flops]) -> ModuleFlops:
    """`own` by path. A module registered twice is where it was registered first."""
    below: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for path, module in model.named_modules():
        kinds[path] = type(module).__name__
        if path:
            below.setdefault(_parent(path, kinds), []).append(path)

    def branch(path: str) -> ModuleFlops:
        children = tuple(branch(each) for each in below.get(path, ()))
        alone = own.get(path, Flops())
        return ModuleFlops(path, kinds[path], alone, sum((c.whole for c in children), alone), children)

    return branch(ROOT)


def _parent(path: str, known: Mapping[str, str]) -> str:
    """The nearest module above: a name may itself contain dots where it was set without a check."""
    while path:
        path = path.rpartition(".")[0]
        if path in known:
            return path
    return ROOT


class Whereabouts:
    """Knows the module of what is running now. `calls(model)` must be open around forward and backward."""

    def __init__(self, model: nn.Module) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._open: list[str] = []
        self._numbers = [-1]  # first autograd number of each stretch …
        self._modules = [ROOT]  # … and its module

    @property
    def in_module(self) -> bool:
        return bool(self._open)

    def here(self) -> str:
        """Path of the module whose forward is running, or whose forward made the autograd node that is."""
        if self._open:
            return self._open[-1]
        node = self._node()
        if node is None:
            return ROOT
        return self._modules[bisect.bisect_right(self._numbers, node._sequence_nr()) - 1]

    def node_name(self) -> str:
        """Of the autograd node that is running; empty in the forward."""
        node = self._node()
        return "" if node is None else node.name()

    @staticmethod
    def _node() -> Any:
        import torch

        return torch._C._current_autograd_node()

    @contextmanager
    def calls(self) -> Iterator[None]:
        """Watch every module call by standing before `nn.Module.__call__`: no hook is added to the user's modules.

        A hook would also miss calls that end by an exception, as a recomputation does that has all it needs.
        """
        from torch import nn
        from torch._C._autograd import _get_sequence_nr

        original = nn.Module.__call__
        paths, opened = self._paths, self._open

        def mark(path: str) -> None:
            self._numbers.append(_get_sequence_nr())
            self._modules.append(path)

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            path = paths.get(id(module))
            if path is None:
                return original(module, *args, **kwargs)
            opened.append(path)
            mark(path)
            try:
                return original(module, *args, **kwargs)
            finally:
                opened.pop()
                mark(opened[-1] if opened else ROOT)

        nn.Module.__call__ = call
        try:
            yield
        finally:
            nn.Module.__call__ = original
            opened.clear()
