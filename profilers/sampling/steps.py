"""The steps of a training loop, published from its own thread into the second lane of the kernel's ring.

`writer` is None unless somebody watches: every step looks, and `publish` takes no lock. The training thread is the
lane's only writer; a forked child loses the lane, for it would be a second.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import sys
import time
from collections.abc import Mapping

from ..ledger import PHASES
from .ring import Writer

MEMORY_EVERY = 1.0  # s: asking torch for its reserved bytes takes some 20 µs
EVERY = 0.1  # s between two published steps, on the mean: to read one off the clock's tape takes some 100 µs
LATEST = 1.0  # s: then whichever ends next

writer: Writer | None = None
_NONE = (0,) * len(PHASES)
_loss = math.nan
_reserved, _asked = math.nan, 0.0
_last, _at, _next = 0, 0.0, 0  # the step published last, when, and the next one to be
_chance = random.Random()  # not the user's, whose numbers are to be the same with and without us


def attach(lane: Writer | None) -> None:
    """From now on into this lane; None: into none."""
    global writer, _next
    writer, _next = lane, 0


def log(loss: float) -> None:
    """The loss that the steps from now on are published with."""
    global _loss
    _loss = float(loss)


def due(number: int) -> bool:
    """Is this step to be published? Of a fast loop not all are.

    Which ones is chance, by their number: whoever takes the one that ends after so much time mostly meets the long ones.
    """
    return number >= _next or time.monotonic() - _at > LATEST


def publish(number: int, wall: int, phases: Mapping[str, int]) -> None:
    """A step has ended: how many there were, and what this one took, ns."""
    global _last, _at, _next
    lane = writer  # once: another thread may take it away
    if lane is None:
        return
    now = time.monotonic()
    if now - _asked > MEMORY_EVERY:
        _ask(now)
    lane.put((now, number, wall, *map(phases.get, PHASES, _NONE), _loss, _reserved))
    apart = int(EVERY * (number - _last) / (now - _at or EVERY))  # steps in EVERY, since the last one
    _next = number + 1 + (int(_chance.random() * (2 * apart - 1)) if apart > 1 else 0)
    _last, _at = number, now


def _ask(now: float) -> None:
    global _reserved, _asked
    torch, _asked = sys.modules.get("torch"), now
    if torch is not None and torch.cuda.is_initialized():
        with contextlib.suppress(RuntimeError):  # a device-side assert is the user's to see, and not here
            _reserved = float(torch.cuda.memory_reserved())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: attach(None))
