"""A mended line, offered only where it was run: on tensors of the same shapes and dtypes that hold nothing (meta).

Three changes are tried, each the usual cure of a class of errors: moving a tensor to the other's device, casting it to
the other's dtype, turning a matrix. The line is run with each name replaced by its meta twin; nothing of the user's is
touched, and only expressions of names, attributes, calls of torch's own functions and modules are run at all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .tensors import statement

_SAFE = (
    ast.Expression, ast.Name, ast.Attribute, ast.Load, ast.BinOp, ast.MatMult, ast.Mult, ast.Add, ast.Sub, ast.Div,
    ast.Call, ast.Constant, ast.keyword, ast.Tuple, ast.List, ast.UnaryOp, ast.USub,
)  # fmt: skip


def mended_line(error: BaseException, frame: FrameType, line: int) -> str | None:
    """The line as it works, or None."""
    torch = sys.modules.get("torch")
    found = statement(frame, line)
    if torch is None or found is None:
        return None
    expression = found.value if isinstance(found, (ast.Assign, ast.Expr, ast.Return, ast.AugAssign)) else None
    if expression is None or not all(isinstance(node, _SAFE) for node in ast.walk(ast.Expression(expression))):
        return None
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    values = {name: frame.f_locals.get(name, frame.f_globals.get(name)) for name in names}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    if not _ours(expression, values, torch) or not tensors:
        return None
    if _runs(expression, values, {}, torch):
        return (
            None  # on meta the line itself works: the fault is not one of shape, and what would be shown proves nothing
        )
    for name, change, twin in _changes(error, tensors, values, torch):
        if _runs(expression, values, {name: twin}, torch):
            return _rewritten(found, name, change)
    return None


def _changes(
    error: BaseException, tensors: dict[str, Any], values: dict[str, Any], torch: Any
) -> Iterator[tuple[str, str, Any]]:
    """(name, what to write for it, its meta twin)."""
    others = [v for v in values.values() if isinstance(v, (torch.Tensor, torch.nn.Module))]
    dtypes = {
        p.dtype
        for v in others
        for p in ([v] if isinstance(v, torch.Tensor) else v.parameters())
        if p.dtype.is_floating_point
    }
    for name, tensor in tensors.items():
        twin = torch.empty_like(tensor, device="meta")
        for dtype in sorted(dtypes - {tensor.dtype}, key=str):
            yield name, f"{name}.to({dtype})", twin.to(dtype)
        if tensor.dim() == 2:
            yield name, f"{name}.T", twin.T
        if tensor.dim() >= 2:
            yield name, f"{name}.flatten(1)", twin.flatten(1)


def _runs(expression: ast.expr, values: dict[str, Any], changed: dict[str, Any], torch: Any) -> bool:
    twins = {name: changed.get(name, _twin(value, torch)) for name, value in values.items()}
    try:
        with torch.no_grad():
            eval(compile(ast.Expression(expression), "<mended>", "eval"), {"__builtins__": {}}, twins)
    except Exception:  # noqa: BLE001 - any failure means: not verified
        return False
    return True


def _twin(value: Any, torch: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.empty_like(value, device="meta")
    if isinstance(value, torch.nn.Module):
        from copy import deepcopy

        with torch.device("meta"):
            memo = {
                id(p): torch.nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
                for p in value.parameters()
            }
            memo |= {id(b): torch.empty_like(b, device="meta") for b in value.buffers()}
            return deepcopy(value, memo)
    return value


def _ours(expression: ast.expr, values: dict[str, Any], torch: Any) -> bool:
    """Only torch's own functions, modules and tensor methods are called: the user's own code may do anything."""
    for node in ast.walk(expression):
        if not isinstance(node, ast.Call):
            continue
        root = node.func
        while isinstance(root, ast.Attribute):
            root = root.value
        value = values.get(root.id) if isinstance(root, ast.Name) else None
        home = getattr(value, "__name__", "") if value is not None else ""
        known = isinstance(value, torch.Tensor) or home.split(".")[0] == "torch"
        module = isinstance(value, torch.nn.Module) and type(value).__module__.startswith("torch.nn.")
        if not known and not module:
            return False
    return True


def _rewritten(found: ast.stmt, name: str, change: str) -> str:
    class Put(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.expr:
            return ast.parse(change, mode="eval").body if node.id == name and isinstance(node.ctx, ast.Load) else node

    return ast.unparse(Put().visit(ast.parse(ast.unparse(found))))
