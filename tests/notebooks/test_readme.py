"""What the README promises: its code runs, its commands and files exist, its ledger adds up."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
IPython = pytest.importorskip("IPython")

import mlsys_studio
from mlsys_studio.profilers import cost_registry
from mlsys_studio.studio import registry, verbs
from mlsys_studio.studio.advisor import findings
from mlsys_studio.studio.parsing import parse

from profiles import ledger, typical  # isort: skip

ROOT = Path(mlsys_studio.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not README, reason="a wheel has no README")


def execute(opening: str, names: dict[str, object]) -> None:
    """The README's block that begins so, in these names."""
    (found,) = [text for kind, text in BLOCKS if kind == "python" and text.startswith(opening)]
    exec(compile(found, "README.md", "exec", dont_inherit=True), names)  # noqa: S102 - our own README


@pytest.mark.parametrize("code", [text for kind, text in BLOCKS if kind == "python"], ids=lambda c: c.split("\n")[0])
def test_python_is_python_and_its_magics_are_understood(code: str):
    first, _, rest = code.partition("\n")
    if first.startswith("%%mlsys"):
        parse(shlex.split(first)[1:], "%mlsys", has_cell=True)
        code = rest
    for line in code.splitlines():
        if line.startswith("%mlsys"):
            parse(shlex.split(line)[1:], "%mlsys")
    ast.parse(IPython.core.inputtransformer2.TransformerManager().transform_cell(code))


def test_commands_are_understood():
    lines = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]
    assert len(lines) == 12
    for line in lines:
        prog, *words = shlex.split(line)
        assert parse(words, prog).verb.name in verbs.NAMES


def test_what_make_is_asked_for_is_there():
    makefile = (ROOT / "Makefile").read_text()
    asked = set(re.findall(r"`make (\w+)`", README))
    assert asked >= {"demo", "test", "lab"}
    assert all(re.search(rf"^{name}:", makefile, re.MULTILINE) for name in asked)


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize(("user", "told"), [(0, True), (1000, False)])
def test_lab_is_told_that_it_is_root_only_where_it_is(user: int, told: bool, tmp_path: Path):
    """Witness: what make would run, with an `id` of ours."""
    fake = tmp_path / "id"
    fake.write_text(f"#!/bin/sh\necho {user}\n")
    fake.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["make", "-n", "lab"], cwd=ROOT, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    (line,) = [line for line in ran.stdout.splitlines() if "jupyter lab" in line]
    assert ("--allow-root" in line) is told


def test_folders_and_links_exist():
    linked = [path for path in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in path]
    folders = re.findall(r"^\| `(\w+/)` \|", README, re.MULTILINE)
    assert {"magics/", "studio/", "profilers/", "notebooks/", "tests/"} == set(folders)
    missing = [path for path in [*linked, *folders] if not (ROOT / path).exists()]
    assert not missing


def test_the_ledger_adds_up():
    (shown,) = [text for kind, text in BLOCKS if kind == "text" and text.startswith("Where the time went")]
    *rows, whole = [line for line in shown.splitlines()[1:] if not line.startswith(" ")]
    assert sum(round(float(row.split()[-1]) * 10) for row in rows) == 1000
    assert whole.endswith("100.0")
    assert max(map(len, shown.splitlines())) <= 80


def test_the_with_block_and_the_decorator(monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("MLSYS_DISABLE", "1")
    ran: list[int] = []
    names: dict[str, object] = {"train": lambda: ran.append(1)}
    execute("import mlsys_studio", names)
    assert len(ran) == 2
    assert capsys.readouterr().out == "None\nNone\n"  # as it says of MLSYS_DISABLE


def test_the_verb(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "_VERBS", dict(registry._VERBS))
    monkeypatch.setattr(verbs, "NAMES", (*verbs.NAMES, "cores"))
    names = {"__name__": "mlsys_studio.studio.verbs.cores", "__package__": "mlsys_studio.studio.verbs"}
    execute("# studio/verbs/cores.py", names)
    request = parse(["cores", "0.001"], "mlsys")
    assert request.values["share"] == 0.001
    assert names["cores"](0.001) == "1 cores"  # type: ignore[operator]


def test_the_cost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cost_registry, "FORMULAS", dict(cost_registry.FORMULAS))
    execute("# profilers/cost_memory.py", vars(cost_registry).copy())
    call = cost_registry.Call("mlsys::rms_norm", ((4, 8), (8,)), ("bfloat16", "bfloat16"))
    monkeypatch.setattr(cost_registry, "only_written", lambda name, pattern: ())
    assert cost_registry.FORMULAS["mlsys::rms_norm"](call) == cost_registry.OpCost(0, 2 * (32 + 8 + 32))


def test_the_finding():
    names = vars(findings).copy()
    execute("# studio/advisor/findings.py", names)
    ms = 1_000_000
    found = replace(typical(), ledger=ledger({("forward", "useful"): 300 * ms, ("forward", "compile"): 100 * ms}))
    raised = names["recompiling"](found, found.ledger, found.loop)
    assert raised.predicted == pytest.approx(4 / 3)
    assert "25.0 %" in raised.evidence
