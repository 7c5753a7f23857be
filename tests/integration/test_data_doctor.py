"""The doctor on live loaders: planted faults found, nothing of the training moved, every bad loader one sentence."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from html import unescape
from pathlib import Path
from typing import Any

import numpy
import psutil
import pytest
import torch
from planted import Pipeline, Planted, PlantedStream, as_list, planted
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.loading import clocks
from mlsys_studio.profilers.loading.doctor import data_doctor
from mlsys_studio.profilers.loading.report import DataReport, OneShotReport
from mlsys_studio.profilers.views.columns import columns

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")
linux = pytest.mark.skipif(not clocks.TASKS.exists(), reason="needs Linux's /proc")
SECONDS = 1.5


@pytest.fixture(autouse=True)
def nothing_is_left(one_thread):
    """No process, no file, whatever happened."""
    children, files = set(psutil.Process().children()), set(Path("/tmp").glob("mlsys-data-*"))
    yield
    left = [child for child in set(psutil.Process().children()) - children if "resource_tracker" not in " ".join(child.cmdline())]  # fmt: skip
    psutil.wait_procs(left, timeout=5)
    assert not [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert set(Path("/tmp").glob("mlsys-data-*")) <= files


def examined(loader: Any, step: Any = None) -> DataReport:
    report = data_doctor(loader, step, seconds=SECONDS)
    assert isinstance(report, DataReport)
    return report


def idle(batch: Any) -> None:
    time.sleep(0.005)


# -- how and where: against stopwatches of the dataset's own ---------------------------------------------------------------


class Timed(Dataset):
    """Knows by its own clocks what it did: sleeps by the wall, additions by the thread's CPU time. Shared with workers."""

    def __init__(self, sleep: float, additions: int) -> None:
        self.sleep = sleep
        self.additions = additions
        self.slept, self.added, self.calls = (multiprocessing.Value("d", 0.0) for _ in range(3))

    def transform(self, sample: torch.Tensor) -> torch.Tensor:
        return sample

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> torch.Tensor:
        began = time.thread_time()
        total = 0
        for i in range(self.additions):
            total += i
        asleep = time.perf_counter()
        time.sleep(self.sleep)
        slept, sample = time.perf_counter() - asleep, torch.zeros(8)
        for value, more in ((self.slept, slept), (self.calls, 1)):
            with value.get_lock():
                value.value += more
        with self.added.get_lock():
            self.added.value += time.thread_time() - began  # all of this call but these two lines
        return sample


@pytest.mark.slow  # needs a machine on which little else runs
@linux
@pytest.mark.parametrize("workers", [0, 2])
def test_sleep_is_blocked_and_arithmetic_is_cpu(workers):
    """Witness: the dataset's own stopwatches, a mean sample of each, which the doctor cannot read."""
    data = Timed(0.004, 60_000)
    report = examined(DataLoader(data, batch_size=4, num_workers=workers), idle)
    calls = data.calls.value
    parts = report.pipeline.fetch
    cpu = sum(ns for each in parts for (_, how), ns in each.items() if how == "cpu") / len(parts) / 4 / 1e9
    queued = sum(ns for each in parts for (_, how), ns in each.items() if how == "queued") / len(parts) / 4 / 1e9
    asleep = sum(ns for each in parts for (_, how), ns in each.items() if how == "sleep") / len(parts) / 4 / 1e9
    assert cpu == pytest.approx(data.added.value / calls, rel=0.3, abs=0.001)
    assert asleep <= data.slept.value / calls * 1.1
    assert asleep + queued >= 0.8 * data.slept.value / calls
    assert asleep >= 0.7 * 0.004


@pytest.mark.slow  # needs a machine on which little else runs
@linux
@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (dict(pace=0.05), "storage"),
        (dict(slow=0.08), "slow worker"),
        (dict(start=0.6, length=24, persistent=False), "first batch"),
        (dict(checkpoint=32 << 20), "checkpoint"),
        (dict(hold=0.02, arithmetic=4000), "GIL"),
        (dict(payload=3 << 20), "transfer"),
    ],
)
def test_a_planted_fault_is_named(fault, name):
    """Large enough to be first among what is no contention, whatever else this machine does. Shares: data_truth.py."""
    with planted(Pipeline(step=0.005, **fault), 0) as (loader, step):
        report = examined(loader, step)
    named = [cause.name for cause in report.causes if cause.name != "CPU contention"]
    assert named[:1] == [name], str(report)
    assert 0.05 <= next(c.share for c in report.causes if c.name == name) <= 1


@linux
@pytest.mark.slow  # needs a machine on which little else runs
def test_counted_arithmetic_names_its_transform():
    with planted(Pipeline(step=0.001, workers=0, arithmetic=200_000), 0) as (loader, step):
        report = examined(loader, step)
    assert "CPU: transform Arithmetic" in [cause.name for cause in report.causes[:2]]


@pytest.mark.slow  # needs a machine on which little else runs
def test_a_step_that_takes_its_time_is_healthy():
    """A step of a quarter second has time for any sample: nothing is worth 5 %."""
    with planted(Pipeline(step=0.25, batch=1), 0) as (loader, step):
        report = data_doctor(loader, step, seconds=1)
    assert isinstance(report, DataReport)
    assert report.causes == ()
    assert "healthy" in str(report)


# -- measuring does not change training ------------------------------------------------------------------------------------


def states() -> tuple:
    return torch.get_rng_state().tolist(), random.getstate(), numpy.random.get_state()[1].tolist()


class Drawing(Dataset):
    """Draws by itself, from all global states, and counts."""

    def __init__(self) -> None:
        self.own = numpy.random.default_rng(0)
        self.count = 0

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple:
        self.count += 1
        return index, torch.rand(1).item(), random.random(), numpy.random.rand(), self.own.random()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("with_generator", [False, True])
def test_order_and_draws_are_those_of_a_run_without_the_doctor(workers, with_generator):
    def epoch(examine: bool) -> tuple[list, tuple]:
        torch.manual_seed(3), random.seed(3), numpy.random.seed(3)
        generator = torch.Generator().manual_seed(5) if with_generator else None
        loader = DataLoader(Drawing(), batch_size=8, shuffle=True, num_workers=workers, generator=generator, collate_fn=as_list)  # fmt: skip
        first = next(iter(loader))  # a training that has begun
        before = states()
        if examine:
            data_doctor(loader, idle, seconds=0.3)
            assert states() == before
        return [first, *loader], states()

    assert epoch(examine=True) == epoch(examine=False)


def test_a_sampler_of_the_users_own_stays_where_it_is():
    class Walking(RandomSampler):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    data = Drawing()
    sampler = Walking(data, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(data, batch_size=4, sampler=sampler, collate_fn=as_list)
    state = sampler.generator.get_state().tolist()
    data_doctor(loader, idle, seconds=0.3)
    assert (sampler.passes, data.count, sampler.generator.get_state().tolist()) == (0, 0, state)
    assert loader._iterator is None


def test_the_users_worker_init_fn_is_called_with_its_worker(tmp_path):
    class Noting:
        def __call__(self, worker: int) -> None:
            (tmp_path / str(worker)).write_text(str(torch.initial_seed()))

    loader = DataLoader(Drawing(), batch_size=4, num_workers=2, worker_init_fn=Noting(), collate_fn=as_list)
    before = loader.worker_init_fn
    data_doctor(loader, seconds=0.3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert loader.worker_init_fn is before


def test_a_stateful_loader_keeps_its_state():
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    for workers in (0, 2):
        loader = stateful.StatefulDataLoader(Drawing(), batch_size=4, shuffle=True, num_workers=workers, collate_fn=as_list)  # fmt: skip
        running = iter(loader)
        next(running)
        before = loader.state_dict()
        report = examined(loader, idle)
        assert report.batches >= 8
        assert str(loader.state_dict()) == str(before)
        assert len(next(running)) == 4
        del running
        if loader._iterator is not None and workers:
            loader._iterator._shutdown_workers()


class Once(IterableDataset):
    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Any:
        return iter(self.source)


def one_shots(folder: Path) -> dict[str, Any]:
    (folder / "lines").write_text("1\n2\n3\n")
    return {"generator": (i for i in range(3)), "file": open(folder / "lines"), "iterator": iter([1, 2, 3])}


@pytest.mark.parametrize("kind", ["generator", "file", "iterator"])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_one_shot_stream_is_not_consumed(kind, workers, tmp_path):
    source = one_shots(tmp_path)[kind]
    loader = DataLoader(Once(source), batch_size=None, num_workers=workers)
    report = data_doctor(loader, idle)
    assert isinstance(report, OneShotReport)
    assert "Not split" in str(report)
    assert [int(each) for each in source] == [1, 2, 3] or kind == "generator"
    if kind == "generator":
        assert list(one_shots(tmp_path)["generator"]) == [0, 1, 2]
    json.loads(report.to_json())


def test_a_stream_that_can_be_read_again_is_measured():
    loader = DataLoader(PlantedStream(Planted(Pipeline(length=50))), batch_size=2, num_workers=2)
    assert examined(loader, idle).batches >= 8


class Sleeping(Dataset):
    def __len__(self) -> int:
        return 10_000

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.003)
        return torch.zeros(4)


@linux
def test_what_workers_would_give_rests_on_some_that_were_run():
    """Witness: a batch sleeps 12 ms, and no sleep is shorter than it was told: so for one worker, half of it for two."""
    predicted = dict(examined(DataLoader(Sleeping(), batch_size=4), idle).predicted.workers)
    assert predicted[0] >= 0.99 * (12e6 + 5e6)
    assert predicted[1] >= 0.99 * 12e6
    assert predicted[2] >= 0.99 * 6e6
    assert predicted[1] >= predicted[2]


# -- kinds of loaders ------------------------------------------------------------------------------------------------------


def test_workers_that_are_spawned(tmp_path):
    loader = DataLoader(Planted(Pipeline(arithmetic=100)), batch_size=4, num_workers=1, multiprocessing_context="spawn")  # fmt: skip
    report = examined(loader, idle)
    assert report.settings.start_method == "spawn"
    assert any(stage.startswith("transform Arithmetic") for stage, _ in report.workers[0].parts)


def test_hugging_face_batches_are_one_call():
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"x": list(range(400))}).with_format("torch")
    report = examined(DataLoader(data, batch_size=8), idle)
    assert "__getitems__" in {stage for stage, _ in report.workers[0].parts}


def test_webdataset_by_pipeline_stage(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        for i in range(64):
            sink.write({"__key__": f"{i:04}", "txt": str(i), "cls": i})

    def slower(sample: Any) -> Any:
        time.sleep(0.002)
        return sample

    data = webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode().to_tuple("txt", "cls").map(slower)  # fmt: skip
    for loader in (DataLoader(data, batch_size=4), webdataset.WebLoader(data, batch_size=4)):
        report = examined(loader, idle)
        stages = {stage for stage, _ in report.workers[0].parts}
        assert any(stage.endswith("slower") or "map" in stage for stage in stages), stages


# -- what it looks like ------------------------------------------------------------------------------------------------------


class Crop:
    def __call__(self, sample: Any) -> Any:
        return sample


Crop.__name__ = Crop.__qualname__ = "<script>alert(1)</script>"


class Named(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.transform = Crop()

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.001)
        return self.transform(torch.zeros(4))


def test_text_page_and_json_say_the_same():
    report = examined(DataLoader(Named(), batch_size=4, num_workers=2), idle)
    text, page = str(report), report._repr_mimebundle_()["text/html"]
    assert max(columns(line) for line in text.splitlines()) <= 80
    assert "<script" not in page
    body = json.loads(report.to_json())
    assert [cause["name"] for cause in body["causes"]] == [cause.name for cause in report.causes]
    for cause in report.causes:
        assert f"{cause.share * 100:.1f} %" in text
        assert f"{cause.share * 100:.1f} %" in unescape(page)


# -- bad loaders: one sentence ---------------------------------------------------------------------------------------------


class Raising(Drawing):
    def __getitem__(self, index: int) -> Any:
        if index == 21:
            raise ValueError("bad sample\non two lines")
        return torch.zeros(4)


class Dying(Drawing):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def __getitem__(self, index: int) -> Any:
        if index == 40:
            os.kill(os.getpid(), self.number)
        return torch.zeros(4)


class Unpicklable(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.read = lambda index: index


class Empty(Drawing):
    def __len__(self) -> int:
        return 0


def bad(sentence: str, loader: Any, step: Any = None) -> None:
    with pytest.raises(UsageError) as caught:
        data_doctor(loader, step, seconds=SECONDS)
    assert sentence in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_that_raises_is_named_with_its_item(workers):
    loader = DataLoader(Raising(), batch_size=4, num_workers=workers)
    bad("raised ValueError on item 21", loader, idle)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_dies_is_named_with_its_signal(number):
    bad(f"by {number.name}:", DataLoader(Dying(number), batch_size=4, num_workers=2), idle)


class Leaving(Drawing):
    def __getitem__(self, index: int) -> Any:
        if index == 40:
            os._exit(3)
        return torch.zeros(4)


def test_a_worker_that_leaves_is_named_with_its_exit_code():
    bad("with exit code 3:", DataLoader(Leaving(), batch_size=4, num_workers=2), idle)


def unsendable(samples: list[Any]) -> Any:
    return threading.Lock()


def test_a_batch_that_no_worker_can_send():
    """torch's own loader waits for it without end."""
    began = time.monotonic()
    bad("cannot send what collate_fn returns", DataLoader(Drawing(), 4, num_workers=1, collate_fn=unsendable), idle)
    assert time.monotonic() - began < 30
    report = examined(DataLoader(Drawing(), batch_size=4, collate_fn=unsendable), idle)
    assert [n for n, _ in report.predicted.workers] == [0]


def test_a_worker_init_fn_that_raises():
    def start(worker: int) -> None:
        raise OSError("no license")

    bad("worker_init_fn raised", DataLoader(Drawing(), batch_size=4, num_workers=1, worker_init_fn=start), idle)


def test_a_step_that_raises_is_not_the_datasets_fault():
    def step(batch: Any) -> None:
        raise ValueError("too large\na batch")

    bad("step_fn raised ValueError: too large;", DataLoader(Drawing(), batch_size=4), step)


def test_an_empty_loader():
    bad("the loader is empty", DataLoader(Empty(), batch_size=4))


def test_a_dataset_that_cannot_be_pickled():
    bad("cannot be sent to a worker", DataLoader(Unpicklable(), num_workers=1, multiprocessing_context="spawn"))


def test_an_infinite_stream_ends_by_the_clock():
    class Endless(IterableDataset):
        def __iter__(self):
            while True:
                yield torch.zeros(2)

    began = time.monotonic()
    assert examined(DataLoader(Endless(), batch_size=2, num_workers=2), idle).batches >= 8
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [([1, 2], "is a dataset, not a loader"), (3, "is not a torch DataLoader"), (Drawing(), "is a dataset")],
)
def test_what_is_no_loader(thing, sentence):
    bad(sentence, thing)


def test_a_step_that_is_none():
    bad("give a function of one batch", DataLoader(Drawing()), 3)


def test_a_sampler_that_can_be_read_once():
    loader = DataLoader(Drawing(), batch_sampler=([i] for i in range(3)), collate_fn=as_list)
    bad("which can be read once", loader)
    assert next(iter(loader.batch_sampler)) == [0]


@pytest.mark.parametrize("workers", [0, 1])
def test_without_proc_it_says_what_it_could_not_tell(monkeypatch, tmp_path, workers):
    monkeypatch.setattr(clocks, "TASKS", tmp_path / "none")
    report = examined(DataLoader(Timed(0.002, 1000), batch_size=4, num_workers=workers), idle)
    assert any("could not be told apart" in note for note in report.notes)
    assert {how for worker in report.workers for _, how in worker.parts} <= {"cpu", "blocked"}


if sys.platform != "linux":
    pytestmark = [pytestmark, linux]
