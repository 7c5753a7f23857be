"""Measure one block of code: `with record() as r: ...`, then `r.profile`.

Around the block only the step clock runs; in full mode it also opens a capture window for a few steps. What the block
raises is the user's and passes through; whatever was measured until then is kept.
"""

from __future__ import annotations

import itertools
import resource
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from .allocations import Allocations
from .environment import environment
from .errors import UsageError
from .ledger import Ledger
from .loop import Loop, facts
from .profile import Memory, OperatorRow, Profile, StepTimes
from .roles import CLEAN, UNUSED, WARM, WINDOW
from .stacks import Stacks
from .views.units import counted

if TYPE_CHECKING:
    from .capture import Capture
    from .recorder import Recorder
    from .step import StepClock

MOST_OPERATORS = 200


class Recording:
    """A context manager; `profile` is None until the block has ended. `mode`: "full" or "light" (step times only)."""

    def __init__(
        self,
        title: str = "",
        mode: str = "full",
        steps: int = 5,
        stacks: bool = False,
        memory: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        if mode not in ("full", "light"):
            raise UsageError(f'mode={mode!r} is not known: use "full" or "light"')
        if not isinstance(steps, int) or not 1 <= steps <= 1000:
            raise UsageError(f"steps={steps!r} cannot be profiled: give a whole number from 1 to 1000")
        if mode == "light" and (stacks or memory):
            raise UsageError('mode="light" records no step, so no stacks and no memory: leave it out')
        self.profile: Profile | None = None
        self.clock: StepClock | None = None
        self._title, self._mode, self._window = title, mode, steps
        self._progress = progress or (lambda line: print(line, file=sys.stderr))
        self._stacks = Stacks(self._progress) if stacks else None
        self._allocations = Allocations(self._progress) if memory else None
        self._recorder: Recorder | None = None

    def __enter__(self) -> Self:
        try:
            import torch

            from .recorder import Recorder, Schedule
            from .step import StepClock
        except ModuleNotFoundError as missing:
            raise UsageError(
                f"profiling needs {missing.name}, which is not installed: pip install 'mlsys-studio[torch]'"
            ) from None
        extras = [extra for extra in (self._stacks, self._allocations) if extra is not None]
        self._recorder = Recorder(Schedule(window=self._window), self._mode == "full", extras)
        self.clock = StepClock(self._recorder)
        self.clock.__enter__()
        try:
            profiler = torch.autograd.profiler.profile
            if "_prepare_trace" in vars(profiler):
                self.clock.patch(profiler, "_prepare_trace", self._recorder.make_way)
        except BaseException:  # an interrupt
            self.clock.__exit__()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        assert self.clock is not None and self._recorder is not None
        try:
            self._recorder.close()
        finally:
            try:
                self.clock.__exit__(kind, error, trace)
            finally:
                self._recorder.off()
        self.clock.settle()
        early = f"the block ended early with {kind.__name__}: what was measured until then is kept" if kind else ""
        self.profile = self._build(self.clock, self._recorder, [early] if early else [])

    def _build(self, clock: StepClock, recorder: Recorder, notes: list[str]) -> Profile:
        capture = recorder.capture() if self._mode == "full" else None
        ledger, operators, disturbed = None, (), 0
        if capture is not None:
            try:
                ledger, operators, disturbed = self._account(capture)  # it has the recorder's notes
            except Exception as error:  # noqa: BLE001  a fault of ours must not cost the user what was measured
                notes.append(f"no ledger: the account failed, please report it ({type(error).__name__}: {error})")
        elif clock.count:
            notes += recorder.notes[:-1]
            if self._mode == "full":
                notes.append(why_no_ledger(clock, recorder))
        if not clock.count:
            notes.append(NO_STEP)
        elif self._mode == "full":
            notes += recorder.unreached(clock)
        if clock.forward_by_difference:
            notes.append(f"forward is measured by difference: {clock.forward_by_difference}")
        return Profile(
            title=self._title,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            steps=step_times(clock, recorder, capture),
            ledger=ledger,
            operators=operators[:MOST_OPERATORS],
            memory=memory(),
            environment=environment(),
            loop=self._facts(clock, capture, notes),
            notes=tuple(dict.fromkeys(notes)),
            lines=() if self._stacks is None else self._stacks.lines,
            memory_use=None if self._allocations is None else self._allocations.use,
            disturbed_ns=disturbed,
        )

    def _account(self, capture: Capture) -> tuple[Ledger, tuple[OperatorRow, ...], int]:
        from .accounting import account
        from .ceilings import measure, remember
        from .hardware import detect
        from .retyped import retyped

        device = detect(capture.device)
        device = device.with_ceilings(measure(device, progress=self._progress))
        accounted = account(capture, device, retyped if capture.device == "cpu" else None)
        if accounted.device.ceilings is not None and accounted.device is not device:
            remember(device, accounted.device.ceilings)  # this run beat them
        return accounted.ledger, accounted.operators, accounted.disturbed

    @staticmethod
    def _facts(clock: StepClock, capture: Capture | None, notes: list[str]) -> Loop | None:
        """The user's objects answer for themselves here, and may fail to (an uninitialised lazy parameter)."""
        try:
            return facts(clock, capture)
        except Exception as error:  # noqa: BLE001
            notes.append(f"what the loop is made of could not be read ({type(error).__name__}: {error})")
            return None


NO_STEP = (
    "no training step was seen: a step ends with an optimizer's step(), or else with the next batch of a DataLoader "
    "or the next call of a model; put the loop itself inside the profiled block"
)


def why_no_ledger(clock: StepClock, recorder: Recorder) -> str:
    """One sentence for a loop that ended before a window."""
    if recorder.notes:
        return "no ledger: " + recorder.notes[-1]
    said = f"no ledger: the loop ended after {counted(clock.count, 'step')}, before any was profiled"
    return f"{said}; run it for {recorder.enough(clock)} or more"


def step_times(clock: StepClock, recorder: Recorder, capture: Capture | None) -> StepTimes:
    """Every step by the role it played."""
    from .capture import median_phases

    groups = recorder.roles.groups(clock)
    if capture is None:
        groups.steps[UNUSED] = [*groups[UNUSED], *groups.steps.pop(WINDOW, [])]
    walls = {role: tuple(clock.wall(s) for s in steps) for role, steps in groups.steps.items() if steps}
    edges = () if capture is None else (capture.start, *capture.edges)
    return StepTimes(
        unit=clock.boundary.unit or "none",
        warmup=walls.pop(WARM, ()),
        clean=walls.pop(CLEAN, ()),
        window=tuple(b - a for a, b in itertools.pairwise(edges)),
        phases=median_phases(groups[CLEAN]),
        compile_ns=sum(b - a for a, b in clock.spans["compile"]),
        total_ns=clock.stopped - clock.started,
        excluded={role: times for role, times in walls.items() if role != WINDOW},
        dropped=groups.dropped,
    )


def memory() -> Memory:
    """Peaks of this process and of its CUDA device, bytes."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return Memory(host)
    return Memory(
        host,
        torch.cuda.max_memory_allocated(),
        torch.cuda.max_memory_reserved(),
        torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory,
    )
