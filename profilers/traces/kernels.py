"""What ran on the device, kernel by kernel, and which operator launched it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..trace import Trace
from .dialects import Kind

CLASSES = {Kind.COMPUTE: "compute", Kind.COPY: "copy", Kind.COMM: "comm"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """All runs of one kernel from one operator, "" where none is known. Runs at the same time count twice in the sum."""

    name: str
    operator: str
    kind: str  # "compute" | "copy" | "comm"
    calls: int
    nanoseconds: int


def kernels(trace: Trace) -> tuple[Kernel, ...]:
    """The longest first."""
    work = trace.on_device()
    if not len(work):
        return ()
    owner = owners(trace, work)
    operator = np.where(owner >= 0, trace.name[owner], -1)
    keys, inverse, calls = np.unique(
        np.stack([trace.name[work], operator, trace.kind[work]]), axis=1, return_inverse=True, return_counts=True
    )
    times = np.zeros(keys.shape[1], np.int64)
    np.add.at(times, inverse.ravel(), trace.end[work] - trace.start[work])
    found = [
        Kernel(trace.names[name], trace.names[op] if op >= 0 else "", CLASSES[Kind(kind)], count, ns)
        for name, op, kind, count, ns in zip(*keys.tolist(), calls.tolist(), times.tolist(), strict=True)
    ]
    return tuple(sorted(found, key=lambda k: (-k.nanoseconds, k.name, k.operator)))


def short(name: str) -> str:
    """A kernel's name without what every such name begins with."""
    for noise in ("void ", "at::native::", "(anonymous namespace)::"):
        name = name.replace(noise, "")
    return name


def owners(trace: Trace, work: np.ndarray) -> np.ndarray:
    """Index of the operator that launched each piece of work: by the work's own id, or its launch's; else -1."""
    external = trace.external[work]
    calls = trace.of(Kind.RUNTIME)
    launch = _match(trace.correlation[calls], trace.correlation[work])
    launched = np.where(launch >= 0, trace.external[calls][launch], -1) if len(calls) else np.full(len(work), -1)
    operators = trace.of(Kind.OPERATOR)
    owner = _match(trace.external[operators], np.where(external > 0, external, launched))
    return np.where(owner >= 0, operators[owner], -1) if len(operators) else np.full(len(work), -1)


def _match(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where `ids` has each wanted identity (the last place, if several); -1 where it has not, or none is wanted."""
    if not len(ids):
        return np.full(len(wanted), -1)
    order = np.argsort(ids, kind="stable")
    at = order[np.searchsorted(ids[order], wanted, "right") - 1]
    return np.where((ids[at] == wanted) & (wanted > 0), at, -1)
