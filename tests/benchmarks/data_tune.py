"""The tuner against a grid: three real pipelines, every setting measured, and the tuner's choice raced against the best.

    python tests/benchmarks/data_tune.py [--pipelines text,png,parquet] [--cell 4] [--pairs 10] [--what-if]

Grid: workers {0,1,2,3,4} x prefetch {1,2,4} x threads {1,2}; without workers there is one setting. Each is run plainly for
`--cell` seconds. The tuner gets a twelfth of what the grid took. Then its choice and the grid's best are run in turns,
`--pairs` times: passes when the lower 95 % bound of the ratio of their speeds is at least 0.95. With a step (asleep, as a
host is beside its accelerator) and without. Also: the what-if for n workers, from the loader without any, against a bare
loop within epochs, the median of three turns: to 15 %. What it refuses to predict is printed with its reason.
Exits with 1 if anything failed. Run it on a machine where nothing else runs.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from heading import heading
from torch.utils.data import DataLoader, Dataset

from mlsys_studio.profilers.limits import Limits
from mlsys_studio.profilers.loading import causes
from mlsys_studio.profilers.loading.consumer import Loop
from mlsys_studio.profilers.loading.doctor import measure
from mlsys_studio.profilers.loading.settings import Setting, changed
from mlsys_studio.profilers.loading.tuner import bounds, tune_loader
from mlsys_studio.profilers.loading.what_if import what_if
from mlsys_studio.profilers.neighbours import CpuTime

GRID = [Setting(0, None, 1, False)] + [
    Setting(workers, prefetch, threads, False)
    for workers in (1, 2, 3, 4)
    for prefetch in (1, 2, 4)
    for threads in (1, 2)
]
RATIO, SHARE, OFF = 0.95, 0.1, 0.15


class Lines(Dataset):
    """Lines of the standard library, in memory, as bytes: so little work that handing it over costs more."""

    def __init__(self) -> None:
        folder = Path(sysconfig.get_paths()["stdlib"])
        self.lines = [line for path in sorted(folder.glob("*.py")) for line in path.read_bytes().splitlines() if line]

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> torch.Tensor:
        kept = self.lines[index][:128]
        return torch.frombuffer(bytearray(kept.ljust(128)), dtype=torch.uint8)


class Images(Dataset):
    """PNG and JPEG files, decoded and resized with Pillow."""

    def __init__(self, folder: Path, count: int = 400) -> None:
        from PIL import Image

        self.paths = []
        generator = torch.Generator().manual_seed(0)
        for i in range(count):
            small = torch.randint(0, 255, (24, 32, 3), dtype=torch.uint8, generator=generator).numpy()
            image = Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC)
            self.paths.append(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
            image.save(self.paths[-1])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            decoded = image.convert("RGB").resize((160, 120))
        return torch.frombuffer(bytearray(decoded.tobytes()), dtype=torch.uint8).view(120, 160, 3).float().div_(255)


class Rows(Dataset):
    """A row group of a parquet file is a sample: read, decompressed and turned into a tensor by pyarrow."""

    def __init__(self, folder: Path, groups: int = 400, rows: int = 2000) -> None:
        import pyarrow
        from pyarrow import parquet

        generator = torch.Generator().manual_seed(0)
        self.path = str(folder / "rows.parquet")
        columns = {f"x{i}": torch.randn(groups * rows, generator=generator).numpy() for i in range(4)}
        parquet.write_table(pyarrow.table(columns), self.path, row_group_size=rows, compression="zstd")
        self.groups = groups

    def __len__(self) -> int:
        return self.groups

    def __getitem__(self, index: int) -> torch.Tensor:
        from pyarrow import parquet

        table = parquet.ParquetFile(self.path).read_row_group(index, use_threads=False)
        return torch.stack([torch.from_numpy(column.to_numpy().copy()) for column in table.columns])


def pipelines(folder: Path) -> dict[str, Callable[[], tuple[Dataset, int]]]:
    return {"text": lambda: (Lines(), 16), "png": lambda: (Images(folder), 8), "parquet": lambda: (Rows(folder), 4)}


def plain(loader: DataLoader, step: Callable[[Any], None] | None, seconds: float) -> float:
    """Seconds a step of a plain loop over epochs, after what was prefetched."""
    skip, steps, began = loader.num_workers * (loader.prefetch_factor or 0) + 2, 0, 0.0
    while True:
        for batch in loader:
            if step is not None:
                step(batch)
            steps += 1
            now = time.perf_counter()
            if steps == skip:
                began = now
            elif steps > skip and now - began >= seconds:
                return (now - began) / (steps - skip)


def tuned_against_grid(name: str, loader: DataLoader, step: Any, cell: float, pairs: int) -> bool:
    began = time.perf_counter()
    measured = {setting: plain(changed(loader, setting), step, cell) for setting in GRID}
    grid = time.perf_counter() - began
    best = min(measured, key=lambda setting: measured[setting])
    for again in (False, True):  # tuned while others computed, it is tuned for a machine that is not the grid's
        spent, began = CpuTime.now(), time.perf_counter()
        choice = tune_loader(loader, step, seconds=grid / 12).after
        took, ratios = time.perf_counter() - began, []
        for _ in range(pairs if choice != best else 0):
            a, b = (plain(changed(loader, s), step, cell / 2) for s in (best, choice))
            ratios.append(a / b)
        low, middle, high = bounds(ratios) if ratios else (1.0, 1.0, 1.0)
        good = low >= RATIO and took <= SHARE * grid
        print(
            f"{'pass' if good else 'FAIL'} {name:18} grid's best: {best}; tuner: {choice}; speed {middle:.3f} of it"
            f" ({low:.3f} to {high:.3f}); {took:.0f} s of the grid's {grid:.0f} s ({took / grid:.1%})",
            flush=True,
        )
        if not disturbed(spent) or again:
            break
    return good


def predicted(name: str, loader: DataLoader, step: Any, seconds: float) -> bool:
    """The what-if for n workers, from the loader with none, within an epoch: predicted and measured three times in turns."""
    offs: dict[int, list[float]] = {n: [] for n in range(5)}
    began, why = CpuTime.now(), ""
    for _ in range(3):
        found = measure(loader, step, 4, [])
        at = causes.pipeline(found.loop, found.workers, loader.num_workers, Limits().cpu_limit, in_order=True)
        said = what_if(at)
        measured = {n: paced(changed(loader, Setting(n, 2 if n else None, 1, False)), step, seconds) for n in offs}
        for n, ns in said.workers:
            offs[n] += [ns / measured[n] - 1] if n in offs else []
        why = said.unpredicted
        line = ", ".join(f"{n}: {dict(said.workers).get(n, math.nan) / 1e6:.3f} of {ns / 1e6:.3f}" for n, ns in measured.items())  # fmt: skip
        print(f"     said, of ms measured: {line}", flush=True)
    middle = {n: statistics.median(each) for n, each in offs.items() if each}
    good = max(map(abs, middle.values())) <= OFF
    line = ", ".join(f"{n}: {off:+.0%}" for n, off in middle.items())
    print(f"{'pass' if good else 'FAIL'} {name:18} what-if for n workers off by {line}", flush=True)
    print(f"     not predicted: {why}" if why else "     everything predicted", flush=True)
    disturbed(began)
    return good


def paced(loader: DataLoader, step: Any, seconds: float) -> float:
    """ns a step of the bare loop."""
    loop = Loop(loader)
    try:
        return loop.pace(step, 2 * loader.num_workers + 1, 8, seconds)
    finally:
        loop.close()


def disturbed(began: CpuTime | None) -> bool:
    """A machine that others used meanwhile was not measured."""
    ended = CpuTime.now()
    if began is None or ended is None or ended.since(began).others <= 0.1:
        return False
    print(f"     disturbed: others, or this machine's host, took {ended.since(began).others:.2f} cores meanwhile")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipelines", default="text,png,parquet")
    parser.add_argument("--cell", type=float, default=4, help="seconds of one setting of the grid")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--what-if", action="store_true", help="only that, without grid and tuner")
    parser.add_argument("--minutes", type=float, default=60, help="start no other case after this")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    sys.path.append(str(Path(sys.prefix) / "vision"))  # Pillow's place, see the Makefile
    print(heading())
    deadline, failed = time.monotonic() + 60 * options.minutes, []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.pipelines.split(","):
            data, batch = pipelines(Path(folder))[name]()
            loader = DataLoader(data, batch_size=batch, shuffle=True)
            alone = plain(loader, None, 1)
            for label, step in ((name, None), (f"{name} with step", lambda batch, s=alone * 0.6: time.sleep(s))):
                if time.monotonic() > deadline:
                    print(f"not run for lack of time: {label}")
                    continue
                good = predicted(label, loader, step, options.cell / 3)
                if not options.what_if:
                    good &= tuned_against_grid(label, loader, step, options.cell, options.pairs)
                failed += [] if good else [label]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
