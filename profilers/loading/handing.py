"""What workers would make of a batch, of a loader that has none yet: it is run with a few for a moment.

Its batches are collated into shared memory, pickled, received and mapped, by one torch thread instead of all, while the
worker's GIL is wanted by the thread that answers the loop. None of that can be had from a fetch in the loop's own process.
"""

from __future__ import annotations

import math
import pickle
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .consumer import Loop, Step, Turn, length
from .model import Handing
from .settings import Setting, changed
from .shadow import shadow

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

AHEAD = 2  # batches, as torch has it
STARTS = 2  # where batches are fast: which core a process lands on differs from start to start
LEAST, MOST = 6, 10_000  # batches
PATIENCE = 5  # seconds for a batch, or four times what one took here: a worker that hangs ends the attempt
BOUND = 1.2  # where receiving takes so much less than a turn, the worker is what takes the turn


def handing(loader: DataLoader, fetch: float, step: Step | None, work: float, cores: float, seconds: float) -> Handing | None:  # fmt: skip
    """fetch, work: ns that a batch and a step take here. None where a worker cannot have the dataset, or send its batches.

    One worker alone tells what a batch costs it. Then as many run beside the step as keep up with it: the thread that
    answers the loop waits for a core and for its worker's GIL, the longer the more of them are busy.
    """
    try:
        turns, cpu = _with_workers(1, loader, fetch, None, seconds / 2)
        turn, receiving = (statistics.fmean(ns) for ns in zip(*((t.wait.wall, _receiving(t)) for t in turns), strict=True))  # fmt: skip
        if turn > BOUND * receiving:
            fetch = turn
        if step is not None:
            enough = min(math.ceil(fetch / (max(0.0, work) + receiving)), max(1, int(cores)))
            starts = STARTS if 20 * fetch < 1e9 * seconds else 1
            beside = [_with_workers(enough, loader, fetch, step, seconds / 2 / starts)[0] for _ in range(starts)]
            receiving = statistics.fmean(_receiving(turn) for turns in beside for turn in turns)
    except Exception:  # noqa: BLE001 - a dataset may refuse to be sent, a batch to be pickled, and the loader itself works
        return None
    return Handing(loop=receiving, fetch=fetch, cpu=cpu) if cpu else None


def can_be_sent(batch: Any) -> bool:
    """To be asked first: a worker only prints that it could not pickle a batch, and the loop waits for it in vain."""
    try:
        pickle.dumps(batch)
    except Exception:  # noqa: BLE001 - a user's object may refuse in any way
        return False
    return True


def _with_workers(
    count: int, loader: DataLoader, fetch: float, step: Step | None, seconds: float
) -> tuple[list[Turn], float]:
    """Turns of the loop once what was ahead is used up, and the CPU time of a batch, of workers and receiving; 0: not known."""
    loader = changed(loader, Setting(count, AHEAD, 1, False))
    vars(loader)["timeout"] = max(PATIENCE, 4e-9 * fetch)
    loop, ahead = Loop(shadow(loader, loader.worker_init_fn, []), watched=True), count * AHEAD
    least, whole = ahead + LEAST, length(loader)
    if whole is not None and whole - 1 < max(least, 1e9 * seconds / fetch):
        least, seconds = whole - 1, 0  # within one epoch: the next one's workers are others
    try:
        loop.first()
        before = _on_cores(loop.processes())
        turns = loop.run(step, 0, least, seconds, MOST).turns
        spent = _on_cores(loop.processes()) - before
    finally:
        loop.close()
    kept = turns[ahead:]
    return kept, spent / len(turns) + statistics.fmean(t.wait.cpu for t in kept) if spent > 0 else 0.0


def _receiving(turn: Turn) -> int:
    return turn.receive + turn.unpickle


def _on_cores(processes: Sequence[int]) -> int:
    """ns that their threads were on a core: what /proc tells, 0 where there is none."""
    return sum(_thread(path) for pid in processes for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def _thread(path: Path) -> int:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0
