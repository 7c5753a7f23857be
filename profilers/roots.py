"""The model a loop trains, found without being told: the outermost living module that owns the optimizer's parameters.

Hooks go on that module alone. Global module hooks would cost 1.7 us a module call, be traced into `torch.compile`
and make it warn; a hook inside a compiled region would change what is compiled.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable

from torch import nn


def tops(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """Those of `modules` that are no submodule of another of them."""
    modules = list(modules)
    inner = {id(child) for m in modules for child in m._modules.values() if child is not None}
    return [m for m in modules if id(m) not in inner]


def living_roots(parameters: Iterable[nn.Parameter] | None = None) -> list[nn.Module]:
    """Outermost living modules with parameters; of those, the ones owning any of `parameters` where these are given.

    Walks the garbage collector's objects once (about 0.1 s per million): call it in warm-up only.
    """
    roots = tops(o for o in gc.get_objects() if issubclass(type(o), nn.Module))
    wanted = None if parameters is None else {id(p) for p in parameters}
    return [m for m in roots if any(wanted is None or id(p) in wanted for p in m.parameters())]


def hookable(module: nn.Module) -> bool:
    """Not compiled in place: `model.compile()` traces the module's hooks into the graph."""
    return getattr(module, "_compiled_call_impl", None) is None


def below(modules: Iterable[nn.Module]) -> list[nn.Module]:
    """The children to try where `modules` are never called themselves (a LightningModule, a compiled wrapper set aside)."""
    return [child for m in modules if hookable(m) for child in m._modules.values() if child is not None]
