"""Many traces at once: each in a process of its own, then who made the others wait.

A rank that enters a collective late runs its kernel for the shortest time, for it has nobody to wait for; the others wait
as much longer as theirs run. That needs no common clock. One pass, and what is kept does not grow with the ranks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ..errors import UsageError
from ..trace import read
from .explaining import Explained, explain
from .sources import Progress

SUFFIXES = (".json", ".json.gz", ".json.zst", ".json.zstd")
SMALL = 16 << 20  # bytes in all: below, a second interpreter takes longer to start than the reading
POINT_TO_POINT = ("send", "recv")


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that is no trace, or could not be read, and why: one sentence."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Straggler:
    """A rank that others waited for. `waited_ns`: the mean wait of the other ranks, over collectives it entered last."""

    rank: int | None
    path: str
    waited_ns: int
    collectives: int  # it was the last in so many
    of: int  # collectives that several ranks recorded
    mostly: str  # the collective most of it was lost in


def explain_files(paths: Sequence[Path], progress: Callable[[Path], Progress | None] = lambda path: None) -> tuple[list[Explained], list[Straggler], list[Failure]]:  # fmt: skip
    """Every trace explained, in the order given; the stragglers, the worst first; the files that are no traces."""
    explained, failures, waits = [], [], Waits()
    for result in _results(paths, progress):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            waits.add(result)
            # Collectives are added up by now, and no table has every rank's kernels: the bulk of it all.
            explained.append(replace(result, collectives=(), kernels=result.kernels if len(paths) == 1 else ()))
    return explained, waits.stragglers(), failures


def files(paths: Iterable[Path]) -> list[Path]:
    """The same paths, folders replaced by the traces in them."""
    found = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES)) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"no trace in {path}: name files that end in {', '.join(SUFFIXES[:3])}")
        found += inside
    return found


# -- a process a file ------------------------------------------------------------------------------------------------------


def _results(paths: Sequence[Path], progress: Callable[[Path], Progress | None]) -> Iterator[Explained | Failure]:
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if len(paths) == 1 or size < SMALL:
        yield from (one(path, progress(path)) for path in paths)
        return
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
        yield from pool.map(_in_a_process, paths)


def one(path: Path, progress: Progress | None = None) -> Explained | Failure:
    try:
        return explain(read(path, progress))
    except UsageError as error:
        return Failure(str(path), str(error))
    except MemoryError:
        return Failure(str(path), "its events do not fit into memory: record fewer steps, or without stacks")
    except Exception as error:  # noqa: BLE001  a fault of ours must not cost the other files
        return Failure(str(path), f"the account failed, please report it ({type(error).__name__}: {error})")


def _in_a_process(path: Path) -> Explained | Failure:
    done = subprocess.run([sys.executable, "-m", __name__, str(path)], capture_output=True, check=False)
    try:
        return msgspec.json.decode(done.stdout, type=Explained)
    except msgspec.ValidationError:
        return msgspec.json.decode(done.stdout, type=Failure)
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Failure(str(path), f"its process ended with code {done.returncode}: {said or 'it said nothing'}")


# -- who made the others wait ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Entered:
    """One collective, over the ranks seen so far."""

    ranks: int
    total: int  # ns, all ranks
    least: int
    last: int  # index of the rank with the least


class Waits:
    """Collectives of one rank after another, met by name, group, step and number."""

    def __init__(self) -> None:
        self._ranks: list[tuple[int | None, str]] = []
        self._entered: dict[tuple[str, str, int, int], _Entered] = {}

    def add(self, rank: Explained) -> None:
        index = len(self._ranks)
        self._ranks.append((rank.rank, rank.path))
        for c in rank.collectives:
            if c.name not in POINT_TO_POINT:
                self._enter((c.name, c.group, c.step, c.number), index, c.nanoseconds)

    def _enter(self, key: tuple[str, str, int, int], index: int, ns: int) -> None:
        known = self._entered.get(key)
        if known is None:
            self._entered[key] = _Entered(1, ns, ns, index)
            return
        known.ranks, known.total = known.ranks + 1, known.total + ns
        if ns < known.least:
            known.least, known.last = ns, index

    def stragglers(self) -> list[Straggler]:
        waited: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        counts: dict[int, int] = defaultdict(int)
        shared = 0
        for (name, *_), entered in self._entered.items():
            if entered.ranks > 1:
                shared += 1
                counts[entered.last] += 1
                waited[entered.last][name] += (entered.total - entered.ranks * entered.least) // (entered.ranks - 1)
        found = [
            Straggler(*self._ranks[i], sum(by.values()), counts[i], shared, max(by, key=lambda name: by[name]))
            for i, by in waited.items()
        ]
        return sorted((s for s in found if s.waited_ns), key=lambda s: -s.waited_ns)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(one(Path(sys.argv[1]))))
