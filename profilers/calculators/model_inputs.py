"""What a live model is called with: tensors, shapes, or its own examples; and the model inside its wrappers."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .amounts import MOST

if TYPE_CHECKING:
    from torch import nn


def unwrapped(model: Any) -> nn.Module:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UsageError(
            f"this counts a torch.nn.Module, and was given a {type(model).__name__}; give the model itself, or of a preset "
            "or config ask transformer() and memory()"
        )
    while isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel) or hasattr(
        model, "_orig_mod"
    ):
        model = getattr(model, "_orig_mod", None) or model.module
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError("a scripted model keeps its parameters out of reach; give the model before torch.jit")
    return model


def given(model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs with shapes made into meta tensors, or the model's own examples."""
    import torch

    if not inputs and not kwargs:
        own = getattr(model, "dummy_inputs", None)
        if not isinstance(own, dict) or getattr(model, "main_input_name", None) not in own:
            raise UsageError(
                f"give inputs for {type(model).__name__}: tensors, or shapes such as (1, 3, 224, 224), as its forward "
                "takes them"
            )
        kwargs = {**own}
    dtype = _input_dtype(model)
    made = [torch.empty(each, dtype=dtype, device="meta") if _is_shape(each) else each for each in inputs]
    return tuple(made), kwargs


def _is_shape(given: Any) -> bool:
    numbers = isinstance(given, tuple) and all(isinstance(size, int | float) for size in given)
    if numbers and any(isinstance(size, float) for size in given):
        raise UsageError(f"{given} is no shape; give whole numbers, such as (1, 3, 224, 224), or a tensor")
    whole = isinstance(given, tuple) and bool(given) and all(type(size) is int for size in given)
    if whole and min(given) < 0:
        raise UsageError(f"{given} has a negative size; give a shape of whole numbers from 0")
    if whole and prod(given) > MOST:
        raise UsageError(f"a shape of so many numbers is no input; give one of at most {MOST:,}")
    return whole


def _input_dtype(model: nn.Module) -> Any:
    """int64 for a model whose first parameter is an embedding's, else the dtype of its first floating parameter."""
    import torch

    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, torch.nn.Embedding):
                return torch.int64
            if parameter.is_floating_point():
                return parameter.dtype
    return torch.get_default_dtype()


def all_fake(fakes: Any, inputs: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return tree_map_only(torch.Tensor, fakes.of, inputs)


def describe(args: Any, kwargs: Any) -> str:
    """ "float32 [1, 3, 224, 224], labels int64 [1]"."""
    import torch
    from torch.utils._pytree import tree_leaves

    def said(value: Any) -> list[str]:
        tensors = [each for each in tree_leaves(value) if isinstance(each, torch.Tensor)]
        return [f"{str(each.dtype).removeprefix('torch.')} {list(each.shape)}" for each in tensors]

    named = [f"{name} {each}" for name, value in kwargs.items() for each in said(value)]
    return ", ".join([*said(args), *named]) or "no tensor"
