"""What is sampled: the fields of each record, in order, with their units. Every value is a double; NaN is "not measured".

A record of the machine is HOST once and GPU for each device; a record of a step is STEP. Rates are means since the
record before. Time is the monotonic clock's, which all processes of a machine share and nobody can set back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..ledger import PHASES

UNKNOWN = math.nan

HOST = (
    "time",  # s, monotonic
    "unix",  # s
    "cpu",  # cores at work in this container
    "cpu_limit",  # cores it may use: quota or affinity
    "cpu_kernel",  # cores at work for the kernel and its children
    "memory",  # bytes the container holds and cannot give back
    "memory_limit",  # bytes at which the kernel is killed
    "memory_kernel",  # bytes resident in the kernel and its children
    "disk_read",  # bytes/s, of the kernel and its children
    "disk_write",
    "net_in",  # bytes/s, without loopback
    "net_out",
    "faults",  # major page faults a second, of the kernel and its children
    "faults_minor",
    "stalled_cpu",  # PSI "some" of the last 10 s, percent
    "stalled_memory",
    "stalled_io",
    "oom_kills",  # so often since boot has the container's limit killed a process
)

GPU = (
    "utilisation",  # percent of the last period in which any kernel ran
    "utilisation_kernel",  # of which by this Jupyter kernel, percent
    "memory_used",  # bytes, by whomever
    "memory_kernel",  # bytes, by this Jupyter kernel; NaN where not attributable
    "memory_total",
    "power",  # W
    "power_limit",
    "temperature",  # °C
    "clock",  # MHz, streaming multiprocessors
    "clock_max",
    "throttle",  # bit mask, see `nvml.THROTTLE`
    "pcie_in",  # bytes/s
    "pcie_out",
    "nvlink_in",
    "nvlink_out",
    "ecc_corrected",  # since the driver was loaded
    "ecc_uncorrected",
)

STEP = (
    "time",  # s, monotonic, at its end
    "number",
    "wall",  # ns
    *PHASES,  # ns each
    "loss",
    "reserved",  # bytes torch has reserved on the current device
)


def as_json(names: Sequence[str], values: Iterable[float]) -> dict[str, float | None]:
    """For a reader that knows no NaN."""
    return {name: value if math.isfinite(value) else None for name, value in zip(names, values, strict=True)}
