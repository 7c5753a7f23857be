"""Many traces at once: a pass over each, wherever it runs, then what only all of them together can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .engines import Name, results
from .explaining import Explained
from .one import Failure
from .sources import Progress
from .waits import Waits

SUFFIXES = (".json", ".json.gz", ".json.zst", ".json.zstd")

# Collectives are added up once they are met, and no table has every rank's kernels.
BULK: dict[str, Any] = {"collectives": (), "kernels": (), "modules": (), "lanes": ()}


def explain_files(
    paths: Sequence[Path],
    progress: Callable[[Path], Progress | None] = lambda path: None,
    engine: Name = "processes",
) -> tuple[list[Explained], Waits, list[Failure]]:
    """Every trace explained, in the order given; who waited for whom; the files that are no traces."""
    explained, failures, waits = [], [], Waits()
    for result in results(paths, progress, engine):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            waits.add(result)
            explained.append(replace(result, collectives=()) if len(paths) == 1 else replace(result, **BULK))
    return explained, waits, failures


def files(paths: Iterable[Path]) -> list[Path]:
    """The same paths, folders replaced by the traces in them."""
    found = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"no trace in {path}: name files that end in {', '.join(SUFFIXES[:3])}")
        found += inside
    return found
