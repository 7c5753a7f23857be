"""The panel's distribution: versions and protocol are those of the package, the wheel builds without Node, and the root
carries none of it. Witness: the files on disk, opened archives, and what JupyterLab itself lists.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import mlsys_studio
from mlsys_studio.profilers.sampling.nvml import THROTTLE
from mlsys_studio.profilers.views.palette import COLOURS
from mlsys_studio.studio import state

ROOT = Path(mlsys_studio.__file__).resolve().parent
LAB = ROOT / "extensions" / "lab"

pytestmark = pytest.mark.skipif(not LAB.exists(), reason="not a clone: extensions/lab is not here")


def source(name: str) -> str:
    return (LAB / "src" / name).read_text()


def test_versions_are_one():
    root, lab = (tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, LAB))
    version = root["version"]
    python = re.search(r'__version__ = "(.+)"', (LAB / "mlsys_studio_lab/__init__.py").read_text())
    typescript = re.search(r"VERSION = '(.+)'", source("protocol.ts"))
    package = json.loads((LAB / "package.json").read_text())["version"]
    assert python and typescript
    assert {lab["version"], package, python[1], typescript[1]} == {version}
    assert root["optional-dependencies"]["lab"] == [f"mlsys-studio-lab=={version}"]


def test_both_sides_speak_one_protocol():
    number = re.search(r"PROTOCOL = (\d+);", source("protocol.ts"))
    mime = re.search(r"MIME = '(.+)'", source("protocol.ts"))
    assert number and mime
    assert (int(number[1]), mime[1]) == (state.PROTOCOL, state.MIME)
    reasons = re.findall(r"\[(0x[0-9a-f]+), '([^']+)'\]", source("now.ts"))
    assert {int(bit, 16): name for bit, name in reasons} == THROTTLE
    colours = re.findall(r"^  '?([a-z ]+)'?: '(#\w{6})'", source("palette.ts"), re.MULTILINE)
    assert dict(colours) == COLOURS


def test_the_lock_names_no_host():
    lock = (LAB / "yarn.lock").read_text()
    assert len(lock) > 50_000 and "://" not in lock
    for package, version in json.loads((LAB / "package.json").read_text())["resolutions"].items():
        assert f'"{package}@npm:{version}":' in lock


def test_neither_wheel_nor_sdist_of_the_root_carries_the_panel(tmp_path: Path):
    pytest.importorskip("setuptools")
    hidden = shutil.ignore_patterns("__pycache__", ".*", "node_modules", "lib", "labextension")
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in ("LICENSE", "README.md", "__init__.py", "py.typed", "pyproject.toml"):
        shutil.copy(ROOT / name, clone)
    for name in ("extensions", "kernels", "magics", "notebooks", "profilers", "studio", "tests"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, clone / name, ignore=hidden)
    for folder in ("reports", "build", "node_modules"):
        (clone / folder).mkdir(exist_ok=True)
        (clone / folder / "left.py").write_text("")
    code = f"import setuptools.build_meta as b; b.build_sdist({str(tmp_path)!r}); b.build_wheel({str(tmp_path)!r})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    (sdist,), (wheel,) = tmp_path.glob("*.tar.gz"), tmp_path.glob("*.whl")
    with tarfile.open(sdist) as packed, zipfile.ZipFile(wheel) as zipped:
        inside = {name.partition("/")[2] for name in packed.getnames()}, set(zipped.namelist())
    for names in inside:
        assert any(name.endswith("profilers/ledger.py") for name in names)
        parts = {part for name in names for part in Path(name).parts}
        assert not parts & {"extensions", "node_modules", "build", "reports", "tests", "package.json", ".yarn"}


def test_jupyterlab_lists_it_as_enabled():
    pytest.importorskip("jupyterlab")
    if not (Path(sys.prefix) / "share/jupyter/labextensions/mlsys-studio-lab/package.json").exists():
        pytest.skip("the extension is not installed: pip install ./extensions/lab")
    ran = subprocess.run(
        [sys.executable, "-m", "jupyter", "labextension", "list"], capture_output=True, text=True, check=False
    )
    plain = re.sub(r"\x1b\[\d*m", "", ran.stdout + ran.stderr)
    assert re.search(r"mlsys-studio-lab v\S+ enabled +OK", plain), plain


@pytest.mark.slow
def test_the_wheel_builds_with_no_node_on_the_path(tmp_path: Path):
    """Needs a network: the build has packages of its own. Its source is a copy, so nothing built here is of help."""
    clone = tmp_path / "lab"
    shutil.copytree(
        LAB, clone, ignore=shutil.ignore_patterns("node_modules", ".yarn", "lib", "labextension", "*.tsbuildinfo")
    )
    bare = tmp_path / "bin"
    bare.mkdir()
    for tool in ("sh", "env", "uname", "dirname", "sed", "tar", "gzip"):
        (bare / tool).symlink_to(shutil.which(tool) or pytest.skip(f"no {tool}"))
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean.update(PATH=str(bare), HOME=str(tmp_path))
    assert shutil.which("node", path=clean["PATH"]) is None
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(tmp_path), "."],
        cwd=clone, env=clean, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if re.search(r"Could not fetch|ENOTFOUND|EAI_AGAIN|No matching distribution", ran.stdout + ran.stderr):
        pytest.skip("no network, and the build needs one")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
    shared = "mlsys_studio_lab-0.1.0.data/data/share/jupyter/labextensions/mlsys-studio-lab/"
    assert {"mlsys_studio_lab/__init__.py", shared + "package.json", shared + "install.json"} <= set(names)
    assert sum(name.endswith(".js") and "remoteEntry" in name for name in names) == 1
    assert not [name for name in names if "node_modules" in name or name.endswith((".ts", ".map"))]
