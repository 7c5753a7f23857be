"""What may come next on a `%mlsys` line: read off the verbs, like the parser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import verbs
from .parsing import options
from .registry import Parameter, Verb, find


def complete(typed: str, namespace: Mapping[str, object]) -> tuple[str, list[str]]:
    """The unfinished last word of what was typed after `%mlsys `, and the words it may become."""
    *words, fragment = typed.split(" ")
    words = [word for word in words if word]
    return fragment, sorted(word for word in _next(words, fragment, namespace) if word.startswith(fragment))


def _next(words: list[str], fragment: str, namespace: Mapping[str, object]) -> Iterable[str]:
    if not words:
        return verbs.NAMES
    if words[0] not in verbs.NAMES or "--" in words:
        return ()
    verb = find(words[0])
    awaited = _option(verb, words[-1])
    if awaited and awaited.type is not bool:
        return _values(awaited, namespace)
    left = [option for option in options(verb) if option not in words]
    if fragment.startswith("-"):
        return left
    positional = [value for p in verb.parameters if not p.option for value in _values(p, namespace)]
    return [*positional, *left]


def _option(verb: Verb, word: str) -> Parameter | None:
    return next((p for p in verb.parameters if p.option and p.flag == word), None)


def _values(parameter: Parameter, namespace: Mapping[str, object]) -> Iterable[str]:
    if parameter.expression:
        return [name for name in namespace if not name.startswith("_")]
    return map(str, parameter.choices)
