"""The one result object: what was measured, where it went, what to do about it. Numbers and names only, no raw events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .ledger import Ledger

SCHEMA = 1


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

    @property
    def median(self) -> int:
        """Clean median step, ns; of all steps where none was clean; 0 where there was no step."""
        walls = sorted(self.clean or self.window or self.warmup)
        return walls[len(walls) // 2] if walls else 0


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
    measured: float
    low: float  # lower and upper bound of the measured ratio
    high: float
    kept: bool
    reason: str
    loss_difference: float | None = None  # relative, where the remedy touches numerics


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
    schema: int = SCHEMA
