"""The proof: the same cell, a bounded number of steps, without / with / without the remedy, in turns.

A remedy is kept only when the gain of its worst round exceeds what the machine does by itself between two equal runs.
Of drawn trials without any effect 1 % are kept so (3 % by the median round), of a gain of 30 % at 5 % noise 98 %.
Two rounds would keep 5 % of them, one round 24 %: a trial that time ran out on keeps nothing. And where it shows no
gain while other programs had the cores, it says that it cannot tell.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...profilers.errors import UsageError
from ...profilers.neighbours import CpuTime
from ...profilers.profile import Finding, Trial
from ...profilers.views.columns import wrap
from ..registry import Code
from . import tuning
from .refusal import refusal
from .remedies import LoaderSettings, Remedy, Subjects, Undo
from .replay import Run, run_steps

WARM = 3
ROUNDS = 3  # pairs of (without, with), and one more without
RUNS = 2 * ROUNDS + 1
SECONDS = 30.0  # for the whole trial, about: by the step time of the profile
STARTING = 60.0  # seconds on top, for what is no step: workers that start, a model that compiles
FEWEST, MOST = 5, 40  # steps a run


@dataclass(frozen=True, slots=True)
class Verdict:
    """Ratios are step times without over with the remedy."""

    measured: float
    low: float
    high: float
    spread: float  # largest relative difference between neighbouring runs without it
    kept: bool


class Unfinished(UsageError):
    """A trial that began and came to no verdict. `trial` is its record: it was tried, and the reason says what happened."""

    def __init__(self, finding: Finding, preview: str, says: str) -> None:
        super().__init__(f"{finding.title}: {says}")
        self.trial = Trial(finding.key, preview, finding.predicted, None, None, None, kept=False, reason=says)


def verdict(without: Sequence[float], with_it: Sequence[float]) -> Verdict:
    """`without` has one run more than `with_it`: each run with the remedy stands between two without it."""
    neighbours = list(itertools.pairwise(without))
    ratios = [(a + b) / 2 / w for (a, b), w in zip(neighbours, with_it, strict=True)]
    spread = max(abs(a - b) / max(a, b) for a, b in neighbours)
    measured, low = statistics.median(ratios), min(ratios)
    return Verdict(measured, low, max(ratios), spread, low - 1 > spread)


def loss_difference(without: Sequence[Run], with_it: Sequence[Run]) -> float | None:
    """Relative difference of the mean loss over the same steps from the same state; None where no loss was seen."""
    a, b = (
        statistics.fmean(losses) if (losses := [x for r in runs for x in r.losses]) else 0.0
        for runs in (without, with_it)
    )
    return abs(b - a) / abs(a) if a and math.isfinite(a) and math.isfinite(b) else None


def spoils_the_loss(without: Sequence[Run], with_it: Sequence[Run]) -> bool:
    """The loss is a number without the remedy, and none with it."""
    finite, spoilt = (all(math.isfinite(x) for r in runs for x in r.losses) for runs in (without, with_it))
    return finite and not spoilt


def steps_a_run(step_seconds: float) -> int:
    """As many as fit the time the whole trial may take."""
    return max(FEWEST, min(MOST, int(SECONDS / RUNS / max(step_seconds, 1e-6)) - WARM))


def try_remedy(
    finding: Finding,
    remedy: Remedy,
    code: Code,
    subjects: Subjects,
    step_seconds: float,
    progress: Callable[[str], None],
) -> tuple[Trial, Undo | None]:
    """Measure the remedy; where it is kept it stays applied and its undo is returned, else everything is as before.

    Raises UsageError where it may not begin, and Unfinished where it began and could not be finished.
    """
    why_not = remedy.refusal(subjects) or refusal(code.source, subjects, remedy)
    if why_not:
        raise UsageError(f"{finding.title}: not tried, {why_not}")
    if finding.remedy == "workers" and isinstance(remedy, LoaderSettings):
        progress(f"racing the loader's settings for about {tuning.SECONDS:.0f} s")
        try:
            remedy = tuning.fitted(remedy, subjects)
        except UsageError as refused:
            raise Unfinished(finding, remedy.preview(subjects), str(refused)) from refused
    preview, steps = remedy.preview(subjects), steps_a_run(step_seconds)
    seconds = RUNS * (WARM + steps) * step_seconds
    limit = STARTING + 2 * seconds
    told = f"{RUNS} runs of {WARM + steps} steps: about {seconds:.0f} s and what starting takes, at most {limit:.0f} s"
    for line in (*wrap(f"trying {preview}", 80), *wrap(told, 80, "  ")):
        progress(line)
    until, before = time.monotonic() + limit, CpuTime.now()
    runs: tuple[list[Run], list[Run]] = [], []  # without, with
    done = 0
    try:
        for i in range(RUNS):
            run = _run(remedy if i % 2 else None, code, subjects, steps, until)
            if time.monotonic() >= until:  # it was cut short
                break
            runs[i % 2].append(run)
            done, how = i + 1, "with" if i % 2 else "without"
            progress(f"  {done} of {RUNS}  {how:8}{_ms(run):>12} a step")
        after = CpuTime.now()
        trial = judge(finding, preview, *runs, limit, after.since(before) if after and before else None)
    except UsageError as failed:
        raise Unfinished(finding, preview, str(failed)) from failed
    except KeyboardInterrupt:
        said = f"interrupted with {done} of {RUNS} runs done, and everything is as before"
        raise Unfinished(finding, preview, said) from None
    if remedy.numerics:
        trial = replace(trial, loss_difference=loss_difference(*runs))
    return trial, remedy.apply(subjects) if trial.kept else None


def judge(
    finding: Finding,
    preview: str,
    without: Sequence[Run],
    with_it: Sequence[Run],
    limit: float,
    meanwhile: CpuTime | None,
) -> Trial:
    """The verdict on the runs there were time for in `limit` seconds, and the reason in one sentence."""
    rounds = min(len(with_it), len(without) - 1)
    late = f"stopped after {limit:.0f} s with {len(without) + len(with_it)} of {RUNS} runs done"
    busy = ""
    if meanwhile is not None and meanwhile.crowded:
        busy = f"other processes took {meanwhile.others:.1f} of {meanwhile.cores} cores"
    if rounds < 1:
        seen = [f"{how} {_ms(run)} a step" for how, runs in (("without", without), ("with", with_it)) for run in runs]
        told = "; ".join(filter(None, [late, *seen, busy]))
        raise UsageError(f"{told}: too little to compare, and everything is as before")
    without, with_it = without[: rounds + 1], with_it[:rounds]
    said = verdict([statistics.median(r.walls) for r in without], [statistics.median(r.walls) for r in with_it])
    spoilt = spoils_the_loss(without, with_it)
    kept = said.kept and not spoilt and rounds == ROUNDS
    if spoilt:
        reason = "with it the loss is no longer a finite number"
    elif kept:
        reason = f"the gain exceeds the spread of {said.spread:.1%} between equal runs"
    elif doubts := [d for d in (late if rounds < ROUNDS else "", busy) if d]:
        reason = f"inconclusive: {', and '.join(doubts)}"
    else:
        reason = f"no gain beyond the spread of {said.spread:.1%} between equal runs"
    return Trial(
        finding=finding.key,
        remedy=preview,
        predicted=finding.predicted,
        measured=said.measured,
        low=said.low,
        high=said.high,
        kept=kept,
        reason=reason,
    )


def _ms(run: Run) -> str:
    return f"{statistics.median(run.walls) / 1e6:.2f} ms"


def _run(remedy: Remedy | None, code: Code, subjects: Subjects, steps: int, until: float) -> Run:
    """One run; what the cell raises is told, and nothing of the remedy stays."""
    try:
        undo = remedy.apply(subjects) if remedy is not None else None
        try:
            return run_steps(code, subjects, WARM, steps, until)
        finally:
            if undo is not None:
                undo()
    except UsageError:
        raise
    except Exception as error:
        how = "with the remedy" if remedy is not None else "run again as it is"
        says = first_sentence(error)
        raise UsageError(f"{how} the cell raised {type(error).__name__}: {says}; everything is as before") from error


def first_sentence(error: Exception) -> str:
    """What went wrong, on one line; a compiler's errors say it only after a line that ends with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[0] if not lines[0].endswith(":") else " ".join(lines[:2])
    return said[:200]
