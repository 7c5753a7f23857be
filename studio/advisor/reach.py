"""What a cell can touch: the names it uses, and those used by the notebook's own functions and classes it calls.

Read off the code, not by running it. It is generous: a name that is only spelt like a global counts as one.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any


@dataclass(frozen=True, slots=True)
class Reach:
    """`trees` are the cell and the notebook's functions it reaches, where their source is known; the cell is first."""

    trees: tuple[ast.AST, ...]
    names: frozenset[str]  # of the namespace
    made: frozenset[str]  # names the cell itself assigns, outside its functions

    @classmethod
    def of(cls, source: str, namespace: Mapping[str, Any]) -> Reach:
        """Raises SyntaxError for a cell that is not plain Python."""
        cell = ast.parse(source)
        trees: list[ast.AST] = [cell]
        names: set[str] = set()
        waiting = {n.id for n in ast.walk(cell) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        while waiting:
            name = waiting.pop()
            if name in names or name not in namespace:
                continue
            names.add(name)
            for function in _functions(namespace[name], namespace):
                trees += _source(function)
                waiting |= set(_names(function.__code__)) - names
        made = {n.id for n in outside_functions(cell) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        return cls(tuple(trees), frozenset(names), frozenset(made))


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, but for the bodies of functions, classes and comprehensions: their names are their own."""
    for child in ast.iter_child_nodes(tree):
        yield child
        own = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        if not isinstance(child, (*own, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
            yield from outside_functions(child)


def is_notebooks(kind: object, namespace: Mapping[str, Any]) -> bool:
    """Was this class or function written in the notebook."""
    return getattr(kind, "__module__", None) == namespace.get("__name__", "__main__")


def _functions(value: Any, namespace: Mapping[str, Any]) -> Iterable[FunctionType]:
    """The notebook's code behind a name: a function, or the methods of a class or of an object's class."""
    value = inspect.unwrap(value) if callable(value) else value
    if isinstance(value, FunctionType):
        return [value] if value.__globals__ is namespace else []
    kind = value if isinstance(value, type) else type(value)
    if not is_notebooks(kind, namespace):
        return []
    return [f for f in map(inspect.unwrap, filter(callable, vars(kind).values())) if isinstance(f, FunctionType)]


def _source(function: FunctionType) -> list[ast.AST]:
    try:
        return [ast.parse(textwrap.dedent(inspect.getsource(function)))]
    except (OSError, TypeError, SyntaxError):  # typed at a prompt that keeps no source
        return []


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
