"""Costs of optimizer steps: every parameter, gradient and state passes through once.

Fused optimizers take lists of tensors, whose shapes torch's profiler has only in its structured inputs; where they
are missing, the bytes of the parameters themselves are enough.
"""

from __future__ import annotations

from .cost_registry import Call, Cost, OpCost, costs

# (tensors read, tensors written) for each parameter, itself and its gradient included.
PASSES = {"adam": (4, 3), "adamw": (4, 3), "sgd": (2, 1), "adagrad": (3, 2)}


@costs("aten::_fused_adam_", "aten::_fused_adamw_")
def fused_adam(call: Call) -> Cost:
    """p, g, m, v read and p, m, v written; with AMSGrad the largest v too."""
    return OpCost(0, call.read() + call.nbytes("self", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs"))


@costs("aten::_fused_sgd_")
def fused_sgd(call: Call) -> Cost:
    """p and g read, p written; with momentum its buffer both."""
    return OpCost(0, call.read() + call.nbytes("self", "momentum_buffer_list"))


@costs("aten::_fused_adagrad_")
def fused_adagrad(call: Call) -> Cost:
    """p, g and the sum of squares read, p and the sum written."""
    return OpCost(0, call.read() + call.nbytes("self", "state_sums"))


@costs("aten::_amp_foreach_non_finite_check_and_unscale_")
def unscale(call: Call) -> Cost:
    """Every gradient read and written."""
    return OpCost(0, 2 * call.nbytes(0))


def optimizer_bytes(operator: str, parameter_bytes: int) -> int | None:
    """Bytes one fused step moves for parameters of so many bytes, their states as wide; None for other operators.

    SGD is taken without momentum: the least it can be.
    """
    passes = PASSES.get(operator.removeprefix("aten::_fused_").removesuffix("_"))
    return sum(passes) * parameter_bytes if passes and operator.startswith("aten::_fused_") else None
