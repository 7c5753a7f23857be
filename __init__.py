"""mlsys-studio: where a training step's time went, why, what to change, and proof that the change worked.

This is the package's face. It is lazy (PEP 562): importing it costs next to nothing and loads neither torch nor IPython;
each name below is imported from where it lives when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, which would be a third of this file's import time
if TYPE_CHECKING:
    from .magics import load_ipython_extension, unload_ipython_extension
    from .profilers.calculators.cluster import cluster
    from .profilers.calculators.inference import inference
    from .profilers.calculators.live import flops
    from .profilers.calculators.memory import memory
    from .profilers.calculators.mfu import mfu
    from .profilers.calculators.partition import partition
    from .profilers.calculators.plan import plan
    from .profilers.calculators.reliability import reliability
    from .profilers.calculators.scaling import amdahl, gustafson
    from .profilers.calculators.transformer import transformer
    from .profilers.diagnosis.diagnose import diagnose
    from .profilers.errors import UsageError
    from .profilers.ledger import Ledger
    from .profilers.loading.doctor import data_doctor
    from .profilers.loading.tuner import tune_loader
    from .profilers.profile import Profile
    from .profilers.storage.doctor import storage_doctor
    from .profilers.storage.packing import pack_shards
    from .studio.profiling import profile

    __version__: str

_HOMES = {
    "Ledger": "profilers.ledger",
    "Profile": "profilers.profile",
    "UsageError": "profilers.errors",
    "amdahl": "profilers.calculators.scaling",
    "cluster": "profilers.calculators.cluster",
    "data_doctor": "profilers.loading.doctor",
    "diagnose": "profilers.diagnosis.diagnose",
    "flops": "profilers.calculators.live",
    "gustafson": "profilers.calculators.scaling",
    "inference": "profilers.calculators.inference",
    "load_ipython_extension": "magics",
    "memory": "profilers.calculators.memory",
    "mfu": "profilers.calculators.mfu",
    "pack_shards": "profilers.storage.packing",
    "partition": "profilers.calculators.partition",
    "plan": "profilers.calculators.plan",
    "profile": "studio.profiling",
    "reliability": "profilers.calculators.reliability",
    "storage_doctor": "profilers.storage.doctor",
    "transformer": "profilers.calculators.transformer",
    "tune_loader": "profilers.loading.tuner",
    "unload_ipython_extension": "magics",
}

__all__ = [
    "Ledger",
    "Profile",
    "UsageError",
    "__version__",
    "amdahl",
    "cluster",
    "data_doctor",
    "diagnose",
    "flops",
    "gustafson",
    "inference",
    "load_ipython_extension",
    "memory",
    "mfu",
    "pack_shards",
    "partition",
    "plan",
    "profile",
    "reliability",
    "storage_doctor",
    "transformer",
    "tune_loader",
    "unload_ipython_extension",
]


if not TYPE_CHECKING:  # a checker that sees a module's __getattr__ believes in every misspelt name

    def __getattr__(name: str) -> object:
        if name == "__version__":
            value: object = _version()
        elif name in _HOMES:
            from importlib import import_module

            value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlsys-studio")
    except PackageNotFoundError:  # run from a folder on the path, as `make gpu` does
        return "0+uninstalled"
