"""What a verb is: one typed function, and what its signature says about the words that may follow its name.

`studio/verbs/__init__.py` shows how to write one. Nothing here knows argparse, IPython or torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, overload

from . import verbs

Cell = Literal["none", "optional", "required"]
Face = Literal["magic", "command"]
Function = TypeVar("Function", bound=Callable[..., object])


class Code(Protocol):
    """The user's cell."""

    @property
    def source(self) -> str:
        """As typed, without the `%%mlsys` line."""
        ...

    def run(self, *, display: bool = True) -> None:
        """Execute it in the user's namespace, as IPython would; may be called again. Raises what the user's code raises.

        display=False leaves the last expression unshown.
        """
        ...


@dataclass(frozen=True, slots=True)
class Call:
    """How the verb was called. A parameter annotated `Call` receives this and is not on the parser."""

    face: Face
    namespace: dict[str, Any] | None  # the user's names; None in the command
    cell: Code | None
    show: Callable[[object], None]  # for what must reach the user although the verb is about to raise


@dataclass(frozen=True, slots=True)
class Expression:
    """Marks a parameter that takes the user's own object, named by an expression: `--model model`."""

    says: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One word, option or flag, as the signature declares it."""

    name: str
    says: str
    type: Callable[[str], Any]  # from the word typed to the value
    choices: tuple[Any, ...]  # of a Literal; empty: anything goes
    option: bool  # keyword-only: `--name`; else positional
    many: bool  # a list: several words
    trailing: bool  # *name: everything after `--`
    expression: bool
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty and not self.trailing

    @property
    def flag(self) -> str:
        dashed = "--" + self.name.replace("_", "-")
        return dashed.replace("--", "--no-", 1) if self.type is bool and self.default is True else dashed


@dataclass(frozen=True, slots=True)
class Verb:
    name: str
    function: Callable[..., object]
    cell: Cell
    parameters: tuple[Parameter, ...]
    call: str | None  # name of the parameter that receives the Call

    @property
    def help(self) -> str:
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        return self.help.partition("\n")[0]


_VERBS: dict[str, Verb] = {}


@overload
def verb(function: Function, /) -> Function: ...
@overload
def verb(*, cell: Cell) -> Callable[[Function], Function]: ...
def verb(function: Any = None, /, *, cell: Cell = "none") -> Any:
    """Register a function as a verb, by its own name. The function itself is returned unchanged."""

    def register(function: Function) -> Function:
        name = function.__name__
        declared = inspect.signature(function).parameters.values()
        annotations = {p.name: _annotation(function, p) for p in declared}
        calls = [p.name for p in declared if annotations[p.name] is Call]
        typed = tuple(_parameter(name, p, annotations[p.name]) for p in declared if p.name not in calls)
        _VERBS[name] = Verb(name, function, cell, typed, calls[0] if calls else None)
        return function

    return register if function is None else register(function)


def find(name: str) -> Verb:
    """The verb of that name; it must be one of `verbs.NAMES`."""
    if name not in _VERBS:
        import_module(f".{name}", verbs.__name__)
    return _VERBS[name]


def every() -> tuple[Verb, ...]:
    return tuple(find(name) for name in verbs.NAMES)


def _annotation(function: Callable[..., object], declared: inspect.Parameter) -> Any:
    # One by one, and never the result's: that one may name a type imported only for type checkers.
    annotation = declared.annotation
    return eval(annotation, function.__globals__) if isinstance(annotation, str) else annotation


def _parameter(verb: str, declared: inspect.Parameter, annotation: Any) -> Parameter:
    if get_origin(annotation) is not Annotated:
        raise TypeError(f"{verb}: {declared.name} needs Annotated[type, 'help'], not {annotation!r}")
    kind, says = get_args(annotation)[:2]
    expression = isinstance(says, Expression)
    kind = str if expression else _without_none(kind)
    many = get_origin(kind) is list
    if many:
        (kind,) = get_args(kind)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        kind = type(choices[0])
    if not isinstance(kind, type):
        raise TypeError(
            f"{verb}: {declared.name} has type {kind!r}; studio/verbs/__init__.py lists those a word can have"
        )
    option = declared.kind is declared.KEYWORD_ONLY
    if kind is bool and not (option and isinstance(declared.default, bool)):
        raise TypeError(f"{verb}: {declared.name} is a bool and must be keyword-only, with a default")
    return Parameter(
        name=declared.name,
        says=says.says if isinstance(says, Expression) else says,
        type=kind,
        choices=choices,
        option=option,
        many=many,
        trailing=declared.kind is declared.VAR_POSITIONAL,
        expression=expression,
        default=declared.default,
    )


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    rest = [option for option in get_args(kind) if option is not NoneType]
    return rest[0] if len(rest) == 1 else kind
