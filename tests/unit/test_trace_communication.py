"""Bytes, bandwidths and who sends to whom, against closed forms; and what ranks say of each other, against tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from test_trace_ranks import rank

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.traces.communication import sent
from mlsys_studio.profilers.traces.messages import FIELDS, message, of_gloo
from mlsys_studio.profilers.traces.report import explain_traces

KERNEL = "ncclDevKernel_Any"


def said(name: str, elements: int, ranks: str = "[0, 1, 2, 3]", size: int = 4, dtype: str = "BFloat16", **more: object) -> dict[str, object]:  # fmt: skip
    return {"Collective name": name, "In msg nelems": elements, "Process Group Ranks": ranks, "Group size": size, "dtype": dtype, **more}  # fmt: skip


def raw(**fields: object) -> tuple[bytes, ...]:
    return tuple(json.dumps(fields[f]).encode() if f in fields else b"" for f in FIELDS)


# Per rank and run, four ranks, 1,000 elements of 2 B: S, then what a ring step sends (nccl-tests, PERFORMANCE.md).
FORMS = [
    ("allreduce", 2000, 2 * 2000 * 3 // 4),
    ("_allgather_base", 8000, 8000 * 3 // 4),
    ("allgather_into_tensor_coalesced", 8000, 8000 * 3 // 4),
    ("_reduce_scatter_base", 2000, 2000 * 3 // 4),
    ("reduce_scatter_tensor_coalesced", 2000, 2000 * 3 // 4),
    ("broadcast", 2000, 2000),
]


@pytest.mark.parametrize(("name", "size", "passed"), FORMS, ids=[f[0] for f in FORMS])
def test_a_ring_passes_to_the_next_what_the_bus_carries(name, size, passed):
    m = message(raw(collective=name, sent=1000, group="[0, 1, 2, 3]", members=4, dtype="BFloat16"))
    assert m.bytes == size
    assert [sent(m, r) for r in range(4)] == [{(r + 1) % 4: passed} for r in range(4)]


@pytest.mark.parametrize(
    ("name", "dims", "types", "size"),
    [
        ("gloo:all_reduce", [[1000]], ["float"], 4000),
        ("gloo:all_gather", [[10, 10]], ["c10::BFloat16"], 800),  # four ranks' parts
        ("gloo:broadcast", [[3], [7]], ["long int", "long int"], 80),
        ("gloo:all_reduce", [[10], [10]], ["float", "double"], 0),  # of two types: nobody says which is which
        ("gloo:all_reduce", [[10**9, 10**9]], ["float"], 0),
        ("gloo:all_reduce", "many", None, 0),
        ("gloo:all_reduce", [[1.5]], [7], 0),
    ],
)
def test_gloo_says_shapes_and_the_only_group_says_who(name, dims, types, size):
    """Witness: elements times their width, and for a gather times the ranks."""
    raw = of_gloo(name, json.dumps(dims).encode(), json.dumps(types).encode())
    assert message(raw, (0, 1, 2, 3)).bytes == size
    if size:
        assert message(raw, (0, 1, 2, 3)).ranks == (0, 1, 2, 3) and message(raw).ranks == ()


def test_an_all_to_all_goes_to_all_and_a_message_to_its_target():
    exchange = message(raw(collective="alltoall_base", sent=400, group="[0, 4, 8]", members=3, dtype="Float"))
    assert [sent(exchange, r) for r in (0, 4, 8)] == [{4: 533, 8: 533}, {0: 533, 8: 533}, {0: 533, 4: 533}]
    by_world = message(raw(collective="send", sent=10, group="[4, 8]", members=2, dtype="Double", target=8))
    by_group = message(raw(collective="send", sent=10, group="[4, 8]", members=2, dtype="Double", target=1))
    assert sent(by_world, 4) == sent(by_group, 4) == {8: 80}
    assert sent(message(raw(collective="recv", sent=10, group="[4, 8]", members=2, dtype="Double")), 8) == {}


@pytest.mark.parametrize("fields", [
    {}, {"collective": "allreduce"}, {"collective": "allreduce", "sent": 10, "dtype": "Tensor"}, {"collective": "barrier", "sent": 1, "dtype": "Float"},
    {"collective": "allreduce", "sent": "many", "dtype": "Float", "group": "[0, 1]", "members": 2},
    {"collective": "allreduce", "sent": -3, "dtype": "Float", "group": "[0, 1]", "members": 2},
    {"collective": "allreduce", "sent": 3, "dtype": "Float", "group": "[0, 1, ..., 63]", "members": 64},
    {"collective": "allreduce", "sent": 3, "dtype": "Float", "group": "[" + "9" * 99_999 + "]", "members": 1},
    {"collective": "send", "sent": 3, "dtype": "Float", "group": "[0, 1]", "members": 2, "target": 77},
])  # fmt: skip
def test_what_the_trace_does_not_say_is_not_made_up(fields):
    assert sent(message(raw(**fields)), 0) == {}


def test_a_bandwidth_is_that_of_the_last_to_enter(tmp_path):
    """100 MB in the 500 us that the last rank needs, twice: 2 (4-1)/4 of them over the bus."""
    call = said("allreduce", 25_000_000, dtype="Float")
    lengths = {0: (900, 500), 1: (500, 700), 2: (800, 800), 3: (600, 900)}
    paths = [rank(tmp_path, r, [(KERNEL, us, call) for us in both]) for r, both in lengths.items()]
    report = explain_traces(paths, link="NVLink4")
    (rate,) = report.together.rates
    assert (rate.name, rate.ranks, rate.bytes, rate.runs) == ("allreduce", 4, 100_000_000, 2)
    assert rate.seconds == pytest.approx(1e-3)
    assert rate.bus_bandwidth == pytest.approx(1.5 * 100e6 / 500e-6)
    assert "300 GB/s" in str(report) and "80.9 %" in str(report)  # of 370.8 GB/s
    assert report.together.sent == tuple((r, (r + 1) % 4, 300_000_000) for r in range(4))
    with pytest.raises(UsageError, match="no link is called"):
        explain_traces(paths, link="string")


def test_waiting_skew_and_imbalance_are_those_of_the_table(tmp_path):
    """One step; us of two collectives a rank, and of its own kernel before them."""
    table = {0: (100, 10, 50), 1: (400, 40, 10), 2: (100, 30, 20)}
    paths = [
        rank(tmp_path, r, [("gemm", own, {}), *((KERNEL, us, said("allreduce", 1, "[0, 1, 2]", 3)) for us in both)])
        for r, (own, *both) in table.items()
    ]
    t = explain_traces(paths).together
    assert [w.nanoseconds for w in t.waited] == [(0 + 40) * 1000, (30 + 0) * 1000, (20 + 10) * 1000]
    assert [w.of for w in t.waited] == [60_000, 50_000, 50_000]
    assert t.imbalance == pytest.approx(400 / 200 - 1) and t.busiest == "rank 1"
    (skew,) = t.skew
    assert (skew.step, skew.waited_ns, skew.rank) == (1, 25_000 + 25_000, 0)
    assert skew.share == 0.5
    assert sum(s.waited_ns for s in t.stragglers) == skew.waited_ns


def test_messages_between_two_are_each_their_own(tmp_path):
    """Two senders at once in one group: two rows of one run each, and no waiting between them."""
    paths = [
        rank(tmp_path, r, [("ncclDevKernel_SendRecv", 100, said("send", 500, **{"Dst Rank": (r + 1) % 4}))])
        for r in range(4)
    ]
    t = explain_traces(paths).together
    (rate,) = t.rates
    assert (rate.runs, rate.bus_bandwidth, t.skew, t.stragglers) == (4, pytest.approx(1000 / 100e-6), (), ())
    assert {(a, b): n for a, b, n in t.sent} == {(r, (r + 1) % 4): 1000 for r in range(4)}


def test_many_ranks_fit_a_page_and_the_json_has_them_all(tmp_path):
    ranks = 40
    call = said("allreduce", 1000, str(list(range(ranks))), ranks)
    paths = [rank(tmp_path, r, [(KERNEL, 10 + r, call)]) for r in range(ranks)]
    report = explain_traces(paths)
    assert all(len(line) <= 80 for line in str(report).splitlines())
    told = json.loads(report.to_json())
    assert len(told["communication"]["sent"]) == len(told["waited"]) == ranks
    assert told["stragglers"][0]["rank"] == 0


def test_collectives_without_bytes_are_counted_and_said(tmp_path):
    report = explain_traces([rank(tmp_path, 0, [(KERNEL, 10, {}), (KERNEL, 10, {})])])
    assert report.together.unsized == 2
    assert "2 collectives without their bytes" in " ".join(str(report).split())
    assert report.together.rates[0].bus_bandwidth is None


def test_a_rank_by_itself_is_read_without_looking_for_messages(tmp_path: Path):
    """Kineto writes `distributedInfo` first; where the header lacks it, what a kernel says of a collective is not read."""
    path = rank(tmp_path, 0, [(KERNEL, 10, said("allreduce", 10))])
    assert explain_traces([path]).together.unsized == 0
    path.write_text(path.read_text().replace("distributedInfo", "anythingElse"))
    assert explain_traces([path]).together.unsized == 1
