"""The step clock: which phase a training loop is in, step by step, without touching the loop.

Hooks where every PyTorch loop has to pass: the DataLoader iterator's class, the autograd engine's entry, the global
optimizer hooks, the models (`root_hooks`), and the few functions that save or log. They write a `tape`, which `reader`
turns into phases and steps: at the end of each step, but once nobody asks for steps any more and one optimizer's
steps are the loop's, only when somebody asks. What ends a step is `boundary`'s to say. Everything is put back on exit.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from threading import get_ident
from time import thread_time_ns
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
from .phases import Mark, now
from .places import places
from .reader import NOT_FORWARD, Reader, last_step
from .root_hooks import RootHooks
from .sampling import steps as published
from .shapes import shapes_of
from .steps import Step, Steps
from .tape import ENTER, LEAVE, STEP, TIME, Tape

YOUNG = 8  # steps in which we still look for the loop's models and its device
FETCHING, FETCHED = ENTER["data"], LEAVE["data"]
FORWARD = ENTER["forward"]
BACKWARD, BACK = ENTER["backward"], LEAVE["backward"]
STEPPING, STEPPED = ENTER["optimizer"], LEAVE["optimizer"]


class StepClock:
    """Use as a context manager around a loop. `on_step(clock)` is called right after each step was closed, until it
    calls `rest`: then only when what a step is has changed.

    `steps` holds the last whole steps; `marks` fills only while recording, as do `batches` (the shapes each fetch
    returned) and `spans` (garbage collections, backward passes with create_graph), but for those of compilation.
    """

    def __init__(self, on_step: Callable[[StepClock], None] | None = None) -> None:
        self.count = 0
        self.marks: list[Mark] = []
        self.batches: list[tuple[int, tuple]] = []
        self.boundary = Boundary()
        self.started = self.stopped = 0
        self.met: Loop | None = None  # read while it runs: its objects may not outlive it
        self.fetching: dict[str, Any] = {}  # of `met`, what the first loader says
        self.autocast: set[str] = set()  # device types under autocast in a forward, while recording
        self.optimizer_bytes = 0  # of the parameters under the optimizers, as recording began
        self._on_step = on_step
        self._resting = on_step is None
        self._tape = Tape()
        self._reader = Reader()
        self._undo = contextlib.ExitStack()
        self._models = RootHooks(self._tape, self._phase)
        self._pauses = Pauses(self._tape, self._undo)
        self._higher_order: list[tuple[int, int]] = []
        self._graph_since = 0  # of the backward we are in, if its gradients are to be differentiated again
        self._optimizers: Living[Optimizer] = Living(self._forget_optimizer)
        self._loaders: Living[DataLoader] = Living()
        self._device: DeviceTimes | None = None
        self._history: deque[tuple[str, int]] = deque(maxlen=512)  # events before the unit of a step is known
        self._stepping: set[int] = set()  # optimizers inside their step
        self._settled = 0  # the optimizer whose steps are the loop's, while nobody asks for them
        self._settled_steps = False  # it is inside its step
        self._told = 0  # of `count`, the steps the boundary has heard of
        self._deferred = False
        self._young = YOUNG  # until this step we look
        self._changes = 0  # of the boundary

    # -- life ----------------------------------------------------------------------------------------------------

    _active: StepClock | None = None

    def __enter__(self) -> Self:
        if StepClock._active is not None:
            raise UsageError("a profile is already running in this process: end it before you start another")
        StepClock._active = self
        self._tape.owner = get_ident()
        try:
            self._install()
        except BaseException:
            self._restore()
            raise
        self.restart()
        self.started = self._reader.notes[0][0]
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()
        self.stopped = now()
        self._unsettle()
        if not self.count:
            self._steps_from_history()

    def _restore(self) -> None:
        StepClock._active = None
        self._tape.owner = 0
        self._undo.close()

    def _install(self) -> None:
        for place, name, phase in places():
            self.patch(place, name, functools.partial(self._tape.within, phase))
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
        self._listen()
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

    # -- reading the tape --------------------------------------------------------------------------------------------

    @property
    def steps(self) -> Steps:
        self._read()
        return self._reader.steps

    def _read(self) -> None:
        for event in self._tape.drain():
            self._reader.read(event)

    def _phase(self) -> str:
        self._read()
        return self._reader.current

    def _listen(self) -> None:
        """Hear events as they happen, or read them later?"""
        at_once = self._tape.recording or self._deferred or not self.boundary.optimizer_steps
        self._tape.listen(self._heard if at_once else None)

    def _heard(self, event: int) -> None:
        t, what, reader = event & TIME, event & ~TIME, self._reader
        if what == FETCHING and reader.current != "data":
            self._event("data", t)
        elif what == FORWARD and reader.current not in NOT_FORWARD and not reader.inside("forward"):
            self._event("forward", t)
            if self._tape.recording:
                self.autocast.update(kind for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind))
        reader.read(event)
        if self._tape.recording:
            # The CPU clock is a system call (0.6 us, six times a time stamp): only while recording.
            self.marks.append(Mark(t, thread_time_ns(), reader.current))
        if what == BACK and not reader.inside("backward"):
            if self._graph_since:
                self._higher_order.append((self._graph_since, t))
                self._graph_since = 0
            self._event("backward", t)
            self._tell_later()

    # -- recording ---------------------------------------------------------------------------------------------------

    @property
    def spans(self) -> dict[str, list[tuple[int, int]]]:
        return {"gc": self._pauses.gc, "compile": self._pauses.compile, "create_graph": self._higher_order}

    def record(self) -> int:
        """Keep every mark and batch shape from now on; returns now."""
        self._read()
        self._unsettle()
        self._tape.recording = True
        self._listen()
        self.optimizer_bytes = sum(p.numel() * p.element_size() for p in self.trained())
        self._look()
        t = now() & TIME
        self.marks, self.batches = [Mark(t, thread_time_ns(), self._reader.current)], []
        return t

    def stop_recording(self) -> None:
        self._tape.recording = False
        self._listen()

    # -- where every loop passes -------------------------------------------------------------------------------------

    def _iterating(self, call: Callable) -> Callable:
        timed = self._tape.within("iterator", call)

        @functools.wraps(call)
        def start(loader: Any) -> Any:
            if get_ident() == self._tape.owner and self._loaders.add(loader) and not self.fetching:
                with contextlib.suppress(Exception):  # a loader of the user's own making
                    self.fetching = fetching(loader)  # now: in `for batch in DataLoader(...)` only its iterator stays
            return timed(loader)

        return start

    def _fetching(self, call: Callable) -> Callable:
        tape = self._tape

        @functools.wraps(call)
        def fetch(iterator: Any) -> Any:
            if get_ident() != tape.owner:
                return call(iterator)
            tape.note(now() & TIME | FETCHING)
            try:
                batch = call(iterator)
            finally:
                tape.note(now() & TIME | FETCHED)
            if tape.recording and self._reader.current != "data":  # no loader inside a dataset
                with contextlib.suppress(Exception):  # a batch of the user's own making
                    self.batches.append((now(), shapes_of(batch)))
            return batch

        return fetch

    def _running_backward(self, call: Callable) -> Callable:
        tape = self._tape

        @functools.wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            if get_ident() != tape.owner:
                return call(*args, **kwargs)
            if tape.recording and creates_graph(*args, **kwargs):
                self._graph_since = now()
            tape.note(now() & TIME | BACKWARD)
            try:
                return call(*args, **kwargs)
            finally:
                tape.note(now() & TIME | BACK)

        return run

    # -- optimizers --------------------------------------------------------------------------------------------------

    def _before_optimizer(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        tape = self._tape
        if get_ident() != tape.owner:
            return
        if (who := id(optimizer)) == self._settled:
            self._settled_steps = True
        else:
            self._meet(optimizer, who)
        tape.note(now() & TIME | STEPPING)

    def _after_optimizer(self, optimizer: Optimizer, _args: object, _kwargs: object) -> None:
        tape = self._tape
        if get_ident() != tape.owner:
            return
        # A step that calls its superclass's has every hook called twice: the first to come back ends it.
        if self._settled_steps and id(optimizer) == self._settled:
            self._settled_steps = False
            tape.note(now() & TIME | STEP)
            self.count += 1
            if published.writer is not None:
                self._publish()
        elif id(optimizer) in self._stepping:
            self._stepping.discard(id(optimizer))
            tape.note((t := now() & TIME) | STEPPED)
            self._optimizer_stepped(optimizer, t)

    def _meet(self, optimizer: Optimizer, who: int) -> None:
        self._stepping.add(who)
        if who not in self._optimizers.ids:
            self._optimizers.add(optimizer)
            self._models.own(optimizer, self.count)

    def _forget_optimizer(self, who: int) -> None:
        if who == self._settled:
            self._unsettle()
        self._stepping.discard(who)
        self.boundary.forget(who)

    def _unsettle(self) -> None:
        if self._settled_steps:
            self._settled_steps = False
            self._stepping.add(self._settled)
        self.boundary.again(self.count - self._told)
        self._settled, self._told = 0, self.count

    def _scaling(self, call: Callable) -> Callable:
        """`GradScaler.step`: where it skips the optimizer, the step ends all the same."""

        @functools.wraps(call)
        def step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            before = self.count, self.boundary.optimizer_steps
            result = call(scaler, optimizer, *args, **kwargs)
            stepped = before != (self.count, self.boundary.optimizer_steps)
            if get_ident() == self._tape.owner and isinstance(optimizer, Optimizer) and not stepped:
                self._optimizer_stepped(optimizer, now() & TIME, skipped=True)
            return result

        return step

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _event(self, kind: str, t: int) -> None:
        """Without an optimizer, steps are made of these; once one has stepped, they are none of ours."""
        if self.boundary.optimizer_steps or capturing():
            return
        if not self.boundary.unit:
            self._history.append((kind, t))
        if self.boundary.event(kind):
            self._close(t)

    def _optimizer_stepped(self, optimizer: Optimizer, t: int, skipped: bool = False) -> None:
        if capturing():
            return
        self._unsettle()
        ends = self.boundary.optimizer(id(optimizer), type(optimizer).__name__)
        self._listen()
        if ends:
            self._close(t, skipped)
        elif self.boundary.fragments:
            self._join_fragments()

    def _close(self, t: int, skipped: bool = False) -> None:
        reader = self._reader
        self._read()
        began = reader.notes[0][0]
        if not self.count and self.boundary.unit in FALLBACKS.values():
            self._steps_from_history()  # the unit became known only now; the steps before it are past
            reader.begin(t)
        else:
            reader.end(t, skipped)
            self.count += 1
            if published.writer is not None:
                self._publish()
        if self._device is not None:
            self._device.end((began, t))
        if self.count <= self._young or self.boundary.changes != self._changes:
            self._look_around()
        if not self._pauses.knows_compiler and "torch._dynamo.callback" in sys.modules:
            self._pauses.watch_compiler()
        reader.by_difference, self._told = bool(self._models.missing), self.count
        if not self._resting or self._device is not None:
            self._tell()
        elif self.count > self._young and not self._tape.recording:
            self._settled = self.boundary.settled

    def _publish(self) -> None:
        if not published.due(self.count):
            return
        if events := self._tape.last_step():
            step = last_step(events, self._reader.by_difference)
        else:
            step = self.steps[-1]
        published.publish(self.count, step.wall, step.phases)

    def rest(self) -> None:
        """Nobody needs to hear of further steps, unless it turns out that they are others than was thought."""
        self._resting = True

    def _tell(self) -> None:
        if self._reader.inside("backward"):
            self._deferred = True  # an optimizer inside backward: no profiler may start or stop inside the engine
            self._listen()
            return
        if self._on_step is not None and not self._resting:
            self._on_step(self)
        self.restart()

    def _tell_later(self) -> None:
        if self._deferred:
            self._deferred = False
            self._listen()
            self._tell()

    def _look_around(self) -> None:
        """In the first steps, and where the boundary learnt what a step is."""
        if self.boundary.fragments:
            self._join_fragments()
        if self.boundary.changes != self._changes:
            self._changes, self._young = self.boundary.changes, self.count + YOUNG
            self._resting = self._on_step is None
        self._models.settle(self.count)
        self._look()

    def restart(self) -> None:
        """The next step begins now: what happened since the last one (a profiler's start) belongs to no step."""
        if self._device is not None:
            self._device.begin()
        self._read()
        self._reader.begin(now() & TIME)

    def _join_fragments(self) -> None:
        """The last steps turned out to be parts of one."""
        self.count -= self.steps.join(self.boundary.fragments) - 1
        self._told = self.count
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
