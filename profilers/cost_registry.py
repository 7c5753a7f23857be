"""The least an operator can cost: FLOP and bytes as pure functions of shapes, one a family, in one registry.

A multiply-add is 2 FLOP; only matmul, convolution and attention count any (the ledger's convention). Bytes are
compulsory traffic: each operand read once, each result written once; an expanded operand has only its own elements.

To add an operator's cost, write a function from `Call` to `OpCost` and name the operators it holds for:

    @costs("mlsys::rms_norm")
    def rms_norm(call: Call) -> OpCost:
        '''x [m, n] and w [n] are read, y like x is written.'''
        return OpCost(flops=0, bytes=call.read() + call.nbytes(0))

The cost is of the whole operator, whatever other operators it calls: `own_costs` leaves each its own part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Any

from .operators import argument_names, only_written, written

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpCost:
    """What an operator must do at least: FLOPs executed (2 per multiply-add), bytes read and written."""

    flops: int
    bytes: int


class Dispatch(Enum):
    """The one value says: no data of its own; what it calls is counted where it happens."""

    DISPATCH = "dispatch"


DISPATCH = Dispatch.DISPATCH
Cost = OpCost | Dispatch | None  # None: no formula, the caller lists the operator as uncounted

_NAMES = {  # the profiler's C++ type names
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "long int": "int64",
    "long": "int64",
    "long long": "int64",
    "int": "int32",
    "short int": "int16",
    "short": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
    "bool": "bool",
    "c10::complex<float>": "complex64",
    "c10::complex<double>": "complex128",
}
_SIZES = {"bool": 1, "complex64": 8, "complex128": 16}
SCALAR_TYPES = {0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool", 15: "bfloat16"}  # fmt: skip


def itemsize(dtype: str) -> int:
    """Bytes of one element: 2 for "bfloat16", 1 for "float8_e4m3fn"; 4 where the name is unknown."""
    if dtype in _SIZES:
        return _SIZES[dtype]
    bits = "".join(c for c in dtype.partition("_")[0] if c.isdigit())
    return max(1, int(bits) // 8) if bits else 4


@dataclass(frozen=True, slots=True)
class Call:
    """One operator with its arguments, as the profiler recorded them: shapes, and the values of scalars."""

    name: str  # "aten::mm"
    shapes: tuple[Any, ...]  # a Shape for a tensor, a tuple of Shapes for a list of tensors, None for anything else
    dtypes: tuple[str, ...]  # "float32", …; "" for what is no tensor
    concrete: tuple[Any, ...] = ()  # scalars and lists of scalars; None for tensors
    strides: tuple[Any, ...] = ()  # like shapes; empty where they were not recorded

    @classmethod
    def from_event(cls, event: Any, list_dtype: str = "float32") -> Call:
        """From an event of torch's own profiler (Kineto, with shapes). It has no dtype for lists of tensors."""
        recorded = event.structured_input_shapes(), event.concrete_inputs(), event.structured_input_strides()
        return cls.recorded(event.name(), [*event.dtypes()], *recorded, list_dtype)

    @classmethod
    def recorded(
        cls, name: str, kinds: Sequence[str], shapes: Any, concrete: Any, strides: Any, list_dtype: str = "float32"
    ) -> Call:
        """From what the profiler writes of each argument; its `kinds` are C++ types, "TensorList", "Scalar" or ""."""
        shapes = _frozen(shapes)
        lists = [kind == "TensorList" and bool(shape) for kind, shape in zip(kinds, shapes, strict=True)]
        tensors = [bool(kind) and not kind.endswith("List") and kind != "Scalar" for kind in kinds]
        present = [a or b for a, b in zip(lists, tensors, strict=True)]
        return cls(
            name,
            tuple(shape if here else None for shape, here in zip(shapes, present, strict=True)),
            tuple(
                list_dtype if a else _dtype(kind) if b else "" for kind, a, b in zip(kinds, lists, tensors, strict=True)
            ),
            _frozen(concrete),
            _frozen(strides),
        )

    @property
    def pattern(self) -> str:
        return "".join("." if s is None else "l" if _is_list(s) else "t" for s in self.shapes)

    @property
    def tensors(self) -> list[int]:
        """Positions of what the operator reads: tensors and lists of them, without out=."""
        aside = only_written(self.name, self.pattern)
        return [i for i, shape in enumerate(self.shapes) if shape is not None and i not in aside]

    def position(self, name: str) -> int:
        """Where the schema has the argument `name`."""
        return argument_names(self.name, self.pattern).index(name)

    def has(self, name: str) -> bool:
        """True where the operator has a tensor argument `name` and it was given."""
        names = argument_names(self.name, self.pattern)
        return name in names and self.shapes[names.index(name)] is not None

    def shape(self, *names: str) -> Shape:
        """The shape of the first of these tensor arguments that was given (torch names one thing variously)."""
        return self.shapes[self.position(next(name for name in names if self.has(name)))]

    def value(self, name: str, default: Any = None) -> Any:
        """The scalar argument `name`; the default where this version of the operator has none."""
        if name not in argument_names(self.name, self.pattern):
            return default
        given = self.concrete[self.position(name)]
        return default if given is None else given

    def nbytes(self, *arguments: int | str) -> int:
        """Bytes of these arguments (positions or names), 0 for one not given.

        The distinct elements count: a dimension that is only expanded has one.
        """
        given = [a for a in arguments if isinstance(a, int) or self.has(a)]
        positions = [self.position(a) if isinstance(a, str) else a for a in given]
        return sum(
            _elements(self.shapes[i], self.strides[i] if self.strides else None) * itemsize(self.dtypes[i])
            for i in positions
        )

    def numel(self, argument: int | str) -> int:
        """Elements of one argument, as its shape has them."""
        i = self.position(argument) if isinstance(argument, str) else argument
        return _elements(self.shapes[i], None)

    def itemsize(self, argument: int | str = 0) -> int:
        i = self.position(argument) if isinstance(argument, str) else argument
        return itemsize(self.dtypes[i])

    def read(self) -> int:
        """Bytes of every operand, each once."""
        return self.nbytes(*self.tensors)

    def changed(self) -> int:
        """Bytes of what the schema says is written to: self in place, or out=; 0 for an ordinary operator."""
        return self.nbytes(*(i for i in written(self.name, self.pattern) if self.shapes[i] is not None))


Formula = Callable[[Call], Cost]
FORMULAS: dict[str, Formula] = {}


def costs(*operators: str) -> Callable[[Formula], Formula]:
    """Register a function as the cost of these operators, each named as the profiler does ("aten::mm")."""

    def register(formula: Formula) -> Formula:
        for operator in operators:
            if operator in FORMULAS:
                raise ValueError(f"{operator} has a cost already: {FORMULAS[operator].__qualname__}")
            FORMULAS[operator] = formula
        return formula

    return register


def own_costs(whole: Sequence[Cost], parents: Sequence[int]) -> list[Cost]:
    """What each operator costs beyond the operators it called; one that left all to them only dispatches.

    `parents[i]` is the index of the event around event i, which precedes it; -1 at the top. A convolution's backward
    is one kernel here and three operators there; a fill is a memset or a call of another fill: counted once each way.
    """
    below: list[tuple[int, int]] = [(0, 0)] * len(whole)
    own: list[Cost] = list(whole)
    for i in reversed(range(len(whole))):
        cost, (flops, moved) = whole[i], below[i]
        if isinstance(cost, OpCost):
            rest = OpCost(max(0, cost.flops - flops), max(0, cost.bytes - moved))
            own[i] = DISPATCH if (flops or moved) and rest == OpCost(0, 0) else rest
            flops, moved = max(flops, cost.flops), max(moved, cost.bytes)
        if parents[i] >= 0:
            before = below[parents[i]]
            below[parents[i]] = (before[0] + flops, before[1] + moved)
    return own


@functools.cache
def _dtype(kind: str) -> str:
    return _NAMES.get(kind) or kind.removeprefix("c10::").lower()


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list | tuple) else value


def _is_list(shape: Any) -> bool:
    return bool(shape) and isinstance(shape[0], tuple)


def _elements(shape: Any, strides: Any) -> int:
    """Distinct elements of a tensor or of a list of them; 0 for what is no tensor."""
    if shape is None:
        return 0
    if _is_list(shape):
        return sum(_elements(s, strides[i] if strides else None) for i, s in enumerate(shape))
    if strides and len(strides) == len(shape) and 0 not in shape:
        return prod(n for n, step in zip(shape, strides, strict=True) if step)
    return prod(shape)
