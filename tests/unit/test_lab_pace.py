"""The panel's pace (extensions/lab/src/pace.ts): its own tests, run by Node, which comes with pyright."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlsys_studio

LAB = Path(mlsys_studio.__file__).resolve().parent / "extensions" / "lab"
NODE = shutil.which("node", path=str(Path(sys.executable).parent)) or shutil.which("node")


def strips_types(node: str) -> bool:
    """Without an option: from 22.18 and 23.6 on."""
    said = subprocess.run([node, "-p", "process.features.typescript"], capture_output=True, text=True, check=False)
    return said.stdout.strip() == "strip"


@pytest.mark.skipif(not LAB.exists(), reason="not a clone: extensions/lab is not here")
@pytest.mark.skipif(
    NODE is None or not strips_types(NODE), reason="no Node that runs TypeScript; pyright[nodejs] has one"
)
def test_pace():
    assert NODE is not None
    tests = LAB / "test" / "pace.test.ts"
    ran = subprocess.run([NODE, "--test", tests], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# pass 5" in ran.stdout or "pass 5" in ran.stdout
