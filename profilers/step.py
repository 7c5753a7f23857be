"""The step clock: which phase a training loop is in, step by step, without touching the loop.

One exclusive phase at a time on the loop's own thread, switched where every PyTorch loop has to pass: the DataLoader
iterator's class, the autograd engine's entry, the global optimizer hooks, hooks on the models (`root_hooks`), and the
few functions that save or log. What ends a step is `boundary`'s to say. Everything is put back on exit.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from threading import get_ident
from typing import Any, Self

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

from .boundary import FALLBACKS, Boundary
from .device_times import DeviceTimes, capturing
from .errors import UsageError
from .living import Living
from .loop import Loop, fetching, parts
from .pauses import Pauses
from .phases import LONG, Mark, Phases, now
from .places import places
from .root_hooks import RootHooks
from .sampling import steps as published
from .shapes import shapes_of
from .steps import Step, Steps

YOUNG = 8  # steps in which we still look for the loop's models and its device


class StepClock:
    """Use as a context manager around a loop. `on_step(clock)` is called right after each step was closed.

    `steps` holds the last whole steps; `marks` fills only while recording, as do `batches` (the shapes each fetch
    returned) and `spans` (garbage collections, backward passes with create_graph), but for those of compilation.
    """

    def __init__(self, on_step: Callable[[StepClock], None] | None = None) -> None:
        self.steps = Steps()
        self.count = 0
        self.batches: list[tuple[int, tuple]] = []
        self.boundary = Boundary()
        self.started = self.stopped = 0
        self.met: Loop | None = None  # read while it runs: its objects may not outlive it
        self.fetching: dict[str, Any] = {}  # of `met`, what the first loader says
        self.autocast: set[str] = set()  # device types under autocast in a forward, while recording
        self.optimizer_bytes = 0  # of the parameters under the optimizers, as recording began
        self._on_step = on_step
        self._phases = Phases()
        self._switch = self._phases.switch
        self._undo = contextlib.ExitStack()
        self._models = RootHooks(self._phases, self._forward_begins)
        self._pauses = Pauses(self._phases, self._undo)
        self._higher_order: list[tuple[int, int]] = []
        self._optimizers: Living[Optimizer] = Living(self.boundary.forget)
        self._loaders: Living[DataLoader] = Living()
        self._begin = 0
        self._device: DeviceTimes | None = None
        self._history: deque[tuple[str, int]] = deque(maxlen=512)  # events before the unit of a step is known
        self._stepping: dict[int, str] = {}  # optimizers inside their step: the phase before
        self._deferred = False
        self._young = YOUNG  # until this step we look
        self._changes = 0  # of the boundary

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
        self.restart()
        self.started = self._begin
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
        for place, name, phase in places():
            self.patch(place, name, functools.partial(self._phases.within, phase))
        for place in (torch.autograd, torch.autograd.graph):
            self.patch(place, "_engine_run_backward", self._running_backward)
        self.patch(DataLoader, "__iter__", self._iterating)
        self.patch(_BaseDataLoaderIter, "__next__", self._fetching)
        self.patch(torch.amp.GradScaler, "step", self._scaling)
        self.patch(nn.Module, "__getstate__", self._models.without_hooks)
        for place, name in ((torch, "save"), (torch.jit, "script")):
            self.patch(place, name, self._models.unhooked)
        for register, hook in (
            (register_optimizer_step_pre_hook, self._before_optimizer),
            (register_optimizer_step_post_hook, self._after_optimizer),
        ):
            self._undo.callback(register(hook).remove)
        self._pauses.watch()
        self._undo.callback(self._models.remove)
        self._models.install()

    def patch(self, place: Any, name: str, around: Callable[[Callable], Callable]) -> None:
        """Replace `place.name`; put the very same object back, unless somebody replaced ours meanwhile."""
        old = vars(place)[name]
        new = around(old)
        setattr(place, name, new)

        def put_back() -> None:
            if vars(place).get(name) is new:
                setattr(place, name, old)

        self._undo.callback(put_back)

    # -- what was met: living objects only ---------------------------------------------------------------------------

    @property
    def optimizers(self) -> dict[int, Optimizer]:
        return {id(o): o for o in self._optimizers}

    def trained(self) -> list[torch.Tensor]:
        """The parameters under the optimizers."""
        return [p for o in self._optimizers for group in o.param_groups for p in group["params"]]

    @property
    def loaders(self) -> list[DataLoader]:
        return list(self._loaders)

    @property
    def roots(self) -> list[nn.Module]:
        return self._models.hooked()

    def called(self) -> list[nn.Module]:
        """The models of this loop."""
        return self._models.called()

    @property
    def forward_by_difference(self) -> str:
        """Why no model could be hooked; "" where one was."""
        return self._models.missing

    # -- recording ---------------------------------------------------------------------------------------------------

    @property
    def marks(self) -> list[Mark]:
        return self._phases.marks

    @property
    def spans(self) -> dict[str, list[tuple[int, int]]]:
        return {"gc": self._pauses.gc, "compile": self._pauses.compile, "create_graph": self._higher_order}

    def record(self) -> int:
        """Keep every mark and batch shape from now on; returns now."""
        self._phases.marks, self.batches = [], []
        self._phases.record(True)
        self._models.begins = self._forward_begins
        self.optimizer_bytes = sum(p.numel() * p.element_size() for p in self.trained())
        self._look()
        return self._switch(self._phases.current)

    def stop_recording(self) -> None:
        self._phases.record(False)

    # -- where every loop passes -------------------------------------------------------------------------------------

    def _iterating(self, call: Callable) -> Callable:
        timed = self._phases.within("data", call)

        @functools.wraps(call)
        def start(loader: Any) -> Any:
            if get_ident() == self._phases.owner and self._loaders.add(loader) and not self.fetching:
                with contextlib.suppress(Exception):  # a loader of the user's own making
                    self.fetching = fetching(loader)  # now: in `for batch in DataLoader(...)` only its iterator stays
            return timed(loader)

        return start

    def _fetching(self, call: Callable) -> Callable:
        phases, models, boundary = self._phases, self._models, self.boundary

        @functools.wraps(call)
        def fetch(iterator: Any) -> Any:
            before = phases.current
            if before == "data" or get_ident() != phases.owner:
                return call(iterator)
            if before == "forward" and models.abandon():  # no model fetches its own batches
                before = "other"
            if not boundary.optimizer_steps:
                self._event("data")
            phases.current = "data"
            phases.note((now(), "data"))
            try:
                batch = call(iterator)
            finally:
                if before == "other" and models.missing:
                    before = "forward"  # without a hook: what lies between a batch and its backward, by difference
                phases.current = before
                phases.note((now(), before))
            if phases.recording:
                with contextlib.suppress(Exception):  # a batch of the user's own making
                    self.batches.append((phases.notes[-1][0], shapes_of(batch)))
            elif len(phases.notes) > LONG:
                phases.shorten()
            return batch

        return fetch

    def _forward_begins(self) -> None:
        self._event("forward")
        if self._phases.recording:
            self.autocast.update(kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
        elif self.boundary.optimizer_steps:
            self._models.begins = None  # nothing to learn from a forward until the next recording

    def _running_backward(self, call: Callable) -> Callable:
        phases, models, boundary = self._phases, self._models, self.boundary

        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            before = phases.current
            if before == "backward" or get_ident() != phases.owner:
                return call(*args, **kwargs)
            phases.current = "backward"
            phases.note((began := now(), "backward"))
            try:
                return call(*args, **kwargs)
            finally:
                if before == "forward" and models.missing:
                    before = "other"
                phases.current = before
                phases.note((ended := now(), before))
                if phases.recording and creates_graph(*args, **kwargs):
                    self._higher_order.append((began, ended))
                if not boundary.optimizer_steps:
                    self._event("backward")
                if self._deferred:
                    self._deferred = False
                    if self._on_step is not None:
                        self._on_step(self)
                    self.restart()

        return run

    # -- optimizers --------------------------------------------------------------------------------------------------

    def _before_optimizer(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        phases = self._phases
        if get_ident() != phases.owner:
            return
        who = id(optimizer)
        if who not in self._optimizers.ids:
            self._optimizers.add(optimizer)
            self._models.own(optimizer, self.count)
        self._stepping.setdefault(who, phases.current)  # there already: its last step raised, and the loop went on
        phases.current = "optimizer"
        phases.note((now(), "optimizer"))

    def _after_optimizer(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        phases = self._phases
        if get_ident() != phases.owner:
            return
        who = id(optimizer)
        before = self._stepping.pop(who, None)
        if before is None:
            return
        if self._stepping and before != "optimizer":
            self._stepping.clear()  # they raised inside this one
        phases.current = before
        phases.note((t := now(), before))
        self._optimizer_stepped(optimizer, t)

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
                self._optimizer_stepped(optimizer, self._switch(self._phases.current), skipped=True)
            return result

        return step

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _event(self, kind: str) -> None:
        """Without an optimizer, steps are made of these; once one has stepped, they are none of ours."""
        if self.boundary.optimizer_steps or capturing():
            return
        if not self.boundary.unit:
            self._history.append((kind, now()))
        if self.boundary.event(kind):
            self._close(self._switch(self._phases.current))

    def _optimizer_stepped(self, optimizer: Optimizer, t: int, skipped: bool = False) -> None:
        if capturing():
            return
        if self.boundary.optimizer(id(optimizer), type(optimizer).__name__):
            self._close(t, skipped)
        elif self.boundary.fragments:
            self._join_fragments()

    def _close(self, t: int, skipped: bool = False) -> None:
        phases = self._phases
        if phases.current == "forward" and self._models.abandon():
            phases.current = "other"
        if not self.count and self.boundary.unit in FALLBACKS.values():
            self._steps_from_history()  # the unit became known only now; the steps before it are past
            phases.cut(t)
        else:
            self.steps.append(step := Step(self._begin, t, phases.cut(t), skipped))
            self.count += 1
            if published.watched():
                published.publish(self.count, step.wall, step.phases)
        if self._device is not None:
            self._device.end((self._begin, t))
        self._begin = t
        if self.count <= self._young or self.boundary.changes != self._changes:
            self._look_around()
        if not self._pauses.knows_compiler and "torch._dynamo.callback" in sys.modules:
            self._pauses.watch_compiler()
        if self._on_step is not None or self._device is not None:
            self._tell()

    def _tell(self) -> None:
        if self._phases.current == "backward":
            self._deferred = True  # an optimizer inside backward: no profiler may start or stop inside the engine
        elif self._on_step is not None:
            self._on_step(self)
        self.restart()

    def _look_around(self) -> None:
        """In the first steps, and where the boundary learnt what a step is."""
        if self.boundary.fragments:
            self._join_fragments()
        if self.boundary.changes != self._changes:
            self._changes, self._young = self.boundary.changes, self.count + YOUNG
        self._models.settle(self.count)
        self._look()

    def restart(self) -> None:
        """The next step begins now: what happened since the last one (a profiler's start) belongs to no step."""
        if self._device is not None:
            self._device.begin()
        self._begin = now()
        self._phases.cut(self._begin)

    def _join_fragments(self) -> None:
        """The last steps turned out to be parts of one."""
        self.count -= self.steps.join(self.boundary.fragments) - 1
        self.boundary.fragments = 0

    def _look(self) -> None:
        """What is this loop made of, and does it run on CUDA?"""
        if self._device is None and torch.cuda.is_initialized():
            self._device = DeviceTimes(torch.cuda)
        with contextlib.suppress(Exception):  # an uninitialised lazy parameter; asked again when the loop has ended
            self.met = parts(self)

    def wall(self, step: Step) -> int:
        """ns the step took: on the device where that is known, else on the host."""
        if self._device is None:
            return step.wall
        self._device.read()
        return self._device.walls.get((step.start, step.end), step.wall)

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
            self.steps.append(Step(a, b, [(a, "other")]))
            self.count += 1


def creates_graph(outputs: Any = (), gradients: Any = (), keep: bool = False, create: bool = False, *_: Any, **named: Any) -> bool:  # fmt: skip
    """Of the arguments of `_engine_run_backward`: are the gradients to be differentiated again?"""
    return bool(named.get("create_graph", create))
