"""Busy by class and idle by cause: closed forms, the live profile's own rules, and properties of any trace."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgspec")

from tracefiles import DIALECTS, Event, document, x

from mlsys_studio.profilers.events import DeviceEvent, HostEvent
from mlsys_studio.profilers.idle import Host, charges, drained, launches
from mlsys_studio.profilers.timeline import Spans, cut
from mlsys_studio.profilers.trace import Trace, read
from mlsys_studio.profilers.traces import intervals
from mlsys_studio.profilers.traces.dialects import Kind
from mlsys_studio.profilers.traces.explaining import Explained, explain
from mlsys_studio.profilers.traces.host import COLLECTING, COMPILING, loop_thread, phases, spans

LOADER = "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__"


def traced(tmp_path: Path, events: list[Event], **header: object) -> Trace:
    (tmp_path / "t.json").write_bytes(document(events, **header))
    return read(tmp_path / "t.json")


def launch(correlation: int, start: int, end: int, thread: int = 1, name: str = "cudaLaunchKernel") -> Event:
    return x("cuda_runtime", name, 1, thread, start, end - start, correlation=correlation)


def kernel(correlation: int, start: int, end: int, stream: int = 7, name: str = "gemm") -> Event:
    return x("kernel", name, 0, stream, start, end - start, correlation=correlation)


def operator(start: int, end: int, thread: int = 1, name: str = "aten::mm") -> Event:
    return x("cpu_op", name, 1, thread, start, end - start)


def annotation(name: str, start: int, end: int, thread: int = 1) -> Event:
    return x("user_annotation", name, 1, thread, start, end - start)


# -- closed forms --------------------------------------------------------------------------------------------------------


def test_every_cause_of_a_gap(tmp_path):
    """Six gaps in us, worked out by hand from rule 5.

    45-58   5 Python, 5 inside the operator that launches, 3 from its launch call to the kernel
    70-97   20 in the data loader, 5 Python, 2 launching
    100-122 10 in a blocking wait, 10 Python, 2 launching; the queue had been 2 deep: 2 of the Python are the wait's
    130-135 queued at 124: launch latency; 140-145 queued, on another stream: a dependency
    """
    trace = traced(
        tmp_path,
        [
            annotation(LOADER, 0, 30), operator(30, 34), launch(1, 32, 33), kernel(1, 35, 45),
            operator(50, 60), launch(2, 55, 56), kernel(2, 58, 70),
            annotation(LOADER, 70, 90), launch(3, 95, 96), kernel(3, 97, 100),
            launch(9, 100, 110, name="cudaStreamSynchronize"), launch(4, 120, 121), kernel(4, 122, 130),
            launch(5, 123, 124), kernel(5, 135, 140), launch(6, 125, 126), kernel(6, 145, 150, stream=8),
            annotation("Optimizer.step#SGD.step", 150, 160),
        ],
    )  # fmt: skip
    found = explain(trace)
    assert (found.span_ns, found.busy_ns) == (115_000, 43_000)
    assert found.idle == {
        "launch": 17_000, "dependency": 5_000, "data stall": 20_000, "sync": 12_000, "python": 18_000, "unattributed": 0,
    }  # fmt: skip
    assert ("data", "data stall", 20_000) in found.cells


def test_classes_overlap_and_exposure(tmp_path):
    """Compute 0-10 and 5-20 on two streams, communication 15-40, a copy 30-35, another communication 38-42."""
    trace = traced(
        tmp_path,
        [
            kernel(1, 0, 10), kernel(2, 5, 20, stream=8), kernel(3, 15, 40, stream=9, name="ncclKernel_AllReduce_RING"),
            x("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 0, 10, 30, 5),
            kernel(4, 38, 42, stream=11, name="rcclGenericKernel"),
            x("gpu_user_annotation", "nccl:all_reduce", 0, 9, 0, 99), x("cuda_sync", "Stream Sync", 0, 7, 0, 99),
        ],
    )  # fmt: skip
    e = explain(trace)
    assert (e.span_ns, e.busy_ns, e.idle_ns) == (42_000, 42_000, 0)
    assert (e.compute_ns, e.communication_ns, e.memory_op_ns) == (20_000, 27_000, 5_000)
    assert (e.overlap_ns, e.exposed_ns) == (5_000, 22_000)


def test_a_device_alone_is_unattributed(tmp_path):
    e = explain(traced(tmp_path, [kernel(1, 0, 10), kernel(2, 30, 40)]))
    assert e.idle == {"unattributed": 20_000}


def test_a_thread_is_not_judged_before_it_was_seen(tmp_path):
    """The host's first event is at 50: of the gap 10-60, 40 us nobody saw."""
    e = explain(traced(tmp_path, [kernel(1, 0, 10), launch(2, 50, 55), kernel(2, 60, 70)]))
    assert e.idle == {"launch": 10_000, "unattributed": 40_000}


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        (LOADER, "data stall"),
        ("torch/serialization.py(900): save", "io"),
        ("<built-in function print>", "io"),
        ("compile_fx.<locals>.fw_compiler_base (dynamo_timed)", "compile"),
        ("<built-in function collect>", "gc"),
        ("train.py(12): my_loss", "python"),
    ],
)
def test_what_python_does_is_read_off_its_frames(tmp_path, name, cause):
    frame = x("python_function", name, 1, 1, 20, 30)
    e = explain(traced(tmp_path, [operator(0, 4), kernel(1, 5, 10), frame, launch(2, 60, 62), kernel(2, 65, 70)]))
    expected = Counter({cause: 30_000}) + Counter({"python": 20_000, "launch": 5_000})
    assert Counter(e.idle) + Counter() == expected


def test_what_the_loader_does_inside_is_the_loaders(tmp_path):
    frames = [annotation(LOADER, 20, 50), x("python_function", "<built-in function print>", 1, 1, 30, 10)]
    e = explain(traced(tmp_path, [operator(0, 4), kernel(1, 5, 10), *frames, launch(2, 50, 52), kernel(2, 65, 70)]))
    assert e.idle["data stall"] == 30_000


def test_a_cpu_is_busy_in_its_operators(tmp_path):
    """Two steps of 100 us. Of 200: 30 + 10 loading, operators 20 + 40, a collective 15, waiting for another 5."""
    trace = traced(
        tmp_path,
        [
            annotation("ProfilerStep#1", 0, 100), annotation("ProfilerStep#2", 100, 200),
            annotation(LOADER, 0, 30), operator(10, 20), annotation(LOADER, 100, 110),
            operator(40, 60), operator(120, 160), operator(130, 140, name="aten::add"),
            operator(170, 185, name="c10d::allreduce_"), x("cpu_op", "gloo:all_reduce", 1, 2, 190, 5),
        ],
    )  # fmt: skip
    e = explain(trace)
    assert (e.device, e.span_ns, e.busy_ns) == ("cpu", 200_000, 75_000)
    assert e.idle == {"comm": 5_000, "data stall": 40_000, "python": 80_000, "unattributed": 0}
    assert (e.communication_ns, e.overlap_ns, e.steps_ns) == (20_000, 0, (100_000, 100_000))


def test_a_trace_without_work_is_empty(tmp_path):
    e = explain(traced(tmp_path, [annotation("mine", 0, 10)]))
    assert (e.device, e.span_ns, e.idle_ns) == ("none", 0, 0)
    assert e.warnings


# -- the live profile's rules --------------------------------------------------------------------------------------------


def some_trace(seed: int) -> list[Event]:
    """Nested operators on two threads, launches inside and outside of them, waits, loaders, kernels on three streams."""
    rnd, events, correlation = random.Random(seed), [], 0
    ready = [0, 0, 0]
    for thread in (1, 2):
        t = rnd.randrange(50)
        while t < 3000:
            length = rnd.randrange(1, 120)
            kind = rnd.random()
            if thread == 1 and kind < 0.08:
                events.append(
                    annotation(rnd.choice([LOADER, "Optimizer.step#SGD.step", "save_checkpoint"]), t, t + length)
                )
            elif kind < 0.16:
                name = rnd.choice(["cudaStreamSynchronize", "cudaDeviceSynchronize", "aten::_local_scalar_dense"])
                cat = "cpu_op" if name.startswith("aten") else "cuda_runtime"
                events.append(x(cat, name, 1, thread, t, length))
            elif kind < 0.2:
                events.append(x("python_function", rnd.choice(["<built-in function print>", "<built-in function collect>", "_compile (dynamo_timed)"]), 1, thread, t, length))  # fmt: skip
            else:
                correlation += 1
                events.append(x("cpu_op", "aten::outer", 1, thread, t, length, **{"External id": correlation}))
                if length > 9:
                    a = t + rnd.randrange(length // 2)
                    b = a + rnd.randrange(1, length // 3)
                    events.append(x("cpu_op", "aten::inner", 1, thread, a, b - a))
                    if known := rnd.random() < 0.7:
                        events.append(launch(correlation, a, b, thread))
                    stream = rnd.randrange(3)
                    begin = max(ready[stream], a + rnd.randrange(60))
                    ready[stream] = begin + rnd.randrange(1, 60)
                    links = {"correlation": correlation} if known else {"External id": correlation}
                    links = links if rnd.random() < 0.9 else {}
                    events.append(x("kernel", "k", 0, 7 + stream, begin, ready[stream] - begin, **links))
            t += length + rnd.randrange(1, 80)
    return events


def by_live_rules(trace: Trace) -> Counter[str]:
    """The same trace through `profilers/idle.py`, event by event; a loader's instants to the data loader."""
    lists = {k: getattr(trace, k).tolist() for k in ("name", "start", "end", "lane", "kind", "correlation", "external")}
    rows = [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
    device = [
        DeviceEvent("", r["start"], r["end"], r["lane"], "compute", max(0, r["external"]), max(0, r["correlation"]))
        for r in rows
        if r["kind"] >= Kind.COMPUTE
    ]
    host = [
        HostEvent(trace.names[r["name"]], r["start"], r["end"], r["lane"], runtime=r["kind"] == Kind.RUNTIME,
                  id=max(0, r["correlation"] if r["kind"] == Kind.RUNTIME else r["external"]))
        for r in rows
        if r["kind"] in (Kind.OPERATOR, Kind.RUNTIME)
    ]  # fmt: skip
    main = loop_thread(trace)
    labels = phases(trace, main)
    window = device[0].start, max(d.end for d in device)
    hosts = {}
    for lane in {h.thread for h in host}:
        own = [r for r in rows if r["lane"] == lane and r["kind"] < Kind.COMPUTE]
        seen = max(window[0], own[0]["start"]), min(window[1], max(r["end"] for r in own))
        compiling, collecting = (
            Spans(zip(*(s.tolist() for s in spans(trace, lane, p)), strict=True)) for p in (COMPILING, COLLECTING)
        )
        events = [h for h in host if h.thread == lane]
        hosts[lane] = Host(events, *seen, labels, compiling, collecting)
    launched = launches(host, device)
    found: Counter[str] = Counter()
    for c in charges(window, device, launched, hosts, main, drained(host, device, launched)):
        for a, b, _ in cut([(c.start, c.end, 0)], labels.times):
            found["data stall" if labels.at(a) == "data" else c.cause] += b - a
    return found


@pytest.mark.parametrize("seed", range(40))
def test_in_columns_the_rules_are_those_of_the_live_profile(tmp_path, seed):
    trace = traced(tmp_path, some_trace(seed))
    e = explain(trace)
    assert len(e.idle) > 3  # the trace has something to say
    assert +by_live_rules(trace) == +Counter(e.idle)


# -- properties ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_account_does_not_depend_on_the_order_or_the_origin_of_events(tmp_path, seed):
    events = some_trace(seed)
    first = explain(traced(tmp_path, events))
    moved = [{**e, "ts": e["ts"] + 1_724_411_645_095_118} for e in random.Random(seed).sample(events, len(events))]
    again = explain(traced(tmp_path, moved))
    assert (first.idle, set(first.cells), first.busy_ns, first.overlap_ns) == (
        again.idle, set(again.cells), again.busy_ns, again.overlap_ns,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_sets_of_instants(seed):
    """Witness: the same sets as arrays of booleans."""
    rnd = np.random.default_rng(seed)
    a, b = (np.sort(rnd.integers(0, 900, 40)) for _ in range(2))
    lengths = rnd.integers(0, 30, (2, 40))
    sets = [np.zeros(1000, bool), np.zeros(1000, bool)]
    for start, length, marked in zip((a, b), lengths, sets, strict=True):
        for s, n in zip(start, length, strict=True):
            marked[s : s + n] = True
    one, other = (intervals.union(s, s + n) for s, n in zip((a, b), lengths, strict=True))
    assert intervals.total(one) == sets[0].sum()
    assert intervals.both(one, other) == (sets[0] & sets[1]).sum()
    assert intervals.total(intervals.clip(one, 100, 500)) == sets[0][100:500].sum()
    assert intervals.total(intervals.complement(intervals.clip(one, 100, 500), 100, 500)) == (~sets[0][100:500]).sum()


def test_the_account_is_complete(tmp_path):
    e: Explained = explain(traced(tmp_path, some_trace(1)))
    assert sum(e.idle.values()) == sum(ns for _, _, ns in e.cells) == e.span_ns - e.busy_ns
    assert e.exposed_ns + e.overlap_ns == e.communication_ns


def test_a_timeline_says_how_full_each_stretch_was():
    """[0, 10) in five: busy 1-3, 4-4.5 and 9-10, by hand."""
    busy = np.array([10, 40, 90]), np.array([30, 45, 100])
    assert intervals.filled(busy, 0, 100, 5).tolist() == [0.5, 0.5, 0.25, 0.0, 0.5]
    assert intervals.filled(busy, 0, 100, 1).tolist() == [0.35]
    assert intervals.filled((np.zeros(0, np.int64), np.zeros(0, np.int64)), 0, 100, 2).tolist() == [0, 0]


@pytest.mark.parametrize("name", DIALECTS)
def test_the_timeline_holds_what_ran(tmp_path, name):
    """The story: of 35 us, compute 20, communication 20, a copy 2."""
    (tmp_path / "t.json").write_bytes(DIALECTS[name])
    lanes = dict(explain(read(tmp_path / "t.json")).lanes)
    assert {k: sum(v) / len(v) * 35 for k, v in lanes.items()} == pytest.approx({"compute": 20, "comm": 20, "copy": 2})
