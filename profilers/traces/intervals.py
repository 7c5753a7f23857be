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
