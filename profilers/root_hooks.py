"""The forward phase: hooks on the models a loop calls, and on nothing else.

Outermost modules are hooked when the clock starts, an optimizer's models when it first steps. Where none of them is
ever called itself, those inside are tried; where nothing takes a hook, `missing` says why, and forward is what lies
between a batch and its backward. Models are held weakly, and what is copied or saved of them has no hook.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import Any

import torch
from torch import nn
from torch.compiler import is_compiling
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .living import Living
from .phases import Phases
from .roots import below, living_roots, owning, refuses

WHOLE = ("data", "checkpoint", "logging")  # phases charged whole: a model inside a dataset is not the loop's forward
HOOKED_AT_MOST = 64  # roots hooked while we look for the ones that are called
NEVER_CALLED = "no module that holds the optimizer's parameters is called"

_listening: RootHooks | None = None  # one clock runs in a process; hooks must be plain functions (see `OURS`)


def _before_forward(module: nn.Module, *_: object) -> None:
    if not is_compiling() and _listening is not None:  # folded away under dynamo: the traced hook is empty
        _listening.enter(module)


def _after_forward(module: nn.Module, *_: object) -> None:
    if not is_compiling() and _listening is not None:
        _listening.leave(module)


# A model may be pickled by other roads than `nn.Module.__getstate__` (DistributedDataParallel has its own): functions
# of a module can be, and are inert where no clock runs.
OURS = (_before_forward, _after_forward)


class RootHooks:
    """`outermost()` is called as a forward begins that lies inside no other; `autocast` are the device types under
    autocast in a forward, filled while recording."""

    def __init__(self, phases: Phases, outermost: Callable[[], object]) -> None:
        self.missing = ""
        self.autocast: set[str] = set()
        self._phases = phases
        self._outermost = outermost
        self._hooked: Living[nn.Module] = Living(self._forget)
        self._handles: dict[int, tuple[RemovableHandle, ...]] = {}
        self._candidates: Living[nn.Module] = Living()  # owners of the optimizers' parameters, or what lies below them
        self._aside: Living[nn.Module] = Living()  # owners that take no hook
        self._called: set[int] = set()
        self._around: list[str] = []  # the phases around the forwards we are in
        self._looked = 1 << 62  # the step in which candidates were last hooked

    def install(self) -> None:
        global _listening
        _listening = self
        for module in living_roots()[:HOOKED_AT_MOST]:
            self._hook(module)

    def remove(self) -> None:
        global _listening
        _listening = None
        self._detach()

    # -- the hooks ---------------------------------------------------------------------------------------------------

    def enter(self, module: nn.Module) -> None:
        phases = self._phases
        if get_ident() != phases.owner or id(module) not in self._hooked.ids:  # a copy may have kept the hook
            return
        before = phases.current
        self._around.append(before)
        if before in WHOLE or before == "backward":  # in backward: a recomputation, by a root inside a checkpoint
            return
        self._called.add(id(module))
        if "forward" not in self._around:
            self._outermost()
        if phases.recording:
            self.autocast.update(kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
        phases.switch("forward")

    def leave(self, module: nn.Module) -> None:
        if get_ident() == self._phases.owner and self._around and id(module) in self._hooked.ids:
            self._phases.switch(self._around.pop())

    def abandon(self) -> bool:
        """Leave every forward: torch calls no hook where a KeyboardInterrupt ended one. Whether there was any."""
        inside = bool(self._around)
        self._around.clear()
        return inside

    # -- which models ------------------------------------------------------------------------------------------------

    def own(self, optimizer: Optimizer, step: int) -> None:
        """Hook the models of an optimizer seen for the first time: they may be younger than the clock."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._looked = step
        self._try(owning(self._hooked, parameters) or owning(living_roots(), parameters))

    def settle(self, steps: int) -> None:
        """After a whole step: where no candidate was called, try those inside."""
        whole_step = steps > self._looked + 1
        candidates = list(self._candidates)
        if not whole_step or self.missing or any(id(m) in self._called for m in candidates):
            return
        self._looked = steps - 1
        self._candidates = Living()
        self._try(below(candidates))
        if not any(True for _ in self._candidates):
            self.missing = next(filter(None, map(refuses, self._aside)), NEVER_CALLED)

    def hooked(self) -> list[nn.Module]:
        return list(self._hooked)

    def called(self) -> list[nn.Module]:
        """The models of this loop: the hooked modules that were called, and owners that take no hook."""
        return [*(m for m in self._hooked if id(m) in self._called), *self._aside]

    def _try(self, modules: Iterable[nn.Module]) -> None:
        for module in list(modules)[:HOOKED_AT_MOST]:
            if self._hook(module):
                self._candidates.add(module)
                self.missing = ""
            else:
                self._aside.add(module)

    def _hook(self, module: nn.Module) -> bool:
        if refuses(module):
            return False
        if self._hooked.add(module):
            self._attach(module)
        return True

    def _attach(self, module: nn.Module) -> None:
        self._handles[id(module)] = (
            module.register_forward_pre_hook(_before_forward),
            module.register_forward_hook(_after_forward, always_call=True),
        )

    def _detach(self) -> None:
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()

    def _forget(self, who: int) -> None:
        self._called.discard(who)
        self._handles.pop(who, None)

    # -- the models as the user made them --------------------------------------------------------------------------------

    def unhooked(self, call: Callable) -> Callable:
        """Around a call that would look at hooks: scripting compiles them."""

        @functools.wraps(call)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != self._phases.owner or not self._handles:
                return call(*args, **kwargs)
            self._detach()
            try:
                return call(*args, **kwargs)
            finally:
                for module in self._hooked:
                    self._attach(module)

        return plain

    def without_hooks(self, get_state: Callable) -> Callable:
        """Around `nn.Module.__getstate__`: what is pickled or copied of a model."""

        @functools.wraps(get_state)
        def state_of(module: nn.Module) -> Any:
            state = get_state(module)
            if id(module) in self._hooked.ids and isinstance(state, dict):
                ours = {handle.id for handle in self._handles.get(id(module), ())}
                for name in ("_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called"):
                    state[name] = OrderedDict((k, v) for k, v in state.get(name, {}).items() if k not in ours)
            return state

        return state_of
