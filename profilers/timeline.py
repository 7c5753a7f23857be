"""Intervals on one clock: who owns each instant. Pure functions over int64 nanoseconds."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Protocol


class Interval(Protocol):
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


Span = tuple[int, int]


def innermost(events: Sequence[Interval], t0: int, t1: int) -> list[tuple[int, int, int]]:
    """Cover [t0, t1) by (start, end, index of the innermost event, or -1). `events`: one thread's, outer before inner."""
    out: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = []
    t = t0

    def upto(x: int) -> None:
        nonlocal t
        x = min(x, t1)
        if x > t:
            out.append((t, x, stack[-1][1] if stack else -1))
            t = x

    for i, e in enumerate(events):
        if e.start >= t1:
            break
        while stack and stack[-1][0] <= e.start:
            upto(stack[-1][0])
            stack.pop()
        upto(e.start)
        stack.append((min(e.end, stack[-1][0]) if stack else e.end, i))
    while stack:
        upto(stack[-1][0])
        stack.pop()
    upto(t1)
    return out


def cut(pieces: Iterable[tuple[int, int, int]], at: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """The same pieces, cut at every time of the sorted `at`."""
    for a, b, i in pieces:
        inside = at[bisect.bisect_right(at, a) : bisect.bisect_left(at, b)]
        for x, y in pairwise([a, *inside, b]):
            yield x, y, i


class Labels:
    """A step function of time: `at(t)` is the label of the last change at or before t."""

    def __init__(self, changes: Sequence[tuple[int, str]], before: str = "other") -> None:
        self.times = [t for t, _ in changes]
        self._labels = [label for _, label in changes]
        self._before = before

    def at(self, t: int) -> str:
        i = bisect.bisect_right(self.times, t) - 1
        return self._labels[i] if i >= 0 else self._before


class Spans:
    """A set of instants, kept as disjoint sorted spans."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = union(spans)
        self.edges = [t for span in self.spans for t in span]

    def __contains__(self, t: int) -> bool:
        return bisect.bisect_right(self.edges, t) % 2 == 1


def union(spans: Iterable[Span]) -> list[Span]:
    """Disjoint sorted spans covering the same instants."""
    out: list[Span] = []
    for a, b in sorted(spans):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        elif b > a:
            out.append((a, b))
    return out


def gaps(spans: Iterable[Span], t0: int, t1: int) -> list[Span]:
    """What `spans` leave of [t0, t1)."""
    clipped = union((max(a, t0), min(b, t1)) for a, b in spans if b > t0 and a < t1)
    edges = [t0, *(t for span in clipped for t in span), t1]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
