"""Where the passes over the ranks run: here, in a process a file, or on a Ray cluster. Results come in the order asked.

The pass over one file is a function of its path alone (`one.py`), so an engine is nothing but a map.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import UsageError
from . import one
from .explaining import Explained
from .one import Failure, explain_one
from .sources import Progress

Name = Literal["processes", "ray"]
Result = Explained | Failure
SMALL = 16 << 20  # bytes in all: below, a second interpreter takes longer to start than the reading
AHEAD = (
    4  # tasks a core of a cluster that wait for their turn to be taken: what they found is in its memory, not in ours
)


def results(paths: Sequence[Path], progress: Callable[[Path], Progress | None], engine: Name) -> Iterator[Result]:
    """The account of every file, or why there is none."""
    if engine == "ray":
        return _on_ray(paths)
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if len(paths) == 1 or size < SMALL:
        return (explain_one(path, progress(path)) for path in paths)
    return _in_processes(paths)


def _in_processes(paths: Sequence[Path]) -> Iterator[Result]:
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
        yield from pool.map(_in_a_process, paths)


def _in_a_process(path: Path) -> Result:
    done = subprocess.run([sys.executable, "-m", one.__name__, str(path)], capture_output=True, check=False)
    try:
        return decoded(done.stdout)
    except msgspec.DecodeError:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        return Failure(str(path), f"its process ended with code {done.returncode}: {said or 'it said nothing'}")


def decoded(result: bytes) -> Result:
    """What `one.encoded` wrote."""
    try:
        return msgspec.json.decode(result, type=Explained)
    except msgspec.ValidationError:
        return msgspec.json.decode(result, type=Failure)


def _on_ray(paths: Sequence[Path]) -> Iterator[Result]:
    """On the cluster this process is connected to, or that RAY_ADDRESS names, or a new one of this machine alone.

    Its machines need this package and a file system on which the paths mean the same.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]  an extra
    except ImportError:
        raise UsageError("--engine ray needs Ray, which is not installed: pip install 'mlsys-studio[ray]'") from None
    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False, include_dashboard=False)
    try:
        task = ray.remote(one.encoded)
        room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting, rest = deque[tuple[Path, object]](), iter(map(Path.absolute, paths))
        while True:
            while len(waiting) < room and (path := next(rest, None)) is not None:
                waiting.append((path, task.remote(str(path))))
            if not waiting:
                return
            path, reference = waiting.popleft()
            try:
                yield decoded(ray.get(reference))
            except ray.exceptions.RayError as error:
                said = str(error).strip().partition("\n")[0]
                yield Failure(str(path), f"its task on Ray failed: {said}")
    finally:
        if started:
            ray.shutdown()
