"""Who made the others wait: by the lengths of the same collective on every rank."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("msgspec")

from tracefiles import document, story, x

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.traces import engines, one
from mlsys_studio.profilers.traces.ranks import explain_files, files
from mlsys_studio.profilers.traces.report import explain_traces
from mlsys_studio.profilers.traces.waits import Straggler

REDUCE, GATHER = "ncclDevKernel_AllReduce_Sum_f32", "ncclDevKernel_AllGather"
Call = tuple[str, int, dict[str, object]]  # kernel, us, what the trace says of it


def rank(folder: Path, number: int | None, calls: list[Call]) -> Path:
    """One step with these collectives, one after the other."""
    events, at = [x("user_annotation", "ProfilerStep#1", 1, 1, 0, 10_000)], 0
    for name, length, said in calls:
        events.append(x("kernel", name, 0, 7, at, length, **said))
        at += length + 1
    path = folder / f"rank{number}.json"
    path.write_bytes(document(events, distributedInfo={"rank": number}))
    return path


def test_the_rank_with_the_shortest_collective_came_last(tmp_path):
    """us of reduce, gather, reduce: rank 2 is last twice (40 + 30 and 5 + 3 longer), rank 0 once (8 + 2)."""
    lengths = {0: (50, 2, 15), 1: (40, 10, 13), 2: (10, 4, 10)}
    paths = [rank(tmp_path, r, [(n, us, {}) for n, us in zip((REDUCE, GATHER, REDUCE), ls, strict=True)]) for r, ls in lengths.items()]  # fmt: skip
    _, found, failures = explain_files(paths)
    assert failures == []
    assert found.stragglers() == [
        Straggler(2, str(paths[2]), (40 + 30) * 500 + (5 + 3) * 500, 2, 3, REDUCE),
        Straggler(0, str(paths[0]), (8 + 2) * 500, 1, 3, GATHER),
    ]


def test_groups_and_messages_between_two_are_not_mixed_up(tmp_path):
    """Ranks 0 and 1 reduce in pairs of different partners: no common collective but the gather."""
    said = [{"Process Group Ranks": "[0, 2]"}, {"Process Group Ranks": "[1, 3]"}]
    both = {"Process Group Name": "default_pg", "Collective name": "allgather"}
    paths = [
        rank(tmp_path, r, [(REDUCE, 10 + 90 * r, said[r]), (GATHER, 30 - 10 * r, both),
                           ("ncclDevKernel_SendRecv", 5 + 50 * r, {"Collective name": "send"})])
        for r in range(2)
    ]  # fmt: skip
    _, found, _ = explain_files(paths)
    assert found.stragglers() == [Straggler(1, str(paths[1]), 10_000, 1, 1, "allgather")]


@pytest.mark.parametrize("seed", range(5))
def test_in_one_pass_as_with_all_ranks_at_hand(tmp_path, seed):
    """Witness: the definition, over a table of all lengths."""
    rnd = random.Random(seed)
    table = [[rnd.randrange(1, 1000) for _ in range(8)] for _ in range(5)]
    paths = [rank(tmp_path, r, [(REDUCE, us, {}) for us in row]) for r, row in enumerate(table)]
    expected = dict.fromkeys(range(5), 0)
    for column in zip(*table, strict=True):
        least = min(column)
        expected[column.index(least)] += sum(us - least for us in column) * 1000 // 4
    _, found, _ = explain_files(paths)
    assert {s.rank: s.waited_ns for s in found.stragglers()} == {r: ns for r, ns in expected.items() if ns}


def test_processes_find_what_one_process_finds(tmp_path, monkeypatch):
    paths = [rank(tmp_path, r, [(REDUCE, 10 + r, {})]) for r in range(3)]
    paths.insert(1, tmp_path / "no such file.json")
    (tmp_path / "text.json").write_text("hello")
    paths.append(tmp_path / "text.json")
    together = explain_traces(paths)
    monkeypatch.setattr(engines, "SMALL", 0)
    assert explain_traces(paths) == together
    assert [f.path for f in together.errors] == [str(paths[1]), str(paths[4])]
    assert [e.rank for e in together.traces] == [0, 1, 2]


def test_a_process_that_dies_costs_its_own_file(tmp_path, monkeypatch):
    """As by the kernel's out-of-memory killer."""
    monkeypatch.setattr(engines, "SMALL", 0)
    monkeypatch.setattr(one, "__name__", "mlsys_studio.no_such_module")
    paths = [rank(tmp_path, r, [(REDUCE, 10, {})]) for r in range(2)]
    explained, _, failures = explain_files(paths)
    assert explained == []
    assert all("process ended with code 1" in f.message for f in failures)


def test_a_folder_stands_for_its_traces(tmp_path):
    inside = tmp_path / "run"
    inside.mkdir()
    (inside / "notes.txt").write_text("no trace")
    with pytest.raises(UsageError, match="no trace in"):
        files([inside])
    paths = [rank(inside, r, [(REDUCE, 10, {})]) for r in range(2)]
    assert files([inside, paths[0]]) == [*paths, paths[0]]


def test_the_report_is_at_most_80_columns_and_escaped(tmp_path):
    hostile = "<script>alert('x')</script>" + "é" * 90
    events = [*story(), x("<b>new", "y", 1, 1, 0, 1)]
    for r in range(2):
        (tmp_path / f"{hostile[:60].replace('/', '')}{r}.json").write_bytes(
            document(events, deviceProperties=[{"name": hostile}])
        )
    (tmp_path / "z<i>.json").write_text("[")
    (tmp_path / "zz.json").write_text("nothing <b>")
    for paths in ([tmp_path], sorted(tmp_path.iterdir())[:1]):
        report = explain_traces(paths)
        assert all(len(line) <= 80 for line in str(report).splitlines())
        page = report._repr_mimebundle_()["text/html"]
        assert "<script>" not in page.replace("<script></script>", "")
        assert "<b>new" not in page
        assert json.loads(report.to_json())["schema_version"] == 1


# -- engines -----------------------------------------------------------------------------------------------------------


def test_without_ray_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"mlsys-studio\[ray\]"):
        explain_traces([rank(tmp_path, 0, [(REDUCE, 10, {})])], engine="ray")


class Refused(Exception):
    """As ray.exceptions.RayError."""


def clusters(log: list[str], lost: Path | None) -> SimpleNamespace:
    """What we use of Ray, run where it is asked for; the task of `lost` fails as with a dead machine."""

    def get(reference: str) -> bytes:
        log.append(f"get {Path(reference).name}")
        if reference == str(lost):
            raise Refused("the worker died\nat length")
        return one.encoded(reference)

    def remote(function: object) -> SimpleNamespace:
        assert function is one.encoded
        return SimpleNamespace(remote=lambda path: log.append(f"ask {Path(path).name}") or path)

    return SimpleNamespace(
        is_initialized=lambda: False,
        init=lambda **_: log.append("init"),
        shutdown=lambda: log.append("shutdown"),
        cluster_resources=lambda: {"CPU": 1.0},
        remote=remote,
        get=get,
        exceptions=SimpleNamespace(RayError=Refused),
    )


def test_a_cluster_finds_what_processes_find_and_never_holds_all(tmp_path, monkeypatch):
    paths = [rank(tmp_path, r, [(REDUCE, 10 + r, {})]) for r in range(10)]
    log: list[str] = []
    monkeypatch.setitem(sys.modules, "ray", clusters(log, lost=None))
    assert explain_traces(paths, engine="ray") == explain_traces(paths)
    assert (log[0], log[-1]) == ("init", "shutdown")
    ahead = [sum(1 if line.startswith("ask") else -1 for line in log[1 : n + 1]) for n in range(1, len(log) - 1)]
    assert max(ahead) == engines.AHEAD  # of one core


def test_a_task_that_is_lost_costs_its_own_file(tmp_path, monkeypatch):
    paths = [rank(tmp_path, r, [(REDUCE, 10 + r, {})]) for r in range(3)]
    monkeypatch.setitem(sys.modules, "ray", clusters([], lost=paths[1]))
    report = explain_traces(paths, engine="ray")
    assert [t.rank for t in report.traces] == [0, 2]
    assert [(e.path, e.message) for e in report.errors] == [(str(paths[1]), "its task on Ray failed: the worker died")]


@pytest.mark.slow
def test_on_ray_itself(tmp_path):
    pytest.importorskip("ray")
    paths = [rank(tmp_path, r, [(REDUCE, 10 + r, {})]) for r in range(3)]
    assert explain_traces(paths, engine="ray") == explain_traces(paths)
