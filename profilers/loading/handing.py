"""What handing a batch from a worker to the loop costs, of a loader that has no workers yet: the batch it gave, handed over.

One worker that does nothing else gives this batch again and again. So the prediction for workers includes what is the
larger part where batches are small: pickling, the pipe, shared memory and a file descriptor for each tensor.
"""

from __future__ import annotations

import pickle
import statistics
import tempfile
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader, Dataset

from .consumer import Loop
from .model import Handing
from .samples import read_workers
from .worker import Watch

SECONDS = 0.3
PATIENCE = 5  # seconds for a batch: a worker that hangs ends the attempt


class Again(Dataset):
    """The same batch, whatever is asked for."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, index: int) -> Any:
        return self._batch


def as_it_is(batch: Any) -> Any:
    return batch


def handing(batch: Any) -> Handing | None:
    """None where the batch cannot be handed over."""
    try:
        pickle.dumps(batch)  # here, where a refusal is an exception: a worker's feeder prints it, and sends nothing
    except Exception:  # noqa: BLE001 - a user's object may refuse in any way; the loader itself works
        return None
    with tempfile.TemporaryDirectory(prefix="mlsys-data-") as folder:
        double = DataLoader(Again(batch), batch_size=None, num_workers=1, collate_fn=as_it_is, timeout=PATIENCE, worker_init_fn=Watch(Path(folder), None))  # fmt: skip
        loop = Loop(double)
        try:
            run = loop.run(None, 4, 16, SECONDS, 1000)
        except Exception:  # noqa: BLE001 - tensors on a GPU, in a worker that was forked
            return None
        finally:
            loop.close()
        workers = read_workers(Path(folder), run.began, run.ended)
    if not workers:
        return None
    feed = statistics.fmean(w.feed.work for w in workers)
    return Handing(
        loop=statistics.fmean(t.receive + t.unpickle for t in run.turns),
        feed=feed,
        cpu=statistics.fmean(t.wait.cpu for t in run.turns)
        + max(feed, statistics.fmean(w.process_cpu for w in workers)),
    )
