"""From a request to its result: the user's objects looked up, the function called, the result turned into JSON if asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from ..profilers.errors import UsageError
from .parsing import Request, meant
from .registry import Call, Parameter


def run(request: Request, call: Call) -> object:
    """Call the verb; what it returns is for the face to show."""
    verb = request.verb
    values = {p.name: _value(p, request, call) for p in verb.parameters}
    words = [values[p.name] for p in verb.parameters if not p.option and not p.trailing]
    trailing = [word for p in verb.parameters if p.trailing for word in values[p.name]]
    options = {p.name: values[p.name] for p in verb.parameters if p.option}
    if verb.call:
        options[verb.call] = call
    return verb.function(*words, *trailing, **options)


def to_json(result: object) -> str:
    """The result's own `to_json()`, else its fields."""
    own = getattr(result, "to_json", None)
    return own() if own else json.dumps(result, default=_plain, indent=1)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return dict(value) if isinstance(value, Mapping) else str(value)


def _value(parameter: Parameter, request: Request, call: Call) -> Any:
    value = request.values[parameter.name]
    if not parameter.expression or not isinstance(value, str):
        return value
    where = parameter.flag if parameter.option else parameter.name
    if call.namespace is None:
        says = f"{where} takes a Python object, which a shell cannot name"
        raise UsageError(f"{says}; type `%mlsys {request.verb.name} … {where} {value}` in a notebook.")
    return evaluate(value, call.namespace, where)


def evaluate(expression: str, namespace: dict[str, Any], where: str) -> Any:
    """The user's object of that name: their expression, in their namespace, as if they had typed it in a cell."""
    try:
        return eval(compile(expression, f"<{where}>", "eval"), namespace)
    except NameError as error:
        names = [name for name in namespace if not name.startswith("_")]
        missing = error.name or expression
        raise UsageError(f"{where}: no {missing!r} in this notebook{meant(missing, names)}") from None
    except SyntaxError:
        raise UsageError(
            f"{where}: {expression!r} is not a Python expression; name one object, like `model`."
        ) from None
    except Exception as error:  # noqa: BLE001 - whatever their expression raises is theirs to read
        raise UsageError(f"{where}: {expression!r} raised {type(error).__name__}: {error}") from None
