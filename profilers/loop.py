"""What a loop is made of, read off the objects the clock met: loader, model, optimizer. Facts for findings, no times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

    from .capture import Capture
    from .phases import Mark
    from .step import StepClock


@dataclass(frozen=True, slots=True)
class Loop:
    """None where the loop has no such part, or where it could not be read."""

    device: str = "cpu"
    cores: int = 1  # this process may use
    threads: int = 1  # torch computes with
    model: str | None = None  # class name
    parameters: int | None = None
    dtype: str | None = None  # of most parameters
    autocast: bool = False
    compiled: bool = False
    optimizer: str | None = None
    optimizer_kind: str | None = None  # "for-loop" | "foreach" | "fused"
    loader: str | None = None  # the dataset's class name
    batches: int | None = None  # in one pass over the loader
    batch_size: int | None = None
    workers: int | None = None
    pin_memory: bool | None = None
    iterable: bool | None = None  # an IterableDataset: workers would need shards
    fetch_on_cpu: float | None = None  # share of the data phase the loop's thread spent on a CPU


def facts(clock: StepClock, capture: Capture | None) -> Loop:
    """After the loop has ended."""
    met = clock.met or parts(clock)
    on_cpu = on_cpu_share(capture.marks, "data") if capture is not None else None
    return replace(met, autocast=met.device in clock.autocast, fetch_on_cpu=on_cpu)


def parts(clock: StepClock) -> Loop:
    """While the loop runs, and its objects live. Whatever those of the user's own making raise."""
    import torch

    from .hardware import cores

    model = next(iter(models(clock)), None)
    parameters = list(model.parameters()) if model is not None else []
    optimizer = next(iter(clock.optimizers.values()), None)
    return Loop(
        device=parameters[0].device.type if parameters else "cpu",
        cores=cores(),
        threads=torch.get_num_threads(),
        model=type(model).__name__ if model is not None else None,
        parameters=sum(p.numel() for p in parameters) if model is not None else None,
        dtype=str(max(parameters, key=lambda p: p.numel()).dtype).removeprefix("torch.") if parameters else None,
        compiled=any(is_compiled(inner) for m in clock.called() for inner in m.modules()),
        optimizer=type(optimizer).__name__ if optimizer is not None else None,
        optimizer_kind=optimizer_kind(optimizer) if optimizer is not None else None,
        **clock.fetching,
    )


def fetching(loader: DataLoader) -> dict[str, Any]:
    """What a loader says of itself, by the names `Loop` has for it."""
    from torch.utils.data import IterableDataset

    return {
        "loader": type(loader.dataset).__name__,
        "batches": length(loader),
        "batch_size": loader.batch_size,
        "workers": loader.num_workers,
        "pin_memory": loader.pin_memory,
        "iterable": isinstance(loader.dataset, IterableDataset),
    }


def length(loader: DataLoader) -> int | None:
    try:
        return len(loader)
    except Exception:  # noqa: BLE001  an iterable dataset has none; one of the user's own making raises what it likes
        return None


def is_compiled(module: nn.Module) -> bool:
    """By `torch.compile(module)`, by `module.compile()`, or by TorchScript."""
    wrapped = type(module).__name__ in ("OptimizedModule", "RecursiveScriptModule")
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


def models(clock: StepClock) -> list[nn.Module]:
    """The models that were called; first the one with most of the optimizers' parameters, not a frozen teacher."""
    trained = set(map(id, clock.trained()))
    return sorted(clock.called(), key=lambda m: -sum(p.numel() for p in m.parameters() if id(p) in trained))


def optimizer_kind(optimizer: object) -> str | None:
    """How a torch optimizer steps. Left to itself it takes foreach where every parameter is on CUDA, else a loop."""
    groups = getattr(optimizer, "param_groups", None)
    if not groups or "foreach" not in groups[0]:
        return None
    first = groups[0]
    if first.get("fused"):
        return "fused"
    on_cuda = all(p.is_cuda for g in groups for p in g["params"])
    return "foreach" if first["foreach"] or (first["foreach"] is None and on_cuda) else "for-loop"


def on_cpu_share(marks: Sequence[Mark], phase: str) -> float | None:
    """Of the wall time the loop's thread spent in `phase`, the share it was on a CPU (its own clock, not a guess)."""
    wall = cpu = 0
    for a, b in pairwise(marks):
        if a.phase == phase:
            wall, cpu = wall + b.time - a.time, cpu + b.cpu - a.cpu
    return min(1.0, cpu / wall) if wall else None
