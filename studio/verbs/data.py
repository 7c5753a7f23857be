"""`data`: the doctor of a DataLoader, and its tuner."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from ...profilers.errors import UsageError
from ..registry import Call, Expression, verb

if TYPE_CHECKING:
    from ...profilers.loading.report import DataReport, OneShotReport
    from ...profilers.loading.tuned import Tuned


@verb
def data(
    loader: Annotated[Any, Expression("the DataLoader that your loop runs over")],
    *,
    step: Annotated[Any, Expression("a function of one batch that does what a step does")] = None,
    tune: Annotated[bool, "race other numbers of workers, prefetch, threads and pinning"] = False,
    seconds: Annotated[float | None, "to measure for; 12, with --tune 20"] = None,
    redraw: Annotated[
        bool, "with --tune: more or fewer workers though the dataset then draws other random numbers"
    ] = False,
    into: Annotated[str | None, "with --tune: keep the tuned loader under this name"] = None,
    call: Call,
) -> DataReport | OneShotReport | Tuned:
    """What makes the loop wait for data: the cause, its share of a step, and what would mend it.

    A double of the loader is run, so the training's order, random draws and state stay as they are. Without --step the
    loader is run alone. In Python: `mlsys_studio.data_doctor(loader, step_fn)`, `mlsys_studio.tune_loader(loader, step_fn)`.
    """
    if into is not None and (not tune or call.namespace is None or not into.isidentifier()):
        raise UsageError(
            "--into names a variable of the notebook for the loader that --tune finds: --tune --into loader"
        )
    if seconds is not None and seconds <= 0:
        raise UsageError(f"--seconds must be more than 0, and is {seconds:g}")
    if redraw and not tune:
        raise UsageError("--redraw is for the tuner: data LOADER --tune --redraw")
    given = {} if seconds is None else {"seconds": seconds}
    if not tune:
        from ...profilers.loading.doctor import data_doctor
        from ...profilers.loading.report import OneShotReport

        report = data_doctor(loader, step, **given)
        return timed(report, loader) if isinstance(report, OneShotReport) else report
    from ...profilers.loading.tuner import tune_loader

    tuned = tune_loader(loader, step, redraw=redraw, **given)
    if into is not None and call.namespace is not None:
        call.namespace[into] = tuned.loader
    return tuned


def timed(report: OneShotReport, loader: Any) -> OneShotReport:
    """With what the loop itself waited for this loader, where it was profiled."""
    from ..session import waited

    found = waited(loader)
    return report if found is None else replace(report, wait=found[0], wall=found[1])
