"""Verdicts on numbers made up for them, and whole trials of remedies that sleep, raise or spoil the loss."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass, replace

import pytest
from cells import LOOP, SETUP, Notebook

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.neighbours import CpuTime
from mlsys_studio.profilers.profile import Finding
from mlsys_studio.studio.advisor import trial as trials
from mlsys_studio.studio.advisor.replay import Run, run_steps
from mlsys_studio.studio.advisor.trial import (
    Unfinished,
    first_sentence,
    judge,
    loss_difference,
    spoils_the_loss,
    steps_a_run,
    try_remedy,
    verdict,
)

FINDING = Finding("slow", "The loop sleeps", "", 2.0, 1, "wake", "sleep less")


def test_equal_runs_are_not_kept():
    draw = random.Random(0)
    kept = 0
    for _ in range(1000):
        runs = [draw.gauss(100, 3) for _ in range(7)]
        kept += verdict(runs[::2], runs[1::2]).kept
    assert kept <= 20  # 1 % expected
    assert not verdict([100] * 4, [100] * 3).kept


def test_a_clear_win_is_kept():
    said = verdict([100, 102, 99, 101], [50, 51, 50])
    assert said.kept
    assert said.measured == pytest.approx(2.0, rel=0.03)
    assert said.low <= said.measured <= said.high
    assert said.spread == pytest.approx(3 / 102)


def test_a_win_within_the_spread_is_not():
    assert not verdict([100, 120, 100, 120], [95, 96, 95]).kept


def test_one_round_that_lost_is_enough_to_doubt():
    assert not verdict([100, 100, 100, 100], [50, 50, 101]).kept


def test_a_loss_is_not_kept():
    assert not verdict([50, 50, 50, 50], [100, 100, 100]).kept


def test_a_machine_that_drifts_does_not_count_as_a_gain():
    # ever faster by 5 % a run, remedy or not
    runs = [100 * 0.95**i for i in range(7)]
    said = verdict(runs[::2], runs[1::2])
    assert not said.kept and said.measured == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    ("without", "with_it", "difference", "spoilt"),
    [
        ([2.0, 2.0], [2.0, 2.0], 0.0, False),
        ([2.0, 4.0], [3.0, 3.3], 0.05, False),
        ([], [], None, False),
        ([2.0], [float("nan")], None, True),
        ([float("inf")], [float("nan")], None, False),
        ([0.0], [1.0], None, False),
    ],
)
def test_losses(without, with_it, difference, spoilt):
    runs = [Run([1], without)], [Run([1], with_it)]
    found = loss_difference(*runs)
    assert found == (difference if difference is None else pytest.approx(difference))
    assert spoils_the_loss(*runs) is spoilt


@pytest.mark.parametrize(("seconds", "steps"), [(0.001, 40), (0.1, 39), (0.5, 5), (100, 5), (0, 40)])
def test_a_trial_has_a_budget(seconds, steps):
    assert steps_a_run(seconds) == steps


CALM, CROWDED = CpuTime(2, 10.0, 10.4, 9.6), CpuTime(2, 10.0, 19.0, 1.0)  # of 20 core-seconds others had 0.4, 9


def judged(without, with_it, meanwhile=CALM):
    return judge(FINDING, "nap = 0", [Run([w]) for w in without], [Run([w]) for w in with_it], 90.0, meanwhile)


@pytest.mark.parametrize(
    ("without", "with_it", "meanwhile", "kept", "reason"),
    [
        ([100] * 4, [50] * 3, CALM, True, "the gain exceeds the spread of 0.0% between equal runs"),
        ([100] * 4, [50] * 3, CROWDED, True, "the gain exceeds the spread of 0.0% between equal runs"),
        ([100] * 4, [100] * 3, CALM, False, "no gain beyond the spread of 0.0% between equal runs"),
        ([100] * 4, [100] * 3, None, False, "no gain beyond the spread of 0.0% between equal runs"),
        ([100] * 4, [100] * 3, CROWDED, False, "inconclusive: other processes took 0.9 of 2 cores"),
        ([100] * 2, [50], CALM, False, "inconclusive: stopped after 90 s with 3 of 7 runs done"),
        ([100] * 2, [50] * 2, CALM, False, "inconclusive: stopped after 90 s with 4 of 7 runs done"),
        (
            [100] * 3,
            [50] * 2,
            CROWDED,
            False,
            "inconclusive: stopped after 90 s with 5 of 7 runs done, and other processes took 0.9 of 2 cores",
        ),
    ],
)
def test_a_trial_says_what_it_can_and_what_it_cannot(without, with_it, meanwhile, kept, reason):
    trial = judged(without, with_it, meanwhile)
    assert (trial.kept, trial.reason) == (kept, reason)
    assert trial.measured == without[0] / with_it[0]


def test_too_little_to_compare_is_one_sentence_with_what_was_measured():
    with pytest.raises(UsageError) as said:
        judged([100e6], [50e6], CROWDED)
    assert str(said.value) == (
        "stopped after 90 s with 2 of 7 runs done; without 100.00 ms a step; with 50.00 ms a step; "
        "other processes took 0.9 of 2 cores: too little to compare, and everything is as before"
    )


# -- whole trials ----------------------------------------------------------------------------------------------------------


@dataclass
class Wake:
    """Sets a name that the cell looks at."""

    value: object
    numerics: bool = True
    changes: str = ""

    def preview(self, subjects):
        return "nap = 0"

    def refusal(self, subjects):
        return ""

    def apply(self, subjects):
        before = subjects.namespace["nap"]
        subjects.namespace["nap"] = self.value
        return lambda: subjects.namespace.update(nap=before)


@pytest.fixture
def notebook(one_thread, monkeypatch) -> Notebook:
    """Its cells really run; what a step took is not measured but follows `nap`."""
    book = Notebook(SETUP, "import time\nnap = 0.01")
    draw = random.Random(0)

    def timed(*arguments):
        run = run_steps(*arguments)
        return replace(run, walls=[int(1e9 * (0.01 + book.names["nap"]) * draw.gauss(1, 0.01)) for _ in run.walls])

    monkeypatch.setattr(trials, "MOST", 5)
    monkeypatch.setattr(trials, "run_steps", timed)
    monkeypatch.setattr(CpuTime, "now", lambda: None)  # whoever else is on this machine is no subject here
    return book


CELL = LOOP + "    time.sleep(0 * nap)\n"


def attempt(notebook, value, cell=CELL):
    lines = []
    subjects = notebook.subjects()
    result = try_remedy(FINDING, Wake(value), notebook.cell(cell), subjects, 0.01, lines.append)
    return *result, lines


def test_a_remedy_that_wins_stays_and_can_be_taken_back(notebook):
    trial, undo, lines = attempt(notebook, 0.0)
    assert trial.kept and trial.measured > 1.5 and trial.low > 1
    assert (trial.finding, trial.remedy, trial.predicted) == ("slow", "nap = 0", 2.0)
    assert trial.loss_difference == 0.0
    assert notebook.names["nap"] == 0.0
    assert undo is not None
    undo()
    assert notebook.names["nap"] == 0.01
    assert lines[0] == "trying nap = 0" and "7 runs of 8 steps" in lines[1] and len(lines) == 2 + 7
    assert all(len(line) <= 80 for line in lines)
    assert not notebook.names["optimizer"].state


def test_a_trial_ends_when_its_time_is_up(notebook, monkeypatch):
    """Witness: the clock on the wall. Seven runs of eight steps that sleep 40 ms would take more than two seconds."""
    monkeypatch.setattr(trials, "STARTING", 0.0)
    notebook.names["slept"] = slept = []
    cell = CELL + "    time.sleep(0.04); slept.append(1)\n"
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"stopped after 1 s with \d of 7 runs done"):
        try_remedy(FINDING, Wake(0.0), notebook.cell(cell), notebook.subjects(), 0.0065, lambda line: None)
    assert time.monotonic() - began < 2
    assert notebook.names["nap"] == 0.01 and not slept  # as before


def test_a_remedy_that_loses_is_gone(notebook):
    trial, undo, _ = attempt(notebook, 0.03)
    assert not trial.kept and undo is None and trial.measured < 1
    assert "no gain beyond the spread" in trial.reason
    assert notebook.names["nap"] == 0.01


def test_a_remedy_that_spoils_the_loss_is_not_kept(notebook):
    cell = CELL.replace("loss.backward()", "(loss * (1 if nap else float('nan'))).backward()")
    trial, undo, _ = attempt(notebook, 0.0, cell)
    assert not trial.kept and undo is None and trial.measured > 1.5
    assert "no longer a finite number" in trial.reason


def test_a_remedy_under_which_the_cell_raises_is_taken_back(notebook):
    with pytest.raises(
        UsageError, match=r"with the remedy the cell raised TypeError: .*; everything is as before"
    ) as said:
        attempt(notebook, "no number")
    assert "\n" not in str(said.value)
    assert notebook.names["nap"] == 0.01 and not notebook.names["optimizer"].state


def test_a_cell_that_raises_by_itself_is_said_to(notebook):
    with pytest.raises(UsageError, match="run again as it is the cell raised ZeroDivisionError"):
        attempt(notebook, 0.0, CELL + "    1 / 0\n")


def test_a_refusal_names_its_reason(notebook):
    with pytest.raises(UsageError, match="The loop sleeps: not tried, the cell saves files") as said:
        attempt(notebook, 0.0, CELL + "    torch.save(model, 'x')\n")
    assert not isinstance(said.value, Unfinished)  # nothing was tried, so there is nothing to record


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("    1 / 0\n", "run again as it is the cell raised ZeroDivisionError"),
        ("    if optimizer.state: break\n", "the cell ended after 1 step and"),
        ("    signal.raise_signal(signal.SIGINT)\n", "interrupted with 0 of 7 runs done, and everything is as before"),
    ],
)
def test_what_began_and_failed_is_on_record(notebook, line, says):
    notebook.names["signal"] = signal
    with pytest.raises(Unfinished, match=says) as said:
        attempt(notebook, 0.0, CELL + line)
    record = said.value.trial
    assert (record.finding, record.remedy, record.measured, record.kept) == ("slow", "nap = 0", None, False)
    assert str(said.value) == f"The loop sleeps: {record.reason}"
    assert notebook.names["nap"] == 0.01 and not notebook.names["optimizer"].state


def test_an_error_is_told_in_one_line_that_says_something():
    assert first_sentence(RuntimeError("backend='inductor' raised:\nCppCompileError: no g++\n\nlong")) == (
        "backend='inductor' raised: CppCompileError: no g++"
    )
    assert first_sentence(ValueError("short\nand long")) == "short"
    assert first_sentence(ValueError()) == "ValueError"
