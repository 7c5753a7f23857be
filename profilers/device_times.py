"""How long steps took on the CUDA device: a pair of events a step, read a step later, never waited for.

The host runs ahead of the device, so its own clock says when a step was queued, not how long it took.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Hashable
from typing import Any

import torch

BUILT = torch.backends.cuda.is_built()
KEPT = 4096  # as many as the clock keeps steps


class DeviceTimes:
    """`begin` and `end` a step; `walls[key]` appears once the device has passed both. Records nothing while a CUDA
    graph is being captured: an event recorded there would become a part of the graph."""

    def __init__(self, cuda: Any) -> None:
        """`cuda`: the module torch.cuda, or what stands in for it."""
        self.walls: dict[Hashable, int] = {}  # ns
        self._cuda = cuda
        self._begun: Any = None
        self._pending: deque[tuple[Hashable, Any, Any]] = deque()

    def begin(self) -> None:
        self._begun = self._mark()

    def end(self, key: Hashable) -> None:
        """Close the step `key` and read those the device has finished meanwhile."""
        ended = self._mark()
        if self._begun is not None and ended is not None:
            self._pending.append((key, self._begun, ended))
        self._begun = None
        self.read()

    def read(self) -> None:
        """Collect finished steps, oldest first, without waiting for any."""
        while self._pending and self._pending[0][2].query():
            key, begun, ended = self._pending.popleft()
            with contextlib.suppress(RuntimeError, ValueError):  # events of two devices
                self.walls[key] = int(begun.elapsed_time(ended) * 1e6)
            if len(self.walls) > KEPT:
                del self.walls[next(iter(self.walls))]

    def wait(self) -> None:
        """Until the device has finished the last step. Only after the loop."""
        if self._pending:
            self._pending[-1][2].synchronize()
        self.read()

    def _mark(self) -> Any:
        if self._cuda.is_current_stream_capturing():
            return None
        event = self._cuda.Event(enable_timing=True)
        event.record()
        return event


def capturing() -> bool:
    """Into a CUDA graph: what happens is recorded, not run, and no call of ours may come between."""
    return BUILT and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
