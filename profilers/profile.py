"""The one result object: what was measured, where it went, what to do about it. Numbers and names only, no raw events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .allocations import MemoryUse
from .ledger import Ledger
from .loop import Loop
from .stacks import SourceLine

if TYPE_CHECKING:
    from .diff import Diff
    from .regression import Verdict

SCHEMA = 3


def middle(walls: Sequence[int]) -> int:
    """The median that was really measured (the upper one of an even number); 0 of nothing."""
    return sorted(walls)[len(walls) // 2] if walls else 0


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Wall times of whole steps in ns, by the role each step played."""

    unit: str  # what one step is and how it was found, e.g. "optimizer step (AdamW)"
    warmup: tuple[int, ...]  # excluded, and shown
    clean: tuple[int, ...]  # unprofiled steps on both sides of the window: the headline is their median
    window: tuple[int, ...]  # profiled steps: the ledger is theirs
    phases: Mapping[str, int]  # clean median per phase
    compile_ns: int = 0  # inside the warm-up
    total_ns: int = 0  # the whole cell or block
    excluded: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # by what they were for: settling, shapes ...
    dropped: int = 0  # more clean steps, of which no time was kept

    @property
    def count(self) -> int:
        """All steps of the loop: each is in one of the groups."""
        groups = (self.warmup, self.clean, self.window, *self.excluded.values())
        return sum(map(len, groups)) + self.dropped

    @property
    def median(self) -> int:
        """Clean median step, ns; of all steps where none was clean; 0 where there was no step."""
        return middle(self.clean or self.window or self.warmup)

    @property
    def quartiles(self) -> tuple[int, int]:
        """Half of the clean steps lie between these, ns; (0, 0) where none was clean."""
        walls = sorted(self.clean)
        return (walls[len(walls) // 4], walls[3 * len(walls) // 4]) if walls else (0, 0)


@dataclass(frozen=True, slots=True)
class OperatorRow:
    """One operator of one phase, summed over the window. flops and bytes are None where uncounted."""

    name: str
    phase: str
    shapes: str
    dtype: str
    calls: int
    nanoseconds: int
    flops: int | None
    bytes: int | None
    bound: str  # "compute" | "memory" | "launch" | "uncounted"
    roofline: float | None  # attained share of the limit that binds, 0..1


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. Device fields are None without CUDA."""

    host_peak: int
    device_peak: int | None = None
    device_reserved: int | None = None
    device_total: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to change. `predicted` is the step-time ratio before/after (1.8 means 1.8x), from the ledger."""

    key: str  # e.g. "data-stall"
    title: str
    evidence: str
    predicted: float | None
    saves_ns: int  # per step
    remedy: str | None  # name of the remedy `fix` applies, or None: advice only
    advice: str  # what to do by hand, one sentence with the code to type


@dataclass(frozen=True, slots=True)
class Trial:
    """A remedy that was measured, interleaved without/with/without. Ratios are before/after."""

    finding: str
    remedy: str
    predicted: float | None
    measured: float | None  # None: it could not be finished, and the reason says why
    low: float | None  # lower and upper bound of the measured ratio
    high: float | None
    kept: bool
    reason: str
    loss_difference: float | None = None  # relative, where the remedy touches numerics

    def __str__(self) -> str:
        from .views.text import trial_numbers

        return f"{self.remedy}: {trial_numbers(self)}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What one profiled block did. Displays as text and as self-contained HTML; `to_json` round-trips."""

    title: str
    created: str  # ISO 8601, UTC
    steps: StepTimes
    ledger: Ledger | None  # None in light mode
    operators: tuple[OperatorRow, ...] = ()
    memory: Memory | None = None
    findings: tuple[Finding, ...] = ()
    trials: tuple[Trial, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    loop: Loop | None = None  # what the loop is made of, where it was seen
    lines: tuple[SourceLine, ...] = ()  # with stacks: the largest first
    memory_use: MemoryUse | None = None  # with memory
    kept: tuple[str, ...] | None = None  # what `fix` had kept by then in this notebook; None: there was no `fix`
    disturbed_ns: int = 0  # by which a profiled step was longer than a clean one and the profiler's price: others' work
    schema: int = SCHEMA

    # Views, exchange and comparison import this module, so its methods import them late.

    def to_json(self) -> str:
        """At most 1 MB; what had to be left out for that is said in the notes."""
        from .profile_json import write

        return write(self)

    @classmethod
    def from_json(cls, text: str) -> Profile:
        """The profile `to_json` wrote; UsageError for any other text."""
        from .profile_json import read

        return read(text)

    def redacted(self) -> Profile:
        """The same numbers, with host names, user names and absolute paths replaced."""
        from .redaction import redacted

        return redacted(self)

    def diff(self, other: Profile) -> Diff:
        """From this profile (before) to `other` (after)."""
        from .diff import diff

        return diff(self, other)

    def regression(self, baseline: Profile, bound: float = 0.05) -> Verdict:
        """Is this profile slower than `baseline` by more than `bound`, and beyond the spread?"""
        from .regression import regression

        return regression(self, baseline, bound)

    def text(self, width: int = 80) -> str:
        """For a terminal of `width` columns (40 at least)."""
        from .views.text import profile_text

        return profile_text(self, width)

    def html(self) -> str:
        """One `<div>` with its own style: no script, no network."""
        from .views.html import profile_html

        return profile_html(self)

    def __str__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text(), "text/html": self.html()}
