"""What an operator must do at least, in FLOPs and bytes: the registry's face.

    cost_of(Call.from_event(event))   an OpCost; DISPATCH for what only calls, views or allocates; None for uncounted
    own_costs(costs, parents)         the same for nested operators, each without what it left to others
    @costs("mlsys::rms_norm")         adds one (how: `cost_registry`)

Formulas live in `cost_matmul`, `cost_convolution`, `cost_attention`, `cost_memory` and `cost_optimizer`.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from . import cost_attention, cost_convolution, cost_matmul, cost_memory, cost_optimizer  # noqa: F401  they register
from .cost_memory import elementwise, foreach
from .cost_optimizer import optimizer_bytes
from .cost_registry import DISPATCH, FORMULAS, Call, Cost, Dispatch, Formula, OpCost, costs, own_costs
from .operators import dispatches, pointwise

__all__ = [
    "DISPATCH",
    "Call",
    "Cost",
    "Dispatch",
    "OpCost",
    "cost_of",
    "costs",
    "dtype_of",
    "optimizer_bytes",
    "own_costs",
]


def cost_of(call: Call) -> Cost:
    """The whole cost of one operator. None means uncounted: to be listed by name with its seconds, never as zero.

    A signature no formula expects (another version of torch) is uncounted too, rather than the end of a profile.
    """
    try:
        return _cost_of(call, FORMULAS.get(call.name))
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return None


def dtype_of(call: Call) -> str:
    """The dtype it computes in: that of its first floating operand, else of its first tensor, else "float32"."""
    present = [dtype for dtype in call.dtypes if dtype]
    return next((d for d in present if "float" in d), present[0] if present else "float32")


@functools.lru_cache(maxsize=16384)  # a training step repeats the same few hundred calls
def _cost_of(call: Call, formula: Formula | None) -> Cost:
    if formula:
        cost = formula(call)
        return replace(cost, flops=4 * cost.flops) if isinstance(cost, OpCost) and _complex(call) else cost
    if dispatches(call.name, call.pattern):
        return DISPATCH
    if call.name.startswith("aten::_foreach_"):
        return foreach(call)
    return elementwise(call) if pointwise(call.name, call.pattern) else None


def _complex(call: Call) -> bool:
    """A complex multiply-add is four real ones, 8 FLOP. A formula of the user's own says itself what it counts."""
    return call.name.startswith("aten::") and any(dtype.startswith("complex") for dtype in call.dtypes)
