"""The package's face and everything before a verb runs: light, and imported once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlsys_studio

ROOT = Path(mlsys_studio.__file__).resolve().parent
HEAVY = {"torch", "numpy", "pandas", "IPython", "triton", "plotly", "importlib.metadata"}


def loaded(code: str) -> set[str]:
    """Names in sys.modules after `code` in a fresh interpreter, beyond those of a bare one."""
    report = "\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.__stdout__)"

    def modules(code: str) -> set[str]:
        ran = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
        return set(json.loads(ran.stdout.splitlines()[-1]))

    return modules(code) - modules("pass")


def test_one_module_has_the_root_file():
    """Trap of this layout: pytest importing the root's __init__.py a second time, as a package of another name."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    roots = [name for name, file in files.items() if file and Path(file).resolve() == ROOT / "__init__.py"]
    assert roots == ["mlsys_studio"]


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded("import mlsys_studio") & HEAVY


def test_help_loads_nothing_heavy():
    assert not loaded("from mlsys_studio.studio.command import main; main(['--help'])") & HEAVY


def test_help_of_every_verb_loads_nothing_heavy():
    code = (
        "from mlsys_studio.studio import verbs; from mlsys_studio.studio.command import main\n"
        "for name in verbs.NAMES: main([name, '--help'])"
    )
    assert not loaded(code) & HEAVY


def test_loading_the_extension_loads_no_torch():
    code = (
        "from IPython.core.interactiveshell import InteractiveShell as S; s = S(history_length=0)\n"
        "before = set(__import__('sys').modules)\n"
        "s.run_line_magic('load_ext', 'mlsys_studio'); s.run_line_magic('mlsys', 'doctor --help')\n"
        "new = set(__import__('sys').modules) - before\n"
        "assert not {'torch', 'numpy', 'pandas', 'plotly'} & new, new"
    )
    loaded(code)


def test_every_public_name_is_found_and_listed():
    import importlib.util

    for name, home in mlsys_studio._HOMES.items():
        assert importlib.util.find_spec(f"mlsys_studio.{home}"), f"{name} lives nowhere: {home}"
    assert set(mlsys_studio.__all__) <= set(dir(mlsys_studio))


def test_a_name_that_is_not_there_says_what_is():
    with pytest.raises(AttributeError, match="Profile"):
        mlsys_studio.profil  # noqa: B018


def test_version_is_the_distributions():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert mlsys_studio.__version__ in (project["version"], "0+uninstalled")
