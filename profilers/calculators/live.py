"""FLOPs of a live model, counted while it runs its own forward and backward on tensors that have no data.

Nothing is allocated and nothing is computed, so 405 billion parameters take seconds and no memory. The backward is
autograd's own, not twice the forward: gradients nobody wants (of the input, of frozen weights) are not counted, and
what activation checkpointing computes again is counted apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .cross_check import cross_check
from .dry_run import no_data, refusals, step
from .flop_count import FlopCount
from .model_inputs import all_fake, describe, given, unwrapped
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

    model = unwrapped(model)
    args, kwargs = given(model, inputs, kwargs)
    fakes, where = Fakes(), Whereabouts(model)
    counting = Counting(where, fakes)
    with no_data(model, fakes), refusals(model, counting):
        args, kwargs = all_fake(fakes, (args, kwargs))
        with where.calls(), counting:
            step(model, args, kwargs, counting, backward)
    count = _count(model, describe(args, kwargs), counting)
    return replace(count, compared=cross_check(count, model, args, kwargs))


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
