"""Run the user's cell again for a few steps: silently, bounded, and everything put back afterwards."""

from __future__ import annotations

import contextlib
import gc
import io
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...profilers.errors import UsageError
from ...profilers.views.units import counted
from ..registry import Code
from .reach import Reach
from .remedies import Subjects
from .restore import restored

if TYPE_CHECKING:
    from ...profilers.step import StepClock

FEWEST = 3  # steps that make a run


class Enough(BaseException):
    """Raised out of the loop after the wanted number of steps; no `except Exception` of the user's catches it.

    A bare `except:` around the body of the loop does; so the loop's next batch raises it again, outside that body.
    """


@dataclass(slots=True)
class Run:
    """One bounded run of the cell: its steps after the warm-up, and the losses of all its steps."""

    walls: list[int] = field(default_factory=list)  # ns
    losses: list[float] = field(default_factory=list)


def run_steps(code: Code, subjects: Subjects, warm: int, steps: int, until: float = math.inf) -> Run:
    """Run the cell until `warm` + `steps` steps have ended, or the loop has, or a step ends after `until` (monotonic)."""
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    from ...profilers.step import Step, StepClock

    taken: list[Step] = []
    changes = 0

    def count(clock: StepClock) -> None:
        nonlocal changes
        if time.monotonic() >= until:
            raise Enough
        if clock.boundary.changes != changes:  # the steps so far were none
            changes = clock.boundary.changes
            taken.clear()
        if subjects.unit not in ("", clock.boundary.unit):
            return
        if len(taken) < warm + steps:
            taken.append(clock.steps[-1])
        if len(taken) == warm + steps:
            raise Enough

    def fetching(call: Callable) -> Callable:
        def fetch(iterator: Any) -> Any:
            if len(taken) == warm + steps:
                raise Enough
            return call(iterator)

        return fetch

    with restored(subjects, Reach.of(code.source, subjects.namespace)), _losses() as losses, _silence():
        clock = StepClock(count)
        with contextlib.suppress(Enough), clock:
            clock.patch(_BaseDataLoaderIter, "__next__", fetching)
            code.run(display=False)
        clock.settle()
        gc.collect()  # the loop's iterator and its workers die here, not in the next run
    if len(taken) < warm + FEWEST and time.monotonic() < until:
        raise UsageError(
            f"the cell ended after {counted(len(taken), 'step')} and a trial needs {warm + FEWEST}: run the loop for longer"
        )
    return Run([clock.wall(step) for step in taken[warm:]], [float(loss) for loss in losses])


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What the cell prints or displays was shown when it was profiled."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and ipython.get_ipython() is not None:
        from IPython.utils.capture import capture_output

        with capture_output():
            # ipykernel calls it for every message, those of a subshell too, and IPython's capturing publisher lacks it.
            ipython.get_ipython().display_pub.set_parent = lambda _: None
            yield
    else:
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            yield


@contextlib.contextmanager
def _losses() -> Iterator[list[Any]]:
    """The tensors `backward()` is called on, detached: the losses of the run, whatever the loop calls them."""
    import torch

    seen: list[Any] = []
    real = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        first = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
        if isinstance(first, torch.Tensor) and first.numel() == 1:
            seen.append(first.detach().clone())
        return real(tensors, *args, **kwargs)

    torch.autograd.backward = backward
    try:
        yield seen
    finally:
        torch.autograd.backward = real
