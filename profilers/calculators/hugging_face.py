"""A Hugging Face `config.json`, as a file, a dict or a config object, to a `Transformer`; neither torch nor transformers.

A family (`model_type`) that has no reader in `hugging_face_families` is an error, because the nearest one would give
numbers that look right.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .architecture import Transformer
from .hugging_face_config import Config
from .hugging_face_families import READERS, Sizes
from .sizes import build

_ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert")
_LONGEST = 10**7  # bytes of a config.json


def from_config(config: Any, architecture: str | None = None) -> Transformer:
    """The model of a config: a path, its text as a dict, or an object with `to_dict`.

    `architecture` is the class that holds the model, such as "BertForMaskedLM"; by default what the config names first,
    or else the family's usual one. It decides which head there is.
    """
    values, source = _values(config)
    family = values.get("model_type")
    if not isinstance(family, str) or family not in READERS:
        raise UsageError(
            f"no closed form for model_type {repr(family)[:40]}; known are {', '.join(READERS)}; or give sizes by keyword"
        )
    read = Config(family, values)
    named = architecture or read.architecture()
    sizes = {**READERS[family](read), **_head(family, read, named)}
    name = values.get("_name_or_path") or named or family
    return build(str(name), **sizes, context=read.context(), source=source, confidence="high")


def _values(config: Any) -> tuple[Mapping[str, Any], str]:
    if isinstance(config, str | Path):
        path = Path(config)
        try:
            path = path / "config.json" if path.is_dir() else path
            if path.stat().st_size > _LONGEST or not path.is_file():
                raise UsageError(f"{str(path)!r} is no config.json: it is no file, or too long for one")
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise UsageError(f"cannot read {str(path)!r}: {why}; give a preset, or the path of a config.json") from None
        except (ValueError, RecursionError):  # no UTF-8, no JSON, or nested without end
            raise UsageError(f"{str(path)!r} does not hold JSON; give a model's config.json") from None
        source = path.name
    elif hasattr(config, "to_dict"):
        values, source = config.to_dict(), type(config).__name__
    else:
        values, source = config, "a dict"
    if not isinstance(values, Mapping):
        raise UsageError("a model's config is a JSON object of names and values, and this is not one")
    return values, source


def _head(family: str, read: Config, named: str | None) -> Sizes:
    """What sits on top of the layers, by the class that holds them."""
    encoder, image = family in _ENCODERS, family == "vit"
    if named is None:
        named = "ForImageClassification" if image else "Model" if encoder else "ForCausalLM"
    if image:
        if named.endswith("ForImageClassification"):
            labels = read.values.get("id2label")
            return {
                "head": False,
                "classes": len(labels) if isinstance(labels, Mapping) else read.whole("num_labels", default=2),
            }
        if named.endswith("Model"):
            return {"head": False, "pooler": True}
    elif encoder:
        if named.endswith("Model") and not named.endswith("LMHeadModel"):
            return {"head": False, "pooler": True}
        if named.endswith(("ForMaskedLM", "ForCausalLM", "LMHeadModel")):
            return {"head_transform": True, "head_bias": True}
    elif named.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")):
        return {}
    elif named.endswith("Model") and not named.endswith("EncoderModel"):
        return {"head": False, "head_bias": False}
    raise UsageError(f"no closed form for the head of {named!r}; known are the bare model and its language model")
