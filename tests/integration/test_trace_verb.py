"""`mlsys trace`: what a script gets that reads its JSON, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from memorystories import kineto, training
from profiles import typical
from tracefiles import DIALECTS, document, story

FIELDS = {
    "path", "rank", "device", "span_us", "device_busy_us", "device_idle_us", "compute_us", "communication_us",
    "memory_op_us", "overlap_us", "exposed_communication_us", "idle_by_cause_us", "steps", "uncounted", "warnings",
}  # fmt: skip


def mlsys(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlsys_studio.studio.command", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    (tmp_path / "t.json").write_bytes(DIALECTS["today"])
    return tmp_path / "t.json"


def test_json_has_the_promised_fields(trace):
    """The story: compute 45-65, communication 60-80, a copy 68-70, in us."""
    done = mlsys("trace", trace, "--json")
    said = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert (said["schema_version"], said["stragglers"], said["errors"]) == (1, [], [])
    (found,) = said["traces"]
    assert set(found) == FIELDS
    assert {k: found[k] for k in FIELDS - {"path", "device", "idle_by_cause_us"}} == {
        "rank": 3, "span_us": 35.0, "device_busy_us": 35.0, "device_idle_us": 0.0, "compute_us": 20.0,
        "communication_us": 20.0, "memory_op_us": 2.0, "overlap_us": 5.0, "exposed_communication_us": 15.0, "steps": 1,
        "uncounted": [], "warnings": [],
    }  # fmt: skip
    assert sum(found["idle_by_cause_us"].values()) == found["device_idle_us"]


def test_a_bad_file_is_told_and_the_others_explained(trace, tmp_path):
    (tmp_path / "bad.json").write_text('{"a": 1}')
    done = mlsys("trace", tmp_path / "bad.json", trace, tmp_path / "none.json", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 1
    assert len(said["traces"]) == 1
    assert [(Path(e["path"]).name, "traceEvents" in e["message"]) for e in said["errors"]] == [
        ("bad.json", True),
        ("none.json", False),
    ]
    assert "No such file" in said["errors"][1]["message"]


def test_text_names_the_loss_of_a_file_cut_off(tmp_path):
    content = document(story())
    (tmp_path / "t.json").write_bytes(content[: content.index(b"process_name")])
    done = mlsys("trace", tmp_path / "t.json")
    assert done.returncode == 0
    assert "ends in the middle of an event" in " ".join(done.stdout.split())


def test_two_of_a_kind_are_compared(trace, tmp_path):
    """The same trace against itself changed nothing; a Profile against a longer one adds up to the difference."""
    done = mlsys("compare", trace, trace, "--json")
    assert (done.returncode, {row["change_us"] for row in json.loads(done.stdout)["changes"]}) == (0, {0.0})
    for name, step in (("a", 90_000_000), ("b", 92_000_000)):
        profile = typical()
        (tmp_path / name).write_text(replace(profile, steps=replace(profile.steps, clean=(step,) * 5)).to_json())
    done = mlsys("compare", tmp_path / "a", tmp_path / "b", "--json")
    said = json.loads(done.stdout)
    assert sum(c["after"] - c["before"] for c in said["changes"]) == 2_000_000
    done = mlsys("compare", tmp_path / "a", trace)
    assert (done.returncode, done.stdout) == (2, "")
    assert "a is a Profile and t.json is not" in done.stderr
    assert "cannot be read" in mlsys("compare", tmp_path / "none", trace).stderr


def test_a_page_opens_offline_and_runs_nothing(trace, tmp_path):
    """Beside the text, which stays; and a path that is none is told before anything is read."""
    page = tmp_path / "made" / "page.html"
    done = mlsys("trace", str(trace), "--html", str(page))
    assert done.returncode == 0 and "Idle by cause" in done.stdout
    written = page.read_text()
    assert "Idle by cause" in written and "<script" not in written and "default-src 'none'" in written
    refused = mlsys("compare", str(tmp_path / "nowhere"), str(trace), "--html", str(tmp_path / "page.txt"))
    assert refused.returncode == 2 and "a file that ends in .html" in refused.stderr


@pytest.mark.parametrize("words", [["trace"], ["memory", "--trace"], ["compare", "{}"]])
def test_no_torch_is_imported(trace, words, tmp_path):
    (tmp_path / "t.json").write_bytes(kineto(training(1)))
    words = [*(word.format(trace) for word in words), str(trace)]
    code = f"""
import sys
from mlsys_studio.studio.command import main
assert main({words!r}) == 0
heavy = {{"torch", "pandas", "IPython", "plotly"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
