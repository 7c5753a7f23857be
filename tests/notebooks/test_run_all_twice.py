"""A notebook is run from top to bottom, and then again in the same kernel: its objects are new, the kernel's memory is not."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.profile import Finding, Trial
from mlsys_studio.studio import session
from mlsys_studio.studio.advisor import trial
from mlsys_studio.studio.registry import Call
from mlsys_studio.studio.verbs.fix import fix

from profiles import typical  # isort: skip

STALL = Finding("data-stall", "The model waits for data", "evidence", 1.5, 10_000_000, "workers", "advice")


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch):
    """Profiling and fixing without running anything: every trial wins, and notes what is undone."""
    undone: list[str] = []
    namespace: dict[str, object] = {}

    def won(finding, *_):
        kept = Trial(finding.key, "as told", finding.predicted, 2.0, 1.9, 2.1, True, "it won")
        return kept, lambda: undone.append(finding.key)

    monkeypatch.setattr(session, "_last", None)
    monkeypatch.setattr(trial, "try_remedy", won)
    monkeypatch.setattr(session.Session, "subjects", lambda self: None)
    call = Call("magic", namespace, None, lambda result: None)

    def profile() -> None:
        one = session.Session(
            replace(typical(), findings=(STALL,), trials=()), None, namespace, session.Parts((), (), ())
        )  # type: ignore[arg-type]
        session.remember(one)
        namespace["measured"] = one.profile

    told = SimpleNamespace(profile=profile, undone=undone, names=namespace)
    told.fix = lambda n, **options: fix(n, call=call, **options)
    return told


def test_a_remedy_is_applied_once_to_what_was_profiled_and_again_to_what_was_made_anew(notebook):
    notebook.profile()
    notebook.fix(1)
    with pytest.raises(UsageError, match="in place already"):
        notebook.fix(1)
    notebook.profile()  # the cells above were run again, and the finding is back
    assert notebook.fix(1).trial.kept
    with pytest.raises(UsageError, match="in place already"):
        notebook.fix(1)


def test_both_are_taken_back_the_last_one_first(notebook):
    notebook.profile()
    notebook.fix(1)
    notebook.profile()
    notebook.fix(1)
    for count in (1, 2):
        notebook.fix(1, undo=True)
        assert len(notebook.undone) == count
    with pytest.raises(UsageError, match="nothing to take back"):
        notebook.fix(1, undo=True)


def test_what_was_taken_back_is_recorded_as_such_also_in_an_older_profile(notebook):
    notebook.profile()
    notebook.fix(1)
    notebook.names["older"] = notebook.names["measured"]
    assert [t.kept for t in notebook.names["older"].trials] == [True]
    notebook.profile()
    notebook.fix(1, undo=True)
    (trial,) = notebook.names["older"].trials
    assert not trial.kept and trial.reason.endswith("taken back afterwards")
    assert session.last().kept() == ()


def test_a_trial_that_failed_is_in_the_profile(notebook, monkeypatch: pytest.MonkeyPatch):
    def fails(finding, *_):
        raise trial.Unfinished(finding, "as told", "with the remedy the cell raised KeyError: 'x'")

    monkeypatch.setattr(trial, "try_remedy", fails)
    notebook.profile()
    with pytest.raises(UsageError, match="The model waits for data: with the remedy the cell raised KeyError"):
        notebook.fix(1)
    assert "as told: predicted 1.50x, not measured, not kept" in notebook.names["measured"].text()
