"""Memory of a live model: its states exactly, and the peak of one forward and backward on tensors without data.

The step runs under FakeTensorMode, so that nothing is allocated and the user's model, gradients and random generators
stay as they are; every storage has the size and the life it would have. With `run=True` the same step also runs for
real, and what torch's allocator saw stands beside it. Tests hold the two together on a CPU; on CUDA nobody has yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..stderr import without_announcements
from ..views.sheet import Bars, Figures, Grid, Row, Sheet, Shown
from ..views.units import gb, grown, size
from .dry_run import no_data, refusals, step
from .model_inputs import all_fake, describe, given, unwrapped
from .states import PRECISIONS, Numbers, optimizer_bytes

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

BLOCK = 512  # bytes to which torch's CUDA allocator rounds up
LARGEST = 5


@dataclass(frozen=True, slots=True)
class LiveMemory(Shown):
    """Bytes of one training step, or of one forward."""

    model: str
    inputs: str
    device: str  # where the parameters are
    weights: int
    buffers: int
    input: int
    gradients: int
    optimizer: int
    optimizer_name: str
    kept: int  # alive when the forward is done: for the backward, and results
    moving: int  # most that forward and backward have alive at once, gradients included
    phase: str  # in which that is
    largest: tuple[tuple[str, int], ...]  # of what is alive then: operator, bytes
    allocator: int | None = None  # the same as `moving`, as torch's allocator saw it

    @property
    def total(self) -> int:
        """Everything at the peak, bytes."""
        return self.weights + self.buffers + self.input + self.optimizer + self.moving

    @property
    def off(self) -> float | None:
        """How far `moving` is above the allocator's; None where it did not run."""
        return None if not self.allocator else self.moving / self.allocator - 1

    def sheet(self) -> Sheet:
        rows = [
            _row("weights", self.weights, f"on {self.device}"),
            _row("buffers", self.buffers, ""),
            _row("inputs", self.input, self.inputs),
            _row("gradients", self.gradients, "of the parameters that need one, when the backward is done"),
            _row("optimizer", self.optimizer, self.optimizer_name),
            _row("kept by the forward", self.kept, "for the backward, with the results"),
            _row("peak of the step", self.moving, f"in the {self.phase}; activations and gradients"),
            _row("sum at the peak", self.total, "with weights, buffers, inputs and optimizer"),
        ]
        if self.allocator is not None and self.off is not None:
            rows.append(
                _row("the allocator saw", self.allocator, f"the peak of the step is {grown(1 + self.off)} beside it")
            )
        return Sheet(
            f"Memory of {self.model}",
            f"inputs {self.inputs}; one step on tensors without data",
            (
                Figures("Bytes", tuple(rows)),
                self._bars(),
                Grid("Largest at the peak", ("operator", "bytes"), tuple((name, size(n)) for name, n in self.largest)),
            ),
            (
                "not seen: workspaces of kernels (cuDNN, oneDNN, cuBLAS), fragmentation, the device's context",
                "a model may do more on tensors without data: transformers then writes its causal mask",
            ),
        )

    def _bars(self) -> Bars:
        parts = {name: getattr(self, name) for name in ("weights", "buffers", "input", "optimizer")}
        parts["the step itself"] = self.moving
        return Bars("At the peak", ("bytes",), tuple((name, size(n), (float(n),)) for name, n in parts.items() if n))


def measure(
    model: nn.Module,
    *inputs: Any,
    optimizer: str | Optimizer = "adamw",
    backward: bool = True,
    run: bool = False,
    **kwargs: Any,
) -> LiveMemory:
    """Memory of one step of `model(*inputs, **kwargs)`; inputs as `live.flops` takes them.

    `optimizer` is a name of `states.optimizer_bytes`, whose states have their parameter's dtype, or an optimizer that
    has stepped. `run=True` does the step for real as well, on real inputs; gradients, buffers and random generators
    are put back afterwards.

    Raises
    ------
    UsageError
        As `live.flops`; an optimizer without states yet; `run` without real parameters.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    model = unwrapped(model)
    args, kwargs = given(model, inputs, kwargs)
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    found = _without_data(model, args, kwargs, backward, BLOCK if device.type == "cuda" else 1)
    states, name = _optimizer(model, optimizer) if backward else (0, "none: a forward alone")
    return LiveMemory(
        model=type(model).__name__,
        inputs=describe(args, kwargs),
        device=str(device),
        weights=_bytes(parameters),
        buffers=_bytes(model.buffers()),
        input=_bytes(tree_leaves((args, kwargs))),
        optimizer=states,
        optimizer_name=name,
        allocator=_for_real(model, args, kwargs, backward, device.type) if run else None,
        **found,
    )


def _without_data(model: nn.Module, args: Any, kwargs: Any, backward: bool, granule: int) -> dict[str, Any]:
    from .living import Living
    from .module_tree import Whereabouts
    from .stand_in import Fakes

    fakes, where = Fakes(), Whereabouts(model)
    living = Living(where, fakes, granule)
    with no_data(model, fakes), refusals(model, living):
        args, kwargs = all_fake(fakes, (args, kwargs))
        living.ignore((list(model.parameters()), list(model.buffers()), args, kwargs))
        with where.calls(), living:
            step(model, args, kwargs, living, backward)
        gradients = _bytes(p.grad for p in model.parameters())
        peak = living.peak()
    largest = sorted(peak.alive.values(), key=lambda born: -born.bytes)[:LARGEST]
    return dict(
        gradients=gradients,
        kept=living.kept if backward else living.alive(),
        moving=peak.bytes,
        phase=peak.phase,
        largest=tuple((f"{born.operator} in {born.module or 'the model'}", born.bytes) for born in largest),
    )


# -- states -------------------------------------------------------------------------------------------------------------


def _bytes(tensors: Iterable[Any]) -> int:
    """Each storage once."""
    import torch

    held = [each for each in tensors if isinstance(each, torch.Tensor)]
    if any(each.layout is not torch.strided for each in held):
        raise UsageError("how much a sparse tensor holds depends on values; make gradients dense, such as sparse=False")
    storages = {id(each.untyped_storage()): each.untyped_storage() for each in held}
    return sum(storage.nbytes() for storage in storages.values())


def _optimizer(model: nn.Module, optimizer: str | Optimizer) -> tuple[int, str]:
    import torch
    from torch.utils._pytree import tree_leaves

    if isinstance(optimizer, torch.optim.Optimizer):
        name = type(optimizer).__name__
        if not optimizer.state:
            raise UsageError(f"this {name} has no states yet; let it step once, or name it: optimizer='adamw'")
        return _bytes(tree_leaves(list(optimizer.state.values()))), f"{name}, its own states"
    states = 0
    for dtype in {p.dtype for p in model.parameters()}:
        numbers = Numbers(0)
        for p in model.parameters():
            if p.requires_grad and p.dtype == dtype:
                numbers += _numbers(p.shape)
        kept_in = replace(PRECISIONS["float32"], state=dtype.itemsize)
        states += optimizer_bytes(optimizer, numbers, kept_in)
    return states, f"{optimizer}, in its parameters' dtype"


def _numbers(shape: Sequence[int]) -> Numbers:
    """Adafactor keeps the last two dimensions' rows and columns of anything above a vector; Muon takes all those."""
    total = prod(shape)
    if len(shape) < 2:
        return Numbers(total, vectors=total)
    return Numbers(total, total, total // shape[-1] + total // shape[-2])


# -- for real -----------------------------------------------------------------------------------------------------------


def _for_real(model: nn.Module, args: Any, kwargs: Any, backward: bool, device: str) -> int:
    """Most bytes that torch's allocator had given out above what it had before, from the profiler's memory events."""
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    if any(each.is_meta for each in (*model.parameters(), *tensors)):
        raise UsageError("run=True needs a model and inputs with data; give tensors instead of shapes, or run=False")
    nobody: Any = SimpleNamespace(phase="")  # listens to how far the step is
    profiler = torch.profiler.profile(profile_memory=True, activities=_activities())
    with _put_back(model), without_announcements(), profiler:
        step(model, args, kwargs, nobody, backward)
    now = most = 0
    for event in sorted(_memory_events(profiler, device), key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@contextmanager
def _put_back(model: nn.Module) -> Iterator[None]:
    """Gradients, buffers and random generators as they were."""
    import torch

    from .stand_in import random_state_kept

    gradients = [(p, p.grad) for p in model.parameters()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    on_gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    for p, _ in gradients:
        p.grad = None
    try:
        with random_state_kept():
            yield
    finally:
        for p, gradient in gradients:
            p.grad = gradient
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        if on_gpu is not None:
            torch.cuda.set_rng_state_all(on_gpu)


def _activities() -> list[Any]:
    import torch

    activities = [torch.profiler.ProfilerActivity.CPU]
    return [*activities, torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else activities


def _memory_events(profiler: Any, device: str) -> list[Any]:
    """Blocks given out (bytes above 0) and taken back on the model's kind of device."""
    events = profiler.profiler.kineto_results.events()
    return [e for e in events if e.name() == "[memory]" and e.device_type().name.lower() == device]


def _row(label: str, count: int, note: str) -> Row:
    return Row(label, size(count), f"{gb(count)}, {note}" if note else gb(count))
