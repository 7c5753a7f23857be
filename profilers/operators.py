"""What torch's own schema says of an operator: its arguments' names, what it writes, and whether it does any work itself.

Read from the dispatcher rather than from a list, so that next year's operators are told apart as well. A profiler
event does not name the overload; the overload is the one whose arguments have the event's pattern: "t" for a tensor,
"l" for a list of tensors, "." for anything else (an absent optional tensor too).
"""

from __future__ import annotations

import functools
from typing import Any

Pattern = str

# Allocation and metadata: kernels of their own, but no element is read or written.
_NO_DATA = (
    "empty",
    "new_empty",
    "resize",
    "set_",
    "detach",
    "lift",
    "_resize",
    "_nnpack_available",
    "is_",
    "cudnn_is",
    "_assert",
)

# Compiled code runs inside these host events; what it costs is not written on them.
_COMPILED = ("## Call CompiledFxGraph", "triton_", "cpp_fused", "graph_")


@functools.cache
def overload(name: str, pattern: Pattern) -> Any:
    """The OpOverload an event `name` with such arguments ran; None where `name` is no operator of torch."""
    import torch

    if "::" not in name or " " in name or torch._C._jit_get_operation(name)[0] is None:
        return None
    space, _, short = name.partition("::")
    packet = getattr(getattr(torch.ops, space), short)
    candidates = [getattr(packet, each) for each in packet.overloads()]
    fitting = [each for each in candidates if _fits(each._schema.arguments, pattern)]
    same_length = [each for each in candidates if len(each._schema.arguments) == len(pattern)]
    return (fitting or same_length or candidates)[0]


@functools.cache
def argument_names(name: str, pattern: Pattern) -> tuple[str, ...]:
    """In the order of the event's inputs, keyword-only ones included."""
    found = overload(name, pattern)
    return tuple(argument.name for argument in found._schema.arguments) if found else ()


@functools.cache
def written(name: str, pattern: Pattern) -> tuple[int, ...]:
    """Positions of the arguments the operator writes to: self of an in-place one, out= of an out variant."""
    return _positions(name, pattern, keyword_only=False)


@functools.cache
def only_written(name: str, pattern: Pattern) -> tuple[int, ...]:
    """Positions of out= arguments: their old content is not read."""
    return _positions(name, pattern, keyword_only=True)


@functools.cache
def dispatches(name: str, pattern: Pattern) -> bool:
    """True where the event moves no data of its own: it calls other operators, makes a view, allocates, or is no operator.

    The operators a composite one calls have events of their own, and so do those of an autograd node.
    """
    import torch

    found = overload(name, pattern)
    if found is None:
        return not name.startswith(_COMPILED)
    key = torch._C.DispatchKey
    composite = (key.CompositeExplicitAutograd, key.CompositeExplicitAutogradNonFunctional)
    if name.partition("::")[2].startswith(_NO_DATA) or found.has_kernel_for_dispatch_key(key.CompositeImplicitAutograd):
        return True
    kernel = any(found.has_kernel_for_dispatch_key(k) for k in (key.CPU, key.CUDA))
    if not kernel and any(found.has_kernel_for_dispatch_key(k) for k in composite):
        return True
    if torch.Tag.inplace_view in found.tags:
        return True
    results = [result.alias_info for result in found._schema.returns]
    return bool(results) and all(alias is not None and not alias.is_write for alias in results)


@functools.cache
def pointwise(name: str, pattern: Pattern) -> bool:
    """True where each element of the result depends on one element of each operand (torch's own tag).

    An out variant has no such tag of its own; it does what its functional sisters do.
    """
    import torch

    found = overload(name, pattern)
    if found is None:
        return False
    packet = found.overloadpacket
    alike = [getattr(packet, each) for each in packet.overloads()] if torch.Tag.out in found.tags else [found]
    return any(torch.Tag.pointwise in each.tags for each in alike)


def _positions(name: str, pattern: Pattern, keyword_only: bool) -> tuple[int, ...]:
    found = overload(name, pattern)
    if found is None:
        return ()
    marked = (
        (i, a) for i, a in enumerate(found._schema.arguments) if a.alias_info is not None and a.alias_info.is_write
    )
    return tuple(i for i, a in marked if a.kwarg_only or not keyword_only)


def _fits(arguments: Any, pattern: Pattern) -> bool:
    return len(arguments) == len(pattern) and all(
        _kind(str(argument.type)) == mark or (mark == "." and str(argument.type).startswith("Optional[Tensor"))
        for argument, mark in zip(arguments, pattern, strict=True)
    )


def _kind(torch_type: str) -> str:
    if torch_type.startswith("List[Tensor"):
        return "l"
    return "t" if torch_type in ("Tensor", "Optional[Tensor]") else "."
