"""Models of transformers without their weights, and the FLOPs of products in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn


def hugging_face(name: str, **sizes: Any) -> nn.Module:
    """A model of transformers without weights: `name` as in GPT2LMHeadModel, built from its own configuration class."""
    kind = getattr(pytest.importorskip("transformers"), name)
    with torch.device("meta"):
        return kind(kind.config_class(**sizes))


def products(*terms: tuple[int, ...]) -> int:
    """2 FLOP for each multiply-add of each product of sizes."""
    total = 0
    for term in terms:
        size = 2
        for factor in term:
            size *= factor
        total += size
    return total
