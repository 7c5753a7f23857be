"""The proof: the same cell, a bounded number of steps, without / with / without the remedy, in turns.

A remedy is kept only when its gain exceeds what the machine does by itself between two equal runs.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ...profilers.errors import UsageError
from ...profilers.profile import Finding, Trial
from ..registry import Code
from .remedies import Remedy, Subjects, Undo
from .replay import Run, refusal, run_steps

WARM = 3
ROUNDS = 3  # pairs of (without, with), and one more without
SECONDS = 30.0  # for the whole trial, about
FEWEST, MOST = 5, 40  # steps a run


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ratios are step times without over with the remedy."""

    measured: float
    low: float
    high: float
    spread: float  # largest relative difference between neighbouring runs without it
    kept: bool


def verdict(without: Sequence[float], with_it: Sequence[float]) -> Verdict:
    """`without` has one run more than `with_it`: each run with the remedy stands between two without it."""
    neighbours = list(itertools.pairwise(without))
    ratios = [(a + b) / 2 / w for (a, b), w in zip(neighbours, with_it, strict=True)]
    spread = max(abs(a - b) / max(a, b) for a, b in neighbours)
    measured, low = statistics.median(ratios), min(ratios)
    return Verdict(measured, low, max(ratios), spread, low > 1 and measured - 1 > spread)


def loss_difference(without: Sequence[Run], with_it: Sequence[Run]) -> float | None:
    """Relative difference of the mean loss over the same steps from the same state; None where no loss was seen."""
    a = [x for run in without for x in run.losses]
    b = [x for run in with_it for x in run.losses]
    if not a or not b or not statistics.fmean(a):
        return None
    return abs(statistics.fmean(b) - statistics.fmean(a)) / abs(statistics.fmean(a))


def steps_a_run(step_seconds: float) -> int:
    """As many as fit the time the whole trial may take."""
    return max(FEWEST, min(MOST, int(SECONDS / (2 * ROUNDS + 1) / max(step_seconds, 1e-6)) - WARM))


def try_remedy(
    finding: Finding,
    remedy: Remedy,
    code: Code,
    subjects: Subjects,
    step_seconds: float,
    progress: Callable[[str], None],
) -> tuple[Trial, Undo | None]:
    """Measure the remedy; where it is kept it stays applied and its undo is returned, else everything is as before."""
    why_not = remedy.refusal(subjects) or refusal(code.source, subjects)
    if why_not:
        raise UsageError(f"{finding.title}: not tried, {why_not}")
    steps = steps_a_run(step_seconds)
    without, with_it = [], []
    progress(f"trying {remedy.preview(subjects)}: {2 * ROUNDS + 1} runs of {WARM + steps} steps")
    for i in range(2 * ROUNDS + 1):
        undo = remedy.apply(subjects) if i % 2 else None
        try:
            run = run_steps(code, subjects, WARM, steps)
        finally:
            if undo is not None:
                undo()
        (with_it if i % 2 else without).append(run)
        progress(f"  {'with' if i % 2 else 'without':8}{statistics.median(run.walls) / 1e6:9.2f} ms a step")
    said = verdict([statistics.median(r.walls) for r in without], [statistics.median(r.walls) for r in with_it])
    trial = Trial(
        finding=finding.key,
        remedy=remedy.preview(subjects),
        predicted=finding.predicted,
        measured=said.measured,
        low=said.low,
        high=said.high,
        kept=said.kept,
        reason=f"the gain exceeds the spread of {said.spread:.1%} between equal runs"
        if said.kept
        else f"no gain beyond the spread of {said.spread:.1%} between equal runs",
        loss_difference=loss_difference(without, with_it) if remedy.numerics else None,
    )
    return trial, remedy.apply(subjects) if said.kept else None
