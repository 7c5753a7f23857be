"""The GPU side of a sample. Without a driver there are no devices, and the same code runs."""

from __future__ import annotations

import time
from typing import Any

from .attribution import in_first_namespace, ours
from .nvml import Device, Nvml
from .records import GPU, UNKNOWN


class Gpus:
    """`sample(processes)` is the GPU part of a record, for all devices one after the other."""

    def __init__(self, nvml: Nvml | None, on_host: bool | None = None) -> None:
        self._nvml = nvml
        self._on_host = in_first_namespace() if on_host is None else on_host
        self.devices: list[Device] = [] if nvml is None else list(nvml.devices())
        self._turn = 0
        self._pcie: dict[int, tuple[float | None, float | None]] = {}
        self._links: dict[int, tuple[float, int, int]] = {}
        self._stamps: dict[int, int] = {}

    def facts(self) -> dict[str, Any]:
        """What does not change, for a reader."""
        return {
            "driver": "" if self._nvml is None else self._nvml.driver(),
            "gpus": [{"index": d.index, "name": d.name, "uuid": d.uuid, "mig": d.mig} for d in self.devices],
        }

    def close(self) -> None:
        if self._nvml is not None:
            self._nvml.close()

    def sample(self, processes: tuple[int, ...], now: float | None = None) -> tuple[float, ...]:
        """`processes`: the kernel and its descendants."""
        now = time.monotonic() if now is None else now
        if self.devices:
            # 40 ms of waiting a device: one of them a sample, in turns; the others keep what they had.
            self._turn = (self._turn + 1) % len(self.devices)
        return tuple(value for i in range(len(self.devices)) for value in self._one(i, processes, now))

    def _one(self, i: int, processes: tuple[int, ...], now: float) -> tuple[float, ...]:
        nvml, device = self._nvml, self.devices[i]
        assert nvml is not None
        if i == self._turn:
            self._pcie[i] = nvml.pcie(device)
        used, total = nvml.memory(device) or (None, None)
        share, own = self._of_kernel(i, device, processes)
        values = (
            nvml.utilisation(device),
            share,
            used,
            own,
            total,
            nvml.power(device),
            nvml.power_limit(device),
            nvml.temperature(device),
            nvml.clock(device),
            nvml.clock_max(device),
            nvml.throttle(device),
            *self._pcie.get(i, (None, None)),
            *self._links_since(i, device, now),
            *nvml.ecc(device),
        )
        assert len(values) == len(GPU)
        return tuple(UNKNOWN if value is None else float(value) for value in values)

    def _of_kernel(self, i: int, device: Device, processes: tuple[int, ...]) -> tuple[float | None, float | None]:
        """(percent of the multiprocessors' time, bytes) of this kernel; None where not attributable."""
        assert self._nvml is not None
        there = self._nvml.processes(device)
        mine = None if there is None else ours(there, processes, on_host=self._on_host)
        if there is None or mine is None:
            return None, None
        sizes = [there[process] for process in mine]
        held = None if any(size is None for size in sizes) else float(sum(size or 0 for size in sizes))
        recent = self._nvml.process_utilisation(device, self._stamps.get(i, 0))
        if not recent:
            return None if mine else 0.0, held
        self._stamps[i] = max(stamp for _, stamp in recent.values())
        return float(sum(percent for process, (percent, _) in recent.items() if process in mine)), held

    def _links_since(self, i: int, device: Device, now: float) -> tuple[float | None, float | None]:
        assert self._nvml is not None
        moved = self._nvml.nvlink(device)
        if moved is None:
            return None, None
        before, self._links[i] = self._links.get(i), (now, *moved)
        if before is None or now <= before[0]:
            return None, None
        span = now - before[0]
        return max(0, moved[0] - before[1]) / span, max(0, moved[1] - before[2]) / span
