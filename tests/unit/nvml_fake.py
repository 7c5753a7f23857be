"""A stand-in for libnvidia-ml: functions of its names that fill the caller's structures from values made by hand.

No GPU has seen these values. What is tested with it is our side of the C interface, not NVIDIA's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

NOT_SUPPORTED, TOO_SMALL = 3, 7


@dataclass
class Card:
    name: str = "Made-up 80GB"
    uuid: str = "GPU-0"
    used: int = 30 * 2**30
    total: int = 80 * 2**30
    utilisation: int = 97
    milliwatt: int = 412_500
    processes: dict[int, int] = field(default_factory=dict)  # id -> bytes
    busy: dict[int, int] = field(default_factory=dict)  # id -> percent
    throttle: int = 0x4
    links: tuple[int, int] = (0, 0)  # KiB received, sent
    lost: bool = False
    slices: tuple[Card, ...] = ()


class FakeNvml:
    """Any function that is not here does not exist in this driver."""

    def __init__(self, *cards: Card, initialised: int = 0) -> None:
        self.cards, self.initialised, self.calls = cards, initialised, []
        self.stamp = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(type(self), f"_{name}", None)
        if function is None:
            raise AttributeError(name)

        def call(*words: Any) -> int:
            self.calls.append(name)
            return function(self, *[getattr(word, "_obj", word) for word in words]) or 0

        return call

    def _nvmlInit_v2(self) -> int:
        return self.initialised

    def _nvmlShutdown(self) -> None: ...

    def _nvmlSystemGetDriverVersion(self, text: Any, _length: Any) -> None:
        text.value = b"595.1"

    def _nvmlDeviceGetCount_v2(self, count: Any) -> None:
        count.value = len(self.cards)

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int | None:
        if self.cards[index.value].lost:
            return 15  # NVML_ERROR_GPU_IS_LOST
        handle.value = (index.value + 1) * 1000
        return None

    def card(self, handle: Any) -> Card:
        whole = self.cards[handle.value // 1000 - 1]
        part = handle.value % 1000
        return whole.slices[part - 1] if part else whole

    def _nvmlDeviceGetName(self, handle: Any, text: Any, _length: Any) -> None:
        text.value = self.card(handle).name.encode()

    def _nvmlDeviceGetUUID(self, handle: Any, text: Any, _length: Any) -> None:
        text.value = self.card(handle).uuid.encode()

    def _nvmlDeviceGetMigMode(self, handle: Any, mode: Any, _pending: Any) -> None:
        mode.value = int(bool(self.card(handle).slices))

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> None:
        count.value = 7

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int | None:
        if index.value >= len(self.card(handle).slices):
            return 6  # not found
        part.value = handle.value + index.value + 1
        return None

    def _nvmlDeviceGetUtilizationRates(self, handle: Any, found: Any) -> int | None:
        if handle.value % 1000:
            return NOT_SUPPORTED
        found.gpu = self.card(handle).utilisation
        return None

    def _nvmlDeviceGetMemoryInfo_v2(self, handle: Any, found: Any) -> int | None:
        if found.version != 0x2000028:  # nvmlMemory_v2: 40 bytes, version 2
            return 25  # NVML_ERROR_ARGUMENT_VERSION_MISMATCH
        found.used, found.total = self.card(handle).used, self.card(handle).total
        return None

    def _nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, rows: Any) -> int | None:
        there = self.card(handle).processes
        if count.value < len(there):
            count.value = len(there)
            return TOO_SMALL
        for row, (process, size) in zip(rows or (), there.items(), strict=False):
            row.pid, row.usedGpuMemory = process, size
        count.value = len(there)
        return None

    def _nvmlDeviceGetProcessUtilization(self, handle: Any, rows: Any, count: Any, since: Any) -> int | None:
        busy = self.card(handle).busy
        if not rows:
            count.value = len(busy)
            return TOO_SMALL if busy else 6
        self.stamp += 1
        for row, (process, percent) in zip(rows, busy.items(), strict=False):
            row.pid, row.smUtil, row.timeStamp = process, percent, since.value + self.stamp
        return None

    def _nvmlDeviceGetPowerUsage(self, handle: Any, found: Any) -> None:
        found.value = self.card(handle).milliwatt

    def _nvmlDeviceGetTemperature(self, handle: Any, _sensor: Any, found: Any) -> None:
        found.value = 61

    def _nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, found: Any) -> int | None:
        found.value = 1410
        return None if kind.value == 1 else NOT_SUPPORTED  # NVML_CLOCK_SM

    def _nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: Any, found: Any) -> None:
        found.value = self.card(handle).throttle

    def _nvmlDeviceGetPcieThroughput(self, handle: Any, counter: Any, found: Any) -> None:
        found.value = (7, 9)[counter.value]  # sent, received: KB/s

    def _nvmlDeviceGetFieldValues(self, handle: Any, count: Any, fields: Any) -> None:
        for one in fields:
            one.value.ulVal = self.card(handle).links[{138: 1, 139: 0}[one.fieldId]]
