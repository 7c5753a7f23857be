"""The functions whose whole time is one phase: what saves a model, and what writes a line."""

from __future__ import annotations

import builtins
import logging
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def places() -> Iterator[tuple[Any, str, str]]:
    """(object, attribute, phase): functions whose whole time is one phase. Libraries only where already imported."""
    yield torch, "save", "checkpoint"
    yield nn.Module, "state_dict", "checkpoint"
    yield Optimizer, "state_dict", "checkpoint"
    yield builtins, "print", "logging"
    yield logging.Logger, "callHandlers", "logging"
    for module, owner, name, phase in (
        ("tqdm.std", "tqdm", "display", "logging"),
        ("torch.utils.tensorboard.writer", "FileWriter", "add_event", "logging"),
        ("safetensors.torch", "", "save_file", "checkpoint"),
        ("torch.distributed.checkpoint", "", "save", "checkpoint"),
    ):
        place = sys.modules.get(module)
        place = getattr(place, owner, None) if place is not None and owner else place
        if place is not None and name in vars(place):
            yield place, name, phase
