"""Which event of a thread encloses an instant, or another event: the call stack, in columns."""

from __future__ import annotations

import numpy as np


def parents(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """For each event the index of the one it lies in, -1 for none. One thread's, by start, outer before inner."""
    found = np.full(len(start), -1, np.int64)
    open_: list[tuple[int, int]] = []
    for i, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        while open_ and open_[-1][0] <= a:
            open_.pop()
        if open_:
            found[i] = open_[-1][1]
        open_.append((b, i))
    return found


def enclosing(start: np.ndarray, end: np.ndarray, parent: np.ndarray, at: np.ndarray) -> np.ndarray:
    """For each instant the index of the innermost event [start, end) around it, -1 for none."""
    found = np.searchsorted(start, at, "right") - 1
    if not len(start):
        return found
    while (left := np.flatnonzero((found >= 0) & (at >= end[found]))).size:
        found[left] = parent[found[left]]
    return found
