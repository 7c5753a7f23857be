"""The magic in a real kernel: what a notebook records of a failing cell, and that "run all" stops there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

PROBES = Path(__file__).parents[1] / "unit"


@pytest.mark.parametrize(
    ("raised", "name"), [("1 / 0", "ZeroDivisionError"), ("raise KeyboardInterrupt", "KeyboardInterrupt")]
)
def test_a_failing_cell_stops_the_notebook_with_the_users_own_error(raised: str, name: str):
    cells = [
        f"import sys; sys.path.insert(0, {str(PROBES)!r})\nimport probes\nkeep = probes.installed()\nkeep.__enter__()",
        "%load_ext mlsys_studio",
        f"%%mlsys watch\nfirst = 1\n{raised}",
        "never = 1",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    *_, failing, after = notebook.cells
    error = next(output for output in failing.outputs if output.output_type == "error")
    shown = "\n".join(error.traceback)
    assert error.ename == name
    assert "line 3" in shown
    assert "magics" not in shown
    assert "interactiveshell" not in shown
    assert after.execution_count is None
