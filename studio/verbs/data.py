"""`data`: the doctor of a DataLoader, and its tuner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ..registry import Expression, verb

if TYPE_CHECKING:
    from ...profilers.loading.report import DataReport, OneShotReport


@verb
def data(
    loader: Annotated[Any, Expression("the DataLoader that your loop runs over")],
    *,
    step: Annotated[Any, Expression("a function of one batch that does what a step does")] = None,
    seconds: Annotated[float, "to measure for, where batches come fast enough"] = 12.0,
) -> DataReport | OneShotReport:
    """What makes the loop wait for data: the cause, its share of a step, and what would mend it.

    A double of the loader is run, so the training's order, random draws and state stay as they are. Without --step the
    loader is run alone. In Python: `mlsys_studio.data_doctor(loader, step_fn)`.
    """
    from ...profilers.loading.doctor import data_doctor

    return data_doctor(loader, step, seconds=seconds)
