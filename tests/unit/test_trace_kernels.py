"""Kernels by the operator that launched them, and what got slower between two traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from test_trace_explaining import annotation, kernel, launch, operator, some_trace, traced
from tracefiles import Event, document, story, x

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.traces.diff import TraceDiff, diff
from mlsys_studio.profilers.traces.explaining import Explained, explain
from mlsys_studio.profilers.traces.kernels import Kernel, short
from mlsys_studio.studio.verbs.compare import compare


def explained(folder: Path, events: list[Event]) -> Explained:
    return explain(traced(folder, events))


def test_a_kernel_is_its_operators(tmp_path):
    assert set(explained(tmp_path, story(origin=0)).kernels) == {
        Kernel("sgemm_128x128", "aten::mm", "compute", 1, 20_000),
        Kernel("ncclDevKernel_AllReduce_Sum_f32", "", "comm", 1, 20_000),
        Kernel("Memcpy HtoD (Pinned -> Device)", "", "copy", 1, 2_000),
    }


def test_the_kernels_of_a_graph_share_its_launch(tmp_path):
    """One cudaGraphLaunch at 3-6, three kernels of 10 us with 2 us between them: latency, and one operator's."""
    replay = [
        x("cpu_op", "my::replay", 1, 1, 0, 8, **{"External id": 4}),
        x("cuda_runtime", "cudaGraphLaunch", 1, 1, 3, 3, **{"External id": 4, "correlation": 5}),
        *(kernel(5, at, at + 10, name="k") for at in (10, 22, 34)),
    ]
    e = explained(tmp_path, replay)
    assert e.kernels == (Kernel("k", "my::replay", "compute", 3, 30_000),)
    assert e.idle == {"launch": 4_000, "unattributed": 0}


def steps(slower: int = 0, loading: int = 5, overlapping: int = 0, count: int = 3) -> list[Event]:
    """`count` steps of 100 us and what is added: a loader, a kernel of 30 us, another of 10 on a second stream."""
    events, at, link = [], 0, 0
    for n in range(count):
        length = 100 + slower + loading - 5
        events += [annotation(f"ProfilerStep#{n}", at, at + length), annotation("enumerate(DataLoader)#x.__next__", at, at + loading)]  # fmt: skip
        for name, stream, begin, long in (("first", 7, 10, 30 + slower), ("second", 8, 40 + slower - overlapping, 10)):
            link += 1
            begin += at + loading - 5
            events += [operator(begin - 3, begin - 1), launch(link, begin - 2, begin - 1), kernel(link, begin, begin + long, stream, name)]  # fmt: skip
        at += length
    return events


def test_a_slower_kernel_is_the_difference(tmp_path):
    """6 us more in one kernel of every step, of which the trace's span has three."""
    found = diff(explained(tmp_path, steps()), explained(tmp_path, steps(slower=6)))
    assert (found.per, found.changes[0].kind, found.changes[0].what) == ("step", "kernel", "first")
    assert found.changes[0].change == 6000
    assert sum(abs(c.change) for c in found.changes) == 6000


def test_a_longer_wait_for_data_is_the_difference(tmp_path):
    found = diff(explained(tmp_path, steps()), explained(tmp_path, steps(loading=35)))
    rows = {(c.kind, c.what): c.change for c in found.changes}
    assert rows["idle", "data stall"] == pytest.approx(2 / 3 * 30_000)  # the first lies before the device's first work


def test_kernels_at_once_are_a_row_of_their_own(tmp_path):
    found = diff(explained(tmp_path, steps()), explained(tmp_path, steps(overlapping=4)))
    rows = {(c.kind, c.what): c.change for c in found.changes}
    assert rows["at the same time", "kernels beside kernels"] == -4000


@pytest.mark.parametrize("seed", range(6))
def test_rows_add_up(tmp_path, seed):
    one, other = explained(tmp_path, some_trace(seed)), explained(tmp_path, some_trace(seed + 100))
    there, back = diff(one, other), diff(other, one)
    assert sum(c.change for c in there.changes) == other.span_ns - one.span_ns
    assert {c.what: c.change for c in there.changes} == {c.what: -c.change for c in back.changes}


def test_the_verb_compares(tmp_path):
    for name, events in (("a", steps()), ("b", steps(slower=6))):
        (tmp_path / f"{name}.json").write_bytes(document(events, deviceProperties=[{"name": "<i>"}]))
    found = compare(tmp_path / "a.json", tmp_path / "b.json")
    assert isinstance(found, TraceDiff)
    said = json.loads(found.to_json())
    assert said["per"] == "step"
    assert said["after_us"] - said["before_us"] == pytest.approx(sum(row["change_us"] for row in said["changes"]))
    assert "first" in str(found)
    assert all(len(line) <= 80 for line in str(found).splitlines())
    with pytest.raises(UsageError, match=r"none\.json"):
        compare(tmp_path / "none.json", tmp_path / "a.json")


def test_names_lose_their_common_beginning():
    assert short("void at::native::(anonymous namespace)::reduce<4>(int)") == "reduce<4>(int)"
