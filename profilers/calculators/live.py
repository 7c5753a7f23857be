"""FLOPs of a live model, counted while it runs its own forward and backward on tensors that have no data.

Nothing is allocated and nothing is computed, so 405 billion parameters take seconds and no memory. The backward is
autograd's own, not twice the forward: gradients nobody wants (of the input, of frozen weights) are not counted, and
what activation checkpointing computes again is counted apart.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .cross_check import cross_check
from .flop_count import FlopCount
from .module_tree import Flops, Whereabouts, tree

if TYPE_CHECKING:
    from torch import nn

    from .counting import Counting


def flops(model: nn.Module, *inputs: Any, backward: bool = True, **kwargs: Any) -> FlopCount:
    """Count one step of `model(*inputs, **kwargs)`; of a Hugging Face model without inputs, of its `dummy_inputs`.

    Inputs are tensors on any device, meta included, in any nesting; a positional tuple of integers is a shape, of
    int64 where the model begins with an embedding and of its parameters' dtype otherwise. Every floating result that
    needs a gradient is given one; only `loss` where the result has one.

    The model's parameters, buffers, attributes, gradients and training mode, and the random generators, are as before
    afterwards, also after an error. Its hooks run as in any step. No other thread may use it meanwhile.

    Raises
    ------
    UsageError
        Where the forward depends on values and not on shapes alone, has an operator without a fake implementation, or
        nothing needs a gradient, or the closed form of its config has another number. An error of the model's own (a
        wrong shape, say) is raised as it is.
    """
    from .counting import Counting
    from .stand_in import Fakes

    model = _unwrapped(model)
    args, kwargs = _given(model, inputs, kwargs)
    fakes, where = Fakes(), Whereabouts(model)
    counting = Counting(where, fakes)
    with _no_data(model, fakes), _refusals(model, counting):
        args, kwargs = _all_fake(fakes, (args, kwargs))
        with where.calls(), counting:
            _step(model, args, kwargs, counting, backward)
    count = _count(model, describe(args, kwargs), counting)
    return replace(count, compared=cross_check(count, model, args, kwargs))


def _step(model: nn.Module, args: Any, kwargs: Any, counting: Counting, backward: bool) -> None:
    import torch

    with torch.set_grad_enabled(backward):
        result = model(*args, **kwargs)
    if not backward:
        return
    wanted = _wanted(result)
    if not wanted:
        raise UsageError(
            f"no result of {type(model).__name__} needs a gradient, so there is no backward to count; "
            "pass backward=False, or check requires_grad of its parameters"
        )
    counting.phase = "backward"
    torch.autograd.backward(wanted, [torch.ones_like(each) for each in wanted])


def _wanted(result: Any) -> list[Any]:
    """What the backward begins with: the loss, or else every result that needs a gradient."""
    import torch
    from torch.utils._pytree import tree_leaves

    named = result if isinstance(result, Mapping) else getattr(result, "__dict__", {})
    if isinstance(named.get("loss"), torch.Tensor):
        return [named["loss"]]
    leaves = tree_leaves(result)
    if any(each is result for each in leaves) and not isinstance(result, torch.Tensor):
        leaves = tree_leaves(dict(named))  # a dataclass or another object of the user's
    return [each for each in leaves if isinstance(each, torch.Tensor) and each.requires_grad]


@contextmanager
def _no_data(model: nn.Module, fakes: Any) -> Iterator[None]:
    """Fake tensors everywhere, layers in parts, compiled code as it is written, and quiet."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from .stand_in import random_state_kept, standing_in

    with ExitStack() as stack:
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_layers_in_parts())
        if "torch._dynamo" in sys.modules:  # there may be compiled parts: they run as written
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_silent("torch._subclasses.fake_tensor"))  # it logs a traceback of what it also raises
        stack.enter_context(FakeTensorMode())
        stack.enter_context(standing_in(model, fakes))
        yield


@contextmanager
def _layers_in_parts() -> Iterator[None]:
    """In evaluation nn.TransformerEncoderLayer has one operator for all of it, and oneDNN one for a recurrent layer."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch._C._set_mkldnn_enabled(before[1])


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def _refusals(model: nn.Module, counting: Counting) -> Iterator[None]:
    """The errors of tensors without data, each as a sentence."""
    from torch._subclasses import fake_tensor

    def place() -> str:
        return counting.failed_in or type(model).__name__

    try:
        yield
    except (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException) as error:
        how = "count a forward without that branch"
        if hasattr(model, "set_experts_implementation") and "nonzero" in str(error.func):
            how = 'type model.set_experts_implementation("grouped_mm")'
        elif model.training:
            how = f"try model.eval(), or {how}"
        raise UsageError(
            f"{place()} depends on values and not on shapes alone ({error.func}), so it has no one count; {how}"
        ) from error
    except fake_tensor.UnsupportedOperatorException as error:
        raise UsageError(
            f"{error.func} in {place()} cannot run without data; give it a fake implementation with "
            "torch.library.register_fake"
        ) from error
    except NotImplementedError as error:
        if "CPU" not in str(error):
            raise
        raise UsageError(
            f"{place()} is not implemented on the CPU, which counting pretends to be: {str(error).splitlines()[0]} "
            "Count it with backward=False, or with another implementation"
        ) from error
    except RuntimeError as error:
        if not any(word in str(error) for word in ("data pointer", "data_ptr", ".numpy()")):
            raise
        raise UsageError(
            f"{place()} hands memory to numpy or to a kernel that torch does not see; make that part a custom operator "
            "with torch.library.custom_op, or triton_op"
        ) from error


def _unwrapped(model: Any) -> nn.Module:
    import torch

    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"flops counts a torch.nn.Module, and this is a {type(model).__name__}; give the model itself")
    while isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel) or hasattr(
        model, "_orig_mod"
    ):
        model = getattr(model, "_orig_mod", None) or model.module
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UsageError("a scripted model keeps its parameters out of reach; give the model before torch.jit")
    return model


def _given(model: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
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
    whole = isinstance(given, tuple) and bool(given) and all(type(size) is int for size in given)
    if whole and min(given) < 0:
        raise UsageError(f"{given} has a negative size; give a shape of whole numbers from 0")
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


def _all_fake(fakes: Any, inputs: Any) -> Any:
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


def _count(model: nn.Module, inputs: str, counting: Counting) -> FlopCount:
    own: dict[str, Counter[str]] = defaultdict(Counter)
    operators: dict[str, Counter[str]] = defaultdict(Counter)
    for (path, operator, phase), count in counting.flops.items():
        own[path][phase] += count
        operators[operator][phase] += count
    largest = sorted(operators.items(), key=lambda item: -item[1].total())
    return FlopCount(
        model=type(model).__name__,
        inputs=inputs,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        modules=tree(model, {path: Flops(**phases) for path, phases in own.items()}),
        by_operator={operator: Flops(**phases) for operator, phases in largest},
        uncounted=dict(counting.uncounted.most_common()),
        free=dict(counting.free.most_common()),
    )
