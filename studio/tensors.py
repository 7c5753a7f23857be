"""The tensors (and modules) that a failing line names, as they were when it failed. Without importing torch."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from ..profilers.views.columns import plain

_DEPTH = 3  # names in `self.encoder.weight`


@dataclass(frozen=True, slots=True)
class Told:
    name: str
    shape: tuple[int, ...]
    dtype: str
    device: str
    finite: str  # "" | "holds NaN" | "holds infinities"


def tensors_of(frame: FrameType, line: int) -> Iterator[Told]:
    """In the order in which the line names them; a module stands for its first parameter."""
    for name, value in values_of(frame, line):
        yield Told(name, tuple(value.shape), str(value.dtype).removeprefix("torch."), str(value.device), _finite(value))


def values_of(frame: FrameType, line: int) -> Iterator[tuple[str, Any]]:
    """(name, tensor) of those that the line names, each once."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    seen: set[str] = set()
    for name, value in _named(frame, line):
        if isinstance(value, torch.nn.Module):
            name, value = f"{name} (its first parameter)", next(value.parameters(), None)
        if value is not None and isinstance(value, torch.Tensor) and name not in seen:
            seen.add(name)
            yield name, value


def described(told: Told) -> str:
    size = ", ".join(map(str, told.shape))
    return f"{plain(told.name)}: [{size}] {told.dtype} on {told.device}" + (f", {told.finite}" if told.finite else "")


def statement(frame: FrameType, line: int) -> ast.stmt | None:
    """The innermost statement at that line of the frame's source."""
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return None
    around = [n for n in ast.walk(tree) if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)]
    return max(around, key=lambda node: (node.lineno, -(node.end_lineno or 0)), default=None)


def _named(frame: FrameType, line: int) -> Iterator[tuple[str, Any]]:
    found = statement(frame, line)
    if found is None:
        return
    for node in ast.walk(found):
        if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            name = ast.unparse(node)
            if name.count(".") < _DEPTH:
                try:
                    yield name, _looked_up(node, frame)
                except (KeyError, AttributeError):
                    continue


def _looked_up(node: ast.expr, frame: FrameType) -> Any:
    """Of names and plain attributes only; no property of the user's is run but `__getattr__` of modules."""
    if isinstance(node, ast.Name):
        return frame.f_locals[node.id] if node.id in frame.f_locals else frame.f_globals[node.id]
    if isinstance(node, ast.Attribute):
        owner = _looked_up(node.value, frame)
        stored = vars(owner) if hasattr(owner, "__dict__") else {}
        for table in (
            stored,
            stored.get("_parameters") or {},
            stored.get("_buffers") or {},
            stored.get("_modules") or {},
        ):
            if node.attr in table:
                return table[node.attr]
    raise KeyError(ast.unparse(node))


def _finite(value: Any) -> str:
    """Of CPU tensors of moderate size; on a GPU the context may be broken by the very error."""
    torch = sys.modules["torch"]
    if (
        value.device.type != "cpu"
        or not value.dtype.is_floating_point
        or value.numel() > 1 << 22
        or type(value) not in (torch.Tensor, torch.nn.Parameter)
    ):
        return ""
    with torch.no_grad():
        if torch.isnan(value).any():
            return "holds NaN"
        return "holds infinities" if torch.isinf(value).any() else ""
