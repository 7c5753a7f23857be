"""Loaders with a known fault, for the doctor's truth test. The fault is planted below or beside what the doctor can see.

`plant(names, seed)` gives a loader and a step; with no names the same pipeline in health. What a fault costs is known by
running both plainly, without the doctor: `seconds_a_step`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

CHUNK = 65536  # bytes of a sample
# Storage that reads nothing ahead: it begins when asked, and answers after its pace. Opened for reading and writing, so
# that no end ever closes, however often workers come and go.
PACER = """
import os, sys, threading, time
pace = float(sys.argv[1])
def feed(path):
    asked, file = os.open(path + ".asked", os.O_RDWR), os.open(path, os.O_RDWR)
    while os.read(asked, 1):
        time.sleep(pace)
        os.write(file, bytes(65536))
for path in sys.argv[2:]:
    threading.Thread(target=feed, args=(path,), daemon=True).start()
sys.stdin.read()
"""
HOG = "import os\nparent = os.getppid()\nwhile os.path.exists(FLAG):\n    sum(range(200000))\n"


@dataclass
class Pipeline:
    """Numbers of one planted pipeline; seconds unless named otherwise."""

    workers: int = 2
    batch: int = 4
    length: int = 100_000
    step: float = 0.012  # asleep, as a host is while its accelerator computes
    pace: float = 0.0  # storage gives a sample's bytes only so often
    cached: float = 0.0  # share of the samples that storage is not asked for
    arithmetic: int = 0  # additions a sample
    hold: float = 0.0  # a thread of the worker holds the GIL so long, again and again
    payload: int = 0  # bytes of a sample that is no tensor
    files: int = 0  # tiny files read a sample
    slow: float = 0.0  # a sample of worker 0 takes longer
    start: float = 0.0  # of a worker
    checkpoint: int = 0  # bytes saved each step
    hogs: int = 0  # processes that only compute
    persistent: bool = True
    stream: bool = False
    stateful: bool = False  # torchdata's loader
    numbers: int = 256  # float32 a sample
    transforms: int = 1
    computing: bool = False  # the step takes its time on a core, not asleep
    folder: Path = field(default_factory=Path)


class Arithmetic:
    """A transform of so many additions: its amount is counted, not slept."""

    def __init__(self, additions: int) -> None:
        self.additions = additions

    def __call__(self, sample: torch.Tensor) -> torch.Tensor:
        total = 0
        for i in range(self.additions):
            total += i
        return sample


class Chain:
    """As torchvision's Compose is."""

    def __init__(self, transforms: list[Arithmetic]) -> None:
        self.transforms = transforms

    def __call__(self, sample: torch.Tensor) -> torch.Tensor:
        for each in self.transforms:
            sample = each(sample)
        return sample


class Planted(Dataset):
    def __init__(self, p: Pipeline) -> None:
        self.p = p
        self.transform = (
            Arithmetic(p.arithmetic) if p.transforms == 1 else Chain([Arithmetic(p.arithmetic)] * p.transforms)
        )
        self._tiny = f"{p.folder}/tiny/"
        self._storage: tuple[int, int] | None = None  # where it is asked, where it answers
        self._holder: threading.Thread | None = None

    def __len__(self) -> int:
        return self.p.length

    def __getitem__(self, index: int) -> Any:
        p, info = self.p, get_worker_info()
        number = info.id if info is not None else 0
        if p.hold and self._holder is None:
            self._holder = threading.Thread(target=self._hold, daemon=True)
            self._holder.start()
        if p.pace and index >= p.cached * p.length:
            self._read(number)
        elif p.pace:
            (p.folder / "cached").read_bytes()
        if p.slow and number == 0:
            time.sleep(p.slow)
        for i in range(p.files):
            with open(f"{self._tiny}{(index * p.files + i) % 500}") as file:
                file.read()
        if p.payload:
            return bytes(p.payload)
        return self.transform(torch.zeros(p.numbers))

    def _read(self, number: int) -> None:
        if self._storage is None:
            path = f"{self.p.folder}/storage{number}"
            self._storage = os.open(f"{path}.asked", os.O_RDWR), os.open(path, os.O_RDWR)
        asked, answered = self._storage
        os.write(asked, b"?")
        left = CHUNK
        while left:
            left -= len(os.read(answered, left))

    def _hold(self) -> None:
        libc = ctypes.PyDLL(None)  # unlike CDLL it keeps the GIL
        while True:
            libc.usleep(int(self.p.hold * 1e6))
            time.sleep(0.0005)


class PlantedStream(torch.utils.data.IterableDataset):
    """The same as a stream, each worker its share."""

    def __init__(self, inner: Planted) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, every = (info.id, info.num_workers) if info else (0, 1)
        for index in range(first, len(self.inner), every):
            yield self.inner[index]


@dataclass
class Starting:
    seconds: float

    def __call__(self, worker: int) -> None:
        time.sleep(self.seconds)


def as_list(samples: list[Any]) -> list[Any]:
    return samples


@contextlib.contextmanager
def planted(p: Pipeline, seed: int) -> Iterator[tuple[DataLoader, Callable[[Any], None]]]:
    """The loader and its step, with what they need beside them: pacing, tiny files, hogs."""
    with contextlib.ExitStack() as undo:
        p.folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="planted-")))
        if p.files:
            (p.folder / "tiny").mkdir()
            for i in range(500):
                (p.folder / "tiny" / str(i)).write_text("x" * 200)
        if p.pace:
            pipes = [p.folder / f"storage{i}" for i in range(8)]  # a tuner starts more workers
            for pipe in pipes:
                os.mkfifo(pipe)
                os.mkfifo(f"{pipe}.asked")
            command = [sys.executable, "-c", PACER, str(p.pace), *map(str, pipes)]
            (p.folder / "cached").write_bytes(bytes(CHUNK))
            pacer = undo.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
            undo.callback(pacer.kill)
        _hogs(p, undo)
        data = Planted(p)
        generator = torch.Generator().manual_seed(seed)
        options: dict[str, Any] = dict(
            batch_size=p.batch,
            num_workers=p.workers,
            persistent_workers=p.persistent and p.workers > 0,
            worker_init_fn=Starting(p.start) if p.start else None,
            collate_fn=as_list if p.payload else None,
        )
        if not p.stream:
            options |= dict(shuffle=True, generator=generator)
        loader = kind_of_loader(p)(PlantedStream(data) if p.stream else data, **options)
        undo.callback(_end, loader)
        weights = torch.zeros(max(1, p.checkpoint // 4))

        def step(batch: Any) -> None:
            (busy if p.computing else time.sleep)(p.step)
            if p.checkpoint:
                torch.save(weights, p.folder / "checkpoint.pt")

        yield loader, step


def kind_of_loader(p: Pipeline) -> Any:
    if not p.stateful:
        return DataLoader
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader


def busy(seconds: float) -> None:
    """On a core for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(1000))


def _end(loader: DataLoader) -> None:
    if hasattr(loader._iterator, "_shutdown_workers"):  # torchdata keeps its iterator without workers too
        loader._iterator._shutdown_workers()
    loader._iterator = None


def _hogs(p: Pipeline, undo: contextlib.ExitStack) -> None:
    """Processes that nobody of ours is the parent of; they end when the folder does."""
    if not p.hogs:
        return
    flag = p.folder / "hog"
    flag.touch()
    code = HOG.replace("FLAG", repr(str(flag)))
    for _ in range(p.hogs):
        subprocess.run(["sh", "-c", f'"{sys.executable}" -c "$0" >/dev/null 2>&1 &', code], check=True)
    time.sleep(0.3)
    undo.callback(lambda: flag.unlink(missing_ok=True))


def seconds_a_step(loader: DataLoader, step: Callable[[Any], None], steps: int, skip: int) -> float:
    """The plain loop, mean of `steps` after the first `skip`; of a short epoch whole epochs, their start included."""
    count = len(loader) if hasattr(loader.dataset, "__len__") else 1 << 30
    if count <= steps:
        began = time.perf_counter()
        epochs = -(-steps // count)
        for _ in range(epochs):
            for batch in loader:
                step(batch)
        return (time.perf_counter() - began) / (epochs * count)
    iterator, began = iter(loader), 0.0
    for number in range(skip + steps):
        if number == skip:
            began = time.perf_counter()
        batch = next(iterator)  # as in a loop, the last one stays until this one is there
        step(batch)
    took = (time.perf_counter() - began) / steps
    del iterator
    _end(loader)
    return took


FAULTS: dict[str, tuple[str, Callable[[random.Random], dict[str, Any]], dict[str, Any]]] = {
    # fault: (the name it must get, its numbers, those in which health differs from a plain Pipeline too)
    "storage": ("storage", lambda r: dict(pace=r.uniform(0.010, 0.020)), {}),
    "transform": ("CPU: transform Arithmetic", lambda r: dict(arithmetic=r.randint(450_000, 700_000)), {}),
    "hog": ("CPU contention", lambda r: dict(hogs=2 * (os.cpu_count() or 1)), dict(arithmetic=60_000)),
    "gil": ("GIL", lambda r: dict(hold=r.uniform(0.010, 0.016)), dict(arithmetic=8_000)),
    "pipe": ("transfer", lambda r: dict(payload=r.randint(8, 14) << 20), {}),
    "tiny files": ("small files", lambda r: dict(files=r.randint(900, 1300)), {}),
    "slow worker": ("slow worker", lambda r: dict(slow=r.uniform(0.015, 0.025)), {}),
    "first batch": ("first batch", lambda r: dict(start=r.uniform(0.4, 0.7)), dict(length=96, persistent=False)),
    "checkpoint": ("checkpoint", lambda r: dict(checkpoint=r.randint(12, 24) << 20), {}),
}
PAIRS = (("storage", "transform"), ("storage", "checkpoint"), ("slow worker", "transform"), ("first batch", "storage"))


def pipelines(faults: tuple[str, ...], seed: int) -> tuple[Pipeline, Pipeline, list[str]]:
    """(with the faults, the same in health, the names that must come first)."""
    draw, ill, well, names = random.Random(seed), {}, {}, []
    for fault in faults:
        name, numbers, base = FAULTS[fault]
        names.append(name)
        ill |= base | numbers(draw)
        well |= base
    return Pipeline(**ill), Pipeline(**well), names


HEALTHS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("stream", dict(stream=True)),
    ("stateful", dict(stateful=True)),
    ("transforms", dict(transforms=4, arithmetic=300, batch=16)),
    ("large samples", dict(numbers=100_000, batch=4)),
    ("files", dict(files=2, batch=4)),
    ("slow start", dict(start=0.5)),
    ("computing step", dict(computing=True, checkpoint=40_000)),
)


def health(number: int) -> tuple[str, Pipeline]:
    """A way to be healthy, and its name: the step is long enough for what the loader does. They differ up to 24."""
    draw = random.Random(1000 * number)
    name, differs = HEALTHS[number // 3 % len(HEALTHS)]
    numbers: dict[str, Any] = dict(batch=draw.choice((1, 4, 16)), step=draw.uniform(0.04, 0.09)) | differs
    workers = number % 3
    return f"{name}, {workers} workers", Pipeline(workers=workers, **numbers)
