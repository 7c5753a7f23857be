"""ruff and pyright are clean, and pyright is not clean for want of seeing the package: a planted error proves it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlsys_studio

ROOT = Path(mlsys_studio.__file__).resolve().parent
LINK = ROOT / ".venv" / "typing" / "mlsys_studio"

PLANTED = """\
import mlsys_studio
from mlsys_studio.studio.parsing import parse

good: str = mlsys_studio.__version__
bad: int = mlsys_studio.__version__
parse(1, "mlsys")
mlsys_studio.no_such_name
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [("check", "--output-format=concise"), ("format", "--check")], ids=" ".join)
def test_ruff(command: tuple[str, ...]):
    pytest.importorskip("ruff")
    ran = run("ruff", *command, "--quiet", ".")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_pyright(tmp_path: Path):
    pytest.importorskip("pyright")
    assert LINK.exists(), "type `make lint` once: it makes the link by which pyright finds the package"
    planted = tmp_path / "planted.py"
    planted.write_text(PLANTED)
    package = [name for name in ("__init__.py", "kernels", "magics", "profilers", "studio") if (ROOT / name).exists()]
    ran = run("pyright", "--outputjson", *package, str(planted))
    errors = [d for d in json.loads(ran.stdout)["generalDiagnostics"] if d["severity"] == "error"]
    ours = [d for d in errors if Path(d["file"]) != planted]
    seen = {(d["range"]["start"]["line"] + 1, d["rule"]) for d in errors if Path(d["file"]) == planted}
    assert seen == {(5, "reportAssignmentType"), (6, "reportArgumentType"), (7, "reportAttributeAccessIssue")}
    said = [f"{Path(d['file']).relative_to(ROOT)}:{d['range']['start']['line'] + 1}: {d['message']}" for d in ours]
    assert not said, "\n".join(said)
