"""Counts the FLOPs of every operator torch dispatches, from the shapes of its arguments and the registry's formulas.

The convention is the field's: 2 FLOP a multiply-add of matrix products, convolutions and attention (8 a complex one),
all pairs of an attention whether masked or not, and none for elementwise operators, norms, reductions and copies. An
operator that neither has a formula nor is known to multiply nothing is *uncounted*, by name: never zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from ..cost import Call, OpCost, cost_of
from ..cost_attention import BACKWARD, FORWARD, RAW_BACKWARD, RAW_FORWARD, model_flops
from ..cost_convolution import convolution, transposed_convolution, undecided_convolution
from ..cost_matmul import delegating
from ..cost_registry import FORMULAS
from ..errors import UsageError
from .module_tree import Whereabouts
from .no_flops import MOVES_ONLY, multiplies_nothing
from .stand_in import Fakes

Formula = Callable[[Call], int | None]

_ATTENTION = frozenset((*FORWARD, *BACKWARD, *RAW_FORWARD, *RAW_BACKWARD))
_DEVICE = torch.ops.prim.device.default
_GROUPED_MM = torch.ops.aten._grouped_mm.default
_UNCHECKED = {  # torch 2.13's fakes take operands of several dtypes here, and the kernels none
    torch.ops.aten.mm.default,
    torch.ops.aten.addmm.default,
    torch.ops.aten.mv.default,
    torch.ops.aten.addmv.default,
}


class Counting(TorchDispatchMode):
    """The tally, while it is entered: after the FakeTensorMode, and with `where.calls()` open.

    `phase` is set by whoever runs the model; what of the backward is recomputation is told from the state of autograd.
    """

    supports_higher_order_operators = True  # a Triton kernel arrives as one, and is to be named

    def __init__(self, where: Whereabouts, fakes: Fakes) -> None:
        super().__init__()
        self.phase = "forward"
        self.flops: defaultdict[tuple[str, str, str], int] = defaultdict(int)  # of (module, operator, phase)
        self.uncounted: Counter[str] = Counter()  # calls
        self.failed_in = ""  # path of the module whose operator raised last
        self._free: Counter[Any] = Counter()  # calls of what has no FLOPs by convention, by overload
        self._where, self._fakes = where, fakes
        self._formulas: dict[Any, Formula | None] = {}

    @property
    def free(self) -> Counter[str]:
        """Calls of operators that have no FLOPs by convention."""
        named: Counter[str] = Counter()
        for func, calls in self._free.items():
            named[func._schema.name] += calls
        return named

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device  # two in three dispatches only ask for this
        kwargs = kwargs or {}
        if func in self._formulas:
            formula = self._formulas[func]
        else:
            formula = self._formulas[func] = _formula(func)
        if formula is _in_parts:
            with self:
                return func.decompose(*args, **kwargs)
        args, kwargs = self._on_one_device(func, args, kwargs)
        if formula is _nothing:
            self._free[func] += 1
        else:
            self._count(func, formula, args, kwargs)
        if func is _GROUPED_MM:
            return _grouped_result(*args, **kwargs)
        try:
            return func(*args, **kwargs)
        except Exception:
            self.failed_in = self._where.here()
            raise

    def _count(self, func: Any, formula: Formula | None, args: Any, kwargs: Mapping[str, Any]) -> None:
        call = _call(func, args, kwargs) if formula else None
        if call and func in _UNCHECKED and len(dtypes := {dtype for dtype in call.dtypes if dtype}) > 1:
            raise UsageError(
                f"{self._where.here() or 'the model'} multiplies {' by '.join(sorted(dtypes))} ({func._schema.name}), "
                "which torch refuses; give inputs of the parameters' dtype, or count under torch.autocast"
            )
        flops = formula(call) if formula and call else None
        if flops is None:
            self.uncounted[_name(func, kwargs)] += 1
        elif flops:
            operator = func._schema.name.replace("_for_cpu", "")  # whose kernel would run is not known here
            self.flops[self._where.here(), operator, self._current_phase()] += flops
        else:
            self._free[func] += 1

    def _current_phase(self) -> str:
        """An autograd node calls no module, runs without grad mode and saves nothing: what does is a second forward."""
        if self.phase == "backward" and (
            self._where.in_module
            or torch.is_grad_enabled()
            or _top_saved_tensors_default_hooks(True) is not None
            or self._where.node_name() == "CheckpointFunctionBackward"
        ):
            return "recompute"
        return self.phase

    def _on_one_device(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Real tensors replaced; and a forward that makes a tensor on "cuda" means: where the model is."""
        device = kwargs.get("device")
        if device is not None and getattr(device, "type", device) != "cpu":
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if (
            any(map(_real, args)) or any(map(_real, kwargs.values()))
        ) and func is not torch.ops.aten.lift_fresh.default:
            args, kwargs = tree_map_only(Tensor, self._fake, (args, kwargs))
        return args, kwargs

    def _fake(self, tensor: Tensor) -> Tensor:
        return tensor if isinstance(tensor, FakeTensor) else self._fakes.of_stranger(tensor)


def _formula(func: Any) -> Formula | None:
    """How to count an operator; None: not at all. Of one that is made of others, those are counted."""
    if isinstance(func, HigherOrderOperator):
        return None
    name = func._schema.name
    if name == "aten::convolution":
        return _convolution
    if name in _ATTENTION:
        return model_flops
    if name in FORMULAS and name not in MOVES_ONLY and FORMULAS[name] not in (delegating, undecided_convolution):
        return _registered
    if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        return _in_parts
    return _nothing if multiplies_nothing(func) else None


def _registered(call: Call) -> int | None:
    """By the registry. One that it says only dispatches shows nothing more here, so its FLOPs are not known."""
    cost = cost_of(call)
    return cost.flops if isinstance(cost, OpCost) else None


def _convolution(call: Call) -> int | None:
    """In a profile it chooses a library's operator; here nothing is below it."""
    cost = transposed_convolution(call) if call.value("transposed") else convolution(call)
    return cost.flops if isinstance(cost, OpCost) else None


def _nothing(call: Call) -> int:
    return 0


def _in_parts(call: Call) -> None:
    raise AssertionError("decomposed before it is counted")


def _grouped_result(a: Tensor, b: Tensor, offs: Any = None, bias: Any = None, out_dtype: Any = None) -> Tensor:
    """What grouped experts give; torch 2.13's own fake refuses float32, which the kernels take."""
    if a.dim() == b.dim() == 2:
        shape = (offs.shape[0], a.shape[0], b.shape[1])
    elif a.dim() == 3 and b.dim() == 2:
        shape = (a.shape[1], b.shape[1])
    else:
        shape = (*a.shape[:-1], b.shape[-1])
    return a.new_empty(shape, dtype=out_dtype or a.dtype)


def _call(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Call:
    """As the profiler would record it, in the order of the schema."""
    shapes, dtypes, scalars = [], [], []
    for i, argument in enumerate(func._schema.arguments):
        value = args[i] if i < len(args) else kwargs.get(argument.name, argument.default_value)
        shape = dtype = scalar = None
        if isinstance(value, Tensor):
            shape, dtype = tuple(value.shape), _dtype(value)
        elif isinstance(value, list | tuple) and any(isinstance(each, Tensor) for each in value):
            tensors = [each for each in value if each is not None]
            shape, dtype = tuple(tuple(each.shape) for each in tensors), _dtype(tensors[0])
        else:
            scalar = tuple(value) if isinstance(value, list | tuple) else value
        shapes.append(shape)
        dtypes.append(dtype or "")
        scalars.append(scalar)
    return Call(func._schema.name, tuple(shapes), tuple(dtypes), tuple(scalars))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _name(func: Any, kwargs: Mapping[str, Any]) -> str:
    """As people would look for it: a custom operator by its own name, a Triton kernel by its function's."""
    if not isinstance(func, HigherOrderOperator):
        return func._schema.name
    if "kernel_idx" not in kwargs:
        return func.name()
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    kernel: Any = kernel_side_table.get_kernel(kwargs["kernel_idx"])
    while hasattr(kernel, "fn"):  # an autotuner around heuristics around the function
        kernel = kernel.fn
    return f"triton {getattr(kernel, '__name__', 'kernel')}"


def _real(argument: Any) -> bool:
    if isinstance(argument, list | tuple):
        return any(map(_real, argument))
    return isinstance(argument, Tensor) and not isinstance(argument, FakeTensor)
