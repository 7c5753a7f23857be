"""A trace is read the same in whatever dialect, compression and state of damage it comes."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgspec")

from tracefiles import DIALECTS, ORIGIN, document, story, x

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.trace import Trace, read
from mlsys_studio.profilers.traces import clock, events_json, sources
from mlsys_studio.profilers.traces.dialects import Kind


def reread(tmp_path: Path, content: bytes, name: str = "t.json") -> Trace:
    (tmp_path / name).write_bytes(content)
    return read(tmp_path / name)


def facts(trace: Trace) -> list[tuple[str, str, int, int]]:
    """(kind, name, start, end) in us from the origin, as the story tells them."""
    return [
        (Kind(k).name, trace.names[n], (a - ORIGIN * 1000) // 1000, (b - ORIGIN * 1000) // 1000)
        for k, n, a, b in zip(trace.kind.tolist(), trace.name.tolist(), trace.start.tolist(), trace.end.tolist(), strict=True)
    ]  # fmt: skip


STORY = [  # by start, outer before inner: written by hand from the docstring of tracefiles.py
    ("RANGE", "ProfilerStep#3", 0, 100),
    ("RANGE", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 0, 30),
    ("OPERATOR", "aten::mm", 38, 43),
    ("RUNTIME", "cudaLaunchKernel", 40, 42),
    ("COMPUTE", "sgemm_128x128", 45, 65),
    ("RUNTIME", "cudaLaunchKernel", 46, 47),
    ("COMM", "ncclDevKernel_AllReduce_Sum_f32", 60, 80),
    ("RUNTIME", "cudaMemcpyAsync", 66, 67),
    ("COPY", "Memcpy HtoD (Pinned -> Device)", 68, 70),
]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_tells_the_same_story(tmp_path, dialect):
    trace = reread(tmp_path, DIALECTS[dialect])
    assert facts(trace) == STORY
    assert trace.correlation[trace.of(Kind.COMPUTE, Kind.COMM, Kind.COPY)].tolist() == [501, 502, 503]
    assert trace.steps() == [(3, ORIGIN * 1000, (ORIGIN + 100) * 1000)]
    assert trace.rank == (3 if dialect in ("today", "events first") else None)
    assert trace.uncounted == ()
    assert [w for w in trace.warnings if "nanoseconds" not in w] == []


@pytest.mark.parametrize(("origin", "unit"), [(0, 1), (1_724_411_645_095_118_000, 1000)], ids=["us", "ns since 1970"])
def test_begin_and_end_events_make_one(tmp_path, origin, unit):
    halves = [
        {"ph": "E", "pid": 1, "tid": 1, "ts": origin},  # of what began before the recording
        {"ph": "B", "cat": "cpu_op", "name": "outer", "pid": 1, "tid": 1, "ts": origin + 10 * unit},
        {"ph": "B", "cat": "cpu_op", "name": "inner", "pid": 1, "tid": 1, "ts": origin + 12 * unit},
        {"ph": "E", "pid": 1, "tid": 1, "ts": origin + 15 * unit},
        {"ph": "E", "pid": 1, "tid": 1, "ts": origin + 20 * unit},
        {"ph": "B", "cat": "cpu_op", "name": "never ends", "pid": 1, "tid": 2, "ts": origin + 20 * unit},
    ]
    trace = reread(tmp_path, document(halves))
    times = zip(trace.name, trace.start - origin, trace.end - origin, strict=True)
    assert [(trace.names[n], a, b) for n, a, b in times] == [
        ("outer", 10_000, 20_000),
        ("inner", 12_000, 15_000),
    ]
    assert any("1 events begin and never end" in w for w in trace.warnings)


def test_the_autograd_profiler_has_processes_for_categories(tmp_path):
    """torch.autograd.profiler's own export: a list, no categories, and in old versions kernels under "CUDA functions"."""
    row = {"ph": "X", "args": {}}
    events = [
        {**row, "name": "aten::mm", "ts": 100.5, "dur": 20.25, "tid": 1, "pid": "CPU functions"},
        {"name": "aten::mm", "ph": "s", "ts": 100.5, "tid": 1, "pid": "CPU functions", "id": 0, "cat": "cpu_to_cuda"},
        {**row, "name": "sgemm", "ts": 110, "dur": 30, "tid": 0, "pid": "CUDA functions"},
        {**row, "name": "aten::add", "ts": 150, "dur": 1, "tid": " node_id:1, thread_id:2 ", "pid": "CPU functions"},
    ]
    trace = reread(tmp_path, json.dumps(events).encode())
    found = [(Kind(k).name, int(a), int(b)) for k, a, b in zip(trace.kind, trace.start, trace.end, strict=True)]
    assert found == [("OPERATOR", 100_500, 120_750), ("COMPUTE", 110_000, 140_000), ("OPERATOR", 150_000, 151_000)]


# -- time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("1724411645095118.123", 1_724_411_645_095_118_123),  # a double would round it to .0 or .25
        ("1724411645095118", 1_724_411_645_095_118_000),
        ("5125096977933.576", 5_125_096_977_933_576),
        ("0.001", 1),
        ("0.0005", 1),  # half up
        ("0.0004", 0),
        ("-3.5", -3500),
        ("1e3", 1_000_000),
        ('"12.5"', 12_500),
        ("null", clock.INVALID),
        ("NaN", clock.INVALID),
        ("1e400", clock.INVALID),
        ("9" * 30, clock.INVALID),
        ("[1]", clock.INVALID),
    ],
)
def test_times_are_exact(text, ns):
    assert clock.nanoseconds([text.encode()]).tolist() == [ns]
    assert clock.nanoseconds([text.encode(), b"7.25"]).tolist() == [ns, 7250]  # not all of one form


@pytest.mark.parametrize("decimals", [0, 1, 2, 3])
def test_times_of_one_form_are_those_read_one_by_one(decimals):
    """Witness: Python's own integers, over random digits."""
    random = np.random.default_rng(decimals)
    digits = [int(v) for v in random.integers(10 ** (12 + decimals), 10 ** (13 + decimals), 500)]
    texts = [f"{d // 10**decimals}{'.' * (decimals > 0)}{str(d)[13:]}".encode() for d in digits]
    assert clock.nanoseconds(texts).tolist() == [d * 10 ** (3 - decimals) for d in digits]


# -- files ---------------------------------------------------------------------------------------------------------------


def test_compressed_files_are_told_by_their_content(tmp_path):
    plain = DIALECTS["today"]
    zstandard = pytest.importorskip("zstandard")
    half = len(plain) // 2
    for content in (
        gzip.compress(plain),
        gzip.compress(plain[:half]) + gzip.compress(plain[half:]),
        zstandard.compress(plain),
        zstandard.compress(plain[:half]) + zstandard.compress(plain[half:]),
    ):
        assert facts(reread(tmp_path, content, "named.wrongly")) == STORY


@pytest.mark.parametrize("block", [1, 7, 64, 300, 1 << 19])
def test_the_size_of_blocks_changes_nothing(tmp_path, monkeypatch, block):
    monkeypatch.setattr(sources, "BLOCK", block)
    header = {"deviceProperties": [{"id": i, "name": "GPU [x], {y}"} for i in range(3)]}
    inner = x("cpu_op", 'has "}, {" and "]" and \\ in its name', 7, 7, ORIGIN + 90, 1, list=[{"ph": 1}, {"ph": [{}]}])
    for content in (document([*story(), inner], **header), json.dumps([*story(), inner]).encode()):
        trace = reread(tmp_path, content)
        assert facts(trace)[:-1] == STORY
        assert trace.names[trace.name[-1]] == inner["name"]
        assert trace.warnings == ()
        assert trace.devices == (("GPU [x], {y}",) if content[:1] == b"{" else ())


def test_a_file_cut_off_anywhere_gives_its_whole_events(tmp_path):
    """Witness: how many events' closing braces lie before the cut."""
    content = document(story())
    ends, at = [], content.index(b"[")
    decoder = json.JSONDecoder()
    text = content.decode()
    while text[(at := at + 1) :].lstrip()[:1] == "{":
        at += len(text[at:]) - len(text[at:].lstrip())
        event, at = decoder.raw_decode(text, at)
        ends.append((at, event["ph"] == "X"))
        at += text[at:].index(",") if text[at:].lstrip()[:1] == "," else 0
    begin = content.index(b"[") + 1
    for cut in range(begin, len(content), 5):
        trace = reread(tmp_path, content[:cut])
        assert len(trace) == sum(whole for end, whole in ends if end <= cut), cut
        inside = cut < ends[-1][0] and content[begin:cut].strip(b" \n,") and cut not in [end for end, _ in ends]
        assert not inside or trace.warnings, cut


def test_a_compressed_file_cut_off_or_damaged_says_so(tmp_path):
    noise = np.random.default_rng(0).integers(0, 10**9, 4000)
    long = document([*story(), *(x("cpu_op", f"op {n}", 7, 7, ORIGIN + 200 + i, 1) for i, n in enumerate(noise))])
    packed = gzip.compress(long)
    cut = reread(tmp_path, packed[: len(packed) // 2])
    assert 1000 < len(cut) < 3000
    assert any("cut off" in w for w in cut.warnings)
    damaged = bytearray(packed)
    damaged[len(packed) // 2] ^= 0xFF
    assert any("damaged" in w or "could not be read" in w for w in reread(tmp_path, bytes(damaged)).warnings)


# -- damage --------------------------------------------------------------------------------------------------------------

GOOD = x("cpu_op", "good", 7, 7, ORIGIN, 1)
ODD = {
    "control characters": b'{"ph":"X","cat":"cpu_op","name":"a\x01\nb","pid":1,"tid":1,"ts":5,"dur":1}',
    "NaN": b'{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":5,"dur":1,"args":{"busy":NaN,"most":-Infinity}}',
    "bad escape": rb'{"ph":"X","cat":"cpu_op","name":"C:\Users","pid":1,"tid":1,"ts":5,"dur":1}',
    "bad UTF-8": b'{"ph":"X","cat":"cpu_op","name":"a\xff\xfe","pid":1,"tid":1,"ts":5,"dur":1}',
    "a name of the wrong type": b'{"ph":"X","cat":"cpu_op","name":17,"pid":1,"tid":1,"ts":5,"dur":1}',
    "no name": b'{"ph":"X","cat":"cpu_op","name":null,"pid":1.5,"tid":null,"ts":"5","dur":"1","args":[]}',
    "identities beyond 64 bits": b'{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":5,"dur":1,"args":{"correlation":18446744073709551615}}',
}  # fmt: skip
HOPELESS = {
    "deep nesting": b'{"ph":"X","args":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "an open string": b'{"ph":"X","name":"a}',
    "no time": b'{"ph":"X","cat":"cpu_op","name":"a","ts":null}',
    "negative duration": b'{"ph":"X","cat":"cpu_op","name":"a","ts":5,"dur":-1}',
    "no event": b"17",
}


@pytest.mark.parametrize("odd", [*ODD, *HOPELESS])
def test_one_bad_event_costs_no_other(tmp_path, odd):
    bad = {**ODD, **HOPELESS}[odd]
    good = json.dumps(GOOD).encode()
    trace = reread(
        tmp_path, b'{"traceEvents":[' + b",\n".join([good, good, bad, good]) + b'],"distributedInfo":{"rank":5}}'
    )
    assert [trace.names[n] for n in trace.name].count("good") == 3
    assert len(trace) == (4 if odd in ODD else 3)
    assert trace.rank == 5
    assert trace.warnings or odd in ("a name of the wrong type", "no name", "identities beyond 64 bits")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"  \n ", "empty"),
        (b"hello", "not JSON"),
        (b"\x00" * 100, "not JSON"),
        (b'{"schema":"1.0","nodes":[{"id":1}]}', "execution trace"),
        (b'{"a":[1,2,3]}', "traceEvents"),
        (b"[[0, 1, [2, 3], 4], [5, 6, [7, 8], 9]]", "nothing in its list"),  # a memory timeline
        (b"\x1f\x8b nonsense", "damaged"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_sentence(tmp_path, content, says):
    with pytest.raises(UsageError, match=says):
        reread(tmp_path, content)


def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """A thousand to one: reading stops at the ratio that no trace has, and says so."""
    monkeypatch.setattr(sources, "BOMB", 1 << 20)
    bomb = gzip.compress(b'{"traceEvents":[' + b'{"ph":"i"},' * 3_000_000)
    (tmp_path / "bomb.json.gz").write_bytes(bomb)
    source = sources.Source(tmp_path / "bomb.json.gz")
    stream = events_json.EventStream(source)
    read_events = sum(len(batch) for batch in stream.batches())
    assert read_events <= (sources.RATIO * len(bomb) + 2 * sources.BLOCK) / len('{"ph":"i"},') < 3_000_000
    assert any("expands more than" in loss for loss in stream.losses)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 50, 400])
def test_events_are_by_start_and_outer_before_inner(tmp_path, count):
    """Witness: Python's own sort, of events in any order, many of which begin together."""
    rnd = random.Random(count)
    times = [(rnd.randrange(1 + count // 3), rnd.randrange(1, 9)) for _ in range(count)]
    (tmp_path / "t.json").write_bytes(document([x("cpu_op", "o", 1, 1, ts, dur) for ts, dur in times]))
    trace = read(tmp_path / "t.json")
    found = zip(trace.start.tolist(), (trace.end - trace.start).tolist(), strict=True)
    assert list(found) == sorted(((1000 * ts, 1000 * dur) for ts, dur in times), key=lambda t: (t[0], -t[1]))
