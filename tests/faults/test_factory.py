"""The factory itself: what it provokes says what it claims, its variations keep the truth, and nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import tempfile
from pathlib import Path

import provoke
import pytest
import stage
from fault import FAULTS, Fault, Stage
from variations import decidable, missing_head, vary

TAXONOMY = Path(__file__).parents[3] / "shared" / "data" / "failures" / "taxonomy.json"
FAST = [fault for fault in FAULTS.values() if fault.fast]


@pytest.fixture
def corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where runs put their folders; nothing and nobody may be there afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_behind(corner: Path) -> list[str]:
    """Files, mounts and processes that still know the corner."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(corner) in line]
    living = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd").startswith(str(corner)):
                living.append(process.name)
        except OSError:  # ended while we looked, or not ours
            continue
    return [*map(str, corner.iterdir()), *mounts, *living]


def test_there_are_enough_causes_and_all_are_of_the_taxonomy():
    real = {
        (fault.category, fault.cause) for fault in FAULTS.values() if fault.category != "healthy" and not fault.composed
    }
    assert len(real) >= 45
    calm = [fault for fault in FAULTS.values() if fault.category == "healthy"]
    assert len(calm) >= 60 and sum(fault.hard == "healthy_trap" for fault in calm) >= 20
    assert all(fault.says and fault.because for fault in FAULTS.values())
    if not TAXONOMY.exists():
        pytest.skip("the shared taxonomy is not on this machine")
    known = {(c["id"], cause) for c in json.loads(TAXONOMY.read_text())["categories"] for cause in c["causes"]}
    assert {(fault.category, fault.cause) for fault in FAULTS.values()} <= known


@pytest.mark.parametrize("fault", FAST, ids=lambda fault: fault.id)
def test_the_real_output_says_what_the_fault_claims(fault: Fault, corner: Path):
    """Witness: the words of Python, torch or the kernel, written down with the fault, and the exit code."""
    provoked = provoke.provoke(fault, seed=1)
    assert left_behind(corner) == []
    if provoked.outcome is None:
        pytest.skip(provoked.trouble)
    assert provoked.trouble == "", provoked.outcome.text[-2000:]
    assert str(corner) not in provoked.outcome.text and os.sep + ".venv" + os.sep not in provoked.outcome.text
    rows = list(provoke.records(provoked, seed=1, count=10))
    assert len({row["text"] for row in rows}) >= 6  # the output as it was, and five others
    assert not rows[0]["undecidable"] and {row["cause"] for row in rows} == {fault.cause}
    assert [row["text"] for row in provoke.records(provoked, seed=1, count=10)] == [row["text"] for row in rows]


def test_a_text_that_does_not_show_its_cause_is_refused(corner: Path):
    honest = next(fault for fault in FAST if fault.name == "latin1")
    silent = Fault(
        category="data_format",
        cause="wrong_encoding",
        name="silent",
        script="raise SystemExit(1)\n",
        says=honest.says,
        because="nothing happens",
    )
    provoked = provoke.provoke(silent, seed=0)
    assert "does not say" in provoked.trouble and left_behind(corner) == []


def test_a_run_that_never_ends_is_ended_with_all_it_started(corner: Path):
    """Orphans in sessions of their own, a socket, shared memory and a file: only namespaces can find them all."""
    if not stage.has("root"):
        pytest.skip("needs root: namespaces end what a run started")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    script = f"""
import os, socket, time
open("/dev/shm/{corner.name}", "w").write("x")
if os.fork() == 0:
    os.setsid()
    server = socket.create_server(("127.0.0.1", {port}))
elif not all(os.fork() for _ in range(30)):  # they end one after the other, some after whoever started them
    os.setsid()
    memory = bytearray(20 << 20)
else:
    print("ready", flush=True)
time.sleep(600)
"""
    outcome = stage.perform(script, Stage(seconds=6), {"script": "main.py"})
    assert outcome.timed_out and "ready" in outcome.text
    assert left_behind(corner) == [] and not Path(f"/dev/shm/{corner.name}").exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_variation_that_loses_the_evidence_is_marked():
    text = "Traceback (most recent call last):\nKeyError: 'label'\n" + "bye\n" * 30
    assert decidable("\x1b[1;31mKeyError\x1b[0m: 'label'", ("KeyError: 'label'",))
    kept = {decidable(missing_head(text, random.Random(seed)), ("KeyError: 'label'",)) for seed in range(40)}
    assert kept == {True, False}


def test_variations_are_functions_of_the_lot_alone():
    text = "INFO step 1\nValueError: x\n" * 20
    varied = {vary(text, 1, random.Random(seed)).text for seed in range(40)}
    assert len(varied) > 30
    assert vary(text, 1, random.Random(3)) == vary(text, 1, random.Random(3))


def test_a_tenth_of_the_seeds_is_put_apart():
    rows = [
        {"id": f"{fault}/{seed}", "seed": seed, "category": "x", "composed": False, "undecidable": False}
        for fault in FAULTS
        for seed in range(10)
    ]
    apart = [row for row in rows if provoke.shelf(row) == "unopened"]
    assert len(apart) * 10 == len(rows) and len({row["seed"] for row in apart}) == 10


@pytest.mark.slow
def test_every_provocation(tmp_path: Path):
    """The whole corpus: at least 45 causes succeed where the tools for them are installed."""
    if not (stage.has("root") and shutil.which("gcc")):
        pytest.skip("needs root and a compiler")
    done = [provoke.provoke(fault, seed=0) for fault in FAULTS.values() if fault.category != "healthy"]
    assert len({provoked.fault.cause for provoked in done if not provoked.trouble}) >= 45
