"""One way to make a program fail for a cause that is known, because we are the cause.

A `Fault` is a small script, the stage it is run on, and the truth: category and cause of the taxonomy, why this is the
truth, and the words of the real output without which nobody could know it (`says`). A record whose variation lost one
of these words is undecidable. Every module of `causes/` registers the faults of one category.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Template

LOGGED = """\
import logging
import sys
import time

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="$format")
log = logging.getLogger("$logger")
"""

# What every script may use as $name; a fault adds its own draws.
DRAWS: Mapping[str, Sequence[object]] = {
    "script": ("train.py", "finetune.py", "pretrain.py", "main.py", "run_clm.py"),
    "format": (
        "%(asctime)s %(levelname)s %(name)s: %(message)s",
        "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s",
        "%(asctime)s | %(levelname)s | %(name)s:%(lineno)d | %(message)s",
        "%(levelname)s:%(name)s:%(message)s",
        "%(message)s",
    ),
    "logger": ("trainer", "train", "__main__", "lm.loop", "engine"),
    "width": (24, 32, 48, 64, 96),
    "batch": (4, 6, 8, 12, 16),
    "classes": (3, 5, 7, 10),
    "fail_at": (2, 3, 4, 5),
    "shard": ("shard-00003", "part_0017", "train-00001-of-00008", "chunk_12"),
    "run": ("gpt-tiny", "exp-041", "vit-small", "sft_run3", "baseline"),
    "port": (29511, 29650, 23456, 31337),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where a script runs. What is not given is not limited; `stage.py` carries it out."""

    command: str = "python $script"  # for sh, in an empty folder
    files: Mapping[str, str] = field(default_factory=dict)  # beside the script
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)  # of prlimit: {"as": bytes, "nofile": number}
    memory_mb: int | None = None  # of a cgroup of its own
    tmpfs: Mapping[str, str] = field(default_factory=dict)  # folder: size
    unprivileged: bool = False  # no capabilities, and the folders beside the script belong to another user
    packages: tuple[str, ...] = ()  # installed in a throw-away environment that sees this one's packages
    network: bool = False
    seconds: float = 600  # the limit, generous for a busy machine; nothing of the stage outlives it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    category: str
    cause: str
    name: str
    script: str
    says: tuple[str, ...]  # all of them are in the real output
    because: str
    enough: tuple[str, ...] = ()  # what of it decides alone, if not all of it is needed
    fix: str = ""
    stage: Stage = Stage()
    draws: Mapping[str, Sequence[object]] = field(default_factory=dict)
    exit: int | None = None  # None: any but 0
    ranks: int = 1
    first_rank: int | None = None  # the rank of the first cause
    confidence: str = "high"  # of the label
    hard: str | None = None
    decoy: str | None = None  # the category that the last or loudest line suggests
    needs: tuple[str, ...] = ()  # "root", "g++", "nvcc": skipped, with this reason, where absent
    composed: bool = False  # a decisive line is ours, in the words of a program that is not here
    fast: bool = False  # one of the handful that `make test` provokes

    @property
    def id(self) -> str:
        return f"{self.category}/{self.cause}/{self.name}"

    def drawn(self, seed: int) -> dict[str, str]:
        """The values of the script's $names, from the seed alone."""
        lot = random.Random(f"{self.id}/{seed}")
        return {name: str(lot.choice(values)) for name, values in {**DRAWS, **self.draws}.items()}


def fill(text: str, values: Mapping[str, str]) -> str:
    return Template(text).safe_substitute(values)


FAULTS: dict[str, Fault] = {}


def faults_of(category: str) -> Callable[..., None]:
    """The function by which a module registers: `fault(cause, name, script, says=…, because=…)`."""

    def register(cause: str, name: str, script: str, *, logged: bool = True, **rest) -> None:
        source = (LOGGED if logged else "") + script.lstrip("\n")
        fault = Fault(category=category, cause=cause, name=name, script=source, **rest)
        assert fault.id not in FAULTS, fault.id
        FAULTS[fault.id] = fault

    return register
