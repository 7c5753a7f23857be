"""The model a loop trains, found without being told: the outermost living module that owns the optimizer's parameters.

Hooks go on that module alone. Global module hooks would cost 1.7 us a module call, be traced into `torch.compile`
and make it warn; a hook inside a compiled region would change what is compiled.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable

import torch
from torch import nn


def tops(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of `modules` that are no submodule of another of them."""
    modules = list(modules)
    inner = {id(child) for m in modules for child in m._modules.values() if child is not None}
    return [m for m in modules if id(m) not in inner]


def owning(modules: Iterable[nn.Module], parameters: Iterable[nn.Parameter]) -> list[nn.Module]:
    """Those of `modules` that hold any of `parameters`."""
    wanted = {id(p) for p in parameters}
    return [m for m in modules if any(id(p) in wanted for p in parameters_of(m))]


def parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """By torch's own walk: a stranger's module may have made `parameters` something else, or broken itself."""
    try:
        return list(nn.Module.parameters(module))
    except Exception:  # noqa: BLE001
        return []


def living_roots() -> list[nn.Module]:
    """Outermost living modules with parameters.

    Walks the garbage collector's objects once (about 0.1 s per million): call it in warm-up only.
    """
    modules = (o for o in gc.get_objects() if issubclass(type(o), nn.Module) and "_modules" in vars(o))  # whole ones
    return [m for m in tops(modules) if parameters_of(m)]


def refuses(module: nn.Module) -> str:
    """Why a module must not be hooked; "" where it may be."""
    if isinstance(module, torch.jit.ScriptModule):
        return "a scripted model takes no hook"
    if getattr(module, "_compiled_call_impl", None) is not None:
        return "the model is compiled in place, and a hook would be compiled with it"
    if isinstance(module, nn.TransformerEncoderLayer):
        return "torch takes the fast path of an nn.TransformerEncoderLayer only where it has no hook"
    return ""


def below(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The children to try where `modules` are never called themselves (a LightningModule, a compiled wrapper set aside)."""
    return [child for m in modules if not refuses(m) for child in m._modules.values() if child is not None]
