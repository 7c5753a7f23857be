"""Time by module, against a trace in which every kernel was written for one, and against a model run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from tracefiles import Event, document, x

from mlsys_studio.profilers.trace import read
from mlsys_studio.profilers.traces.modules import modules
from mlsys_studio.profilers.traces.report import explain_traces


def operator(number: int, thread: int, at: int, kernel: int) -> list[Event]:
    """An operator of 4 us and its kernel, somewhere later."""
    link = {"External id": number}
    return [
        x("cpu_op", f"aten::op{number}", 1, thread, at, 4, **link),
        x("cuda_runtime", "cudaLaunchKernel", 1, thread, at + 1, 1, correlation=number, **link),
        x("kernel", f"kernel{number}", 0, 7, 10_000 + 1000 * number, kernel, correlation=number, **link),
    ]


def node(number: int, at: int, of: int) -> list[Event]:
    """An autograd node of 8 us on thread 2, for the operator that began at `of` on thread 1."""
    return [
        x("cpu_op", "autograd::engine::evaluate_function: XBackward0", 1, 2, at, 10),
        x("cpu_op", "XBackward0", 1, 2, at + 1, 8),
        {"ph": "s", "cat": "fwdbwd", "name": "fwdbwd", "id": number, "pid": 1, "tid": 1, "ts": of},
        {"ph": "f", "cat": "fwdbwd", "name": "fwdbwd", "id": number, "pid": 1, "tid": 2, "ts": at + 1, "bp": "e"},
    ]


def module(name: str, at: int, length: int) -> Event:
    return x("python_function", f"nn.Module: {name}", 1, 1, at, length)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Net_0 calls Block_0 (twice, us 10 and 30) and Head_0; each has an operator, and Net_0 one of its own; backward on
    another thread; the optimizer, and one kernel nobody launched, lie outside."""
    events = [
        module("Net_0", 0, 70), module("Block_0", 10, 10), module("Block_0", 30, 10), module("Head_0", 50, 10),
        *operator(1, 1, 2, 100), *operator(2, 1, 12, 200), *operator(3, 1, 32, 300), *operator(4, 1, 52, 400),
        *node(4, 100, of=52), *operator(5, 2, 102, 40), *node(3, 120, of=32), *operator(6, 2, 122, 30),
        *node(2, 140, of=12), *operator(7, 2, 142, 20), x("cpu_op", "autograd::engine::evaluate_function: AccumulateGrad", 1, 2, 160, 9),
        *operator(8, 2, 162, 5), *operator(9, 1, 200, 7), x("kernel", "of nobody", 0, 7, 50_000, 3),
    ]  # fmt: skip
    (tmp_path / "t.json").write_bytes(document(events))
    return tmp_path / "t.json"


def test_kernels_belong_to_the_module_whose_operator_launched_or_made_them(written):
    found, outside = modules(read(written))
    assert [(m.name, m.depth, m.runs, m.forward_ns, m.backward_ns) for m in found] == [
        ("Net_0", 0, 1, 1_000_000, 90_000),
        ("Block_0", 1, 2, 500_000, 50_000),
        ("Head_0", 1, 1, 400_000, 40_000),
    ]
    assert outside == (5 + 7 + 3) * 1000


def test_the_page_shows_them_in_the_order_of_the_model(written):
    text = str(explain_traces([written]))
    lines = [line.split() for line in text.splitlines() if "_0 " in line]
    assert [line[:-7] for line in lines] == [["Net_0"], ["·", "Block_0"], ["·", "Head_0"]]
    assert "(outside of modules)" in text


def test_without_stacks_there_is_no_table(tmp_path):
    (tmp_path / "t.json").write_bytes(document(operator(1, 1, 2, 100)))
    assert modules(read(tmp_path / "t.json")) == ((), 0)
    assert "by module" not in str(explain_traces([tmp_path / "t.json"]))


def test_a_model_run_here(tmp_path):
    """Witness: the model itself, and that every us of an operator is somebody's and only once."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile

    model = torch.nn.Sequential(
        torch.nn.Linear(256, 256), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(256, 256))
    )
    batch = torch.randn(64, 256)
    model(batch).sum().backward()
    with profile(activities=[ProfilerActivity.CPU], with_stack=True) as recorded:
        for _ in range(3):
            model(batch).sum().backward()
    recorded.export_chrome_trace(str(tmp_path / "t.json"))
    trace = read(tmp_path / "t.json")
    found, outside = modules(trace)
    assert [(m.name.partition("_")[0], m.depth, m.runs) for m in found] == [
        ("Sequential", 0, 3), ("Linear", 1, 3), ("Sequential", 1, 3), ("ReLU", 2, 3), ("Linear", 2, 3),
    ]  # fmt: skip
    assert all(m.forward_ns > 0 and m.backward_ns > 0 for m in found)
    written = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    whole, end = 0.0, 0.0
    for e in sorted((e for e in written if e.get("cat") == "cpu_op"), key=lambda e: (e["ts"], -e["dur"])):
        whole += max(0.0, e["ts"] + e["dur"] - max(end, e["ts"]))
        end = max(end, e["ts"] + e["dur"])
    assert (found[0].nanoseconds + outside) / 1000 == pytest.approx(whole, rel=1e-3)
