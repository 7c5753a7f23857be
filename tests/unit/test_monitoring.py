"""One look and the picture of a cell. Witness: values put into a ring by hand, and what a real kernel's notebook keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlsys_studio.profilers.sampling.records import GPU, HOST, STEP
from mlsys_studio.profilers.sampling.ring import Ring
from mlsys_studio.studio import monitoring

GIB = 2.0**30


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring.create(tmp_path / "1-2-3.ring", 1, {"host": "box", "gpus": [{"name": "<b>Made-up</b>", "index": 0}]})


def put(ring: Ring, count: int) -> None:
    host = dict.fromkeys(HOST, 0.0) | {"cpu": 1.5, "cpu_limit": 2.0, "memory": 6 * GIB, "memory_limit": 8 * GIB}
    gpu = dict.fromkeys(GPU, float("nan")) | {"utilisation": 97.0, "memory_used": 30 * GIB, "memory_total": 80 * GIB, "throttle": 4.0}  # fmt: skip
    samples, steps = ring.writer(ring.samples), ring.writer(ring.steps)
    for n in range(count):
        samples.put((*(host | {"time": float(n)}).values(), *gpu.values()))
        step = dict.fromkeys(STEP, 0.0) | {"number": n + 1.0, "wall": 20e6, "data": 5e6, "loss": 2.0 - 0.1 * n}
        steps.put(tuple(step.values()))


def test_a_look_says_values_against_limits(ring: Ring):
    put(ring, 5)
    look = monitoring.of_ring(ring)
    text = str(look)
    for said in (
        "1.50 of 2 cores",
        "6.00 GiB of 8.00 GiB",
        "75.0 %",
        "97 %",
        "not attributable",
        "power cap",
        "20.0 ms",
        "25.0 %  of the steps shown",
        "Step time\n",
        "Loss\n",
    ):
        assert said.replace(" cores", "") in text, text
    assert all(len(line) <= 80 for line in text.splitlines())
    html = look._repr_mimebundle_()["text/html"]
    assert "<b>Made-up" not in html and "<svg" in html and "<script" not in html
    found = json.loads(look.to_json())
    assert found["host"]["memory"] == 6 * GIB and found["gpus"][0]["power"] is None and found["step"]["number"] == 5


def test_before_the_first_sample_it_says_so(ring: Ring):
    assert "No sample yet" in str(monitoring.of_ring(ring))


def test_one_look_by_this_process():
    look = monitoring.once(0.2)
    assert look.hosts[0]["memory_kernel"] and "this kernel" in str(look)


def test_the_notebook_keeps_the_last_picture():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    cells = ["%load_ext mlsys_studio", "%%mlsys monitor\nimport time\ntime.sleep(2)\nkept = 1", "print(kept)"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (shown,) = [o for o in notebook.cells[1].outputs if o.output_type == "display_data"]
    assert "this kernel" in shown["data"]["text/plain"] and "<svg" in shown["data"]["text/html"]
    assert notebook.cells[2].outputs[0]["text"] == "1\n"
