"""Checks that only this kernel can answer: what the failing line's tensors hold, and what CUDA has seen here.

Read-only, and of CPU tensors only: a GPU's values cannot be read when its context is broken by the very error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

from ..profilers.diagnosis.checks import Answer
from ..profilers.diagnosis.diagnosis import Diagnosis
from ..profilers.views.columns import plain
from .tensors import values_of

MOST_VALUES = 1 << 24  # of a tensor that is looked through
IGNORED = -100  # the label that torch's losses pass over
MOST_HOLDERS = 4  # names told


@dataclass(frozen=True, slots=True)
class Failed:
    """Where it failed, and the notebook's names."""

    frame: FrameType | None
    line: int
    namespace: Mapping[str, Any]


def probe(diagnosis: Diagnosis, failed: Failed) -> Diagnosis:
    """The same diagnosis, with the checks answered that need this kernel. An answer given before stands."""
    checks = []
    for check in diagnosis.checks:
        ask = _PROBES.get(check.probe)
        if ask is not None and check.result in (None, "inconclusive"):
            verdict, found = ask(failed)
            said = "; ".join(part for part in (check.found, found) if part)
            check = replace(check, result=verdict, found=said)
        checks.append(check)
    return diagnosis.with_checks(tuple(checks))


def holders(namespace: Mapping[str, Any], kind: str) -> list[tuple[str, int]]:
    """(name, bytes) of what the notebook's names keep on devices of that kind, the largest first. A storage with two
    names counts once, for the first."""
    torch = sys.modules.get("torch")
    if torch is None:
        return []
    seen: set[int] = set()
    found: dict[str, int] = {}
    for name, value in list(namespace.items()):
        tensors = [value] if isinstance(value, torch.Tensor) else []
        if isinstance(value, torch.nn.Module):
            tensors = [*value.parameters(), *value.buffers()]
        for tensor in (t for t in tensors if t.device.type == kind):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in seen:
                seen.add(storage.data_ptr())
                found[name] = found.get(name, 0) + storage.nbytes()
    return sorted(found.items(), key=lambda pair: -pair[1])


def _finite(failed: Failed) -> Answer:
    torch = sys.modules.get("torch")
    looked = [(name, value) for name, value in _readable(failed) if value.dtype.is_floating_point]
    if torch is None or not looked:
        return "inconclusive", "no tensor of the failing line can be read here"
    bad = [name for name, value in looked if not torch.isfinite(value).all()]
    names = ", ".join(plain(name) for name in bad or [name for name, _ in looked])
    return ("confirmed", f"not finite: {names}") if bad else ("refuted", f"finite: {names}")


def _labels(failed: Failed) -> Answer:
    """Labels of a loss lie in [0, classes), classes being the size of the scores' second dimension."""
    values = list(_readable(failed))
    scores = [(name, value) for name, value in values if value.dtype.is_floating_point and value.ndim > 1]
    labels = [(name, value) for name, value in values if not value.dtype.is_floating_point and value.numel()]
    if len(scores) != 1 or len(labels) != 1:
        return "inconclusive", "the failing line has no pair of scores and labels that can be read here"
    (of, score), (name, label) = scores[0], labels[0]
    classes, kept = score.shape[1], label[label != IGNORED]
    if not kept.numel():
        return "inconclusive", f"all labels in {plain(name)} are {IGNORED}"
    low, high = int(kept.min()), int(kept.max())
    said = f"{plain(name)} holds {low} to {high}, {plain(of)} has {classes} classes"
    return ("confirmed" if low < 0 or high >= classes else "refuted"), said


def _cuda_fork(failed: Failed) -> Answer:
    torch = sys.modules.get("torch")
    if torch is None:
        return "inconclusive", "torch is not loaded in this kernel"
    if torch.cuda.is_initialized():
        return "confirmed", "CUDA is in use in this kernel: processes forked from it cannot use it"
    return "refuted", "CUDA was not touched in this kernel"


def _held(failed: Failed) -> Answer:
    its = holders(failed.namespace, "cuda")[:MOST_HOLDERS]
    if not its:
        return "inconclusive", "no name of this notebook holds GPU memory"
    return "confirmed", "this notebook holds " + ", ".join(f"{plain(name)} {size >> 20} MiB" for name, size in its)


def _readable(failed: Failed):
    if failed.frame is None:
        return
    for name, value in values_of(failed.frame, failed.line):
        if value.device.type == "cpu" and value.numel() <= MOST_VALUES:
            yield name, value.detach()


_PROBES: dict[str, Callable[[Failed], Answer]] = {
    "finite": _finite,
    "labels": _labels,
    "cuda_fork": _cuda_fork,
    "gpu_memory": _held,
}
