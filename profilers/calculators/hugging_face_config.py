"""A config.json's values, each asked for by its kind: what comes from outside is a whole number, a flag, a list, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from .amounts import LARGEST


class Config:
    """A config's values by the kind they must be of."""

    __slots__ = ("family", "values")

    def __init__(self, family: str, values: Mapping[str, Any]) -> None:
        self.family, self.values = family, values

    def whole(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The first of these that is there and not null."""
        value = next((self.values[name] for name in names if self.values.get(name) is not None), default)
        if value is None:
            raise UsageError(f"the {self.family} config has no {names[0]!r}; give one that is complete")
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= LARGEST:
            shown = repr(value)[:40]
            raise UsageError(
                f"{names[0]!r} in the {self.family} config must be a whole number of at least {least}, not {shown}"
            )
        return value

    def optional(self, name: str) -> int | None:
        return None if self.values.get(name) in (None, 0) else self.whole(name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise UsageError(f"{name!r} in the {self.family} config must be true or false, not {repr(value)[:40]}")
        return default if value is None else value

    def items(self, name: str) -> list[Any] | None:
        value = self.values.get(name)
        if value is not None and not isinstance(value, list | tuple):
            raise UsageError(f"{name!r} in the {self.family} config must be a list, not {repr(value)[:40]}")
        return None if value is None else list(value)

    def refuse(self, name: str, wrong: bool, why: str) -> None:
        """A variant of the family that has no closed form here."""
        if wrong:
            raise UsageError(f"{name}={self.values.get(name)!r} in a {self.family} config is not known here: {why}")

    def architecture(self) -> str | None:
        named = self.items("architectures") or []
        return named[0] if named and isinstance(named[0], str) else None

    def context(self) -> int:
        return self.whole("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", default=0, least=0)

    def windows(self, layers: int, window: int | None) -> Sequence[int | None] | None:
        """Each layer's window where the config lists the layers' kinds."""
        kinds = self.items("layer_types")
        if window is None:
            return None
        if kinds is None:
            return [window] * layers
        known: dict[str, int | None] = {"full_attention": None, "sliding_attention": window}
        unknown = [kind for kind in kinds if not isinstance(kind, str) or kind not in known]
        if unknown:
            raise UsageError(
                f"layer_types in the {self.family} config holds {unknown[0]!r}, which has no closed form here"
            )
        return [known[kind] for kind in kinds]
