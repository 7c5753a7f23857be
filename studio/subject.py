"""What a calculator is asked about: an object of the notebook, or a model known by its sizes.

`%mlsys memory net` and `mlsys memory llama-3-8b` are the same verb. In a notebook a word whose first name the user has
defined is their object; every other word is a preset or a config.json; and words like `hidden=4096` are sizes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..profilers.errors import UsageError
from .registry import Call
from .running import evaluate

if TYPE_CHECKING:
    from torch import nn

    from ..profilers.calculators.architecture import Transformer


_SIZE = re.compile(r"(?P<name>[a-z_]+)=(?P<value>.*)")
SAYS = "a preset, a config.json, a model of the notebook, or sizes: hidden=4096 layers=32 heads=32 vocab=50257"


def subject(words: Sequence[str], call: Call) -> nn.Module | Transformer:
    """The module or the sizes that the words name."""
    from ..profilers.calculators.models import model

    pairs = [_SIZE.fullmatch(word) for word in words]
    if all(pairs):
        names = [pair["name"] for pair in pairs if pair]
        if twice := {name for name in names if names.count(name) > 1}:
            raise UsageError(f"{' and '.join(sorted(twice))} is given more than once; give each size once")
        return model(**{pair["name"]: _value(pair["value"]) for pair in pairs if pair})
    if len(words) > 1:
        raise UsageError(f"give one model, or sizes alone, and not {' '.join(words)!r}; sizes look like hidden=4096")
    (word,) = words
    found = _object(word, call)
    if found is None:
        return model(word)
    if _is_module(found):
        return found
    if isinstance(found, str | dict) or hasattr(found, "to_dict"):  # a name, a config: as if it had been typed
        return model(found)
    raise UsageError(f"{word} is a {type(found).__name__}; name an nn.Module, a config, a preset or a config.json")


def sizes(words: Sequence[str], call: Call) -> Transformer:
    """Like `subject`, for what only sizes can answer. A Hugging Face model brings its config along."""
    found = subject(words, call)
    if not _is_module(found):
        return found  # type: ignore[return-value]
    from ..profilers.calculators.models import model

    if (config := getattr(found, "config", None)) is not None and hasattr(config, "to_dict"):
        return model(config)
    raise UsageError(f"{words[0]} is a module without a config; type a preset's name or a config.json")


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What `--inputs` named, as a call takes it: one tensor or shape, a tuple of them, or keywords.

    A tokenizer's BatchEncoding has keys and is no dict.
    """
    if hasattr(inputs, "keys"):
        return (), dict(inputs)
    shape = isinstance(inputs, tuple) and all(isinstance(each, int | float) for each in inputs)
    if isinstance(inputs, tuple) and not shape:
        return inputs, {}
    return (() if inputs is None else (inputs,)), {}


def _object(word: str, call: Call) -> Any:
    """None where the word names nothing of the notebook's."""
    first = re.match(r"[A-Za-z_]\w*", word)
    if call.namespace is None or first is None or first.group() not in call.namespace:
        return None
    if not re.fullmatch(r"[A-Za-z_]\w*([.\[(].*)?", word):  # `llama-3-8b` where the user has a variable `llama`
        return None
    return evaluate(word, call.namespace, "model")


def _value(text: str) -> Any:
    """A number, true, false or a word."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_module(found: Any) -> bool:
    """Without importing torch for it: where no torch is loaded, nothing is a module."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and isinstance(found, torch.nn.Module)
