"""Remedies: what `fix` does to the user's own objects, and how it takes it back. Source text is never touched.

A remedy is a frozen value with `preview` (the line a user would write), `refusal` (why it cannot be applied here, or
"") and `apply`, which returns the function that undoes it.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, Protocol

from ...profilers.compiling import toolchain
from ...profilers.loop import Loop
from ...profilers.profile import Finding

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.utils.data import DataLoader

Undo = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Subjects:
    """The live objects of the profiled loop, and the namespace that names them."""

    namespace: dict[str, Any]
    model: nn.Module | None
    optimizer: Optimizer | None
    loader: DataLoader | None
    loop: Loop
    dtype: str  # the ledger's reference dtype
    workers: int  # as many as the finding predicted with
    others: tuple[Any, ...] = ()  # further models and optimizers of the loop
    unit: str = ""  # what the profile found a step to be; "": whatever the clock takes it for
    rest: float = 0.0  # ns of a step beside its waiting for data

    @property
    def parts(self) -> list[Any]:
        return [part for part in (self.model, self.optimizer, self.loader, *self.others) if part is not None]

    def names_of(self, thing: object) -> list[str]:
        """The user's names first, then those that IPython gives to outputs (`_`, `_12`)."""
        return sorted((n for n, value in self.namespace.items() if value is thing), key=lambda n: n.startswith("_"))


class Remedy(Protocol):
    @property
    def changes(self) -> str:
        """What it acts on: "loader" | "model" | "optimizer", or "" for the process."""
        ...

    @property
    def numerics(self) -> bool:
        """True where results may change: the trial then reports the loss difference."""
        ...

    def preview(self, subjects: Subjects) -> str: ...
    def refusal(self, subjects: Subjects) -> str: ...
    def apply(self, subjects: Subjects) -> Undo: ...


def remedy_for(finding: Finding) -> Remedy | None:
    """The remedy a finding names, or None for advice only."""
    return REMEDIES.get(finding.remedy or "")


def gone(what: str) -> str:
    """Nothing refers to it any more but a profile's weak reference."""
    return f"the {what} is gone: build it in an earlier cell and profile again"


# -- the loader ------------------------------------------------------------------------------------------------------------


def rebuilt(loader: DataLoader, **changes: Any) -> DataLoader:
    """The same loader with other settings: same dataset, sampler, collation and generator, so the same batches."""
    from torch.utils.data import DataLoader

    from ...profilers.loading.settings import more_workers_than_cores

    options: dict[str, Any] = dict(
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )
    if is_streamed(loader):
        options |= dict(batch_size=loader.batch_size, drop_last=loader.drop_last)
    elif loader.batch_size is None:  # a batch sampler of the user's, or no batching at all
        options |= (
            dict(batch_sampler=loader.batch_sampler)
            if loader.batch_sampler is not None
            else dict(batch_size=None, sampler=loader.sampler)
        )
    else:
        options |= dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
    with more_workers_than_cores():
        return DataLoader(loader.dataset, **(options | changes))


def is_streamed(loader: DataLoader) -> bool:
    """An IterableDataset takes no sampler."""
    from torch.utils.data import IterableDataset

    return isinstance(loader.dataset, IterableDataset)


def is_shuffled(loader: DataLoader) -> bool:
    """Its order is drawn, or may be: a sampler of the user's own is not known."""
    from torch.utils.data import SequentialSampler

    inner = getattr(loader.batch_sampler, "sampler", loader.sampler)
    return not is_streamed(loader) and type(inner) is not SequentialSampler


@dataclass(frozen=True, slots=True)
class LoaderSettings:
    """Replaces a named loader by the same loader with other settings."""

    choose: Callable[[Subjects], Mapping[str, Any]]
    changes: str = "loader"
    numerics: bool = True  # a dataset that draws random numbers draws them elsewhere

    def preview(self, subjects: Subjects) -> str:
        names, chosen = subjects.names_of(subjects.loader), self.choose(subjects)
        changes = ", ".join(f"{k}={v!r}" for k, v in chosen.items())
        line = f"{names[0] if names else 'loader'} = DataLoader(..., {changes})"
        return f"{line}  # from the second epoch on, another order" if self._reorders(subjects.loader, chosen) else line

    @staticmethod
    def _reorders(loader: DataLoader | None, chosen: Mapping[str, Any]) -> bool:
        """torch draws a seed whenever workers start: where they start but once, later epochs are drawn from other state."""
        if loader is None or loader.persistent_workers or "persistent_workers" not in chosen:
            return False
        return is_shuffled(loader)

    def refusal(self, subjects: Subjects) -> str:
        if subjects.loader is None:
            return gone("loader")
        if not subjects.names_of(subjects.loader):
            return "the loader has no name in this notebook: build it in an earlier cell (`loader = DataLoader(...)`) and profile again"
        from torch.utils.data import DataLoader

        if type(subjects.loader) is not DataLoader:
            return f"{type(subjects.loader).__name__} is not a plain DataLoader, so it cannot be rebuilt safely: change its settings by hand"
        if is_streamed(subjects.loader) and "num_workers" in self.choose(subjects):
            return "every worker would read all of an IterableDataset: share it out by torch.utils.data.get_worker_info() first"
        return ""

    def apply(self, subjects: Subjects) -> Undo:
        old = subjects.loader
        assert old is not None
        new, names = rebuilt(old, **self.choose(subjects)), subjects.names_of(old)
        subjects.namespace.update(dict.fromkeys(names, new))

        def undo() -> None:
            for name in names:
                if subjects.namespace.get(name) is new:
                    subjects.namespace[name] = old
            new._iterator = None  # its workers end with it

        return undo


def _workers(subjects: Subjects) -> Mapping[str, Any]:
    """Persistent workers save a start each epoch."""
    return {"num_workers": subjects.workers, "persistent_workers": True, "prefetch_factor": 4}


# -- numerics ---------------------------------------------------------------------------------------------------------------


def in_float32(output: Any) -> Any:
    """Half-precision tensors of a model's output as float32, so that the loss is computed as before."""
    import torch

    if isinstance(output, torch.Tensor):
        return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    if isinstance(output, (tuple, list)):
        inside = [in_float32(o) for o in output]
        return type(output)(*inside) if hasattr(output, "_fields") else type(output)(inside)
    if isinstance(output, dict):
        for key in list(output):
            output[key] = in_float32(output[key])
    return output


@dataclass(frozen=True, slots=True)
class Autocast:
    """Runs the model's forward under autocast in the reference dtype; its output comes back in float32.

    A copy or a pickle of the model is of the model itself: a bound method is copied with its object, and pickled by the
    name `forward`, which the class has too. So a checkpoint needs nothing of ours.
    """

    changes: str = "model"
    numerics: bool = True

    def preview(self, subjects: Subjects) -> str:
        return f'with torch.autocast("{subjects.loop.device}", torch.{subjects.dtype}): ...'

    def refusal(self, subjects: Subjects) -> str:
        if subjects.model is None:
            return gone("model")
        if subjects.dtype not in ("bfloat16", "float16"):
            return f"autocast does not offer {subjects.dtype}"
        if subjects.dtype == "float16" and subjects.optimizer is not None:
            return "float16 training needs a GradScaler around backward and step: change the loop by hand"
        return ""

    def apply(self, subjects: Subjects) -> Undo:
        import torch

        model = subjects.model
        assert model is not None
        device, dtype = subjects.loop.device, getattr(torch, subjects.dtype)

        def under_autocast(forward: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(forward)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                with torch.autocast(device, dtype):
                    output = forward(*args, **kwargs)
                return in_float32(output)

            return wrapped

        own = vars(model).get("forward")  # of this one object, as torch.compile(model) has
        if own is not None:
            ours = under_autocast(own)
        else:
            ours = MethodType(under_autocast(type(model).forward), model)
        model.forward = ours

        def undo() -> None:
            if vars(model).get("forward") is ours:
                if own is not None:
                    model.forward = own
                else:
                    del model.forward

        return undo


@dataclass(frozen=True, slots=True)
class Tf32:
    """Lets float32 matmuls use the tensor cores."""

    changes: str = ""
    numerics: bool = True

    def preview(self, subjects: Subjects) -> str:
        return 'torch.set_float32_matmul_precision("high")'

    def refusal(self, subjects: Subjects) -> str:
        return "" if subjects.loop.device == "cuda" else "TF32 exists on CUDA devices only"

    def apply(self, subjects: Subjects) -> Undo:
        import torch

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        return lambda: torch.set_float32_matmul_precision(before)


# -- dispatch ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FusedOptimizer:
    """Switches the optimizer to torch's fused kernel, its state carried over."""

    changes: str = "optimizer"
    numerics: bool = True

    def preview(self, subjects: Subjects) -> str:
        return f"optimizer = {type(subjects.optimizer).__name__}(..., fused=True)"

    def refusal(self, subjects: Subjects) -> str:
        optimizer = subjects.optimizer
        if optimizer is None:
            return gone("optimizer")
        kind = type(optimizer).__name__
        if any("fused" not in group for group in optimizer.param_groups):
            return f"{kind} has no fused kernel"
        if any(group.get("differentiable") for group in optimizer.param_groups):
            return f"a differentiable {kind} cannot be fused"
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if not all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in parameters):
            return "the fused kernels take floating-point parameters on a CPU or on CUDA only"
        return ""

    def apply(self, subjects: Subjects) -> Undo:
        optimizer = subjects.optimizer
        assert optimizer is not None
        before = [(group["fused"], group["foreach"]) for group in optimizer.param_groups]

        def switch(settings: list[tuple[Any, Any]]) -> None:
            for group, (fused, foreach) in zip(optimizer.param_groups, settings, strict=True):
                group["fused"], group["foreach"] = fused, foreach
                for parameter in group["params"]:
                    state = optimizer.state.get(parameter, {})
                    if "step" in state:  # the fused kernel counts on the parameter's device, the others on the CPU
                        on_device = fused or group.get("capturable")
                        state["step"] = state["step"].to(parameter.device if on_device else "cpu")

        switch([(True, False)] * len(before))
        return lambda: switch(before)


@dataclass(frozen=True, slots=True)
class Compile:
    """Compiles the model in place; the first step pays for it.

    `compile()` of a bare nn.Sequential compiles nothing (torch 2.13): dynamo skips frames of torch.nn, and there is no
    other. Such a model gets a frame of ours to begin with.
    """

    changes: str = "model"
    numerics: bool = True

    def preview(self, subjects: Subjects) -> str:
        names = subjects.names_of(subjects.model)
        name = names[0] if names else "model"
        return f"{name} = torch.compile({name})" if self._is_torchs_own(subjects.model) else f"{name}.compile()"

    @staticmethod
    def _is_torchs_own(model: object) -> bool:
        return type(model).__module__.startswith("torch.nn.")

    def refusal(self, subjects: Subjects) -> str:
        if subjects.model is None:
            return gone("model")
        if subjects.loop.device == "cpu" and (lack := toolchain().lack()):
            what, mend = lack
            return f"torch.compile would fail on the CPU, {what}: {mend}"
        return ""

    def apply(self, subjects: Subjects) -> Undo:
        model = subjects.model
        assert model is not None
        import torch

        before = vars(model).get("_compiled_call_impl")
        if self._is_torchs_own(model):
            called = model._call_impl
            model._compiled_call_impl = torch.compile(lambda *args, **kwargs: called(*args, **kwargs))
        else:
            model.compile()

        def undo() -> None:
            vars(model).pop("_compiled_call_impl", None)  # the class has it too, as None
            if before is not None:
                model._compiled_call_impl = before

        return undo


@dataclass(frozen=True, slots=True)
class FreezeGarbage:
    """Takes what lives now out of the collector's sight."""

    changes: str = ""
    numerics: bool = False

    def preview(self, subjects: Subjects) -> str:
        return "gc.collect(); gc.freeze()"

    def refusal(self, subjects: Subjects) -> str:
        return "the garbage collector is frozen already" if gc.get_freeze_count() else ""

    def apply(self, subjects: Subjects) -> Undo:
        gc.collect()
        gc.freeze()
        return gc.unfreeze


REMEDIES: dict[str, Remedy] = {
    "workers": LoaderSettings(_workers),
    "pin": LoaderSettings(lambda _: {"pin_memory": True}),
    "autocast": Autocast(),
    "tf32": Tf32(),
    "fused-optimizer": FusedOptimizer(),
    "compile": Compile(),
    "gc-freeze": FreezeGarbage(),
}
