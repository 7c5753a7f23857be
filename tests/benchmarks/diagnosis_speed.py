"""How fast logs are read: a gigabyte of many ranks, the same packed, and logs made to be slow.

    python tests/benchmarks/diagnosis_speed.py [--megabytes 1024]

MB (10**6) a second of CPU time, which neighbours do not change much; memory is the process's peak above its start. Each
case runs in a process of its own. Exits 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import gzip
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from heading import heading

RANKS = 8
CASES = {"plain": 200, "gzip": 100, "flood": 10, "words": 10, "longlines": 10}  # target, MB/s
MEMORY = 300  # MB


def steady(size: int, rank: int, seed: int) -> Iterator[bytes]:
    """Lines of progress with a suspicious one in 2,000, an error at the end of rank 3."""
    rng, written, step = random.Random(seed), 0, 0
    while written < size:
        block = []
        for _ in range(2000):
            step += 1
            block.append(
                f"[rank{rank}]: 2025-03-01 {step // 3600 % 24:02}:{step // 60 % 60:02}:{step % 60:02} INFO step {step} "
                f"loss {2 + rng.random():.4f} grad norm {rng.random():.3f} lr 3.0e-04 tokens/s {rng.randrange(90000, 99999)}\n"
            )
        block.append(f"[rank{rank}]: WARNING fetching shard {rng.randrange(10**6)} failed, retrying\n")
        joined = "".join(block).encode()
        written += len(joined)
        yield joined
    if rank == 3:
        yield b"[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"


def hostile(kind: str, size: int) -> Iterator[bytes]:
    rng, written = random.Random(1), 0
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz", k=rng.randrange(3, 9))) for _ in range(5000)]
    while written < size:
        if kind == "flood":
            lines = [
                b"RuntimeError: CUDA error: device-side assert triggered %d\n" % rng.randrange(10**9)
                for _ in range(2000)
            ]
        elif kind == "words":
            lines = [b"error " + b" ".join(rng.choices(words, k=12)) + b"\n" for _ in range(2000)]
        else:
            lines = [b"error " * 700_000 + b"\n"]
        joined = b"".join(lines)
        written += len(joined)
        yield joined


def write(folder: Path, case: str, size: int) -> Path:
    if case in ("plain", "gzip"):
        (folder / case).mkdir()
        for rank in range(RANKS):
            path = folder / case / f"rank_{rank}.log{'.gz' if case == 'gzip' else ''}"
            with gzip.open(path, "wb", 1) if case == "gzip" else path.open("wb") as file:
                file.writelines(steady(size // RANKS, rank, rank))
        return folder / case
    path = folder / f"{case}.log"
    with path.open("wb") as file:
        file.writelines(hostile(case, size))
    return path


def measure(path: Path) -> None:
    """In the child: CPU seconds, peak memory and what was found."""
    from mlsys_studio import diagnose

    began, start = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = diagnose(path)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
    print(seconds, peak / 1024, found.cause, found.evidence[0].rank if found.evidence else None)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--megabytes", type=int, default=1024)
    arguments.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.measure:
        measure(options.measure)
        return 0
    print(heading(), f"\n# {options.megabytes} MB; {RANKS} ranks")
    missed = 0
    for case, target in CASES.items():
        size = options.megabytes * 10**6 // (1 if case in ("plain", "gzip") else 8)
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), case, size)
            command = [sys.executable, __file__, "--measure", str(path)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        speed, memory = size / 1e6 / float(said[0]), float(said[1])
        late = speed < target or memory > MEMORY
        missed += late
        verdict = "MISSED" if late else "ok"
        print(
            f"  {case:10} {speed:7.0f} MB/s  target {target:4}   {memory:5.0f} MiB of {MEMORY}   {verdict}   {said[2]} rank {said[3]}"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
