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

from torch import nn
from torch.compiler import is_dynamo_compiling
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .living import Living
from .phases import now
from .reader import NOT_FORWARD
from .roots import below, living_roots, owning, refuses
from .tape import ENTER, LEAVE, TIME, Tape

HOOKED_AT_MOST = 64  # roots hooked while we look for the ones that are called
ENTERS, LEAVES = ENTER["forward"], LEAVE["forward"]
NEVER_CALLED = "no module that holds the optimizer's parameters is called"


class RootHooks:
    """`phase()` says which phase the loop is in; it is asked of a model's first call only."""

    def __init__(self, tape: Tape, phase: Callable[[], str]) -> None:
        self.missing = ""
        self._tape = tape
        self._phase = phase
        self._hooked: Living[nn.Module] = Living(self._forget)
        self._handles: dict[int, tuple[RemovableHandle, ...]] = {}
        self._candidates: Living[nn.Module] = Living()  # owners of the optimizers' parameters, or what lies below them
        self._aside: Living[nn.Module] = Living()  # owners that take no hook
        self._called: set[int] = set()
        self._looked = 1 << 62  # the step in which candidates were last hooked

    def install(self) -> None:
        for module in living_roots()[:HOOKED_AT_MOST]:
            self._hook(module)

    # -- the hooks ---------------------------------------------------------------------------------------------------

    def _enter(self, module: nn.Module, _: object) -> None:
        if is_dynamo_compiling():  # folded away under dynamo: the traced hook is empty
            return
        tape = self._tape
        if get_ident() == tape.owner and (id(module) in self._called or self._is_new(module)):
            tape.note(now() & TIME | ENTERS)

    def _leave(self, module: nn.Module, _: object, __: object) -> None:
        if is_dynamo_compiling():
            return
        tape = self._tape
        if get_ident() == tape.owner and id(module) in self._called:
            tape.note(now() & TIME | LEAVES)

    def _is_new(self, module: nn.Module) -> bool:
        """Its first call in this loop? Not if the model is a copy that kept our hook, nor inside a dataset."""
        new = id(module) in self._hooked.ids and self._phase() not in NOT_FORWARD
        if new:
            self._called.add(id(module))
        return new

    def __reduce__(self) -> tuple:
        """A model may be pickled by other roads than `nn.Module.__getstate__`: its hooks then belong to no clock."""
        return RootHooks, (Tape(), str)

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
            module.register_forward_pre_hook(self._enter),
            module.register_forward_hook(self._leave, always_call=True),
        )

    def remove(self) -> None:
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles.clear()

    def _forget(self, who: int) -> None:
        self._called.discard(who)
        self._handles.pop(who, None)

    # -- the models as the user made them --------------------------------------------------------------------------------

    def unhooked(self, call: Callable) -> Callable:
        """Around a call that looks at hooks: scripting compiles them, and saving keeps those of a model that pickles
        itself in its own way (DistributedDataParallel)."""

        @functools.wraps(call)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != self._tape.owner or not self._handles:
                return call(*args, **kwargs)
            self.remove()
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
