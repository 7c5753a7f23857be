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
from mlsys_studio.studio import command, registry, session, verbs
from mlsys_studio.studio.advisor import findings, trial
from mlsys_studio.studio.parsing import parse

from profiled import quick  # noqa: F401  isort: skip  a fixture
from profiles import ledger, typical  # isort: skip

ROOT = Path(mlsys_studio.__file__).resolve().parent
README = (ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else ""
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
SNIPPETS = [text for kind, text in BLOCKS if kind == "python" and not text.startswith("# ")]  # the others are files
COMMANDS = [line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]

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
    assert len(COMMANDS) >= 11
    for line in COMMANDS:
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
    folders = re.findall(r"^\| `([\w/]+/)` \|", README, re.MULTILINE)
    assert {"magics/", "studio/", "profilers/", "extensions/lab/", "notebooks/", "tests/"} == set(folders)
    missing = [path for path in [*linked, *folders] if not (ROOT / path).exists()]
    assert not missing


def test_the_ledger_adds_up():
    (shown,) = [text for kind, text in BLOCKS if kind == "text" and text.startswith("Where the time went")]
    *rows, whole = [line for line in shown.splitlines()[1:] if not line.startswith(" ")]
    assert sum(round(float(row.split()[-1]) * 10) for row in rows) == 1000
    assert whole.endswith("100.0")
    assert max(map(len, shown.splitlines())) <= 80


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """IPython in an empty folder, with short trials."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "MOST", 5)
    monkeypatch.setattr(session, "_last", None)
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.hist_file = ":memory:"
    yield InteractiveShell.instance(config=config, ipython_dir=str(tmp_path / "ipython"))
    InteractiveShell.clear_instance()


@pytest.mark.usefixtures("quick")  # ceilings are made up
def test_every_snippet_runs_as_it_stands_one_after_the_other(shell, tmp_path: Path):
    for snippet in SNIPPETS:
        result = shell.run_cell(snippet)
        assert result.success, (snippet, result.error_before_exec or result.error_in_exec)
    names = shell.user_ns
    for profile in (names["before"], names["run"].profile, names["epoch"].profile):
        assert sum(entry.nanoseconds for entry in profile.ledger.entries) == profile.ledger.wall_ns
    assert names["before"].findings[0].key == "data-stall"  # the disk is slow
    assert len(names["before"].trials) == 1
    assert "data stall" in (tmp_path / "reports/before.html").read_text(encoding="utf-8")


def test_what_it_says_of_disable(shell, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("MLSYS_DISABLE", "1")
    shell.run_cell(SNIPPETS[0])
    (in_python,) = [snippet for snippet in SNIPPETS if snippet.startswith("import mlsys_studio")]
    assert shell.run_cell(in_python).success
    assert capsys.readouterr().out == "None\nNone\n"


@pytest.mark.usefixtures("quick")
def test_every_command_of_the_main_job_runs_one_after_the_other(tmp_path: Path, monkeypatch, capsys):
    """train.py is the README's own loop in a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SNIPPETS[0] + "\nfor x, y in loader:\n    train_step(x, y)\n")
    lines = [line for line in COMMANDS if re.match("mlsys (profile|report) ", line)]
    codes = [command.main(shlex.split(line)[1:]) for line in lines]
    assert codes in ([0, 0, 0], [0, 1, 0])  # 1: slower than before, which a busy machine may be
    assert "a step against" in capsys.readouterr().out
    assert "data stall" in (tmp_path / "before.html").read_text(encoding="utf-8")


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
