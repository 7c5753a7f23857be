"""What the profiler wrote of memory: every block taken and given back, with the allocator's own sums after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .clock import INVALID, nanoseconds
from .events_json import Event, MemoryArgs

NAME = "[memory]"
HOST = 0  # c10::DeviceType of the CPU
LARGEST = 1 << 50  # bytes; what is beyond is damage
_FIELDS = ("address", "bytes", "allocated", "reserved")


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    """One entry of every column an event, by time."""

    time: np.ndarray  # int64 ns
    lane: np.ndarray  # int32, of the trace's `lanes`
    address: np.ndarray  # int64
    bytes: np.ndarray  # int64, negative: given back
    allocated: np.ndarray  # int64, on this device after the event; a CPU's counts from the recording's beginning
    reserved: np.ndarray  # int64
    device: np.ndarray  # int32, of `devices`
    devices: tuple[tuple[int, int], ...]  # (c10::DeviceType, index)


class MemoryColumns:
    """The same, being filled a batch of events at a time."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self._devices: dict[tuple[int, int], int] = {}
        self.skipped = 0

    def add(self, events: list[tuple[Event, int]], scale: int) -> None:
        """events: each with the code of its lane."""
        found = []
        times = nanoseconds([e.ts for e, _ in events], scale).tolist()
        for (event, lane), time in zip(events, times, strict=True):
            a = event.args
            if not isinstance(a, MemoryArgs) or time == INVALID or not 0 < abs(a.bytes) <= LARGEST or not _fits(a):
                self.skipped += 1
                continue
            device = self._devices.setdefault((a.device_type, a.device_id), len(self._devices))
            found.append((time, lane, *(getattr(a, field) for field in _FIELDS), device))
        if found:
            self._pieces.append(np.array(found, np.int64))

    def events(self) -> MemoryEvents:
        table = np.concatenate(self._pieces) if self._pieces else np.empty((0, 7), np.int64)
        table = table[np.argsort(table[:, 0], kind="stable")]
        time, lane, address, count, allocated, reserved, device = np.ascontiguousarray(table.T)
        lane, device = lane.astype(np.int32), device.astype(np.int32)
        return MemoryEvents(time, lane, address, count, allocated, reserved, device, tuple(self._devices))


def _fits(a: MemoryArgs) -> bool:
    return abs(a.address) < 1 << 63 and 0 <= a.allocated <= LARGEST and 0 <= a.reserved <= LARGEST
