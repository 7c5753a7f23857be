"""A clone under another name, built and installed into fresh environments. No network is used.

Witness: the folders on disk. Whatever the package list in pyproject.toml forgets is on disk and not in the wheel.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mlsys_studio

setuptools = pytest.importorskip("setuptools")

ROOT = Path(mlsys_studio.__file__).resolve().parent
SHIPPED = ("kernels", "magics", "notebooks", "profilers", "studio")
SUFFIXES = {".py", ".json", ".toml", ".ipynb"}


def run(*command: str | Path, cwd: Path, ok: bool = True) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ran = subprocess.run([*map(str, command)], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert ran.returncode == 0 or not ok, ran.stdout + ran.stderr
    return ran


def pip(*words: str | Path, cwd: Path) -> None:
    run(sys.executable, "-m", "pip", *words, cwd=cwd)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git would give, in a folder of another name; built there, so that no stale build/ is packed."""
    folder = tmp_path_factory.mktemp("somewhere") / "a clone-of_another.name"
    hidden = shutil.ignore_patterns(
        ".*", "__pycache__", "build", "dist", "reports", "*.egg-info", "tests", "node_modules"
    )
    shutil.copytree(ROOT, folder, ignore=hidden)
    return folder


@pytest.fixture(scope="module")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, ".", cwd=clone)
    (built,) = out.glob("*.whl")
    return built


def pythons() -> list[str]:
    """This one, and a 3.12 where there is one: torch need not exist for it."""
    other = shutil.which("python3.12")
    works = other and subprocess.run([other, "-c", "import venv"], capture_output=True, check=False).returncode == 0
    return [sys.executable, *([other] if other and works else [])]


def venv(python: str, folder: Path) -> Path:
    run(python, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    return folder / "bin" / "python"


def test_the_wheel_holds_everything_and_nothing_else(wheel: Path):
    on_disk = {
        f"mlsys_studio/{file.relative_to(ROOT)}"
        for folder in SHIPPED
        for file in (ROOT / folder).rglob("*")
        if file.suffix in SUFFIXES
        and file.name != "ruff.toml"
        and not any(part.startswith(".") or part == "__pycache__" for part in file.parts)
    }
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == on_disk | {"mlsys_studio/__init__.py", "mlsys_studio/py.typed"}
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_metadata_says_what_is_true(wheel: Path):
    with zipfile.ZipFile(wheel) as packed:
        (name,) = [name for name in packed.namelist() if name.endswith("METADATA")]
        text = packed.read(name).decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", text, re.MULTILINE)
    # A bare machine, a laptop with the panel only: torch is an extra; the others read saved traces.
    assert sorted(required) == ["msgspec", "numpy", "zlib-ng"]
    assert "License-Expression: Apache-2.0" in text
    assert "Requires-Python: >=3.11" in text


@pytest.mark.parametrize("python", pythons(), ids=lambda python: Path(python).name)
def test_the_wheel_works_without_torch(wheel: Path, tmp_path: Path, python: str):
    inside = venv(python, tmp_path / "environment")
    pip("--python", inside, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    mlsys = inside.parent / "mlsys"
    assert "usage: mlsys VERB" in run(mlsys, "--help", cwd=tmp_path).stdout
    assert mlsys_studio.__version__ in run(mlsys, "--version", cwd=tmp_path).stdout
    examined = run(mlsys, "doctor", "--json", cwd=tmp_path, ok=False)
    torch = next(check for check in json.loads(examined.stdout)["checks"] if check["name"] == "torch")
    assert "not installed" in torch["found"]
    assert (examined.returncode, examined.stderr) == (1, "")


def test_an_editable_installation_is_the_clone(clone: Path, tmp_path: Path):
    inside = venv(sys.executable, tmp_path / "environment")
    (packages,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    home = Path(setuptools.__file__).parents[1]
    for needed in [*home.glob("setuptools*"), home / "_distutils_hack"]:  # to build with, without a network
        (packages / needed.name).symlink_to(needed)
    command = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-e", ".")
    pip("--python", inside, *command, cwd=clone)
    code = "import mlsys_studio, mlsys_studio.studio.verbs.doctor as v; print(mlsys_studio.__file__); print(v.__file__)"
    files = run(inside, "-c", code, cwd=tmp_path).stdout.splitlines()
    assert files == [str(clone / "__init__.py"), str(clone / "studio/verbs/doctor.py")]


def test_constraints_name_no_path_and_no_host():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*", pin) for pin in pins)
    assert "torch==2.13.0" in pins


def test_the_readmes_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    promised = set(re.findall(r"\bmake ([a-z][a-z-]*)\b(?=`|\s*(?:#|$|–))", readme, re.MULTILINE))
    assert {"demo", "test", "lab"} <= promised <= targets
