"""What the profiler saw, as plain numbers: operators on host threads, launches, and work on the device.

Made once from Kineto's in-memory events; nothing later touches the profiler again. Times are Unix ns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .cost import Call
from .timeline import Span


@dataclass(frozen=True, slots=True)
class HostEvent:
    """An operator, or a call into the CUDA runtime (`runtime`), on one host thread."""

    name: str
    start: int
    end: int
    thread: int
    sequence: int = -1  # autograd's; >= 0 where grad mode was on
    id: int = 0  # operators: what device events point to; runtime calls: their correlation with the device
    runtime: bool = False
    call: Call | None = None  # with shapes, where they were recorded


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """A kernel, copy or communication kernel on one stream. `operator` is the HostEvent.id that launched it, or 0."""

    name: str
    start: int
    end: int
    stream: int
    kind: str  # "compute" | "copy" | "comm"
    operator: int = 0
    correlation: int = 0


COPIES = ("memcpy", "memset")
RANGES = (
    "Optimizer.",
    "enumerate(DataLoader)",
    "ProfilerStep",
)  # annotations; in some versions they look like operators
WAITS = ("Synchronize", "Sync", "Wait Event")  # a stream's waits, where they are recorded as device events
RUNTIME = re.compile(r"(cuda|hip|cu)[A-Z]")  # cudaLaunchKernel, cuLaunchKernelEx, hipMemcpyAsync; not custom::op
COLLECTIVES = ("nccl", "rccl", "c10d::", "gloo:")


def device_kind(name: str) -> str:
    """A device event's kind from its name: what Kineto's dialects agree on."""
    low = name.lower()
    if low.startswith(COPIES):
        return "copy"
    return "comm" if low.startswith(COLLECTIVES) else "compute"


@dataclass(frozen=True, slots=True)
class Events:
    """One recording. `collectives` are those a host thread runs asynchronously (gloo), from call to completion."""

    host: list[HostEvent]
    device: list[DeviceEvent]
    collectives: list[Span]


def from_kineto(events: Iterable[Any], shapes: bool) -> Events:
    """Kineto's events, user annotations left out; `shapes` says whether the profiler recorded them."""
    host: list[HostEvent] = []
    device: list[DeviceEvent] = []
    collectives: list[Span] = []
    for e in events:
        start, length = e.start_ns(), e.duration_ns()
        if length < 0:
            continue
        if e.is_async():  # it ends on another thread: no part of any thread's nesting
            if e.name().startswith(COLLECTIVES):
                collectives.append((start, start + length))
        elif e.is_user_annotation() or e.name().startswith(RANGES):
            continue
        elif "CPU" not in str(e.device_type()):
            if not e.name().endswith(WAITS):
                device.append(_device_event(e, start, start + length))
        else:
            host.append(_host_event(e, start, start + length, shapes))
    host.sort(key=lambda h: (h.start, -h.end))
    device.sort(key=lambda d: d.start)
    return Events(host, device, collectives)


def _device_event(e: Any, start: int, end: int) -> DeviceEvent:
    name = e.name()
    owner, correlation = e.linked_correlation_id(), e.correlation_id()
    return DeviceEvent(name, start, end, e.device_resource_id(), device_kind(name), owner, correlation)


def _host_event(e: Any, start: int, end: int, shapes: bool) -> HostEvent:
    name = e.name()
    runtime = RUNTIME.match(name) is not None
    call = Call.from_event(e) if shapes and not runtime else None
    return HostEvent(name, start, end, e.start_thread_id(), e.sequence_nr(), e.correlation_id(), runtime, call)
