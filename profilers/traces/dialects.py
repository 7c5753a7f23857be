"""What the writers of traces call the same thing: categories and names of seven years of Kineto, on five kinds of device."""

from __future__ import annotations

import re
from enum import IntEnum

from ..events import COPIES, RANGES, device_kind


class Kind(IntEnum):
    """What an event is. Device work comes last, so that `kind >= COMPUTE` selects it."""

    OTHER = 0
    OPERATOR = 1
    RUNTIME = 2  # a call into the device's runtime or driver
    RANGE = 3  # the user's or the framework's annotation
    PYTHON = 4  # a frame of Python
    WAIT = 5  # a stream's wait, written as if it were work
    COMPUTE = 6
    COPY = 7
    COMM = 8


DEVICE = ("kernel", "concurrent_kernel", "gpu_memcpy", "gpu_memset", "memcpy", "memset", "mtia_ccp_events", "hpu_op",
          "xpu_kernel", "privateuse1_kernel")  # fmt: skip
HOST = {
    "cpu_op": Kind.OPERATOR,
    "operator": Kind.OPERATOR,
    "user_annotation": Kind.RANGE,
    "python_function": Kind.PYTHON,
    "runtime": Kind.RUNTIME,
    "cuda_sync": Kind.WAIT,
    "gpu_user_annotation": Kind.OTHER,
}
PROCESSES = {"CPU functions": "cpu_op", "CUDA functions": "kernel"}  # the autograd profiler writes no categories
KNOWN = {"", "trace", "ac2g", "async", "async_cpu_to_gpu", "async_gpu", "fwdbwd", "overhead", "cpu_instant_event",
         "cuda_profiler_range", "gpu_user_annotation", "critical_path", "python_function_call", "__metadata"}  # fmt: skip
WAITING = re.compile(r"event_(wait|record)$|.*(Stream Sync|Event Sync|Context Sync|Stream Wait Event)$")  # MTIA; CUPTI


def kind(category: str, name: str) -> Kind:
    """The kind of an event of this category and name; OTHER is none of our business, or unknown (see `known`)."""
    low = category.lower()
    if low in DEVICE:
        if WAITING.match(name):
            return Kind.WAIT
        if low.endswith(("memcpy", "memset")) or name.lower().startswith((*COPIES, "dma_")):
            return Kind.COPY
        return Kind.COMM if device_kind(name) == "comm" else Kind.COMPUTE
    if low.endswith(("_runtime", "_driver")):
        return Kind.RUNTIME
    found = HOST.get(low, Kind.OTHER)
    return Kind.RANGE if found == Kind.OPERATOR and name.startswith(RANGES) else found


def known(category: str) -> bool:
    """Whether events of this category are either used or left out on purpose."""
    low = category.lower()
    return low in KNOWN or low in DEVICE or low in HOST or low.endswith(("_runtime", "_driver"))
