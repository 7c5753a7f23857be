"""Traces recorded here and now, against what was done while they were recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("msgspec")


torch = pytest.importorskip("torch")

from torch.profiler import ProfilerActivity, profile

from mlsys_studio.profilers.trace import read
from mlsys_studio.profilers.traces.explaining import Explained, explain
from mlsys_studio.profilers.traces.report import explain_traces

RANKS = """
import os, sys, time
import torch, torch.distributed as dist
from torch.profiler import ProfilerActivity, profile
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
x = torch.ones(1000)
dist.all_reduce(x)
waited = 0.0
with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
    for step in range(6):  # the first only brings both into step: profilers start at different times
        if rank == 1 and step:
            time.sleep(0.06)
        began = time.perf_counter()
        dist.all_reduce(x)
        waited += time.perf_counter() - began
print(waited)
recorded.export_chrome_trace(f"{folder}/rank{rank}.json")
dist.destroy_process_group()
"""


def test_two_ranks_one_of_them_late(tmp_path):
    """Rank 1 sleeps 60 ms before five collectives, and is named.

    Witness: the sleeps from below; from above each rank's stopwatch around its collectives, which on a busy machine also
    holds what Python and the profiler took.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANKS, str(r), str(tmp_path)], env=environment, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for r in range(2)
    ]  # fmt: skip
    stopwatch = [1e9 * float(rank.communicate(timeout=120)[0]) for rank in ranks]
    report = explain_traces([tmp_path / f"rank{r}.json" for r in range(2)])
    assert [t.rank for t in report.traces] == [0, 1]
    for trace, waited in zip(report.traces, stopwatch, strict=True):
        assert trace.exposed_ns <= waited + 1e6
    assert report.traces[0].exposed_ns > 0.9 * 5 * 60e6
    worst = report.stragglers[0]
    assert (worst.rank, worst.of) == (1, 6)
    assert 0.9 * 5 * 60e6 < worst.waited_ns < stopwatch[0]
    (rate,) = report.together.rates  # 1,000 floats; over a ring of two each sends 2 (2 - 1) / 2 of them on, six times
    assert (rate.ranks, rate.bytes, rate.runs) == (2, 4000, 6)
    assert report.together.sent == ((0, 1, 24_000), (1, 0, 24_000))


class Slow(torch.utils.data.Dataset):
    """Witness: a stopwatch inside the dataset; another one is around the loader."""

    slept = 0.0

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        began = time.perf_counter()
        time.sleep(0.002)
        Slow.slept += time.perf_counter() - began
        return torch.zeros(64)


def test_a_slow_dataset_is_a_data_stall(tmp_path):
    model, loader = torch.nn.Linear(64, 64), torch.utils.data.DataLoader(Slow(), batch_size=8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with profile(activities=[ProfilerActivity.CPU], with_stack=True) as recorded:
        batches, waited = iter(loader), 0.0
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - began
            if batch is None:
                break
            model(batch).sum().backward()
            optimizer.step()
    recorded.export_chrome_trace(str(tmp_path / "t.json.gz"))
    e = explain(read(tmp_path / "t.json.gz"))
    assert 1e9 * Slow.slept <= e.idle["data stall"] <= 1e9 * waited
    assert not e.warnings and not e.uncounted


# -- on a GPU --------------------------------------------------------------------------------------------------------------


def on_gpu(work, path: Path) -> Explained:
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    recorded.export_chrome_trace(str(path))
    return explain(read(path))


@pytest.mark.gpu
def test_two_streams_at_once(tmp_path):
    """Witness: the kernels' own durations, added up by json."""
    a, side = torch.randn(4096, 4096, device="cuda"), torch.cuda.Stream()

    def work() -> None:
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            a.to("cpu", non_blocking=True)
        for _ in range(8):
            a @ a
        torch.cuda.current_stream().wait_stream(side)

    e = on_gpu(work, tmp_path / "t.json")
    kernels = [x for x in json.loads((tmp_path / "t.json").read_text())["traceEvents"] if x.get("cat") == "kernel"]
    assert e.compute_ns == pytest.approx(1000 * sum(k["dur"] for k in kernels), rel=0.02)
    assert e.memory_op_ns > 0
    assert e.busy_ns < e.compute_ns + e.memory_op_ns  # they ran at the same time


@pytest.mark.gpu
def test_a_graph_has_one_launch_for_all_its_kernels(tmp_path):
    """A sleep of 20 ms between two replays is Python's; within a replay nothing but latency."""
    a, graph = torch.randn(1024, 1024, device="cuda"), torch.cuda.CUDAGraph()
    for _ in range(3):
        a @ a
    with torch.cuda.graph(graph):
        for _ in range(20):
            a @ a

    def work() -> None:
        graph.replay()
        torch.cuda.synchronize()
        time.sleep(0.02)
        graph.replay()

    e = on_gpu(work, tmp_path / "t.json")
    assert e.idle.get("python", 0) + e.idle.get("sync", 0) == pytest.approx(20e6, rel=0.15)
    assert e.idle["unattributed"] <= 0.02 * e.span_ns
