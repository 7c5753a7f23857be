"""What a loader would give with other workers, a cache or a faster disk: predictions by the formula of `model.py`.

Times a batch are means of what was measured; waiting for a core is left out of them, and the cores bound what comes out.
What cannot be known is not predicted, and the reason is said.
A cached sample costs its CPU time and waits for no storage (DS-Analyzer, Mohan et al., VLDB 2021, §4: the effective rate
of a cache that holds a share x is the harmonic mean of memory's and storage's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..views.units import duration
from .model import Pipeline

STORAGE = ("storage", "blocked", "unknown", "network")
WORKERS = (0, 1, 2, 3, 4, 6, 8, 12, 16)
CACHED = (0.0, 0.25, 0.5, 0.75, 1.0)
DISKS = (1, 2, 4, 10)


@dataclass(frozen=True, slots=True)
class WhatIf:
    """Predicted ns a step, of the setting: workers, share cached, or times as fast a disk."""

    workers: tuple[tuple[int, float], ...]
    cached: tuple[tuple[float, float], ...]
    disk: tuple[tuple[int, float], ...]
    core_bound: float  # ns a step: all CPU time over all cores, which no setting beats
    unpredicted: str = ""  # numbers of workers that are left out, and why


def what_if(at: Pipeline) -> WhatIf:
    calm = unqueued(at)
    left_out, why = unpredictable(at)
    return WhatIf(
        workers=tuple((n, ns) for n, ns in estimates(at).items() if n not in left_out),
        cached=tuple((share, cached(calm, share).step()) for share in CACHED),
        disk=tuple((times, cached(calm, 1 - 1 / times).step()) for times in DISKS),
        core_bound=at.cpu / at.cores,
        unpredicted=why,
    )


def estimates(at: Pipeline) -> dict[int, float]:
    """ns a step by number of workers, the doubtful ones too: good enough to choose what to try."""
    calm, most = unqueued(at), max(4, int(at.cores))
    return {n: calm.with_workers(n).step() for n in WORKERS if n <= most}


def unpredictable(at: Pipeline) -> tuple[Sequence[int], str]:
    """Numbers of workers of which the formula knows too little, and why."""
    if at.workers:
        return (0,), "0 workers: what a fetch costs in the loop's own process was not measured"
    if at.handing is None:
        return WORKERS[1:], "workers: those that were tried gave no batch, or too few of them to tell"
    fetch = sum(sum(parts.values()) for parts in at.fetch)
    if at.handing.loop > fetch:
        return WORKERS[1:], (
            f"workers: slower, for a batch takes {duration(fetch)} to fetch and a worker's {duration(at.handing.loop)} to receive;"
            " by how much depends on where the processes happen to run"
        )
    return (), ""


def unqueued(at: Pipeline) -> Pipeline:
    """Queueing for a core is what workers do to each other: it follows from their number, and is not a batch's own."""
    return at.without("queued")


def cached(at: Pipeline, share: float) -> Pipeline:
    """Of the samples, this share waits for no storage."""
    fetch = tuple({k: ns * (1 - share) if k[1] in STORAGE else ns for k, ns in parts.items()} for parts in at.fetch)
    return replace(at, fetch=fetch)


def best_workers(predicted: Sequence[tuple[int, float]], tolerance: float = 0.02) -> int:
    """The fewest workers within 2 % of the fastest: a process more is memory more."""
    fastest = min(ns for _, ns in predicted)
    return next(n for n, ns in sorted(predicted) if ns <= fastest * (1 + tolerance))
