"""One account of the measured steps' wall time, whose cells add up to the whole.

A cell is phase x cause, in whole nanoseconds, and never negative. A rule claims what it can prove; what no rule
claims is the cause *unattributed*: a cell like any other, never spread over its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

PHASES = ("data", "h2d", "forward", "backward", "optimizer", "checkpoint", "logging", "other")

CAUSES = {  # in printing order: what the device did well, what it lost, what the host lost, what we do not know
    "useful": "model FLOPs at the peak of the reference dtype",
    "recompute": "the same FLOPs done again in backward (activation checkpointing)",
    "precision": "FLOPs in a slower dtype than this device offers",
    "ceiling": "peak that no kernel reaches on this device",
    "memory": "bytes moved, beyond what the arithmetic hides",
    "inefficiency": "slower than compute and memory limits explain",
    "launch": "dispatching operators",
    "operators": "operators on a device without a known peak",
    "uncounted": "operators without a cost formula",
    "copy": "copies between host and device",
    "comm": "communication that nothing hides",
    "wait for rank": "waiting in a collective for the last rank",
    "dependency": "a stream waiting for another stream",
    "data stall": "waiting for the next batch",
    "io": "checkpoints and logging",
    "sync": "the device drained by a synchronising call",
    "python": "Python between operators",
    "compile": "compiling",
    "gc": "Python's garbage collector",
    "measurement": "the profiler itself",
    "unattributed": "what no rule explains",
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """One reason for an entry, largest first: an operator with its shapes, or what the host did in a gap."""

    what: str
    nanoseconds: int
    count: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell. `nanoseconds` is the sum over the window; `share` is of the window's wall time."""

    phase: str
    cause: str
    nanoseconds: int
    share: float
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Basis:
    """What the shares are measured against. `peak_flops` in FLOP/s, dense; None where no peak is known."""

    device: str
    dtype: str  # the reference dtype, e.g. "bfloat16"
    dtype_used: str  # the dtype most FLOPs ran in
    peak_flops: float | None
    peak_source: str  # "spec: ..." or "measured on 2 threads of this machine"
    convention: str = (
        "ledger: executed FLOPs, 2 per multiply-add of matmul, convolution, attention (causal: what the mask leaves)"
    )


@dataclass(frozen=True, slots=True)
class Ledger:
    """`entries` are the non-zero cells in printing order; their nanoseconds add up to `wall_ns` exactly."""

    wall_ns: int
    steps: int
    entries: tuple[Entry, ...]
    basis: Basis
    flops: int  # executed model FLOPs in the window, recomputation left out
    notes: tuple[str, ...] = ()

    def nanoseconds(self, *causes: str, phase: str | None = None) -> int:
        """The sum of the named causes (all of them if none is named), in one phase or in all."""
        return sum(
            e.nanoseconds for e in self.entries if (not causes or e.cause in causes) and phase in (None, e.phase)
        )

    def by_cause(self) -> dict[str, int]:
        """{cause: ns} in printing order."""
        return {c: ns for c in CAUSES if (ns := self.nanoseconds(c))}

    def by_phase(self) -> dict[str, int]:
        """{phase: ns} in printing order."""
        return {p: ns for p in PHASES if (ns := self.nanoseconds(phase=p))}

    @property
    def mfu(self) -> float | None:
        """Share of the wall time that is useful FLOPs at peak; None without a known peak."""
        return self.nanoseconds("useful") / self.wall_ns if self.basis.peak_flops else None

    @property
    def hfu(self) -> float | None:
        """As `mfu`, recomputation included."""
        return self.nanoseconds("useful", "recompute") / self.wall_ns if self.basis.peak_flops else None
