"""The device at hand and what its maker promises: peaks from a data file with sources, never a neighbour's figures.

A name must match word for word: "A100-SXM4-80GB" says nothing about an A10, an H200 is no H20, a laptop 4090 no 4090.
An unknown device has no peak; it can be given by hand. What the silicon really reaches is `ceilings`' business.
"""

from __future__ import annotations

import difflib
import functools
import json
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import UsageError
from .limits import Limits
from .pseudo_files import text

if TYPE_CHECKING:
    from .ceilings import Ceilings

Kind = Literal["cpu", "cuda"]

PEAK_VARIABLE = "MLSYS_PEAK"
_BY_HAND = f"give its dense peak by hand, in FLOP/s: {PEAK_VARIABLE}='bfloat16=312e12,float32=19.5e12'"
_NOISE = {"nvidia", "tesla", "geforce", "amd", "instinct", "google", "gpu", "tensorcore"}


@dataclass(frozen=True, slots=True)
class Device:
    """One device as torch shows it. Figures are per device, dense, and empty or None where nobody vouches for them."""

    name: str
    kind: str  # "cpu" | "cuda"; "tpu" only from `lookup`
    memory: int  # bytes; of the cgroup where that is less than the machine
    peak_flops: Mapping[str, float] = field(default_factory=dict)  # {"bfloat16": FLOP/s}, spec; a CPU has none
    peak_source: str = ""
    bandwidth: float | None = None  # B/s, spec
    confidence: str = ""  # of the spec: "high" | "medium" | "low"
    ceilings: Ceilings | None = None  # measured on this machine
    notes: tuple[str, ...] = ()
    matmul_flops: Mapping[str, float] = field(default_factory=dict)  # best matmul published, FLOP/s; of few devices
    multiprocessors: int | None = None
    attention_flops: Mapping[str, float] = field(
        default_factory=dict
    )  # {"forward", "backward"}: flash attention's best

    def with_ceilings(self, ceilings: Ceilings) -> Device:
        """The same device, with what was measured on it."""
        return replace(self, ceilings=ceilings)


def lookup(name: str | Device) -> Device:
    """The spec of a device by the name torch prints or its usual short name; refuses what it does not know exactly.

    A `Device` is its own.
    """
    if isinstance(name, Device):
        return name
    if not isinstance(name, str):
        raise UsageError(f"a device is a name, such as 'H100-SXM5-80GB', or a Device, and {name!r} is neither")
    fitting = _index().get(_words(name))
    if fitting is None:
        raise UsageError(f"no spec for device {name!r}{_hint(name)}; {_BY_HAND}")
    return fitting


def peak(device: Device, dtype: str, tf32: bool = False) -> float:
    """Dense spec peak in FLOP/s (op/s for int8). float32 is the vector units' unless `tf32` allows tensor cores."""
    given, key = device.peak_flops, _peak_key(dtype)
    if key == "float32" and tf32 and "tf32" in given:
        key = "tf32"
    if key in given:
        return given[key]
    if not given:
        raise UsageError(f"no known peak for {device.name}; {_BY_HAND}")
    known = ", ".join(given)
    raise UsageError(f"{device.name} has no {dtype} peak: its units have none or nobody published it; it has {known}")


def detect(kind: Kind | None = None, peak_flops: Mapping[str, float] | None = None) -> Device:
    """The current CUDA device, or this machine's CPU. An unknown GPU is a Device without peaks and with a note.

    `peak_flops` in FLOP/s, or else the variable MLSYS_PEAK, replaces the spec.
    """
    import torch

    if kind is None:
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    elif kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch sees no CUDA device here; type --device cpu, or run `mlsys doctor`")
    by_hand = peak_flops or _peaks_from_environment()
    if kind == "cpu":
        name = f"{_cpu_model()}, {cores()} cores"
        return Device(name, "cpu", _host_memory(), by_hand or {}, "given by hand" if by_hand else "")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    name, memory = properties.name, properties.total_memory
    try:
        spec = lookup(name)
    except UsageError as unknown:
        if by_hand:
            return Device(name, "cuda", memory, by_hand, "given by hand")
        return Device(name, "cuda", memory, notes=(f"time only, no share of peak: {unknown}",))
    peaks, source = (by_hand, "given by hand") if by_hand else (spec.peak_flops, spec.peak_source)
    return Device(name, "cuda", memory, peaks, source, spec.bandwidth, spec.confidence, notes=spec.notes)


def cores() -> int:
    """Whole cores this process may use, at least one."""
    return max(1, int(Limits().cpu_limit))


def _peak_key(dtype: str) -> str:
    """torch's dtype name to the data file's: the fp8 formats share one peak."""
    dtype = dtype.removeprefix("torch.")
    return "float8" if dtype.startswith("float8") else dtype


def _words(name: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9.]+", name.lower())) - _NOISE


@functools.cache
def _index() -> dict[frozenset[str], Device]:
    rows = json.loads(Path(__file__).with_name("data").joinpath("devices.json").read_text())["devices"]
    return {_words(name): _spec(row) for row in rows for name in (row["name"], *row["match"])}


def _spec(row: Mapping) -> Device:
    return Device(
        name=row["name"],
        kind=row["kind"],
        memory=round(row["memory_gb"] * 1e9),
        peak_flops={dtype: tera * 1e12 for dtype, tera in row["peak_tera"].items()},
        peak_source=f"spec, dense: {row['source']}",
        bandwidth=row["bandwidth_gb_s"] * 1e9,
        confidence=row["confidence"],
        notes=(row["note"],) if row["note"] else (),
        matmul_flops={dtype: tera * 1e12 for dtype, tera in row.get("matmul_tera", {}).items()},
        multiprocessors=row.get("multiprocessors"),
        attention_flops={kind: tera * 1e12 for kind, tera in row.get("attention_tera", {}).items()},
    )


def _hint(name: str) -> str:
    """Names that share a word with the unknown one, or that nearly do: to be chosen by the user, never by us."""
    if "mig" in _words(name):
        return ": a MIG slice has a part of its GPU's peak, and torch does not say which"
    words = {word for known in _index() for word in known}
    near = _words(name) & words or {w for word in _words(name) for w in difflib.get_close_matches(word, words, n=3)}
    names = sorted({device.name for known, device in _index().items() if known & near})
    return f" (near it: {', '.join(names)})" if names else ""


def _peaks_from_environment() -> dict[str, float]:
    text = os.environ.get(PEAK_VARIABLE, "")
    try:
        pairs = [part.split("=") for part in text.split(",") if part.strip()]
        return {_peak_key(dtype.strip()): float(rate) for dtype, rate in pairs}
    except ValueError:
        raise UsageError(f"cannot read {PEAK_VARIABLE}={text!r}; write {PEAK_VARIABLE}='bfloat16=312e12'") from None


def _cpu_model() -> str:
    for line in text(Path("/proc/cpuinfo")).splitlines():
        if line.startswith(("model name", "Hardware", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def _host_memory() -> int:
    """Bytes of main memory this process may use."""
    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        machine = 0
    return int(min(machine, Limits().memory_limit))
