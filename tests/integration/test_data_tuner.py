"""The tuner on live loaders: same samples, same order, same draws; a loader that is good is left alone."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

import psutil
import pytest
import torch
from planted import Pipeline, Planted, PlantedStream, as_list, planted
from torch.utils.data import DataLoader, Dataset

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.loading.consumer import Loop
from mlsys_studio.profilers.loading.room import Room, batch_bytes
from mlsys_studio.profilers.loading.settings import Setting, changed
from mlsys_studio.profilers.loading.tuner import Race, bounds, tune_loader, variations, worth_trying

pytestmark = [pytest.mark.filterwarnings("ignore:This DataLoader will create"), pytest.mark.usefixtures("one_thread")]


class Numbers(Dataset):
    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> float:
        time.sleep(0.002)
        return index


def epochs(loader: DataLoader, count: int = 2) -> list[Any]:
    """Every batch, and what the global state gives after it."""
    return [(batch, torch.rand(1).item()) for _ in range(count) for batch in loader]


def made(workers: int, generator: bool) -> DataLoader:
    own = torch.Generator().manual_seed(3) if generator else None
    return DataLoader(Numbers(), batch_size=7, shuffle=True, drop_last=True, generator=own, collate_fn=as_list, num_workers=workers)  # fmt: skip


@pytest.mark.parametrize("generator", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_setting_gives_the_same_samples_in_the_same_order_and_leaves_the_same_draws(workers, generator):
    """Witness: the untuned loader, from the same seed, over two epochs."""
    torch.manual_seed(1)
    expected = epochs(made(workers, generator))
    for setting in (Setting(0, None, 1, False), Setting(2, 4, 1, False), Setting(1, 1, 2, False)):
        torch.manual_seed(1)
        assert epochs(changed(made(workers, generator), setting)) == expected


def test_tuning_moves_nothing_on(generator: bool = True):
    def run(tuning: bool) -> list[Any]:
        torch.manual_seed(1), random.seed(1)
        loader = made(0, generator)
        if tuning:
            tuned = tune_loader(loader, lambda batch: time.sleep(0.01), seconds=2)
            assert tuned.loader.batch_size == 7
            assert tuned.loader.drop_last
            loader = tuned.loader
        return epochs(loader)

    before = psutil.Process().children()
    assert run(tuning=True) == run(tuning=False)
    psutil.wait_procs(psutil.Process().children(), timeout=5)
    assert len(psutil.Process().children()) <= len(before) + 1  # multiprocessing's own tracker


def test_a_start_of_each_epoch_is_shared_by_its_steps():
    """Witness: 0.1 s and 0.05 s a worker before the first of 10 batches, which take 0.02 s each: 0.015, 0.02 s a step."""
    race = Race(DataLoader(Numbers(), batch_size=6), None, [], 0.05)
    for workers, started in ((0, 0.02), (1, 0.17), (2, 0.22)):
        race.enter(Setting(workers, 4 if workers else None, 1, False))
        runner = race._runners[Setting(workers, 4 if workers else None, 1, False)]
        runner.bouts, runner.loop.result.starts = [0.02], [round(started * 1e9)]
    race._share_starts()
    assert [round(r.seconds, 6) for r in race._runners.values()] == [0.02, 0.035, 0.04]


def test_workers_that_fetched_ahead_are_idle_before_the_next_bout():
    """Two workers of 12 ms a batch may fetch four each: nothing is on its way once the loop has settled."""
    loop = Loop(DataLoader(Numbers(), batch_size=6, num_workers=2, prefetch_factor=4))
    loop.pace(None, 1, 2, 0)
    loop.settle(5)
    assert loop._iterator._worker_result_queue.qsize() == loop._iterator._tasks_outstanding
    loop.close()


def test_an_epoch_of_one_batch_ends_by_the_clock():
    loop = Loop(DataLoader(Numbers(), batch_size=60))
    assert loop.pace(None, 1, 3, 0.1) == pytest.approx(60 * 0.0021e9, rel=0.5)
    assert len(loop.run(None, 1, 3, 0.1, 10).turns) == 3
    loop.close()


@pytest.mark.slow  # a race is decided by time
def test_what_waits_gets_workers():
    """Sleeping 60 ms a batch beside a step of 5: workers wait side by side, on any machine."""
    with planted(Pipeline(workers=0, batch=2, slow=0.03, step=0.005), 0) as (loader, step):
        tuned = tune_loader(loader, step, seconds=6)
    assert tuned.after.workers >= 2
    assert f"num_workers={tuned.after.workers}" in tuned.line
    assert tuned.gain[1] > 1.03
    assert max(map(len, str(tuned).splitlines())) <= 80
    assert json.loads(tuned.to_json())["changed"] is True


@pytest.mark.slow  # a race is decided by time
def test_a_loader_that_is_good_is_left_alone():
    """A step of 40 ms and nothing to load: no setting can be 3 % faster."""
    loader = DataLoader(Numbers(), batch_size=1, num_workers=1)
    tuned = tune_loader(loader, lambda batch: time.sleep(0.05), seconds=4)
    assert tuned.loader is loader
    assert "left as it is" in str(tuned)
    assert tuned.line == "loader as it is"


class Drawing(Numbers):
    """As augmentations do: each sample draws, from the process or from a generator of the dataset's own."""

    def __init__(self, own: bool) -> None:
        self.own = torch.Generator().manual_seed(5) if own else None

    def __getitem__(self, index: int) -> float:
        time.sleep(0.004)
        return index + torch.rand((), generator=self.own).item()


@pytest.mark.parametrize("own", [False, True])
def test_a_dataset_that_draws_keeps_its_workers_and_so_its_draws(own):
    """Witness: the loader itself, from the same seed; two workers would be twice as fast."""
    torch.manual_seed(1)
    expected = epochs(DataLoader(Drawing(own), batch_size=6, shuffle=True, collate_fn=as_list))
    torch.manual_seed(1)
    tuned = tune_loader(DataLoader(Drawing(own), batch_size=6, shuffle=True, collate_fn=as_list), seconds=1)
    assert epochs(tuned.loader) == expected
    assert "draws random numbers" in " ".join(tuned.notes)
    assert "torch" in " ".join(tuned.notes)
    redrawn = tune_loader(DataLoader(Drawing(own), batch_size=6), seconds=1, redraw=True)
    assert {point.setting.workers for point in redrawn.points} > {0}


def test_a_dataset_that_draws_nothing_may_have_other_workers():
    tuned = tune_loader(DataLoader(Numbers(), batch_size=6), seconds=1)
    assert not any("draws" in note for note in tuned.notes)
    assert {point.setting.workers for point in tuned.points} > {0}


def test_a_stream_keeps_its_number_of_workers():
    """Each worker reads a share that its number decides: another number is another order."""
    assert worth_trying({0: 1.0, 1: 0.1, 2: 0.05}, 2, tied=True) == [2]
    loader = DataLoader(PlantedStream(Planted(Pipeline(length=400))), batch_size=4, num_workers=1)
    assert tune_loader(loader, lambda batch: time.sleep(0.002), seconds=2).after.workers == 1


def test_where_no_worker_could_send_a_batch_none_is_tried():
    loader = DataLoader(Numbers(), batch_size=6, collate_fn=lambda samples: threading.Lock())
    tuned = tune_loader(loader, seconds=1)
    assert {point.setting.workers for point in tuned.points} == {0}
    assert "cannot be pickled" in " ".join(tuned.notes)


def test_only_what_the_model_hopes_for_is_raced():
    assert worth_trying({0: 9.0, 1: 5.0, 2: 2.5, 3: 2.4, 4: 2.4}, 0, tied=False) == [0, 3, 4, 2]


def test_variations_of_the_winner():
    assert variations(Setting(0, None, 1, False), 8, cuda=False) == []
    assert variations(Setting(2, 4, 1, False), 8, cuda=True) == [
        Setting(2, 2, 1, False), Setting(2, 4, 2, False), Setting(2, 4, 1, True),
    ]  # fmt: skip
    assert variations(Setting(2, 8, 1, False), 2, cuda=False) == []  # the user's own, and no core is free


def test_what_does_not_fit_is_not_tried():
    room = Room(shm=64 << 20, memory=1 << 30)
    assert room.refusal(2, 2, 4 << 20, 50 << 20) == ""
    assert "/dev/shm" in room.refusal(4, 4, 4 << 20, 0)
    assert "free memory" in room.refusal(8, 1, 1, 100 << 20)
    assert Room(None, None).refusal(64, 64, 1 << 30, 1 << 30) == ""


def test_a_setting_that_does_not_fit_does_not_enter_the_race(monkeypatch):
    loader = DataLoader(Numbers(), batch_size=4)
    notes: list[str] = []
    race = Race(loader, None, notes, 0.05)
    race.enter(Setting(0, None, 1, False))
    race.run(until=0)
    monkeypatch.setattr(race, "_room", Room(shm=10, memory=None))
    race.enter(Setting(4, 4, 1, False))
    race.close()
    assert race.points({}) and len(race.points({})) == 1
    assert "not tried" in notes[0]


def test_bytes_of_a_batch():
    assert batch_bytes({"a": torch.zeros(4, 8), "b": [b"12345", "67", (1, 2)]}) == 128 + 7


def test_bounds_are_those_of_the_t_distribution():
    """Witness: mean 0, standard deviation of logs 0.01, 5 ratios: t(4, 97.5 %) = 2.776 (any table) x 0.01 / sqrt(5)."""
    from math import exp, sqrt

    logs = [0.01 * x for x in (-1.0, -1.0, 0.0, 1.0, 1.0)]
    low, middle, high = bounds([exp(each) for each in logs])
    assert middle == pytest.approx(1)
    assert high == pytest.approx(exp(2.776 * 0.01 / sqrt(5)), rel=1e-4)
    assert low * high == pytest.approx(1)


def test_a_dataset_that_raises_is_one_sentence():
    class Raising(Numbers):
        def __getitem__(self, index: int) -> int:
            raise OSError("disk is gone")

    with pytest.raises(UsageError, match="raised OSError on item 0"):
        tune_loader(DataLoader(Raising(), batch_size=2), seconds=1)
