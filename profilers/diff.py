"""What changed between two profiles, in ns per step; every column adds up to its profile's median clean step exactly.

The cells are those of the two ledgers, each divided by its own number of steps and never scaled. A ledger is of the
profiled steps and the headline of the clean ones: what lies between the two (the profiler's price, the luck of the
window, halves of a nanosecond) is a row of its own. Where one profile has no ledger, the step clock's phases are
compared, and that row also holds that medians do not add up.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .ledger import CAUSES, PHASES
from .profile import Profile
from .regression import FEWEST, lower_end
from .schema import pack
from .views.units import size

FORMAT = "mlsys.diff"
REMAINDER = "window against clean"
REMAINDER_SAYS = (
    "A ledger is of profiled steps, the median of clean ones: "
    f"{REMAINDER!r} is what lies between, the profiler's price and chance."
)
REMAINDER_SAYS_OF_PHASES = f"Medians of phases do not add up to the median step: {REMAINDER!r} is what they miss."
NO_CAUSE = "all causes"  # where only phases can be compared


@dataclass(frozen=True, slots=True)
class Change:
    """One cell before and after, ns per step. Only the remainder may be negative."""

    cause: str
    phase: str
    before: int
    after: int

    @property
    def nanoseconds(self) -> int:
        """Positive is slower."""
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Diff:
    """`changes` in the ledger's printing order, the remainder last. Displays as text and as HTML."""

    before: str  # titles; with the time of each where the titles are the same
    after: str
    before_ns: int  # median clean step
    after_ns: int
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    low: float | None = None  # bounds of `speedup`, each one-sided 99 %; None: too few clean steps
    high: float | None = None
    kept: tuple[str, ...] | None = None  # by `fix` between the two; None: it had no part in them
    taken_back: tuple[str, ...] = ()

    @property
    def nanoseconds(self) -> int:
        """The difference of the median clean steps; positive is slower."""
        return self.after_ns - self.before_ns

    @property
    def speedup(self) -> float | None:
        """Before over after: 1.8 means 1.8 times as fast."""
        return self.before_ns / self.after_ns if self.before_ns and self.after_ns else None

    def by_cause(self) -> dict[str, int]:
        """{cause: ns} of the differences, in printing order; they add up to `nanoseconds`."""
        return _summed((change.cause, change) for change in self.changes)

    def by_phase(self) -> dict[str, int]:
        """{phase: ns}; the remainder has no phase and goes by its name."""
        return _summed((change.phase or change.cause, change) for change in self.changes)

    @property
    def claim(self) -> str:
        """How many times as fast, never without its bounds; nothing is claimed where they hold 1."""
        if self.speedup is None:
            return "one of the two has no step to compare"
        if self.low is None or self.high is None:
            return f"{_times(self.speedup)}, of too few clean steps to say within which bounds"
        if self.low <= 1 <= self.high:
            return f"no difference beyond the spread: {self.speedup:.2f}x ({self.low:.2f} to {self.high:.2f})"
        bounds = (self.low, self.high) if self.speedup >= 1 else (1 / self.high, 1 / self.low)
        return f"{_times(self.speedup)} ({bounds[0]:.2f} to {bounds[1]:.2f})"

    @property
    def reason(self) -> str:
        """What may have made the difference, as far as `fix` knows; "" where it had no part."""
        if self.kept is None:
            return ""
        said = []
        if self.kept:
            said += [f"Kept by `fix` in between: {'; '.join(self.kept)}. What else ran on this machine meanwhile is in"]
            said += ["this difference, and not in what was measured in turns."]
        said += [f"Not in place any more: {'; '.join(self.taken_back)}."] if self.taken_back else []
        return " ".join(said) or (
            "Nothing was kept by `fix` in between: unless the loop or its objects were changed by hand, this is how "
            "much two equal runs differ."
        )

    @property
    def remainder(self) -> str:
        """What the last row means, in a sentence."""
        return REMAINDER_SAYS_OF_PHASES if any(c.cause == NO_CAUSE for c in self.changes) else REMAINDER_SAYS

    def to_json(self) -> str:
        return json.dumps({"format": FORMAT, "schema": 1, **pack(self)}, allow_nan=False, separators=(",", ":"))

    def text(self, width: int = 80) -> str:
        """For a terminal of `width` columns (40 at least)."""
        from .views.comparison import diff_text

        return diff_text(self, width)

    def html(self) -> str:
        """One `<div>` with its own style: no script, no network."""
        from .views.comparison import diff_html

        return diff_html(self)

    def __str__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}


def diff(before: Profile, after: Profile) -> Diff:
    """By cause and phase where both have a ledger, else by phase."""
    by_cause = before.ledger is not None and after.ledger is not None
    old, new = _cells(before, by_cause), _cells(after, by_cause)
    changes = [
        Change(cause, phase, old[cause, phase], new[cause, phase]) for cause, phase in sorted({*old, *new}, key=_order)
    ]
    remainder = Change(REMAINDER, "", before.steps.median - old.total(), after.steps.median - new.total())
    return Diff(
        *_labels(before, after),
        before.steps.median,
        after.steps.median,
        (*changes, remainder),
        tuple(_unlike(before, after)),
        *_bounds(before, after),
        *_fixed(before, after),
    )


def _times(speedup: float) -> str:
    return f"{speedup:.2f}x as fast" if speedup >= 1 else f"{1 / speedup:.2f}x as long"


def _bounds(before: Profile, after: Profile) -> tuple[float, float] | tuple[None, None]:
    """Of before over after; they always hold the ratio of the medians."""
    old, new = before.steps.clean, after.steps.clean
    if min(len(old), len(new)) < FEWEST or min(*old, *new) <= 0:
        return None, None
    speedup = before.steps.median / after.steps.median
    slowest = lower_end(new, old)
    return min(lower_end(old, new), speedup), max(1 / slowest if slowest else math.inf, speedup)


def _fixed(before: Profile, after: Profile) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    if before.kept is None or after.kept is None:
        return None, ()
    old, new = Counter(before.kept), Counter(after.kept)
    return tuple((new - old).elements()), tuple((old - new).elements())


def _labels(before: Profile, after: Profile) -> tuple[str, str]:
    """What tells them apart: most often one cell is profiled twice."""
    if before.title != after.title:
        return before.title, after.title
    times = [profile.created.replace("T", " ").partition("+")[0].removesuffix("Z") for profile in (before, after)]
    old, new = times if times[0] != times[1] else ("the first", "the second")
    return f"{old}  {before.title}", f"{new}  {after.title}"


def _cells(profile: Profile, by_cause: bool) -> Counter[tuple[str, str]]:
    """{(cause, phase): ns per step}; a cell that is missing counts as 0."""
    if by_cause and (ledger := profile.ledger):
        return Counter({(e.cause, e.phase): round(e.nanoseconds / ledger.steps) for e in ledger.entries})
    return Counter({(NO_CAUSE, phase): ns for phase, ns in profile.steps.phases.items()})


def _order(cell: tuple[str, str]) -> tuple[int, int, str]:
    cause, phase = cell
    causes, phases = list(CAUSES), list(PHASES)
    return (
        causes.index(cause) if cause in causes else len(causes),
        phases.index(phase) if phase in phases else len(phases),
        phase,
    )


def _summed(named: Iterable[tuple[str, Change]]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for name, change in named:
        sums[name] = sums.get(name, 0) + change.nanoseconds
    return sums


def _unlike(before: Profile, after: Profile) -> list[str]:
    """What else differs, and may be why: the step's unit, the device, its peak and its memory, the environment."""
    pairs = {"a step": (before.steps.unit, after.steps.unit)}
    if before.ledger and after.ledger:
        old, new = before.ledger.basis, after.ledger.basis
        pairs |= {"device": (old.device, new.device), "reference dtype": (old.dtype, new.dtype)}
        pairs |= {"dtype used": (old.dtype_used, new.dtype_used)}
    if before.memory_use and after.memory_use:
        old_peak, new_peak = (use.peak.total for use in (before.memory_use, after.memory_use))
        pairs |= {"memory at the peak of a step": (size(old_peak), size(new_peak))}
    both = sorted(before.environment.keys() & after.environment.keys())
    pairs |= {key: (before.environment[key], after.environment[key]) for key in both}
    return [f"{key}: {old} → {new}" for key, (old, new) in pairs.items() if old != new]
