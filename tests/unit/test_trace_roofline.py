"""Operators of a trace under their device's published limits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from tracefiles import Event, document, x

pytest.importorskip("torch")

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from mlsys_studio.profilers.ceilings import Ceilings
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.hardware import lookup
from mlsys_studio.profilers.trace import read
from mlsys_studio.profilers.traces import roofline as roofline_module
from mlsys_studio.profilers.traces.dialects import Kind
from mlsys_studio.profilers.traces.roofline import _operators, roofline

GPU = "NVIDIA A100-SXM4-80GB"
KINDS = {"bfloat16": "c10::BFloat16", "float32": "float"}


def called(link: int, name: str, start: int, kernel: int, dtype: str, *dims: list[int], values: tuple[str, ...] = ()) -> list[Event]:  # fmt: skip
    """An operator of 10 us with tensors of these shapes, and its kernel of `kernel` us."""
    scalars = [""] * len(values)
    said = {"Input Dims": [*dims, *([] for _ in values)], "Input type": [KINDS[dtype]] * len(dims) + ["Scalar"] * len(values),
            "Concrete Inputs": [*("" for _ in dims), *values], "Input Strides": [[] for _ in [*dims, *scalars]]}  # fmt: skip
    return [
        x("cpu_op", name, 1, 1, start, 10, **{"External id": link}, **said),
        x("cuda_runtime", "cudaLaunchKernel", 1, 1, start + 2, 2, **{"External id": link, "correlation": link}),
        x("kernel", f"kernel of {name}", 0, 7, start + 5, kernel, **{"External id": link, "correlation": link}),
    ]


def traced(tmp_path: Path, events: list[Event], gpu: str = GPU) -> Path:
    (tmp_path / "t.json").write_bytes(document(events, deviceProperties=[{"id": 0, "name": gpu}]))
    return tmp_path / "t.json"


def test_closed_forms(tmp_path):
    """A matmul of 4096³ (2 n³ FLOP against 3 n² elements: compute), an addition of 2²⁸ (memory), one of 8 (launch), and
    an operator nobody knows. Witness: the data sheet, 312 TFLOP/s in bf16 and 2,039 GB/s."""
    n, m = 4096, 2**28
    events = [
        *called(1, "aten::mm", 0, 900, "bfloat16", [n, n], [n, n]),
        *called(2, "aten::mm", 1000, 700, "bfloat16", [n, n], [n, n]),
        *called(3, "aten::add", 2000, 1600, "bfloat16", [m], [m], values=("1",)),
        *called(4, "aten::add", 4000, 3, "bfloat16", [8], [8], values=("1",)),
        *called(5, "mine::op", 5000, 50, "bfloat16", [8]),
        x("kernel", "of nobody", 0, 7, 6000, 11, correlation=99),
    ]
    found = roofline(read(traced(tmp_path, events), detail="shapes"))
    assert (found.device.name, found.unowned_ns) == (lookup(GPU).name, 11_000)
    mm, add, unknown, tiny = found.rows[0 if found.rows[0].operator == "aten::mm" else 1], *(
        next(r for r in found.rows if r.operator == name and r.shapes == shapes)
        for name, shapes in (("aten::add", f"{m}, {m}"), ("mine::op", "8"), ("aten::add", "8, 8"))
    )  # fmt: skip
    assert (mm.calls, mm.nanoseconds, mm.flops, mm.bytes) == (2, 1_600_000, 4 * n**3, 2 * 2 * 3 * n**2)
    assert (mm.bound, mm.share) == ("compute", pytest.approx(4 * n**3 / 312e12 / 1.6e-3, rel=1e-4))
    assert (add.bound, add.bytes) == ("memory", 2 * 3 * m)
    assert add.lost_ns == pytest.approx(1_600_000 - 1e9 * 6 * m / 2039e9, rel=1e-3)
    assert (unknown.bound, unknown.flops, unknown.share, unknown.lost_ns) == ("uncounted", None, None, 0)
    assert tiny.bound == "launch"


def test_fp32_that_beats_its_peak_ran_as_tf32(tmp_path):
    """2 * 4096³ FLOP in 1.5 ms are 92 TFLOP/s: beyond the 19.5 of fp32, 59 % of the 156 of TF32."""
    events = called(1, "aten::mm", 0, 1500, "float32", [4096, 4096], [4096, 4096])
    (row,) = roofline(read(traced(tmp_path, events), detail="shapes")).rows
    assert row.share == pytest.approx(2 * 4096**3 / 1.5e-3 / 156e12, rel=1e-4)


def test_operators_of_a_file_are_called_as_in_memory(tmp_path):
    """Witness: the events torch's profiler holds, before it writes them."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    heads = [torch.randn(1, 2, 8, 4)] * 3
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recorded:
        y = model(torch.randn(2, 3, 8, 8))
        torch.cat([y, y.detach()]).softmax(-1).sum(0, keepdim=True).mean().backward()
        nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
    recorded.export_chrome_trace(str(tmp_path / "t.json"))
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    there = {e.correlation_id(): Call.from_event(e) for e in events if not e.is_user_annotation()}
    trace = read(tmp_path / "t.json", detail="shapes")
    here = dict(zip(trace.external[trace.of(Kind.OPERATOR)].tolist(), _operators(trace), strict=True))
    compared = [link for link in here if link in there and there[link].shapes]
    assert len(compared) > 20
    for link in compared:
        ours, theirs = here[link].call, there[link]
        assert ours is not None
        assert (ours.name, ours.shapes, ours.dtypes) == (theirs.name, theirs.shapes, theirs.dtypes)
        assert ours.concrete == tuple(theirs.concrete), ours.name


@pytest.mark.parametrize(
    ("gpu", "events", "says"),
    [
        ("NVIDIA A1000000", called(1, "aten::mm", 0, 9, "float32", [8, 8], [8, 8]), "no spec for device"),
        ("", called(1, "aten::mm", 0, 9, "float32", [8, 8], [8, 8]), "does not name its device"),
        (GPU, [x("kernel", "k", 0, 7, 0, 9)], "without shapes"),
        (GPU, [x("cpu_op", "aten::mm", 1, 1, 0, 9)], "no work on a device"),
    ],
)
def test_what_cannot_be_placed_is_refused(tmp_path, gpu, events, says):
    with pytest.raises(UsageError, match=says):
        roofline(read(traced(tmp_path, events, gpu), detail="shapes"))


def test_what_was_measured_here_is_the_limit_and_is_said(tmp_path, monkeypatch):
    """Measured: 200 TFLOP/s, 1 TB/s, kernels of 5 us at least. A matmul of 4096³ in 900 us; an addition of 12 MB in 24."""
    ceilings = Ceilings({"bfloat16": 200e12}, ((1, 1e12), (1 << 33, 1e12)), 5000, 0, 0, "2026-11-21", "2.13", 1)
    asked = []
    monkeypatch.setattr(roofline_module, "cached", lambda device: asked.append(device.name) or ceilings)
    n, m = 4096, 2_000_000
    events = [*called(1, "aten::mm", 0, 900, "bfloat16", [n, n], [n, n]), *called(2, "aten::add", 2000, 24, "bfloat16", [m], [m], values=("1",))]  # fmt: skip
    found = roofline(read(traced(tmp_path, events), detail="shapes"))
    mm, add = found.rows
    assert asked == [GPU]
    assert mm.share == pytest.approx(2 * n**3 / 200e12 / 900e-6, rel=1e-4)
    assert (add.bound, add.share) == ("memory", pytest.approx(0.5, rel=1e-3))
    assert "measured on this machine" in str(found)
    assert json.loads(found.to_json())["measured"] is True


def test_another_devices_limits_are_taken_where_they_are_asked_for(tmp_path):
    """Witness: the data sheet, 989 TFLOP/s in bf16."""
    events = called(1, "aten::mm", 0, 900, "bfloat16", [4096, 4096], [4096, 4096])
    trace = read(traced(tmp_path, events, gpu=""), detail="shapes")
    (row,) = roofline(trace, lookup("H100-SXM5-80GB")).rows
    assert row.share == pytest.approx(2 * 4096**3 / 989e12 / 900e-6, rel=1e-2)


def test_the_picture_puts_a_point_where_its_figures_say(tmp_path):
    """n = 4096 in bf16: 2 n³ / (3 * 2 n²) = 1365 FLOP/B, and 153 TFLOP/s in 900 us."""
    events = called(1, "aten::mm<b>", 0, 9, "bfloat16", [8, 8]) + called(2, "aten::mm", 100, 900, "bfloat16", [4096, 4096], [4096, 4096])  # fmt: skip
    found = roofline(read(traced(tmp_path, events), detail="shapes"))
    (point,) = found.picture().points
    assert point[1:] == pytest.approx((4096 / 3, 2 * 4096**3 / 900e-6, 900 / 909), rel=1e-6)
    lines = found.picture().lines(80)
    assert all(len(line) <= 80 for line in lines) and any("a" in line for line in lines[:12])
    page = found._repr_mimebundle_()["text/html"]
    assert page.count("<circle") == 1 and "<b>" not in page
    assert ">aten::mm</text>" in page and ">1000 FLOP/B</text>" in page


def test_the_verb_prints_it(tmp_path):
    path = traced(tmp_path, called(1, "aten::mm", 0, 900, "bfloat16", [4096, 4096], [4096, 4096]))
    command = [sys.executable, "-m", "mlsys_studio.studio.command", "roofline", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "published limits" in text and "aten::mm" in text
    said = json.loads(
        subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, check=True).stdout
    )
    assert said["operators"][0]["bound"] == "compute"
