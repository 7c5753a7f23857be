"""Published models by name, from a data file of sizes with their sources; an unknown name is an error, never a near one."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .architecture import Transformer
from .sizes import build


def preset(name: str) -> Transformer:
    """A published model by its name, in any case and with or without its maker: "Llama-3-8B", "meta-llama/llama-3-8b"."""
    known = _index()
    row = known.get(_key(name)) or known.get(_key(str(name).replace("/", "-")))  # "ViT-B/16" has no maker
    if row is None and _key(name).startswith("resnet"):
        raise UsageError(f"{name} is no transformer; its FLOP are at hand: `mlsys flops {_key(name)}`")
    if row is None:
        near = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.5)
        names = dict.fromkeys(known[each]["name"] for each in near) or presets()
        hint = f"{'near it' if near else 'there are'}: {', '.join(names)}"
        raise UsageError(f"no preset is called {name!r} ({hint}); or give a config.json, or sizes by keyword")
    return _model(row["name"])


def presets() -> tuple[str, ...]:
    """Every preset's name."""
    return tuple(row["name"] for row in _rows())


def note(name: str) -> str:
    """What is to be known of a preset, in a sentence; empty for most."""
    row = _index().get(_key(name), {})
    return row.get("note", "")


@functools.cache
def _model(name: str) -> Transformer:
    row = _index()[_key(name)]
    family = _data()["families"][row["family"]]
    return build(name, **{**family, **row["sizes"]}, source=row["source"], confidence=row["confidence"])


@functools.cache
def _index() -> dict[str, Mapping[str, Any]]:
    return {_key(name): row for row in _rows() for name in (row["name"], *row["match"])}


def _rows() -> list[Mapping[str, Any]]:
    return _data()["models"]


@functools.cache
def _data() -> Mapping[str, Any]:
    path = Path(__file__).parents[1] / "data" / "models.json"
    return json.loads(path.read_text())


def _key(name: str) -> str:
    """Lower case, without a maker before a slash, and one kind of hyphen."""
    return re.sub(r"[\s_]+", "-", str(name).strip().rpartition("/")[2].lower())
