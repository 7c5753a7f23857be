"""The step clock: which phase a training loop is in, step by step, without touching the loop.

One exclusive stack of phases on the loop's own thread. It is pushed and popped where every PyTorch loop has to pass:
the DataLoader iterator's class, the autograd engine's entry, the global optimizer hooks, the root module's hooks, and
the few functions that save or log. Each instant belongs to the innermost phase. Everything is put back on exit.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import gc
import logging
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from threading import get_ident
from typing import Any, NamedTuple, Self

import torch
import torch.autograd.graph
from torch import nn
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter
from torch.utils.hooks import RemovableHandle

from .boundary import FALLBACKS, Boundary
from .device_times import DeviceTimes
from .errors import UsageError
from .phases import Mark, Phases, now
from .roots import below, hookable, living_roots, owning

KEPT_STEPS = 4096  # a clock may run for weeks
WHOLE = ("data", "checkpoint", "logging")  # phases charged whole: a model inside a dataset is not the loop's forward
LOADERS_AT_MOST = 4  # a loop may make a new one every epoch
HOOKED_AT_MOST = 64  # roots hooked while we look for the ones that are called


class Step(NamedTuple):
    """One whole step, in Unix ns. `phases` is the exclusive time of each phase and adds up to end - start."""

    start: int
    end: int
    phases: Mapping[str, int]
    skipped: bool = False  # a GradScaler found an overflow and did not step

    @property
    def wall(self) -> int:
        return self.end - self.start


class StepClock:
    """Use as a context manager around a loop. `on_step(clock)` is called right after each step was closed.

    `steps` holds the last whole steps; `marks` fills only while `recording`, as do `batches` (the shapes each fetch
    returned). `spans[cause]` are the intervals of garbage collection and compilation.
    """

    def __init__(self, on_step: Callable[[StepClock], None] | None = None) -> None:
        self.steps: deque[Step] = deque(maxlen=KEPT_STEPS)
        self.count = 0
        self.batches: list[tuple[int, tuple]] = []
        self.spans: dict[str, list[tuple[int, int]]] = {"gc": [], "compile": []}
        self.boundary = Boundary()
        self.optimizers: dict[int, Optimizer] = {}
        self.roots: list[nn.Module] = []
        self.autocast = False  # was the forward under autocast
        self.loaders: list[DataLoader] = []  # held: a loop inside a function drops its own before we read it
        self.forward_by_difference = False
        self.started = self.stopped = 0
        self._on_step = on_step
        self._phases = Phases()
        self._switch = self._phases.switch
        self._begin = 0
        self._device: DeviceTimes | None = None
        self._history: deque[tuple[str, int]] = deque(maxlen=512)  # events before the unit of a step is known
        self._stepping: list[tuple[int, str]] = []  # optimizers inside their step: (id, the phase before)
        self._around: list[str] = []  # the phases around the forwards we are in
        self._candidates: list[nn.Module] = []  # owners of the optimizers' parameters, or what lies below them
        self._looked = 1 << 62  # the step in which candidates were last hooked
        self._called: set[int] = set()
        self._hooks = hooks_of(self)
        self._handles: list[RemovableHandle] = []
        self._undo = contextlib.ExitStack()
        self._gc_began = 0
        self._deferred = False
        self._compile_hooked = False

    # -- life ----------------------------------------------------------------------------------------------------

    _active: StepClock | None = None

    def __enter__(self) -> Self:
        if StepClock._active is not None:
            raise UsageError("a profile is already running in this process: end it before you start another")
        StepClock._active = self
        self._phases.owner = get_ident()
        try:
            self._install()
        except BaseException:
            self._restore()
            raise
        self.started = self._begin = self._phases.last = now()
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self.stopped = now()
        if not self.count:
            self._steps_from_history()

    def _restore(self) -> None:
        StepClock._active = None
        self._phases.owner = 0
        self._undo.close()

    def _install(self) -> None:
        for place, name, phase in _places():
            self.patch(place, name, functools.partial(self._phases.within, phase))
        for place in (torch.autograd, torch.autograd.graph):
            self.patch(place, "_engine_run_backward", self._running_backward)
        self.patch(DataLoader, "__iter__", self._iterating)
        self.patch(_BaseDataLoaderIter, "__next__", self._fetching)
        self.patch(torch.amp.GradScaler, "step", self._scaling)
        self.patch(torch, "save", lambda call: self._phases.within("checkpoint", self._unhooked(call)))
        self.patch(torch.jit, "script", self._unhooked)
        for register, hook in (
            (register_optimizer_step_pre_hook, self._before_optimizer),
            (register_optimizer_step_post_hook, self._after_optimizer),
        ):
            self._undo.callback(register(hook).remove)
        gc.callbacks.append(self._collecting)
        self._undo.callback(gc.callbacks.remove, self._collecting)
        self._watch_compiler()
        self._undo.callback(self._detach)
        for module in living_roots()[:HOOKED_AT_MOST]:
            self._hook(module)

    def patch(self, place: Any, name: str, around: Callable[[Callable], Callable]) -> None:
        """Replace `place.name`; put the very same object back, unless somebody replaced ours meanwhile."""
        old = vars(place)[name]
        new = around(old)
        setattr(place, name, new)

        def put_back() -> None:
            if vars(place).get(name) is new:
                setattr(place, name, old)

        self._undo.callback(put_back)

    # -- recording ---------------------------------------------------------------------------------------------------

    @property
    def marks(self) -> list[Mark]:
        return self._phases.marks

    def record(self) -> int:
        """Keep every mark and batch shape from now on; returns now."""
        self._phases.marks, self.batches = [], []
        self._phases.recording = True
        return self._switch(self._phases.current)

    def stop_recording(self) -> None:
        self._phases.recording = False

    # -- where every loop passes -------------------------------------------------------------------------------------

    def _running_backward(self, call: Callable) -> Callable:
        phases = self._phases

        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            before = phases.current
            if before == "backward" or get_ident() != phases.owner:
                return call(*args, **kwargs)
            self._switch("backward")
            try:
                return call(*args, **kwargs)
            finally:
                self._switch("other" if self.forward_by_difference and before == "forward" else before)
                if not self.boundary.optimizer_steps:
                    self._event("backward")
                if self._deferred and self._on_step is not None:
                    self._deferred = False
                    self._on_step(self)
                    self.restart()

        return run

    def _iterating(self, call: Callable) -> Callable:
        timed = self._phases.within("data", call)

        @functools.wraps(call)
        def start(loader: Any) -> Any:
            if get_ident() == self._phases.owner and all(loader is not known for known in self.loaders):
                self.loaders.append(loader)
            return timed(loader)

        return start

    def _fetching(self, call: Callable) -> Callable:
        phases = self._phases

        @functools.wraps(call)
        def fetch(iterator: Any) -> Any:
            before = phases.current
            if before == "data" or get_ident() != phases.owner:
                return call(iterator)
            if not self.boundary.optimizer_steps:
                self._event("data")
            self._switch("data")
            try:
                batch = call(iterator)
            finally:
                # Without a forward hook, what lies between a batch and its backward is forward, by difference.
                self._switch("forward" if self.forward_by_difference and before == "other" else before)
            if phases.recording:
                with contextlib.suppress(Exception):  # a batch of the user's own making
                    self.batches.append((phases.last, shapes_of(batch)))
            return batch

        return fetch

    # -- optimizers --------------------------------------------------------------------------------------------------

    def _before_optimizer(self, optimizer: Optimizer, *_: object) -> None:
        if get_ident() != self._phases.owner:
            return
        who, before = id(optimizer), self._phases.current
        if who not in self.optimizers:
            self.optimizers[who] = optimizer
            self._own(optimizer)
        if self._stepping:  # inside another's step, or its own last step raised and the loop went on
            before = next((phase for other, phase in self._stepping if other == who), before)
            self._stepping = [(other, phase) for other, phase in self._stepping if other != who]
        self._stepping.append((who, before))
        self._switch("optimizer")

    def _after_optimizer(self, optimizer: Optimizer, *_: object) -> None:
        if get_ident() != self._phases.owner:
            return
        me = id(optimizer)
        while self._stepping:
            who, before = self._stepping.pop()
            if who == me:
                self._switch(before)
                self._event("optimizer", me, type(optimizer).__name__)
                return

    def _scaling(self, call: Callable) -> Callable:
        """`GradScaler.step`: where it skips the optimizer, the step ends all the same."""

        @functools.wraps(call)
        def step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            before = self.boundary.optimizer_steps
            result = call(scaler, optimizer, *args, **kwargs)
            if (
                get_ident() == self._phases.owner
                and isinstance(optimizer, Optimizer)
                and self.boundary.optimizer_steps == before
            ):
                self._event("optimizer", id(optimizer), type(optimizer).__name__, skipped=True)
            return result

        return step

    # -- the root module ---------------------------------------------------------------------------------------------

    def _own(self, optimizer: Optimizer) -> None:
        """Hook the models of an optimizer seen for the first time: they may be younger than the clock."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._looked = self.count
        owners = owning(self.roots, parameters) or owning(living_roots(), parameters)
        for module in owners[:HOOKED_AT_MOST]:
            self._candidates.append(module)
            self._hook(module)

    def _hook(self, module: nn.Module) -> None:
        if any(module is m for m in self.roots) or not hookable(module):
            return
        self.roots.append(module)
        self._attach(module)

    def _attach(self, module: nn.Module) -> None:
        self._handles += [
            module.register_forward_pre_hook(self._hooks[0]),
            module.register_forward_hook(self._hooks[1], always_call=True),
        ]

    def _detach(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _unhooked(self, call: Callable) -> Callable:
        """`call` with the models as the user made them: hooks must be neither saved with a model nor scripted."""

        @functools.wraps(call)
        def plain(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != self._phases.owner or not self._handles:
                return call(*args, **kwargs)
            self._detach()
            try:
                return call(*args, **kwargs)
            finally:
                for module in self.roots:
                    self._attach(module)

        return plain

    def _before_forward(self, module: nn.Module, *_: object) -> None:
        if get_ident() != self._phases.owner:
            return
        before = self._phases.current
        self._around.append(before)
        if before in WHOLE or before == "backward":  # in backward: a recomputation, by a root inside a checkpoint
            return
        self._called.add(id(module))
        if not self.boundary.optimizer_steps and "forward" not in self._around:
            self._event("forward")
        if self._phases.recording:
            device = next((p.device.type for p in module.parameters()), "cpu")
            self.autocast |= torch.is_autocast_enabled(device)
        self._switch("forward")

    def _after_forward(self, *_: object) -> None:
        if get_ident() == self._phases.owner and self._around:
            self._switch(self._around.pop())

    def called(self) -> list[nn.Module]:
        """The hooked modules that were called: the models of this loop."""
        return [m for m in self.roots if id(m) in self._called]

    def _settle_roots(self) -> None:
        """After a whole step: where no hooked module was called, try those inside it; else the phase is a difference."""
        whole_step = self.count > self._looked + 1
        if not whole_step or self.forward_by_difference or any(id(m) in self._called for m in self._candidates):
            return
        self._looked = self.count - 1
        self._candidates = below(self._candidates)[:HOOKED_AT_MOST]
        for module in self._candidates:
            self._hook(module)
        self.forward_by_difference = not self._candidates

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _event(self, kind: str, who: int = 0, name: str = "", skipped: bool = False) -> None:
        if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
            return  # recorded, not run; and no call of ours may come between
        if not self.boundary.unit:
            self._history.append((kind, now()))
        if self.boundary.closes(kind, who, name):
            self._close(skipped)

    def _close(self, skipped: bool) -> None:
        t = self._switch(self._phases.current)
        if not self.count and self.boundary.unit in FALLBACKS.values():
            self._steps_from_history()  # the unit became known only now; the steps before it are past
        else:
            self.steps.append(Step(self._begin, t, dict(self._phases.sums), skipped))
            self.count += 1
        if self._device is not None:
            self._device.end(self._begin)
        if self.count <= 8:
            self._settle_roots()
            self._find_device()
        if not self._compile_hooked:
            self._watch_compiler()
        if self._phases.current == "backward":
            self._deferred = True  # an optimizer inside backward: no profiler may start or stop inside the engine
        elif self._on_step is not None:
            self._on_step(self)
        if self._on_step is not None or self._device is not None:
            self.restart()
        else:
            self._phases.sums.clear()
            self._begin = t

    def restart(self) -> None:
        """The next step begins now: what happened since the last one (a profiler's start) belongs to no step."""
        self._phases.sums.clear()
        if self._device is not None:
            self._device.begin()
        self._begin = self._phases.last = now()

    def _find_device(self) -> None:
        """From the first steps on: does this loop run on CUDA?"""
        if self._device is None and torch.cuda.is_initialized():
            self._device = DeviceTimes(torch.cuda)

    def wall(self, step: Step) -> int:
        """ns the step took: on the device where that is known, else on the host."""
        if self._device is None:
            return step.wall
        self._device.read()
        return self._device.walls.get(step.start, step.wall)

    def settle(self) -> None:
        """After the loop: wait once for its last steps, which the device may still be running."""
        if self._device is not None:
            with contextlib.suppress(RuntimeError):  # a device-side assert is the user's to see
                self._device.wait()

    def _steps_from_history(self) -> None:
        """Steps of a loop whose unit was not known while it ran them: from one event of the leading kind to the next."""
        kind = self.boundary.leading
        times = [t for k, t in self._history if k == kind]
        for a, b in pairwise(times):
            self.boundary.unit = FALLBACKS[kind]
            self.steps.append(Step(a, b, {"other": b - a}))
            self.count += 1

    # -- spans: garbage collection and compilation -------------------------------------------------------------------------

    def _collecting(self, when: str, _: Mapping[str, int]) -> None:
        if when == "start":
            self._gc_began = now()
        elif self._gc_began and get_ident() == self._phases.owner:
            self.spans["gc"].append((self._gc_began, now()))
            self._gc_began = 0

    def _watch_compiler(self) -> None:
        """Ask dynamo for its compile times, once somebody has imported it (importing it ourselves takes seconds)."""
        if self._compile_hooked or "torch._dynamo.callback" not in sys.modules:
            return
        self._compile_hooked = True
        handler = getattr(sys.modules["torch._dynamo.callback"], "callback_handler", None)
        if handler is None:
            return
        began: list[int] = []

        def start(*_: object) -> None:
            began.append(now())

        def end(*_: object) -> None:
            if began:
                self.spans["compile"].append((began.pop(), now()))

        for add, remove, hook in (
            (handler.register_start_callback, handler.remove_start_callback, start),
            (handler.register_end_callback, handler.remove_end_callback, end),
        ):
            add(hook)
            self._undo.callback(remove, hook)


def hooks_of(clock: StepClock) -> tuple[Callable, Callable]:
    """Forward hooks as plain functions: `copy.deepcopy(model)` copies a bound method's clock, and a function not.

    Under dynamo `is_compiling` is folded away: the traced hook is empty.
    """
    known = weakref.ref(clock)

    def before(module: nn.Module, *_: object) -> None:
        if not torch.compiler.is_compiling() and (alive := known()) is not None:
            alive._before_forward(module)

    def after(*_: object) -> None:
        if not torch.compiler.is_compiling() and (alive := known()) is not None:
            alive._after_forward()

    return before, after


def _places() -> Iterator[tuple[Any, str, str]]:
    """(object, attribute, phase): functions whose whole time is one phase. Libraries only where already imported."""
    yield nn.Module, "state_dict", "checkpoint"
    yield Optimizer, "state_dict", "checkpoint"
    yield builtins, "print", "logging"
    yield logging.Logger, "callHandlers", "logging"
    for module, owner, name, phase in (
        ("tqdm.std", "tqdm", "display", "logging"),
        ("torch.utils.tensorboard.writer", "FileWriter", "add_event", "logging"),
        ("safetensors.torch", "", "save_file", "checkpoint"),
        ("torch.distributed.checkpoint", "", "save", "checkpoint"),
    ):
        place = sys.modules.get(module)
        place = getattr(place, owner, None) if place is not None and owner else place
        if place is not None and name in vars(place):
            yield place, name, phase


def shapes_of(batch: Any, depth: int = 3) -> tuple:
    """The shapes of a batch's first tensors, nested containers followed: equal shapes mean the same work."""
    if isinstance(batch, torch.Tensor):
        return tuple(batch.shape)
    if depth and isinstance(batch, Mapping):
        return tuple(shapes_of(v, depth - 1) for v in list(batch.values())[:16])
    if depth and isinstance(batch, (list, tuple)):
        return tuple(shapes_of(v, depth - 1) for v in batch[:16])
    return ()
