"""Every way to name a model: a preset, a Hugging Face config, sizes by keyword."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError
from .architecture import Transformer
from .hugging_face import from_config
from .presets import preset
from .sizes import build


def model(config: Any = None, **sizes: Any) -> Transformer:
    """A `Transformer` from a preset's name, a config.json (path, folder, dict or config object), or keywords of `build`.

    A text is a path when it ends in .json or is a folder here, else a preset's name.
    """
    if config is None:
        return _built(sizes)
    if sizes:
        raise UsageError(f"a config has its sizes; leave out {', '.join(sizes)}, or give every size by keyword alone")
    if isinstance(config, Transformer):
        return config
    if isinstance(config, str) and not (config.endswith(".json") or (config and _is_folder(config))):
        return preset(config)
    return from_config(config)


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except OSError:  # longer than a path may be
        return False


def _built(sizes: dict[str, Any]) -> Transformer:
    missing = [name for name in ("hidden", "layers", "heads", "vocab") if name not in sizes]
    if missing:
        raise UsageError(f"give a preset, a config.json, or sizes; of the sizes, {', '.join(missing)} is missing")
    return build(**sizes)
