"""State documents: read-only, of plain JSON, and never a traceback. Witness: a child interpreter, and values put by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from profiles import typical

from mlsys_studio.profilers.diagnosis.diagnosis import Diagnosis, Evidence
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.profile import Finding, Trial
from mlsys_studio.profilers.sampling.ring import Ring
from mlsys_studio.studio import diagnosed, state
from mlsys_studio.studio.parsing import parse
from mlsys_studio.studio.registry import Call
from mlsys_studio.studio.running import run

ALONE = """
import contextlib, io, sys
said = io.StringIO()
with contextlib.redirect_stdout(said):
    from mlsys_studio.studio.state import DOCUMENTS, read
    from mlsys_studio.profilers.sampling.watching import watching
    for name, words in (("now", {"reader": "a"}), ("findings", {}), ("diagnosis", {}), ("kernels", {"ids": ["x"]})):
        assert read(name, **words).content["state"] == "live", read(name, **words).content
    assert set(DOCUMENTS) == {"now", "findings", "diagnosis", "kernels"}
    watching.stop()
assert not said.getvalue()
assert not {"torch", "IPython", "numpy", "ipywidgets"} & set(sys.modules), sorted(sys.modules)
"""


def content(document: str, **options):
    found = state.read(document, **options)._repr_mimebundle_()
    return json.loads(json.dumps(found[state.MIME], allow_nan=False))


def test_looking_loads_no_torch_and_prints_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    ran = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_an_unknown_document_is_named():
    with pytest.raises(UsageError, match="no state document 'later', but now, findings"):
        state.read("later")


def test_a_failure_is_a_sentence(monkeypatch):
    def refuse(*_):
        raise UsageError("no folder for live samples can be made")

    monkeypatch.setattr(state.watching, "ring", refuse)
    found = content("now", reader="a")
    assert (found["state"], found["sentence"]) == ("failed", "no folder for live samples can be made")
    assert (found["protocol"], found["document"]) == (state.PROTOCOL, "now")
    monkeypatch.setattr(state.watching, "ring", lambda *_: 1 / 0)
    assert "please report it (ZeroDivisionError" in content("now", reader="a")["sentence"]


def test_samples_come_once_and_unknown_values_are_null(tmp_path, monkeypatch):
    ring = Ring.create(tmp_path / "1-2-3.ring", 1, {"host": "box", "gpus": [{"index": 0}]})
    monkeypatch.setattr(state.watching, "ring", lambda *_: ring)
    writer = ring.writer(ring.samples)
    width = ring.samples.values
    for n in range(1, 4):
        writer.put((float(n), float("nan"), float("inf"), 1.23456789, 123456789.4, *[0.0] * (width - 5)))
    found = content("now", reader="a", since=1)
    assert [row[0] for row in found["samples"]] == [2, 3]
    assert found["samples"][1][1:6] == [3, None, None, 1.235, 123456789]
    assert len(found["samples"][0]) == 1 + len(found["fields"]["host"]) + len(found["fields"]["gpu"])
    assert content("now", reader="a", since=3)["samples"] == []
    assert len(content("now", reader="a", since=99)["samples"]) == 3  # of the ring before this one


def test_a_reader_that_has_some_steps_gets_few_more(tmp_path, monkeypatch):
    """Each row takes its time from the loop, so of many evenly spread ones are sent, and the newest is among them."""
    ring = Ring.create(tmp_path / "1-2-3.ring", 0, {})
    monkeypatch.setattr(state.watching, "ring", lambda *_: ring)
    writer = ring.writer(ring.steps)
    for n in range(1, 3001):
        writer.put((float(n), *[0.0] * (ring.steps.values - 1)))
    first = [row[0] for row in content("now", reader="a")["steps"]]
    more = [row[0] for row in content("now", reader="a", step=1000)["steps"]]
    assert (len(first), first[-1]) == (600, 3000)
    assert len(more) <= 60 and more[-1] == 3000 and {b - a for a, b in pairwise(more)} == {34}


@pytest.fixture
def session(monkeypatch):
    evil = Finding("data-stall", "<script>alert(1)</script>", "evidence " * 1000, 1.8, 10, "workers", "by hand")
    trial = Trial("data-stall", "workers", 1.8, 1.7, 1.6, 1.75, True, "it won")
    measured = replace(typical(), findings=(evil,), trials=(trial,))
    kept = SimpleNamespace(profile=measured, applied=[SimpleNamespace(number=1, title=evil.title)])
    from mlsys_studio.studio import session as sessions

    monkeypatch.setattr(sessions, "_last", kept)
    return kept


def test_findings_are_those_of_the_last_profile(session):
    found = content("findings")["profile"]
    ledger = session.profile.ledger
    assert found["mfu"] == pytest.approx(ledger.mfu)
    assert sum(cause["ns"] for cause in found["causes"]) == pytest.approx(ledger.wall_ns / ledger.steps)
    assert sum(cause["share"] for cause in found["causes"]) == pytest.approx(1)
    (finding,) = found["findings"]
    assert finding["title"] == "<script>alert(1)</script>"  # as text: the panel sets it as text
    assert len(finding["evidence"]) == state.LONGEST
    assert finding["applied"] and finding["trials"] == [{"measured": 1.7, "low": 1.6, "high": 1.75, "kept": True, "reason": "it won"}]  # fmt: skip


def test_a_new_trial_is_another_revision(session):
    before = content("findings")["profile"]["revision"]
    assert content("findings")["profile"]["revision"] == before
    session.applied.clear()
    assert content("findings")["profile"]["revision"] != before


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "name", "text"),
    [
        (ValueError("shapes (3, 4) and (5,)"), "ValueError", "shapes (3, 4) and (5,)"),
        (Unprintable(), "Unprintable", "(it cannot be shown)"),
        (KeyboardInterrupt(), None, None),
        (UsageError("type this instead"), None, None),
    ],
)
def test_the_last_exception(monkeypatch, error, name, text):
    monkeypatch.setattr(diagnosed, "_diagnosed", None)
    monkeypatch.setattr(sys, "last_exc", error, raising=False)
    found = content("diagnosis")["error"]
    assert found is None if name is None else (found["type"], found["text"]) == (name, text)


def test_of_an_exception_and_a_diagnosis_the_newer_is_told(monkeypatch, tmp_path):
    """Witness: the order of events here. Exceptions share an address where they can, as in a long-lived kernel."""
    log = tmp_path / "<b>.log"
    log.write_text("step 1 loss 2.0\ntorch.OutOfMemoryError: CUDA out of memory. " + "x" * 5000 + "\n")
    monkeypatch.setattr(diagnosed, "_diagnosed", None)
    monkeypatch.setattr(sys, "last_exc", None, raising=False)
    ring = Ring.create(tmp_path / "1-2-3.ring", 0, {})
    monkeypatch.setattr(state.watching, "ring", lambda *_: ring)
    told, revisions = [], []

    def look() -> None:
        found = content("diagnosis")
        told.append(found["error"]["type"] if found["error"] else found["found"] and found["found"]["category"])
        revisions.append(content("now", reader="a")["trouble"])

    look()
    for error in (ValueError("a"), ValueError("b"), KeyError("c")):
        monkeypatch.setattr(sys, "last_exc", error)
        look()
    asked = parse(["diagnose", str(log)], "%mlsys")
    run(asked, Call("magic", {}, None, print))
    look()
    monkeypatch.setattr(sys, "last_exc", None)
    look()
    monkeypatch.setattr(sys, "last_exc", ValueError("d"))
    look()
    assert told == [None, "ValueError", "ValueError", "KeyError", "gpu_oom", "gpu_oom", "ValueError"]
    assert revisions[0] is None and len(set(revisions)) == 6 and revisions[4] == revisions[5]


def test_a_diagnosis_has_its_contract_and_no_long_text(monkeypatch):
    """Witness: the fields that the contract lists."""
    long = "<script>" + "x" * 10_000
    found = Diagnosis("gpu_oom", "c", 0.5, long, evidence=(Evidence(None, 3, 1, None, None, long),))
    monkeypatch.setattr(sys, "last_exc", None, raising=False)
    monkeypatch.setattr(diagnosed, "_diagnosed", None)
    diagnosed.remember(found)
    told = content("diagnosis")["found"]
    assert list(told) == ["schema", "category", "cause", "confidence", "summary", "evidence", "chain", "fix", "checks", "alternatives"]  # fmt: skip
    assert {len(told["summary"]), len(told["evidence"][0]["text"])} == {state.LONGEST}
    assert (told["evidence"][0]["line"], told["evidence"][0]["rank"], told["fix"]) == (3, 1, [])


def test_a_kernel_is_found_by_its_connection_file(tmp_path):
    sleeper = tmp_path / "sleep.py"
    sleeper.write_text("import time; hold = bytearray(30_000_000); print(1, flush=True); time.sleep(60)")
    child = subprocess.Popen([sys.executable, str(sleeper), "-f", "/x/kernel-abc-1.json"], stdout=subprocess.PIPE)
    try:
        assert child.stdout and child.stdout.readline()
        began = time.monotonic()
        found = content("kernels", ids=["abc-1", "gone", "<script>"])["kernels"]
        assert time.monotonic() - began < 2
        assert list(found) == ["abc-1"]
        assert found["abc-1"]["pid"] == child.pid and found["abc-1"]["memory"] > 30e6 and found["abc-1"]["gpu"] is None
    finally:
        child.kill()
        child.communicate()


def test_looking_does_not_run_ipythons_callbacks(tmp_path):
    """One of them shows and closes matplotlib's figures, which a cell may be drawing just then."""
    InteractiveShell = pytest.importorskip("IPython").core.interactiveshell.InteractiveShell
    InteractiveShell.clear_instance()
    shell, ran = InteractiveShell.instance(ipython_dir=str(tmp_path)), []
    for event in ("pre_execute", "post_execute"):
        shell.events.register(event, lambda event=event: ran.append((event, threading.current_thread().name)))

    def look() -> None:
        shell.run_cell("", silent=True)  # before a first look nobody knows what this thread is for
        ran.clear()
        state.read("findings")
        state.read("findings")
        shell.run_cell("", silent=True)

    try:
        thread = threading.Thread(target=look, name="subshell-1")
        thread.start()
        thread.join()
        assert ran == []
        state.read("findings")  # on the main thread, which a panel never uses
        shell.run_cell("1", silent=True)
        assert ran == [("pre_execute", "MainThread"), ("post_execute", "MainThread")]
    finally:
        InteractiveShell.clear_instance()
