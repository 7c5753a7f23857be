"""From a running loop to its takes: warm-up | clean steps | one shaped step | the window | extras | clean steps.

The shaped step records shapes and pays for the profiler's first start; the window, timed without shapes, is what the
ledger accounts for; clean steps on both sides say what the window cost; stacks and memory, where asked for, have steps
of their own. A loop may end anywhere: what was measured so far is kept. What happens between steps belongs to none.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

import torch

from .boundary import FALLBACKS
from .capture import Capture, build, same_batches
from .hardware import Kind
from .kineto import Ours, Take, prepared
from .roles import AGAIN, CLEAN, SETTLING, SHAPED, UNUSED, WARM, WINDOW, Roles
from .step import Step, StepClock
from .views.units import counted

SHORTEST = 5  # steps: one of each kind
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

    @property
    def retries(self) -> int:
        """Steps that taking the window again may need, each with one to settle."""
        return (self.tries - 1) * (1 + self.window)

    @property
    def enough(self) -> int:
        """The steps after which there certainly was a window: one step with shapes, one to settle, its own."""
        return self.warm_most + self.clean_most + 2 + self.window

    def within(self, steps: int) -> Schedule:
        """The same for a loop of so many steps, 5 or more: fewer of each kind, so that it still gets a window."""
        if not SHORTEST <= steps < self.enough:
            return self
        warm = min(self.warm, steps // 5)
        window = min(self.window, (steps - warm - 2) // 2)
        clean = min(self.clean_most, steps - warm - 2 - window)
        return replace(self, warm=warm, warm_most=warm, clean=min(self.clean, clean), clean_most=clean, window=window)


class Extra(Protocol):
    """Something that is recorded in steps of its own, after the window."""

    name: str
    done: bool

    def steps(self, clock: StepClock, shaped: Take) -> Generator[str]:
        """Yields the role of each step it needs, before that step; ends, or raises why it cannot."""
        ...


class Recorder:
    """Drives a `StepClock` through the schedule: give it as the clock's `on_step`, then ask for `capture()`."""

    def __init__(self, schedule: Schedule | None = None, full: bool = True, extras: Sequence[Extra] = ()) -> None:
        self.device: Kind = "cpu"  # until the model is known
        self.plan = self._whole_plan = schedule or Schedule()
        self.notes: list[str] = []
        self.roles = Roles()
        self._extras = extras
        self._underway: Generator[str] | None = None  # the extras' own account of what the next step is for
        self._next_role = ""
        self._shaped: Take | None = None
        self._windows: list[Take] = []
        self._open: Take | None = None
        self._seen = False
        self._changes, self._unit = 0, ""  # of the boundary
        self._compiled = 0
        self._state: Callable[[StepClock, Step], None] = self._warm if full else self._light
        self._clock: StepClock | None = None
        self._failed: set[str] = set()  # extras, with a note of why
        self._others = False  # the user's own torch profiler was prepared in the block, or before it

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
        if not self._seen:
            self._seen = True
            self.roles.mark(list(clock.steps)[:-1], WARM)  # those that passed before anybody knew what a step is
            self._fit(clock, step)
        try:
            if clock.boundary.changes != self._changes:
                self._changes = clock.boundary.changes
                self._start_again(clock, step)
            else:
                self._state(clock, step)
            self._unit = clock.boundary.unit
        except Exception as error:  # noqa: BLE001  a fault of ours must not end the user's training
            self._give_up(f"the capture stopped ({type(error).__name__}: {error})")
        except BaseException:  # an interrupt between two of our lines: the user may catch it and go on
            if self._open is not None and not self._open.held:
                self._give_up("the capture was interrupted")
            raise

    def _start_again(self, clock: StepClock, step: Step) -> None:
        """What we took for steps were none: a loop over the loader alone, or a validation, came before the training.

        A window of optimizer steps stays: what follows it is another training.
        """
        profiled = self._open is not None or self._next_role != ""
        self._end_extras()
        if self._open is not None:
            self.roles.mark(self._end(clock).held, UNUSED)
        if self._windows and self._unit not in FALLBACKS.values():
            self.roles.mark([step] if profiled else [], UNUSED)
            self._state = self._done
            return
        self.roles.start_over(step)
        self._shaped, self._windows = None, []
        self.notes.clear()
        self._fit(clock, step)
        self._state = self._light if self._state == self._light else self._warm

    def _light(self, clock: StepClock, step: Step) -> None:
        if len(self.roles.marked(WARM)) < self.plan.warm:
            self.roles.mark([step], WARM)
        else:
            self._state = self._done

    def _warm(self, clock: StepClock, step: Step) -> None:
        self.roles.mark([step], WARM)
        compiled = compilations()
        new, self._compiled = compiled != self._compiled, compiled
        passed = self.roles.warmed(clock)
        settled = clock.wall(step) <= 1.5 * min(clock.wall(s) for s in passed) and not new
        n = len(passed)
        if n >= self.plan.warm and (settled or self._synchronised or n >= self.plan.warm_most):
            self._state = self._clean

    def _fit(self, clock: StepClock, step: Step) -> None:
        """To one pass over the loader, where its length is known. Ranks may have different ones, and go together."""
        batches, fetches = clock.fetching.get("batches"), stays(step, "data")
        steps = batches // fetches if batches and fetches and not self._synchronised else 0
        self.plan = self._whole_plan.within(steps)
        if self.plan.window < self._whole_plan.window:
            self.notes.append(
                f"a pass over the loader is {counted(steps, 'step')}: {self.plan.window} of them "
                f"{'is' if self.plan.window == 1 else 'are'} profiled, not {self._whole_plan.window}"
            )

    def _clean(self, clock: StepClock, step: Step) -> None:
        self.roles.mark([step], CLEAN)
        before = self.roles.marked(CLEAN)
        n, spent = len(before), sum(clock.wall(s) for s in before)
        if n >= self.plan.clean and (spent >= self.plan.clean_ns or n >= self.plan.clean_most or self._synchronised):
            self._begin(clock, shapes=True, then=self._shape)

    def _shape(self, clock: StepClock, step: Step) -> None:
        self.roles.mark([step], SHAPED)
        self._shaped = self._end(clock)
        self._shaped.held.append(step)
        self._state = self._settle

    def _settle(self, clock: StepClock, step: Step) -> None:
        """One step after a profiler stopped: its caches are cold."""
        self.roles.mark([step], SETTLING)
        self._begin(clock, shapes=self._varies(), then=self._window)

    def _window(self, clock: StepClock, step: Step) -> None:
        take = self._open
        assert take is not None
        self.roles.mark([step], WINDOW)
        take.held.append(step)
        take.edges += (step.end,)
        in_time = int(self.plan.window_seconds * 1e9 / max(1, self._median()))
        wanted = self.plan.window if self._synchronised else max(1, min(self.plan.window, in_time))
        if len(take.held) < wanted:
            return
        self._windows.append(self._end(clock))
        if self._calm(self._windows[-1]) or len(self._windows) >= self.plan.tries or self._synchronised:
            self._underway = self._extra_steps(clock)
            self._next(clock, step)
        else:
            self._state = self._settle

    def _next(self, clock: StepClock, step: Step) -> None:
        """A step of the extras, or the last of the window, has ended."""
        if self._next_role:
            self.roles.mark([step], self._next_role)
        self._next_role = next(self._underway, "") if self._underway is not None else ""
        self._state = self._next if self._next_role else self._rest

    def _extra_steps(self, clock: StepClock) -> Generator[str]:
        assert self._shaped is not None
        for extra in self._extras:
            try:
                yield from extra.steps(clock, self._shaped)
            except Exception as error:  # noqa: BLE001  the others, and the ledger, do without it
                self._failed.add(extra.name)
                self.notes.append(f"no {extra.name}: {error or type(error).__name__}")

    def _rest(self, clock: StepClock, step: Step) -> None:
        """The step after a profiler stopped pays for cold caches; the clean ones follow."""
        self.roles.mark([step], SETTLING)
        self._state = self._done

    def _done(self, clock: StepClock, step: Step) -> None:
        """A step without a mark is clean: the clock can count them alone."""
        clock.rest()

    def _give_up(self, why: str) -> None:
        self.notes.append(why)
        self._state = self._done
        if self._clock is not None:
            self._clock.stop_recording()
        take = self._open
        if take is not None:
            self.roles.mark(take.held, UNUSED)
            take.off()
        self._open = None

    # -- the profiler between two steps ------------------------------------------------------------------------------

    def _begin(self, clock: StepClock, shapes: bool, then: Callable[[StepClock, Step], None]) -> None:
        if self._others or torch.autograd._profiler_enabled():  # pyright: ignore[reportPrivateImportUsage]
            self._give_up("another torch profiler is running inside the loop: only step times were taken")
            return
        if self._shaped is None and prepared():
            self._give_up(
                "another torch profiler is warming up around the loop: only step times were taken; stop it first"
            )
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
        self._open = Take(self.device, shapes=shapes)  # ours from here on, whatever happens next
        self._open.begin(clock)
        self._state = then

    def _end(self, clock: StepClock) -> Take:
        take = self._open
        assert take is not None
        take.finish(clock)
        self._open = None
        return take

    def _median(self) -> int:
        before = self.roles.marked(CLEAN)
        if not before or self._clock is None:
            return 0
        return int(statistics.median([self._clock.wall(s) for s in before]))

    def _calm(self, window: Take) -> bool:
        allowed = (1 + self.plan.disturbed) * len(window.edges) * self._median() + EVENT_NS * window.count
        return window.end - window.start <= allowed

    def _varies(self) -> bool:
        """Batches whose shapes differ from the shaped step's: its shapes would not be the window's."""
        return bool(self._windows) and self._shaped is not None and not same_batches(self._windows[-1], self._shaped)

    # -- the result ----------------------------------------------------------------------------------------------------

    def make_way(self, theirs: Callable[[Any], None]) -> Callable[[Any], None]:
        """Around a torch profiler's preparation: the user's own comes first, and ours ends or never begins."""

        def prepare(profiler: Any) -> None:
            if not isinstance(profiler, Ours):
                self._others = True
                if self._open is not None:
                    self._give_up("another torch profiler started inside the loop: ours made way for it")
                self._end_extras()
            theirs(profiler)

        return prepare

    def _end_extras(self) -> None:
        """Wherever they are: each takes its own things away."""
        if self._underway is not None:
            self._underway.close()

    def close(self) -> None:
        """`finish`, for the end of the user's block: a fault of ours or of the device is a note, never an error."""
        try:
            self._end_extras()
            self.finish()
        except Exception as error:  # noqa: BLE001
            self._give_up(f"the capture stopped ({type(error).__name__}: {error})")
        finally:
            self.off()

    def off(self) -> None:
        """The last resort, which may be called again and again: no profiler of ours stays on."""
        if self._open is not None:
            self._open.off()

    def finish(self) -> None:
        """Close what an early end of the loop left open; a window of at least one whole step is kept."""
        take = self._open
        if take is None or self._clock is None:
            return
        self._end(self._clock)
        if not take.held:
            return
        take.end, take.edges = take.closed, (*take.edges[:-1], take.closed)
        self._windows.append(take)
        self.notes.append(f"the loop ended inside the window: {len(take.edges)} of {self.plan.window} steps")

    def enough(self, clock: StepClock) -> int:
        """The steps after which this loop would certainly have had a window."""
        return self._whole_plan.enough + max(0, len(self.roles.warmed(clock)) - self._whole_plan.warm_most)

    def unreached(self, clock: StepClock) -> list[str]:
        """A sentence for each extra that the loop was too short for."""
        if self._shaped is None:
            return []  # why there is no ledger says it all
        missing = [extra.name for extra in self._extras if not extra.done and extra.name not in self._failed]
        more = self.enough(clock) + self._whole_plan.retries + 2 * len(self._extras)
        return [f"no {name}: the loop ended before its steps; run it for {more} or more" for name in missing]

    def capture(self) -> Capture | None:
        """The calmest window with its shapes, or None where the loop was too short to profile a whole step."""
        self.finish()
        windows = self._windows
        if not windows and self._shaped is not None:
            self._shaped.edges = (self._shaped.end,)
            windows = [self._shaped]
            self.notes.append("the loop was too short for a window: the ledger is of one step with shapes recorded")
        if not windows or self._clock is None:
            return None
        chosen = min(windows, key=lambda w: (w.end - w.start) / len(w.edges))
        for window in windows:
            self.roles.mark(window.held, WINDOW if window is chosen else AGAIN)
        clean = self.roles.groups(self._clock)[CLEAN]
        built = build(chosen, self._shaped, clean, self._clock, self.notes)
        if built.device == "cuda" and not built.on_device:
            self.notes.append("torch's profiler saw no work on the GPU: CUPTI is missing, or another tool holds it")
            self.roles.mark(chosen.held, UNUSED)
            return None
        return built


def stays(step: Step, phase: str) -> int:
    """How often the step entered the phase from another; making a loader's iterator and its first fetch are one stay."""
    return sum(entered == phase for entered, _ in groupby(p for _, p in step.notes if p != "other"))


def model_devices(clock: StepClock) -> set[str]:
    """Where the parameters under the optimizers are; without optimizers, those of the modules that were called."""
    parameters = clock.trained() or [p for m in clock.called() for p in m.parameters()]
    return {str(p.device) for p in parameters}


def compilations() -> int:
    """How many frames dynamo has compiled, without importing it."""
    utils = sys.modules.get("torch._dynamo.utils")
    return utils.counters["frames"]["total"] if utils is not None and hasattr(utils, "counters") else 0
