"""The wires between devices: bandwidth and latency by name, from a data file with sources; an unknown name is an error.

Makers state both directions of a link together. A collective sends in one of them while it receives in the other, so
`bandwidth` is one direction's, and of that what NCCL's own cost model expects of it.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Link:
    """One device's port. `Link("mine", bandwidth=20e9, latency=5e-6)` is as good as a named one."""

    name: str
    bandwidth: float  # B/s, one direction, reached
    latency: float  # seconds a message
    source: str = "given by hand"
    confidence: str = ""  # "high" | "medium" | "low"

    def __post_init__(self) -> None:
        if not (0 < self.bandwidth < inf and 0 <= self.latency < inf):
            raise UsageError(
                f"link {self.name!r} has {self.bandwidth!r} B/s and {self.latency!r} s latency; "
                "give a bandwidth above 0 and a latency of at least 0"
            )


def link(name: str | Link) -> Link:
    """A link by its name: "NVLink4", "InfiniBand-HDR", "ib ndr", "PCIe4". A `Link` is its own."""
    if isinstance(name, Link):
        return name
    row = _index().get(_key(name))
    if row is None:
        near = difflib.get_close_matches(_key(name), _index(), n=3, cutoff=0.5)
        names = list(dict.fromkeys(_index()[each]["name"] for each in near)) or links()
        raise UsageError(
            f"no link is called {name!r}; type one of {', '.join(names)}, or give Link(name, bandwidth, latency)"
        )
    return _read(row)


def links() -> list[str]:
    """Every link's name."""
    return [row["name"] for row in _rows()]


def between(device: str) -> Link:
    """The link between devices of this name in one node."""
    for row in _rows():
        if device in row["devices"]:
            return _read(row)
    raise UsageError(f"no link is known between {device}s of one node; give intra=, one of {', '.join(links())}")


def _read(row: Mapping[str, Any]) -> Link:
    reached = row["reached_gb_s"] or row["bidirectional_gb_s"] / 2
    return Link(row["name"], reached * 1e9, row["latency_us"] * 1e-6, row["source"], row["confidence"])


@functools.cache
def _index() -> dict[str, Mapping[str, Any]]:
    return {_key(name): row for row in _rows() for name in (row["name"], *row["match"])}


@functools.cache
def _rows() -> list[Mapping[str, Any]]:
    return json.loads((Path(__file__).parents[1] / "data" / "links.json").read_text())["links"]


def _key(name: str) -> str:
    return re.sub(r"[\s_.-]+", "", str(name).lower())
