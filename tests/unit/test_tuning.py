"""The tuner as a remedy: what won its race is what `fix` puts in the loader's place, and takes back."""

from __future__ import annotations

import time

import pytest
import torch
from cells import SETUP, Notebook

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.loading import tuner
from mlsys_studio.profilers.loading.settings import Setting, changed
from mlsys_studio.profilers.loading.tuned import Tuned
from mlsys_studio.profilers.profile import Finding
from mlsys_studio.studio.advisor.findings import asking
from mlsys_studio.studio.advisor.remedies import REMEDIES, LoaderSettings
from mlsys_studio.studio.advisor.tuning import fitted, stand_in

pytestmark = pytest.mark.usefixtures("one_thread")
WORKERS = REMEDIES["workers"]
assert isinstance(WORKERS, LoaderSettings)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook(SETUP)


def race_won_by(setting: Setting):
    def tune_loader(loader, step, **_):
        before = Setting.of(loader)
        if setting == before:
            return Tuned.kept(loader, before, "no other setting was faster")
        return Tuned(loader, before, setting, changed(loader, setting), (1.1, 1.2, 1.3), (), 1.0, "", ())

    return tune_loader


@pytest.mark.parametrize("setting", [Setting(3, 2, 1, False), Setting(2, 4, 2, False), Setting(1, 4, 1, True)])
def test_the_winner_of_the_race_is_applied_and_taken_back(monkeypatch, notebook, setting):
    """Witness: the settings as torch's own DataLoader has them, and the very same batches."""
    monkeypatch.setattr(tuner, "tune_loader", race_won_by(setting))
    old, subjects = notebook.names["loader"], notebook.subjects()
    remedy = fitted(WORKERS, subjects)
    undo = remedy.apply(subjects)
    new = notebook.names["loader"]
    assert (new.num_workers, new.prefetch_factor, new.pin_memory) == (setting.workers, setting.prefetch, setting.pin)
    assert (new.worker_init_fn is not None) is (setting.threads != 1)
    assert f"num_workers={setting.workers}" in remedy.preview(subjects)
    undo()
    assert notebook.names["loader"] is old


def test_workers_may_be_taken_away(monkeypatch, notebook):
    notebook.run("loader = DataLoader(data, batch_size=8, num_workers=2, timeout=5, multiprocessing_context='fork')")
    monkeypatch.setattr(tuner, "tune_loader", race_won_by(Setting(0, None, 1, False)))
    subjects = notebook.subjects()
    fitted(WORKERS, subjects).apply(subjects)
    assert len(list(notebook.names["loader"])) == 20
    assert notebook.names["loader"].num_workers == 0


def test_a_race_that_nobody_won_is_said(monkeypatch, notebook):
    monkeypatch.setattr(tuner, "tune_loader", race_won_by(Setting(0, None, 1, False)))
    with pytest.raises(UsageError, match="no other setting was faster"):
        fitted(WORKERS, notebook.subjects())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_stand_in_takes_about_as_long_as_the_step(device):
    """On its thread's own clock where it computes, by the wall where it sleeps: others may have the cores."""
    clock = time.thread_time if device == "cpu" else time.perf_counter
    step = stand_in(20e6, device)
    began = clock()
    for _ in range(5):
        step(torch.zeros(1))
    assert 0.2 * 0.1 < clock() - began < 5 * 0.1


def test_a_data_stall_points_to_the_loader_by_its_own_name():
    stall, other = (Finding(key, "title", "evidence", 1.5, 10, None, "advice") for key in ("data-stall", "gc"))
    said = asking((stall, other), "train_batches")
    assert said[0].evidence == "evidence; `%mlsys data train_batches` says why"
    assert said[1] is other


def test_more_workers_than_cores_are_tried_without_torchs_warning(recwarn):
    torch.utils.data.DataLoader(torch.arange(4), num_workers=512)  # torch does warn of them
    (said,) = [w for w in recwarn.list if "worker processes" in str(w.message)]
    many = LoaderSettings(lambda _: {"num_workers": 512})
    notebook = Notebook(SETUP)
    undo = many.apply(notebook.subjects())
    assert notebook.names["loader"].num_workers == 512
    undo()
    assert [w for w in recwarn.list if "worker processes" in str(w.message)] == [said]
