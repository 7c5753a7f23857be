"""torchvision's and timm's models without weights, on meta, to be counted.

torchvision's wheels want the very build of torch they were made for. Beside another one (torch without CUDA, say) two
operators are missing, which no classifier calls, and it cannot be imported: they are declared here. Because such an
installation breaks transformers' Trainer, it is kept from the other packages: `make test` puts it into .venv/vision.
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

BESIDE = Path(__file__).parents[2] / ".venv" / "vision"
_declared: list[Any] = []  # a torch Library forgets its operators when it is collected


@functools.cache
def installed(name: str) -> ModuleType:
    """torchvision or timm; a skip where it is not here."""
    pytest.importorskip("torch")
    sys.path.append(str(BESIDE))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name != "torchvision":
                installed("torchvision")
            return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not here; type `make test`")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        _declare_operators()
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BESIDE))


def _declare_operators() -> None:
    import torch

    for loaded in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
        del sys.modules[loaded]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)


def model(name: str, image: int | None = None) -> tuple[Any, tuple[int, ...]]:
    """ "torchvision/resnet50" or "timm/resnet50" in evaluation, and the shape of one image for it."""
    import torch

    source, _, architecture = name.partition("/")
    make = _torchvision if source == "torchvision" else _timm
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                made = make(architecture)
        except NotImplementedError:  # RegNet computes its widths with tensors
            made = make(architecture).to("meta")
    side = image or getattr(made, "default_cfg", {}).get("input_size", (3, 224, 224))[-1]
    return made.eval(), (1, 3, side, side)


def _torchvision(name: str) -> Any:
    """As it is with its published weights (GoogLeNet then has no auxiliary heads), without loading them."""
    import torch

    models = installed("torchvision").models
    weights = next(iter(models.get_model_weights(name)))
    with (
        mock.patch.object(type(weights), "get_state_dict", lambda *_, **__: {}),
        mock.patch.object(torch.nn.Module, "load_state_dict", lambda *_, **__: None),
    ):
        return models.get_model(name, weights=weights)


def _timm(name: str) -> Any:
    return installed("timm").create_model(name, pretrained=False)


def norms_and_pools(module: Any, shape: tuple[int, ...]) -> int:
    """What timm's published GMACs hold beside products, as fvcore counts them: 2 an element of a batch norm, 5 of a layer
    norm, 1 that is pooled to a mean."""
    import torch

    each = {torch.nn.BatchNorm2d: 2, torch.nn.LayerNorm: 5, torch.nn.GroupNorm: 5, torch.nn.AdaptiveAvgPool2d: 1}
    found = []

    def hook(module: Any, inputs: Any, output: Any) -> None:
        found.append(inputs[0].numel() * next(cost for kind, cost in each.items() if isinstance(module, kind)))

    hooks = [part.register_forward_hook(hook) for part in module.modules() if isinstance(part, tuple(each))]
    with torch.no_grad():
        module(torch.empty(shape, device="meta"))
    for handle in hooks:
        handle.remove()
    return sum(found)
