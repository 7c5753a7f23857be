"""Figures to zoom into: the numbers in them are the result's own, and a name from outside stays a name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("plotly")
pytest.importorskip("msgspec")

from memorystories import kineto, training
from test_trace_ranks import rank
from test_trace_roofline import called, traced
from tracefiles import DIALECTS

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.trace import read
from mlsys_studio.profilers.traces.blocks import CATEGORIES
from mlsys_studio.profilers.traces.memory import memory_of
from mlsys_studio.profilers.traces.report import explain_traces
from mlsys_studio.studio import figures
from mlsys_studio.studio.report import with_files


def test_lanes_are_as_dark_as_they_are_busy(tmp_path):
    """The story: 35 us, compute 20 of them, communication 20, a copy 2."""
    (tmp_path / "t.json").write_bytes(DIALECTS["today"])
    figures.figure(report := explain_traces([tmp_path / "t.json"]))
    heat = figures.figure(report).data[0]
    slot = heat.x[1] - heat.x[0]
    busy = {name: 1000 * slot * sum(shares) for name, shares in zip(heat.y, heat.z, strict=True)}
    assert busy == pytest.approx({"compute": 20, "comm": 20, "copy": 2}, rel=0.01)


def test_several_traces_stand_side_by_side(tmp_path):
    report = explain_traces([rank(tmp_path, i, [("ncclDevKernel_AllReduce", 40 + i, {})]) for i in range(2)])
    bars = figures.figure(report).data
    for i, trace in enumerate(report.traces):
        assert sum(bar.y[i] for bar in bars) == pytest.approx(trace.span_ns / 1e6)


def test_memory_adds_up_to_the_peak(tmp_path):
    story = training(3, steps=4)
    (tmp_path / "t.json").write_bytes(kineto(story))
    areas = figures.figure(memory_of(tmp_path / "t.json")).data
    assert max(sum(area.y[i] for area in areas) for i in range(len(areas[0].y))) == story.peak
    assert {area.name for area in areas} <= set(CATEGORIES)


def test_a_roofline_has_its_points_and_its_limits_and_runs_no_names(tmp_path):
    """n = 4096 in bf16: 4096 / 3 FLOP/B, and 2 n³ in 900 us; the ridge of an A100 lies at 312e12 / 2039e9."""
    pytest.importorskip("torch")
    from mlsys_studio.profilers.traces.roofline import roofline

    events = called(1, "aten::mm", 0, 900, "bfloat16", [4096, 4096], [4096, 4096])
    path = traced(tmp_path, events).rename(tmp_path / "<script>alert(1)<b>.json")
    shown = roofline(read(path, detail="shapes"))
    points, roof = figures.figure(shown).data
    assert (points.x[0], points.y[0]) == (pytest.approx(4096 / 3), pytest.approx(2 * 4096**3 / 900e-6))
    assert roof.x[1] == pytest.approx(312e12 / 2039e9, rel=0.01)
    page = figures.figure(shown).to_html(include_plotlyjs=False)
    assert "alert(1)" in page and "<script>alert" not in page and "<b>.json" not in page


def test_nothing_is_computed_for_a_file_that_cannot_be_written(tmp_path, monkeypatch):
    def never() -> None:
        raise AssertionError("computed")

    with pytest.raises(UsageError, match=r"ends in \.html"):
        with_files(never, None, tmp_path / "figure.png", "t")
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"mlsys-studio\[figures\]"):
        with_files(never, None, tmp_path / "figure.html", "t")


def test_the_verb_writes_both_files_without_torch(tmp_path):
    (tmp_path / "t.json").write_bytes(DIALECTS["today"])
    words = ["trace", "t.json", "--html", "page.html", "--figure", "figure.html"]
    code = (
        f"import sys\nfrom mlsys_studio.studio.command import main\nmain({words!r})\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    assert "What ran when" in Path(tmp_path / "page.html").read_text()
    assert "Plotly.newPlot" in Path(tmp_path / "figure.html").read_text()
