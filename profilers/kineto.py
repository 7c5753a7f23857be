"""torch's own profiler, on from one end of a step to another, and off again whatever happens in between.

A take begins and ends between two steps. An interrupt may come between any two lines of ours, so `on` is set before
the profiler starts and cleared after it has stopped; `off` then finds out what is left to do.

A take ends inside the optimizer's step, which torch annotates (`record_function`). torch 2.13 frees an annotation's
event as the profiler stops, and still writes the annotation's end into it if another profiler is on by then: where two
takes followed each other, 1 profile in 130 crashed (pytorch/pytorch#188172 mends it for profilers of all threads). So
every annotation that began in a take ends with it; ending it again does nothing.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from threading import get_ident
from typing import Any

import torch
from torch.autograd.profiler import record_function

from .events import Events, from_kineto
from .hardware import Kind
from .phases import Mark, now
from .stderr import without_announcements
from .step import Step, StepClock


class Ours(torch.autograd.profiler.profile):
    """By its class, ours is told from the user's."""


class Take:
    """One recording: from `start` to `end`, with the clock's marks, and the ends of the steps it holds."""

    def __init__(self, device: Kind, shapes: bool = False, memory: bool = False) -> None:
        self.device: Kind = device
        self.shapes, self.memory = shapes, memory
        self.start = self.end = 0
        self.closed = 0  # the host's end of the last whole step
        self.edges: tuple[int, ...] = ()
        self.held: list[Step] = []
        self.marks: tuple[Mark, ...] = ()
        self.batches: tuple = ()
        self.events = Events([], [], [])  # of a take of memory none: its reader takes them from the result
        self.count = 0
        self.on = False
        use = "cuda" if device == "cuda" else None
        self.profiler = Ours(use_kineto=True, use_device=use, record_shapes=shapes, profile_memory=memory)
        self._annotations = Annotations()
        self._quiet = contextlib.ExitStack()

    def begin(self, clock: StepClock) -> None:
        self.on = True
        self._annotations.watch()
        if self.memory:  # torch complains on stderr of blocks older than the take, while the step runs
            self._quiet.enter_context(without_announcements())
        with without_announcements():
            self.profiler.__enter__()
        if self.device == "cuda":
            torch.cuda.synchronize()  # a window begins with an empty queue, and ends with one
        torch.empty(0)  # the loop's thread signs
        self.start = clock.record()

    def finish(self, clock: StepClock) -> Any:
        """Returns torch's own result, for who needs more than `events`; it is large."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.end = now() if self.device == "cuda" else clock.steps[-1].end if clock.steps else now()
        self.closed = clock.steps[-1].end if clock.steps else self.end
        clock.stop_recording()
        self._annotations.end()
        with without_announcements():
            self.profiler.__exit__(None, None, None)
        self._annotations.unwatch()
        self._quiet.close()
        self.on = False
        self.marks, self.batches = tuple(clock.marks), tuple(b for _, b in clock.batches)
        self.edges = (*self.edges[:-1], self.end)
        results: Any = self.profiler.kineto_results
        self.profiler.kineto_results = None
        raw = results.events()
        self.count = len(raw)
        if not self.memory:
            self.events = from_kineto(raw, self.shapes)
        return results

    def off(self) -> None:
        """Stop without a result; nothing where the take has ended, or never begun."""
        if not self.on:
            return
        with contextlib.suppress(Exception):
            self._annotations.end()
        with contextlib.suppress(Exception), without_announcements():
            self.profiler.__exit__(None, None, None)
        if torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
            with contextlib.suppress(Exception), without_announcements():
                torch.autograd._disable_profiler()  # pyright: ignore[reportPrivateImportUsage]
        torch.autograd.profiler._run_on_profiler_stop()
        self._annotations.unwatch()
        self._quiet.close()
        self.on = False


class Annotations:
    """Those that begin on this thread from `watch` to `unwatch`; all but `watch` may be called again and again."""

    def __init__(self) -> None:
        self._begun: list[record_function] = []
        self._place: Any = record_function
        self._enter: Any = None
        self._noted: Any = None

    def watch(self) -> None:
        begun, enter, thread = self._begun, self._place.__enter__, get_ident()

        @functools.wraps(enter)
        def noted(annotation: record_function) -> record_function:
            if get_ident() == thread:
                begun.append(annotation)
            return enter(annotation)

        self._enter, self._noted = enter, noted
        self._place.__enter__ = noted

    def end(self) -> None:
        for annotation in reversed(self._begun):
            if annotation.record is not None:
                self._place.__exit__(annotation, None, None, None)
        self._begun.clear()

    def unwatch(self) -> None:
        if self._place.__enter__ is self._noted:
            self._place.__enter__ = self._enter


def prepared() -> bool:
    """Is there a torch profiler that was made ready to record and has not begun: the user's, in its warm-up?

    It changes nothing one could ask torch for, so this walks the garbage collector's objects once (about 0.1 s per
    million), between two steps.
    """
    waiting = (o for o in gc.get_objects() if type(o) is torch.autograd.profiler.profile)
    return any(p.entered and p.kineto_results is None and not p.profiling_start_time_ns for p in waiting)
