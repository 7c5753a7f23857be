"""Verbs that exist only in tests: between them they use everything a signature may say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.studio import registry, verbs
from mlsys_studio.studio.registry import Call, Expression, verb

PROBES = ("gauge", "weigh", "merge", "refuse", "watch")


@dataclass(frozen=True)
class Answer:
    given: dict[str, Any]
    exit_code: int = 0

    def __str__(self) -> str:
        return f"answer: {self.given}"


def gauge(
    script: Annotated[str, "what to run"],
    *arguments: Annotated[str, "its own arguments"],
    steps: Annotated[int, "how many, at 100 % load"] = 5,
    rate: Annotated[float | None, "per second"] = None,
    where: Annotated[Path, "a folder"] = Path("here"),
    mode: Annotated[Literal["light", "full"], "how much"] = "light",
    only_slow: Annotated[bool, "leave out the rest"] = False,
    colour: Annotated[bool, "print without colour"] = True,
    exit_code: Annotated[int, "to end with"] = 0,
) -> NotImported:  # type: ignore[name-defined]  # noqa: F821 - as from an import for type checkers only
    """Measure a script.

    More about it.
    """
    print("noise from the verb")
    os.system("echo noise from a child process")
    given = {key: str(value) if isinstance(value, Path) else value for key, value in locals().items()}
    return Answer(given, exit_code)


def weigh(*, model: Annotated[Any, Expression("the model")] = None, call: Call) -> Answer:
    """Weigh a model."""
    return Answer({"model": model, "face": call.face})


def merge(files: Annotated[list[str], "logs, one a rank"], *, ranks: Annotated[list[int], "which"] = []) -> Answer:  # noqa: B006
    """Merge files."""
    return Answer({"files": files, "ranks": ranks})


def watch(*, quiet: Annotated[bool, "leave the last value out"] = False, call: Call) -> Answer:
    """Run the cell and count its names."""
    assert call.cell and call.namespace is not None
    try:
        call.cell.run(display=not quiet)
    except BaseException:
        call.show("measured until then")
        raise
    return Answer({"names": len(call.cell.source.split())})


def refuse() -> None:
    """Refuse."""
    raise UsageError("nothing to refuse; type `mlsys doctor`")


@contextmanager
def installed() -> Iterator[None]:
    names = verbs.NAMES
    try:
        for function in (gauge, weigh, merge, refuse):
            verb(function)
        verb(cell="required")(watch)
        verbs.NAMES = (*names, *PROBES)  # type: ignore[assignment]
        yield
    finally:
        verbs.NAMES = names
        for name in PROBES:
            del registry._VERBS[name]
