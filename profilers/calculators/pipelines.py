"""What a pipeline schedule leaves idle, and how many micro-batches it holds.

p stages, m micro-batches, v model chunks a stage; a micro-batch takes a stage F forward and B backward,
of which W is for the weights' gradients and can wait

             idle seconds a stage    micro-batches held   source
gpipe        (p-1) (F + B)           m                    Huang et al. 2019, arXiv:1811.06965
1f1b         (p-1) (F + B)           p                    Narayanan et al. 2021, arXiv:2104.04473, 2.2.1
interleaved  (p-1) (F + B) / v       p + (p-1)/v          the same, 2.2.2; memory: arXiv:2205.05198, 4.2.3
zero-bubble  (p-1) (F + B - 2W)      p                    ZB-H1 of Qi et al. 2023, arXiv:2401.10241, Table 2
"""

from __future__ import annotations

from ..errors import UsageError
from .layout import Schedule


def idle(
    schedule: Schedule, stages: int, *, forward: float, backward: float, chunks: int = 1, weight: float | None = None
) -> float:
    """Seconds in which the first stage waits, in one step; the same whatever the number of micro-batches.

    `weight` is the part of `backward` that computes weight gradients, half of it unless given.
    """
    whole = (stages - 1) * (forward + backward)
    if schedule == "interleaved":
        return whole / chunks
    if schedule == "zero-bubble":
        return max(0.0, whole - (stages - 1) * 2 * (backward / 2 if weight is None else weight))
    return whole


def bubble(
    schedule: Schedule,
    stages: int,
    micro_batches: int,
    *,
    chunks: int = 1,
    forward: float = 1.0,
    backward: float = 2.0,
    weight: float | None = None,
) -> float:
    """Idle time over busy time; (p-1)/m for GPipe and 1F1B."""
    check(schedule, stages, micro_batches, chunks)
    busy = micro_batches * (forward + backward)
    return idle(schedule, stages, forward=forward, backward=backward, chunks=chunks, weight=weight) / busy


def held(schedule: Schedule, stages: int, micro_batches: int, chunks: int = 1, stage: int = 0) -> float:
    """Micro-batches whose activations a stage, by default the first, holds at most; a chunk of one counts 1/chunks.

    Later stages begin later, and hold less: two chunks or one micro-batch a stage. Under zero-bubble the weights'
    gradients that wait hold on to theirs, so that every stage is counted like the first.
    """
    if schedule == "gpipe":
        return micro_batches
    if schedule == "interleaved":
        return min(micro_batches, stages + (stages - 1 - 2 * stage) / chunks)
    return min(micro_batches, stages if schedule == "zero-bubble" else stages - stage)


def check(schedule: Schedule, stages: int, micro_batches: int, chunks: int) -> None:
    """Refuse what the schedule cannot run."""
    if schedule not in ("gpipe", "1f1b", "interleaved", "zero-bubble"):
        raise UsageError(f'schedule must be "gpipe", "1f1b", "interleaved" or "zero-bubble", not {schedule!r}')
    if min(stages, micro_batches, chunks) < 1:
        raise UsageError(f"stages, micro_batches and chunks are at least 1, not {stages}, {micro_batches}, {chunks}")
    if chunks > 1 and schedule != "interleaved":
        raise UsageError(f'{chunks} chunks a stage need schedule="interleaved", not {schedule!r}')
    if schedule == "interleaved" and micro_batches % stages:
        raise UsageError(
            f"the interleaved schedule passes micro-batches on in groups of {stages}; "
            f"give a multiple of {stages} instead of {micro_batches}"
        )
    if schedule == "zero-bubble" and micro_batches < stages:
        raise UsageError(
            f"zero-bubble fills {stages} stages with as many micro-batches; give at least {stages} instead of {micro_batches}"
        )
