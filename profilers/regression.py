"""Is a profile slower than its baseline? For `--compare base.json`: a verdict that a noisy machine does not flip.

Two things must hold. The median clean step must be slower by more than `bound`: that is what matters to people. And
the slowdown must be beyond the spread: the lower end of a one-sided 99 % interval for it must be above nothing.

The interval is that of Hodges and Lehmann on ratios: of all pairs (a step here, a step of the baseline) take the
ratios, sort them, and count in from the small end as far as the rank-sum statistic allows. It assumes no distribution,
and single slow steps move it little. Steps that follow each other are alike, which makes few of many: the statistic's
variance is raised by (1 + r) / (1 - r), r being the correlation of neighbours' ranks (an AR(1) series' effective size).

Measured on drawn log-normal steps with 3 % noise and now and then one three times as long (tests/unit/test_diff.py): equal
runs are flagged in under 1 % of cases; a 10 % slowdown is caught in 76 % of cases with 8 steps on a side, in 97 % with
12, always with 20. Steps as alike as AR(1) of 0.8 at 30 % noise are flagged wrongly in 2 to 6 %; without the factor, 20 %.

What two runs cannot show is how much runs differ from each other (another neighbour on the machine, another clock
speed): for that, `bound` is the allowance. With fewer than five steps on either side the answer is "cannot tell".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import correlation

from .errors import UsageError
from .profile import Profile
from .profile_json import thinned
from .views.columns import crop
from .views.units import duration, grown

_NORMAL_99 = 2.326  # one-sided
FEWEST, _MOST = 5, 400  # steps on a side; of more than that, as many evenly by rank


@dataclass(frozen=True, slots=True)
class Verdict:
    """`slower` is None where there are too few steps to tell. Ratios are this profile over the baseline."""

    slower: bool | None
    ratio: float | None  # of the median clean steps
    low: float | None  # lower end of the interval
    bound: float
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def regression(profile: Profile, baseline: Profile, bound: float = 0.05) -> Verdict:
    """`slower` means: by more than `bound` (0.05 is 5 %), and beyond the spread of both."""
    if not 0 <= bound < math.inf:
        raise UsageError(f"the bound is {bound}; give a share of the step time, such as 0.05 for 5 %")
    if profile.steps.unit != baseline.steps.unit:
        units = f"{crop(profile.steps.unit, 60)!r} here, {crop(baseline.steps.unit, 60)!r} there"
        raise UsageError(f"the two profiles count different steps ({units}); profile the same loop in both")
    new, old = profile.steps.clean, baseline.steps.clean
    if min(len(new), len(old)) < FEWEST or min(*new, *old) <= 0:
        few = f"{len(new)} clean steps against {len(old)} of the baseline; {FEWEST} are needed on either side"
        return Verdict(None, None, None, bound, f"cannot tell: {few}")
    ratio, low = profile.steps.median / baseline.steps.median, lower_end(new, old)
    slower = ratio > 1 + bound and low > 1
    medians = f"{duration(profile.steps.median)} a step against {duration(baseline.steps.median)}: {grown(ratio)}"
    if slower:
        said = f"slower than the bound of {bound:.1%}, and beyond the spread (at least {grown(low)})"
    elif ratio > 1 + bound:
        said = f"beyond the bound of {bound:.1%}, but within the spread (at least {grown(low)})"
    else:
        said = f"within the bound of {bound:.1%}" if ratio > 1 else "not slower"
    return Verdict(slower, ratio, low, bound, f"{medians}, {said}")


def lower_end(new: Sequence[int], old: Sequence[int]) -> float:
    """Lower end of the one-sided 99 % interval for the ratio new/old; 0 where it has none."""
    inflation = (_inflation(new) + _inflation(old)) / 2
    new, old = thinned(tuple(new), _MOST), thinned(tuple(old), _MOST)
    pairs = len(new) * len(old)
    spread = math.sqrt(pairs * (len(new) + len(old) + 1) / 12 * inflation)
    rank = math.floor(pairs / 2 - _NORMAL_99 * spread)
    return sorted(a / b for a in new for b in old)[rank - 1] if rank >= 1 else 0.0


def _inflation(walls: Sequence[int]) -> float:
    """How much likeness of neighbours widens the spread; 1 where they are independent."""
    order = {wall: rank for rank, wall in enumerate(sorted(set(walls)))}
    ranks = [order[wall] for wall in walls]
    if len(set(ranks[1:])) < 2 or len(set(ranks[:-1])) < 2:
        return 1.0
    r = min(0.9, max(0.0, correlation(ranks[:-1], ranks[1:])))
    return (1 + r) / (1 - r)
