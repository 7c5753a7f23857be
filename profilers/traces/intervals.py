"""Sets of instants as disjoint sorted intervals: (starts, ends), int64 arrays of one length."""

from __future__ import annotations

import numpy as np

Intervals = tuple[np.ndarray, np.ndarray]


def union(start: np.ndarray, end: np.ndarray) -> Intervals:
    """`start` sorted; any overlap. Touching intervals become one."""
    if not len(start):
        return start, end
    reach = np.maximum.accumulate(end)
    first = np.flatnonzero(np.append(True, start[1:] > reach[:-1]))
    return start[first], reach[np.append(first[1:] - 1, len(start) - 1)]


def clip(intervals: Intervals, t0: int, t1: int) -> Intervals:
    a, b = np.maximum(intervals[0], t0), np.minimum(intervals[1], t1)
    return a[b > a], b[b > a]


def total(intervals: Intervals) -> int:
    return int((intervals[1] - intervals[0]).sum())


def both(one: Intervals, other: Intervals) -> int:
    """ns in both sets: |A| + |B| - |A or B|."""
    start, end = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    order = np.argsort(start, kind="stable")
    return total(one) + total(other) - total(union(start[order], end[order]))


def complement(intervals: Intervals, t0: int, t1: int) -> Intervals:
    """What is left of [t0, t1) by intervals within it."""
    a, b = np.append(t0, intervals[1]), np.append(intervals[0], t1)
    return a[b > a], b[b > a]


def filled(intervals: Intervals, t0: int, t1: int, slots: int) -> np.ndarray:
    """The share of each of `slots` equal stretches of [t0, t1) that lies in the set."""
    if not len(intervals[0]) or t1 <= t0:
        return np.zeros(slots)
    edges = t0 + (t1 - t0) * np.arange(slots + 1) // slots
    i = np.searchsorted(intervals[0], edges, "right") - 1
    before = np.append(0, np.cumsum(intervals[1] - intervals[0]))
    inside = np.minimum(edges, intervals[1][i]) - intervals[0][i]
    return np.diff(np.where(i >= 0, before[i] + inside, 0)) / np.maximum(1, np.diff(edges))
