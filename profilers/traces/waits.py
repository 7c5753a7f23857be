"""Who made the others wait: collectives of one rank after another, met by name, group, step and number.

A rank that enters a collective late runs its kernel for the shortest time, for it has nobody to wait for; the others wait
as much longer as theirs run. That needs no common clock. One pass, and what is kept does not grow with what a rank did.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..calculators.collectives import Collective as Operation, bus_bandwidth
from .explaining import Collective, Explained

ALONE = ("send", "recv")  # between two: nothing that all ranks of a group enter

Key = tuple[str, str, int, int]  # name, group, step, number


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that others waited for. `waited_ns`: the mean wait of the other ranks, over collectives it entered last."""

    rank: int | None
    path: str
    waited_ns: int
    collectives: int  # it was the last in so many
    of: int  # collectives that several ranks recorded
    mostly: str  # the collective most of it was lost in


@dataclass(frozen=True, slots=True)
class Skew:
    """One step: how long the ranks waited for each other in it, and mostly for whom."""

    step: int
    waited_ns: int  # mean of the ranks that were not the last, over the step's collectives
    rank: int | None
    path: str
    share: float  # of the wait, for that rank


@dataclass(frozen=True, slots=True)
class Waited:
    """How long one rank waited in collectives for ranks that came later."""

    rank: int | None
    path: str
    nanoseconds: int
    of: int  # ns in collectives that several ranks recorded


@dataclass(frozen=True, slots=True)
class Rate:
    """All runs of one collective with the same bytes and number of ranks. `seconds`: of the last to enter, added up.

    With one rank's trace alone its waiting is in it, and the bandwidth is a lower bound. None: the trace says no bytes.
    """

    name: str
    ranks: int  # of the group, 0: unknown
    bytes: int  # of one run, what a rank holds at the larger end
    runs: int
    seconds: float
    bus_bandwidth: float | None  # B/s, as nccl-tests counts it: to be held against the link


@dataclass(slots=True)
class _Entered:
    """One collective, over the ranks seen so far."""

    example: Collective
    ranks: int
    total: int  # ns, all ranks
    least: int
    last: int  # index of the rank with the least


class Waits:
    """`add` every rank; then ask."""

    def __init__(self) -> None:
        self._ranks: list[tuple[int | None, str]] = []
        self._took: list[np.ndarray] = []  # by rank: (2, collectives) code and ns
        self._codes: dict[Key, int] = {}
        self._entered: list[_Entered] = []

    def add(self, rank: Explained) -> None:
        index = len(self._ranks)
        self._ranks.append((rank.rank, rank.path))
        took = [(self._enter(c, index), c.nanoseconds) for c in rank.collectives]
        self._took.append(np.array(took, np.int64).reshape(-1, 2).T.copy())

    def _enter(self, c: Collective, index: int) -> int:
        group = f"{c.group} of {index}" if c.name.rpartition(":")[2] in ALONE else c.group
        code = self._codes.setdefault((c.name, group, c.step, c.number), len(self._entered))
        if code == len(self._entered):
            self._entered.append(_Entered(c, 1, c.nanoseconds, c.nanoseconds, index))
            return code
        known = self._entered[code]
        known.ranks, known.total = known.ranks + 1, known.total + c.nanoseconds
        if c.nanoseconds < known.least:
            known.least, known.last = c.nanoseconds, index
        return code

    def stragglers(self) -> list[Straggler]:
        """The worst first."""
        waited: dict[int, Counter[str]] = defaultdict(Counter)
        counts: Counter[int] = Counter()
        for e in self._shared():
            counts[e.last] += 1
            waited[e.last][e.example.name] += _mean_wait(e)
        of = counts.total()
        found = [
            Straggler(*self._ranks[i], by.total(), counts[i], of, by.most_common(1)[0][0]) for i, by in waited.items()
        ]
        return sorted((s for s in found if s.waited_ns), key=lambda s: -s.waited_ns)

    def skew(self) -> list[Skew]:
        """Of every step that is marked, in order."""
        waited: dict[int, Counter[int]] = defaultdict(Counter)
        for e in self._shared():
            if e.example.step >= 0:
                waited[e.example.step][e.last] += _mean_wait(e)
        found = []
        for step, by in sorted(waited.items()):
            (last, most), whole = by.most_common(1)[0], by.total()
            found.append(Skew(step, whole, *self._ranks[last], most / whole if whole else 0.0))
        return found

    def waited(self) -> list[Waited]:
        """Of every rank, in the order added."""
        least = np.array([e.least for e in self._entered], np.int64)
        shared = np.array([e.ranks > 1 for e in self._entered], bool)
        found = []
        for (rank, path), (code, ns) in zip(self._ranks, self._took, strict=True):
            met = shared[code]
            found.append(Waited(rank, path, int((ns - least[code])[met].sum()), int(ns[met].sum())))
        return found

    def rates(self) -> list[Rate]:
        """What took longest first."""
        sums: Counter[tuple[str, Operation | None, int, int]] = Counter()
        runs: Counter[tuple[str, Operation | None, int, int]] = Counter()
        for e in self._entered:
            c = e.example
            key = c.name, c.operation, c.ranks, c.bytes
            runs[key] += 1
            sums[key] += e.least
        found = [
            Rate(name, ranks, size, runs[name, operation, ranks, size], ns / 1e9,
                 _bandwidth(operation, size * runs[name, operation, ranks, size], ranks, ns / 1e9))
            for (name, operation, ranks, size), ns in sums.items()
        ]  # fmt: skip
        return sorted(found, key=lambda r: (-r.seconds, r.name, r.bytes))

    def _shared(self) -> Sequence[_Entered]:
        return [e for e in self._entered if e.ranks > 1]


def _mean_wait(e: _Entered) -> int:
    return (e.total - e.ranks * e.least) // (e.ranks - 1)


def _bandwidth(operation: Operation | None, size: int, ranks: int, seconds: float) -> float | None:
    """B/s; None where the trace says too little for it."""
    if operation is None or not size or not seconds or (ranks < 2 and operation != "send"):
        return None
    return bus_bandwidth(operation, size, ranks, seconds)
