"""From a running loop to a capture: warm-up | clean steps | one shaped step | the window | clean steps.

The shaped step records shapes and pays for the profiler's first start; the window, timed without shapes, is what the
ledger accounts for; clean steps on both sides say what the window cost. A loop may end anywhere: what was measured so
far is kept. Starting and stopping the profiler happens between steps and belongs to none of them.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .boundary import FALLBACKS
from .events import DeviceEvent, HostEvent, from_kineto
from .hardware import Kind
from .idle import launches
from .phases import Mark, now
from .shapes import join
from .stderr import without_announcements
from .step import Step, StepClock
from .timeline import Labels, Span

EVENT_NS = 300  # about the price of one profiler event, before it is calibrated: only decides whether to try again


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many steps of each kind. Steps, except `window_seconds`."""

    warm: int = 3
    warm_most: int = 12  # warm-up ends earlier, once step times settle and nothing compiles
    clean: int = 5
    clean_ns: int = 50_000_000  # short steps: more of them, for as long as this
    clean_most: int = 15
    window: int = 5
    window_seconds: float = 20.0
    tries: int = 3
    disturbed: float = 0.10  # a window longer than its clean steps by more than this is taken again


@dataclass(frozen=True, slots=True)
class Capture:
    """One window of whole steps [start, end), all times Unix ns, and what is needed to account for it."""

    device: Kind
    start: int
    end: int
    edges: tuple[int, ...]  # the end of every step in the window
    thread: int  # the loop's own, as host events number threads
    host: tuple[HostEvent, ...]  # with calls, where shapes were found
    on_device: tuple[DeviceEvent, ...]
    marks: tuple[Mark, ...]
    spans: Mapping[str, tuple[Span, ...]]  # "gc", "compile", "comm"
    clean_wall: int  # median clean step, 0 where there was none
    clean_phases: Mapping[str, int]
    optimizer_bytes: int  # parameters under the optimizers, for fused steps whose shapes are unknown
    tf32_matmul: bool = False
    tf32_convolution: bool = False
    notes: tuple[str, ...] = ()

    @property
    def wall(self) -> int:
        return self.end - self.start


@dataclass(slots=True)
class _Recording:
    """The profiler between two steps: from `start` to the last closed step."""

    profiler: Any
    shapes: bool
    start: int = 0
    end: int = 0
    marks: tuple[Mark, ...] = ()
    batches: tuple = ()
    edges: tuple[int, ...] = ()
    count: int = 0  # events
    closed: int = 0  # the host's end of the last whole step


class Recorder:
    """Drives a `StepClock` through the schedule: give it as the clock's `on_step`, then ask for `capture()`."""

    def __init__(self, schedule: Schedule | None = None, full: bool = True) -> None:
        self.device: Kind = "cpu"  # until the model is known
        self.plan = schedule or Schedule()
        self.notes: list[str] = []
        self.warmup: list[Step] = []
        self.before: list[Step] = []
        self.after: deque[Step] = deque(maxlen=64)
        self._shaped: _Recording | None = None
        self._windows: list[_Recording] = []
        self._open: _Recording | None = None
        self._changes, self._unit = 0, ""  # of the boundary
        self._compiled = 0
        self._state: Callable[[StepClock, Step], None] = self._warm if full else self._light
        self._clock: StepClock | None = None
        self._others = False  # the user's own torch profiler was prepared in the block
        self._starting = False

    @property
    def _synchronised(self) -> bool:
        """Ranks open their windows at the same step; a script may join its group inside the block."""
        return torch.distributed.is_available() and torch.distributed.is_initialized()

    # -- one state a method; each decides what the next step is for -----------------------------------------------

    def __call__(self, clock: StepClock) -> None:
        self._clock = clock
        if not clock.steps:
            return
        step = clock.steps[-1]
        if not self.warmup:
            self.warmup = list(clock.steps)[:-1]  # those that passed before anybody knew what a step is
        try:
            if clock.boundary.changes != self._changes:
                self._changes = clock.boundary.changes
                self._start_again(clock, step)
            else:
                self._state(clock, step)
            self._unit = clock.boundary.unit
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the user's training
            self._give_up(f"the capture stopped ({type(error).__name__}: {error})")

    def _start_again(self, clock: StepClock, step: Step) -> None:
        """What we took for steps were none: a loop over the loader alone, or a validation, came before the training.

        A window of optimizer steps stays: what follows it is another training.
        """
        if self._open is not None:
            self._end(clock)
        if self._windows and self._unit not in FALLBACKS.values():
            self._state = self._done
            return
        self.warmup = list(clock.steps)
        self.before, self._shaped, self._windows = [], None, []
        self.after.clear()
        self.notes.clear()
        self._state = self._light if self._state == self._light else self._warm

    def _light(self, clock: StepClock, step: Step) -> None:
        if len(self.warmup) < self.plan.warm:
            self.warmup.append(step)
        else:
            self.after.append(step)

    def _warm(self, clock: StepClock, step: Step) -> None:
        self.warmup.append(step)
        compiled = compilations()
        new, self._compiled = compiled != self._compiled, compiled
        settled = clock.wall(step) <= 1.5 * min(clock.wall(s) for s in self.warmup) and not new
        n = len(self.warmup)
        if n >= self.plan.warm and (settled or self._synchronised or n >= self.plan.warm_most):
            self._state = self._clean

    def _clean(self, clock: StepClock, step: Step) -> None:
        self.before.append(step)
        n, spent = len(self.before), sum(clock.wall(s) for s in self.before)
        if n >= self.plan.clean and (spent >= self.plan.clean_ns or n >= self.plan.clean_most or self._synchronised):
            self._begin(clock, shapes=True, then=self._shape)

    def _shape(self, clock: StepClock, step: Step) -> None:
        self._shaped = self._end(clock)
        self._state = self._settle

    def _settle(self, clock: StepClock, step: Step) -> None:
        """One step after a profiler stopped: its caches are cold."""
        self._begin(clock, shapes=self._varies(), then=self._window)

    def _window(self, clock: StepClock, step: Step) -> None:
        recording = self._open
        assert recording is not None
        recording.edges += (step.end,)
        in_time = int(self.plan.window_seconds * 1e9 / max(1, self._median()))
        wanted = self.plan.window if self._synchronised else max(1, min(self.plan.window, in_time))
        if len(recording.edges) < wanted:
            return
        self._windows.append(self._end(clock))
        if self._calm(self._windows[-1]) or len(self._windows) >= self.plan.tries or self._synchronised:
            self._state = self._rest
        else:
            self._state = self._settle

    def _rest(self, clock: StepClock, step: Step) -> None:
        """The step after the last window pays for cold caches; the clean ones follow."""
        self._state = self._done

    def _done(self, clock: StepClock, step: Step) -> None:
        self.after.append(step)

    def _give_up(self, why: str) -> None:
        self.notes.append(why)
        self._state = self._done
        if self._clock is not None:
            self._clock.stop_recording()
        recording, self._open = self._open, None
        if recording is not None:
            with contextlib.suppress(Exception), without_announcements():
                recording.profiler.__exit__(None, None, None)

    # -- the profiler between two steps ------------------------------------------------------------------------------

    def _begin(self, clock: StepClock, shapes: bool, then: Callable[[StepClock, Step], None]) -> None:
        if self._others or torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
            self._give_up("another torch profiler is running inside the loop: only step times were taken")
            return
        kinds = sorted(model_devices(clock))
        if len(kinds) > 1:
            self._give_up(
                f"the model is on several devices ({', '.join(kinds)}): a ledger follows one; only step times were taken"
            )
            return
        where = torch.device(kinds[0]) if kinds else torch.device("cpu")
        if where.type not in ("cpu", "cuda"):
            self._give_up(f"the model is on {where}: a ledger needs a CPU or a CUDA device; only step times were taken")
            return
        if where.type == "cuda" and where.index not in (None, torch.cuda.current_device()):
            self._give_up(
                f"the model is on {where}, which is not the current device: call torch.cuda.set_device({where.index}) first"
            )
            return
        self.device = "cuda" if where.type == "cuda" else "cpu"
        cuda = self.device == "cuda"
        profiler = torch.autograd.profiler.profile(
            use_kineto=True, use_device="cuda" if cuda else None, record_shapes=shapes
        )
        self._starting = True
        try:
            with without_announcements():
                profiler.__enter__()
        finally:
            self._starting = False
        self._open = _Recording(profiler, shapes)  # ours from here on, whatever happens next
        if cuda:
            torch.cuda.synchronize()  # the window begins with an empty queue, and ends with one
        torch.empty(0)  # the loop's thread signs
        self._open.start = clock.record()
        self._state = then

    def _end(self, clock: StepClock) -> _Recording:
        recording = self._open
        assert recording is not None
        if self.device == "cuda":
            torch.cuda.synchronize()
        recording.end = now() if self.device == "cuda" else clock.steps[-1].end if clock.steps else now()
        recording.closed = clock.steps[-1].end if clock.steps else recording.end
        clock.stop_recording()
        with without_announcements():
            recording.profiler.__exit__(None, None, None)
        self._open = None
        recording.marks, recording.batches = tuple(clock.marks), tuple(b for _, b in clock.batches)
        recording.edges = (*recording.edges[:-1], recording.end)
        recording.count = len(recording.profiler.kineto_results.events())
        return recording

    def _median(self) -> int:
        if not self.before or self._clock is None:
            return 0
        return int(statistics.median([self._clock.wall(s) for s in self.before]))

    def _calm(self, window: _Recording) -> bool:
        allowed = (1 + self.plan.disturbed) * len(window.edges) * self._median() + EVENT_NS * window.count
        return window.end - window.start <= allowed

    def _varies(self) -> bool:
        """Batches whose shapes differ from the shaped step's: its shapes would not be the window's."""
        if self._shaped is None or not self._windows:
            return False
        return not self._same_batches(self._windows[-1])

    def _same_batches(self, window: _Recording) -> bool:
        shaped = self._shaped
        if shaped is None or not shaped.batches or not window.batches:
            return True
        return set(window.batches) <= set(shaped.batches)

    # -- the result ----------------------------------------------------------------------------------------------------

    def make_way(self, theirs: Callable[[Any], None]) -> Callable[[Any], None]:
        """Around a torch profiler's preparation: the user's own comes first, and ours ends or never begins."""

        def prepare(profiler: Any) -> None:
            if not self._starting:
                self._others = True
                if self._open is not None:
                    self._give_up("another torch profiler started inside the loop: ours made way for it")
            theirs(profiler)

        return prepare

    def close(self) -> None:
        """`finish`, for the end of the user's block: a fault of ours or of the device is a note, never an error."""
        try:
            self.finish()
        except Exception as error:  # noqa: BLE001
            self._give_up(f"the capture stopped ({type(error).__name__}: {error})")

    def finish(self) -> None:
        """Close what an early end of the loop left open; a window of at least one whole step is kept."""
        recording = self._open
        if recording is None or self._clock is None:
            return
        clock = self._clock
        if not recording.edges:
            self._end(clock)
            return
        recording = self._end(clock)
        recording.end, recording.edges = recording.closed, (*recording.edges[:-1], recording.closed)
        self._windows.append(recording)
        self.notes.append(f"the loop ended inside the window: {len(recording.edges)} of {self.plan.window} steps")

    def capture(self) -> Capture | None:
        """The calmest window with its shapes, or None where the loop was too short to profile a whole step."""
        self.finish()
        windows = [w for w in self._windows if w.edges]
        if not windows and self._shaped is not None:
            self._shaped.edges = (self._shaped.end,)
            windows = [self._shaped]
            self.notes.append("the loop was too short for a window: the ledger is of one step with shapes recorded")
        if not windows or self._clock is None:
            return None
        built = self._build(min(windows, key=lambda w: (w.end - w.start) / len(w.edges)), self._clock)
        if built.device == "cuda" and not built.on_device:
            self.notes.append("torch's profiler saw no work on the GPU: CUPTI is missing, or another tool holds it")
            return None
        return built

    def _build(self, window: _Recording, clock: StepClock) -> Capture:
        seen = from_kineto(window.profiler.kineto_results.events(), window.shapes)
        host, device = seen.host, seen.device
        if self.device == "cuda":  # the window ends where the device has done what was launched in it
            began = launches(host, device)
            done = [d.end for i, d in enumerate(device) if i in began and began[i].start < window.closed]
            window.end = max([window.closed, *done])
            window.edges = (*window.edges[:-1], window.end)
        thread = next((h.thread for h in host if h.name == "aten::empty"), host[0].thread if host else 0)
        if not window.shapes and self._shaped is not None:
            phase = Labels([(m.time, m.phase) for m in window.marks])
            shaped_phase = Labels([(m.time, m.phase) for m in self._shaped.marks])
            shaped = from_kineto(self._shaped.profiler.kineto_results.events(), True).host
            # Calls into the CUDA runtime have no shapes, and their number varies from step to step.
            inside = [h for h in shaped if self._shaped.start <= h.start < self._shaped.end and not h.runtime]
            timed = [h for h in host if window.start <= h.start < window.end and not h.runtime]
            ranks, shaped_ranks = _thread_order(timed), _thread_order(inside)
            timed, joined = join(
                timed,
                inside,
                lambda h: f"{phase.at(h.start)}/{ranks[h.thread]}",
                lambda h: f"{shaped_phase.at(h.start)}/{shaped_ranks[h.thread]}",
                window.edges,
            )
            if joined.lost:
                self.notes.append(f"{joined.lost} operators of the window found no shapes: they are uncounted")
            host = [h for h in host if h.runtime or not window.start <= h.start < window.end] + timed
            host.sort(key=lambda h: (h.start, -h.end))
            if not self._same_batches(window):
                self.notes.append("batch shapes vary: FLOPs and bytes are those of one batch shape")
        elif self._shaped is not None and window is not self._shaped:
            self.notes.append("batch shapes vary: shapes were recorded inside the window")
        clean = [*self.before, *self.after]
        return Capture(
            device=self.device,
            start=window.start,
            end=window.end,
            edges=window.edges,
            thread=thread,
            host=tuple(host),
            on_device=tuple(device),
            marks=window.marks,
            spans={"comm": tuple(seen.collectives)} | {cause: tuple(spans) for cause, spans in clock.spans.items()},
            clean_wall=int(statistics.median([clock.wall(s) for s in clean])) if clean else 0,
            clean_phases=median_phases(clean),
            optimizer_bytes=clock.optimizer_bytes,
            tf32_matmul=allows_tf32(torch.backends.cuda.matmul),
            tf32_convolution=allows_tf32(getattr(torch.backends.cudnn, "conv", None)),
            notes=tuple(self.notes),
        )


def model_devices(clock: StepClock) -> set[str]:
    """Where the parameters under the optimizers are; without optimizers, those of the modules that were called."""
    groups = [g["params"] for o in clock.optimizers.values() for g in o.param_groups]
    parameters = [p for g in groups for p in g] or [p for m in clock.called() for p in m.parameters()]
    return {str(p.device) for p in parameters}


def allows_tf32(backend: Any) -> bool:
    """By the newer setting: reading the older one raises where the user has set the newer."""
    return getattr(backend, "fp32_precision", "") == "tf32"


def _thread_order(events: list[HostEvent]) -> dict[int, int]:
    """Threads numbered by first appearance: the profiler numbers them anew each time."""
    return {t: i for i, t in enumerate(dict.fromkeys(e.thread for e in events))}


def median_phases(steps: list[Step]) -> dict[str, int]:
    """The median of each phase over `steps`, ns."""
    phases = dict.fromkeys(p for s in steps for p in s.phases)
    return {p: int(statistics.median([s.phases.get(p, 0) for s in steps])) for p in phases}


def compilations() -> int:
    """How many frames dynamo has compiled, without importing it."""
    utils = sys.modules.get("torch._dynamo.utils")
    return utils.counters["frames"]["total"] if utils is not None and hasattr(utils, "counters") else 0
