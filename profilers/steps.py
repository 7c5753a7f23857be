"""The last whole steps of a loop, kept as packed rows: a loop pays for every byte it has to touch between its steps.

A tuple and a dict a step cost 4 us there, most of it fresh memory; a row of 80 bytes costs 1.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, overload

from .phases import PHASES

KEPT = 4096  # a clock may run for weeks
ROW = struct.Struct(f"qq?{len(PHASES)}q")  # start, end, skipped, ns of each phase


class Step(NamedTuple):
    """One whole step, in Unix ns. `phases` is the exclusive time of each phase and adds up to end - start."""

    start: int
    end: int
    phases: Mapping[str, int]
    skipped: bool = False  # a GradScaler found an overflow and did not step

    @property
    def wall(self) -> int:
        return self.end - self.start


class Steps(Sequence[Step]):
    """The last `KEPT` of those appended, oldest first; each is made a `Step` when somebody looks."""

    def __init__(self) -> None:
        self._rows: deque[bytes] = deque(maxlen=KEPT)

    def append(self, start: int, end: int, phases: Mapping[str, int], skipped: bool = False) -> None:
        """`phases`: every phase, in the order of `PHASES`."""
        self._rows.append(ROW.pack(start, end, skipped, *phases.values()))

    def join(self, count: int) -> int:
        """Make the last `count` steps one; returns how many it was. What lay between them still belongs to no step."""
        parts = self[-count:]
        for _ in parts:
            self._rows.pop()
        phases = {p: sum(part.phases.get(p, 0) for part in parts) for p in PHASES}
        end, wall = parts[-1].end, sum(part.wall for part in parts)
        self.append(end - wall, end, phases, any(part.skipped for part in parts))
        return len(parts)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, i: int) -> Step: ...
    @overload
    def __getitem__(self, i: slice) -> list[Step]: ...
    def __getitem__(self, i: int | slice) -> Step | list[Step]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        return unpacked(self._rows[i])

    def __iter__(self) -> Iterator[Step]:
        return map(unpacked, self._rows)


def unpacked(row: bytes) -> Step:
    start, end, skipped, *times = ROW.unpack(row)
    return Step(start, end, {p: ns for p, ns in zip(PHASES, times, strict=True) if ns}, skipped)
