"""What a cache in front of storage is worth when every epoch reads all data once, in a new order.

A cache that holds the share c of the data, and evicts what was used longest ago, has of shuffled epochs the hit rate

    h(c) = c + (1 - c) ln(1 - c)

An item read at x of one epoch and at y of the next has 1 - x(1 - y) of the data read in between; it is still there if that
is at most c, and x, y are uniform. In sequence (no shuffling) h is 0 for every c < 1: it thrashes. A cache that never evicts
hits c (MinIO: Mohan et al., VLDB 2021, §4.2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass


def lru_hits(share: float, *, shuffled: bool = True) -> float:
    """Hit rate of the second and later epochs; share: cache over data."""
    if share >= 1:
        return 1.0
    if share <= 0 or not shuffled:
        return 0.0
    return share + (1 - share) * math.log1p(-share)


@dataclass(frozen=True, slots=True)
class Tier:
    """A cache for this data: bytes it has, hit rates by policy, and samples' speed against storage alone."""

    name: str
    bytes: int
    share: float
    evicting: float
    keeping: float
    speed: float | None  # against no cache, keeping; None where a rate is missing


def tier(name: str, size: int, data: int, cold: float | None, warm: float | None) -> Tier:
    """cold, warm: bytes a second. Effective rate: harmonic mean of the two by hits."""
    share = min(1.0, size / max(1, data))
    speed = None
    if cold and warm:
        speed = 1 / ((1 - share) + share * cold / warm)
    return Tier(name, size, share, lru_hits(share), share, speed)


def checkpoint_every(save: float, step: float, budget: float = 0.01) -> int:
    """Steps between saves so that saving takes at most `budget` of the training. Seconds in."""
    return max(1, math.ceil(save * (1 - budget) / (budget * step)))
