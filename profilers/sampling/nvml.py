"""NVIDIA's management library (libnvidia-ml), the part a sampler needs, called by its C interface.

A call that this driver or device does not support is an unknown value. Structures and numbers are those of nvml.h;
of functions with versions the newest is tried first. Nothing here creates a CUDA context or needs a package.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_char, c_int, c_longlong, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"

THROTTLE = {  # nvmlClocksThrottleReasons; 1 is "idle", no throttling
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal limit",
    0x40: "hardware thermal limit",
    0x80: "power brake",
    0x100: "display clocks",
}

_SUCCESS, _TOO_SMALL = 0, 7
_SM_CLOCK = 1
_VOLATILE = 0
_NVLINK_SENT, _NVLINK_RECEIVED, _ALL_LINKS = 138, 139, 0xFFFFFFFF  # field ids, KiB
_NO_MEMORY = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE


class Utilization(ctypes.Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class Memory(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class MemoryV2(ctypes.Structure):
    _fields_ = [
        ("version", c_uint),
        ("total", c_ulonglong),
        ("reserved", c_ulonglong),
        ("free", c_ulonglong),
        ("used", c_ulonglong),
    ]


class ProcessInfo(ctypes.Structure):
    _fields_ = [
        ("pid", c_uint),
        ("usedGpuMemory", c_ulonglong),
        ("gpuInstanceId", c_uint),
        ("computeInstanceId", c_uint),
    ]


class ProcessSample(ctypes.Structure):
    _fields_ = [
        ("pid", c_uint),
        ("timeStamp", c_ulonglong),
        ("smUtil", c_uint),
        ("memUtil", c_uint),
        ("encUtil", c_uint),
        ("decUtil", c_uint),
    ]


class _Value(ctypes.Union):
    _fields_ = [("ulVal", c_ulonglong), ("dVal", ctypes.c_double)]


class FieldValue(ctypes.Structure):
    _fields_ = [
        ("fieldId", c_uint),
        ("scopeId", c_uint),
        ("timestamp", c_longlong),
        ("latencyUsec", c_longlong),
        ("valueType", c_uint),
        ("nvmlReturn", c_uint),
        ("value", _Value),
    ]


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or a MIG slice of one. `parent` is the GPU that has the clocks and the power."""

    index: int
    name: str
    uuid: str
    handle: Any
    parent: Any
    mig: bool


class Nvml:
    """`library` is what ctypes loaded, or a stand-in with functions of the same names."""

    def __init__(self, library: Any) -> None:
        self._library = library
        if self._call("nvmlInit_v2") is None:
            raise OSError("the NVIDIA driver does not answer")

    @classmethod
    def load(cls) -> Nvml | None:
        """None where there is no driver, or none that works."""
        try:
            return cls(ctypes.CDLL(LIBRARY))
        except OSError:
            return None

    def close(self) -> None:
        self._call("nvmlShutdown")

    def driver(self) -> str:
        return self._text("nvmlSystemGetDriverVersion")

    def devices(self) -> Iterator[Device]:
        """In the driver's order; a GPU in MIG mode is given as its slices."""
        for i in range(self._number(c_uint, "nvmlDeviceGetCount_v2") or 0):
            handle = c_void_p()
            if self._call("nvmlDeviceGetHandleByIndex_v2", c_uint(i), byref(handle)) is None:
                continue  # a GPU that has fallen off the bus
            slices = list(self._slices(handle))
            for part in slices or [handle]:
                name, uuid = self._text("nvmlDeviceGetName", part), self._text("nvmlDeviceGetUUID", part)
                yield Device(i, name, uuid, part, handle, bool(slices))

    def utilisation(self, device: Device) -> int | None:
        """Percent of the last period (1/6 to 1 s) in which a kernel ran; unknown of a MIG slice."""
        found = Utilization()
        return None if self._call("nvmlDeviceGetUtilizationRates", device.handle, byref(found)) is None else found.gpu

    def memory(self, device: Device) -> tuple[int, int] | None:
        """(used, total) bytes. Version 2 leaves out what the driver reserves, as nvidia-smi does."""
        newer = MemoryV2(version=ctypes.sizeof(MemoryV2) | 2 << 24)
        for name, found in (("nvmlDeviceGetMemoryInfo_v2", newer), ("nvmlDeviceGetMemoryInfo", Memory())):
            if self._call(name, device.handle, byref(found)) is not None:
                return found.used, found.total
        return None

    def processes(self, device: Device) -> dict[int, int | None] | None:
        """{process id: bytes it holds}, bytes None where the driver does not say."""
        found: dict[int, int | None] = {}
        for kind in ("Compute", "Graphics"):
            rows = self._list(ProcessInfo, f"nvmlDeviceGet{kind}RunningProcesses_v3", device.handle)
            if rows is None and kind == "Compute":
                return None
            for row in rows or []:
                used = None if row.usedGpuMemory == _NO_MEMORY else row.usedGpuMemory
                found[row.pid] = max(found.get(row.pid) or 0, used) if used is not None else found.get(row.pid)
        return found

    def process_utilisation(self, device: Device, since: int) -> dict[int, tuple[int, int]]:
        """{process id: (percent of the multiprocessors' time, stamp in µs)} of samples after the stamp `since`."""
        rows = self._list(ProcessSample, "nvmlDeviceGetProcessUtilization", device.handle, last=c_ulonglong(since))
        newest: dict[int, tuple[int, int]] = {}
        for row in rows or []:
            if row.timeStamp > newest.get(row.pid, (0, 0))[1]:
                newest[row.pid] = (row.smUtil, row.timeStamp)
        return newest

    def power(self, device: Device) -> float | None:
        return _scaled(self._number(c_uint, "nvmlDeviceGetPowerUsage", device.parent), 1e-3)

    def power_limit(self, device: Device) -> float | None:
        return _scaled(self._number(c_uint, "nvmlDeviceGetEnforcedPowerLimit", device.parent), 1e-3)

    def temperature(self, device: Device) -> int | None:
        return self._number(c_uint, "nvmlDeviceGetTemperature", device.parent, c_int(0))

    def clock(self, device: Device) -> int | None:
        return self._number(c_uint, "nvmlDeviceGetClockInfo", device.parent, c_int(_SM_CLOCK))

    def clock_max(self, device: Device) -> int | None:
        return self._number(c_uint, "nvmlDeviceGetMaxClockInfo", device.parent, c_int(_SM_CLOCK))

    def throttle(self, device: Device) -> int | None:
        return self._number(c_ulonglong, "nvmlDeviceGetCurrentClocksThrottleReasons", device.parent)

    def pcie(self, device: Device) -> tuple[float | None, float | None]:
        """(received, sent) bytes/s. Each takes the driver 20 ms of waiting."""
        sent, received = (self._number(c_uint, "nvmlDeviceGetPcieThroughput", device.parent, c_int(i)) for i in (0, 1))
        return _scaled(received, 1024), _scaled(sent, 1024)

    def nvlink(self, device: Device) -> tuple[int, int] | None:
        """Bytes (received, sent) over all links, growing."""
        fields = (FieldValue * 2)(
            *(FieldValue(fieldId=f, scopeId=_ALL_LINKS) for f in (_NVLINK_RECEIVED, _NVLINK_SENT))
        )
        if self._call("nvmlDeviceGetFieldValues", device.parent, c_int(2), fields) is None:
            return None
        if any(field.nvmlReturn != _SUCCESS for field in fields):
            return None
        return fields[0].value.ulVal * 1024, fields[1].value.ulVal * 1024

    def ecc(self, device: Device) -> tuple[int | None, int | None]:
        """(corrected, uncorrected) errors since the driver was loaded."""
        name = "nvmlDeviceGetTotalEccErrors"
        first, second = (self._number(c_ulonglong, name, device.parent, c_int(i), c_int(_VOLATILE)) for i in (0, 1))
        return first, second

    # -- the C interface -----------------------------------------------------------------------------------------------

    def _call(self, name: str, *words: Any) -> int | None:
        """0 where it worked; None where this driver has no such function, or it failed."""
        function = getattr(self._library, name, None)
        return None if function is None or function(*words) != _SUCCESS else 0

    def _number(self, kind: type[Any], name: str, *words: Any) -> int | None:
        found = kind()
        return None if self._call(name, *words, byref(found)) is None else found.value

    def _text(self, name: str, *words: Any) -> str:
        found = (c_char * 96)()
        return "" if self._call(name, *words, found, c_uint(96)) is None else found.value.decode(errors="replace")

    def _list(self, kind: Any, name: str, handle: Any, last: Any = None) -> list[Any] | None:
        """A list whose length only the driver knows: asked for, and once more where it grew meanwhile."""
        function = getattr(self._library, name, None)
        if function is None:
            return None
        count = c_uint(0)
        for _ in range(3):
            room = (kind * count.value)() if count.value else None
            words = [handle, byref(count), room] if last is None else [handle, room, byref(count), last]
            code = function(*words)
            if code == _SUCCESS:
                return list(room or [])[: count.value]
            if code != _TOO_SMALL:
                return [] if last is not None else None
            count = c_uint(count.value + 4)
        return None

    def _slices(self, handle: Any) -> Iterator[Any]:
        mode, pending = c_uint(), c_uint()
        if self._call("nvmlDeviceGetMigMode", handle, byref(mode), byref(pending)) is None or mode.value != 1:
            return
        for i in range(self._number(c_uint, "nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            part = c_void_p()
            if self._call("nvmlDeviceGetMigDeviceHandleByIndex", handle, c_uint(i), byref(part)) is not None:
                yield part


def _scaled(value: int | None, unit: float) -> float | None:
    return None if value is None else value * unit
