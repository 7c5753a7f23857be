"""Frozen dataclasses to plain JSON values and back, by their type hints. What comes back is untrusted: it fits or it is refused.

Every field must be there and no other; whole numbers stay whole. JSON has no NaN and no infinity: they travel as texts.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LARGEST = 10**30  # beyond any count, byte or FLOP, and still a finite float
_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", types.NoneType: "null"}


def pack(value: Any) -> Any:
    """What `json.dumps` takes."""
    if is_dataclass(value):
        return {f.name: pack(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: pack(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [pack(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def unpack(kind: Any, data: Any, where: str) -> Any:
    """`data` as a `kind` (dataclass, tuple[T, ...], Mapping[str, T], T | None, or a plain type), or UsageError."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, data, where)
    if origin is types.UnionType:
        (some,) = (a for a in arguments if a is not types.NoneType)
        return None if data is None else unpack(some, data, where)
    if origin is tuple:
        return tuple(unpack(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(_a(list, data, where)))
    if origin is Mapping:
        return {
            key: unpack(arguments[1], item, f"{where}[{key[:40]!r}]") for key, item in _a(dict, data, where).items()
        }
    return _plain(kind, data, where)


def mapped(value: T, change: Callable[[str], str], spare: frozenset[str] = frozenset()) -> T:
    """The same value with `change` made to every text in it, but for the fields named in `spare`."""
    seen: Any = value
    if isinstance(seen, str):
        return typing.cast(T, change(seen))
    if isinstance(seen, tuple):
        return typing.cast(T, tuple(mapped(item, change, spare) for item in seen))
    if isinstance(seen, Mapping):
        return typing.cast(T, {change(key): mapped(item, change, spare) for key, item in seen.items()})
    if is_dataclass(seen) and not isinstance(seen, type):
        changed = {f.name: mapped(getattr(seen, f.name), change, spare) for f in fields(seen) if f.name not in spare}
        return typing.cast(T, replace(seen, **changed))
    return value


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _dataclass(kind: type, data: Any, where: str) -> Any:
    hints = _hints(kind)
    found = _a(dict, data, where)
    for name in hints:
        if name not in found:
            raise UsageError(f"not a profile: {where}.{name} is missing")
    for name in found:
        if name not in hints:
            raise UsageError(f"not a profile: {where} has no field {name[:40]!r}")
    return kind(**{name: unpack(hint, found[name], f"{where}.{name}") for name, hint in hints.items()})


def _plain(kind: type, data: Any, where: str) -> Any:
    if kind is float:
        if isinstance(data, str) and data in _NOT_FINITE:
            return _NOT_FINITE[data]
        if isinstance(data, int) and not isinstance(data, bool) and abs(data) < _LARGEST:
            return float(data)
        if isinstance(data, float) and not math.isfinite(data):  # 1e999 parses as infinity
            raise UsageError(f"not a profile: {where} is out of range")
    if kind is int and isinstance(data, int) and not isinstance(data, bool) and abs(data) >= _LARGEST:
        raise UsageError(f"not a profile: {where} is out of range")
    return _a(kind, data, where)


def _a(kind: type[T], data: Any, where: str) -> T:
    if type(data) is not kind:  # not isinstance: true is no number here
        names = _NAMES | {list: "a list", dict: "an object"}
        raise UsageError(f"not a profile: {where} is {names[type(data)]}, not {names[kind]}")
    return data
