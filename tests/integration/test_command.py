"""`mlsys profile script.py` in a process of its own, as a shell and a CI job see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlsys_studio.profilers.profile import Profile

SCRIPT = """
import sys, time
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

nap, after = float(sys.argv[1]), sys.argv[2:]
torch.set_num_threads(1)
torch.manual_seed(0)

def main():
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    optimizer = torch.optim.AdamW(model.parameters())
    data = TensorDataset(torch.randn(4 * 70, 16), torch.randint(0, 4, (4 * 70,)))
    for i, (x, y) in enumerate(DataLoader(data, batch_size=4)):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        time.sleep(nap)
        if after and i == 40:
            exec(after[0])
    print("done", __name__, len(sys.argv))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scripts")
    (place / "train.py").write_text(SCRIPT)
    return place


def mlsys(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlsys_studio.studio.command", *words]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ | environment, timeout=240, check=False
    )


@pytest.fixture(scope="module")
def base(folder: Path) -> subprocess.CompletedProcess[str]:
    """The first run of the machine may measure its ceilings: the others find them in the cache."""
    return mlsys(folder, "profile", "train.py", "--json", "--out", "base.json", "--", "0.002")


def test_json_is_alone_on_stdout(folder, base):
    assert base.returncode == 0, base.stderr
    found = Profile.from_json(base.stdout)
    assert json.loads(base.stdout) and found.title == "train.py"
    assert found.ledger is not None and found.steps.unit == "optimizer step (AdamW)"
    assert found.loop is not None and found.loop.loader == "TensorDataset"  # it lived in main() only
    assert found.findings and not any(f.remedy for f in found.findings)  # `fix` has no cell to run again
    assert "done __main__ 2" in base.stderr
    assert Profile.from_json((folder / "base.json").read_text()) == found


def test_equal_runs_pass_the_comparison_and_slower_ones_do_not(folder, base):
    assert base.returncode == 0
    same = mlsys(folder, "profile", "train.py", "--compare", "base.json", "--bound", "0.9", "--", "0.002")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "done __main__ 2" in same.stdout and "Where the time went" in same.stdout
    assert any(said in same.stdout for said in ("within the bound", "within the spread", "not slower"))
    slower = mlsys(folder, "profile", "train.py", "--mode", "light", "--compare", "base.json", "--", "0.03")
    assert slower.returncode == 1
    assert "slower than the bound of 5.0%" in slower.stdout


def test_disabled_is_the_plain_script(folder):
    done = mlsys(folder, "profile", "train.py", "--", "0", MLSYS_DISABLE="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done __main__ 2\n", "")


def test_an_error_is_the_scripts_own(folder):
    done = mlsys(folder, "profile", "train.py", "--mode", "light", "--out", "cut.json", "--", "0", "1 / 0")
    assert done.returncode == 1
    assert "ended early with ZeroDivisionError" in done.stdout and "clean: median" in done.stdout
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "train.py"')
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "mlsys_studio" not in done.stderr and "runpy" not in done.stderr
    assert Profile.from_json((folder / "cut.json").read_text()).steps.clean


def test_a_syntax_error_too(folder):
    (folder / "broken.py").write_text("x = = 1\n")
    done = mlsys(folder, "profile", "broken.py")
    assert done.returncode == 1 and "SyntaxError" in done.stderr and "mlsys_studio" not in done.stderr


def test_the_scripts_exit_code_is_passed_on(folder):
    done = mlsys(folder, "profile", "train.py", "--mode", "light", "--json", "--", "0", "sys.exit(3)")
    assert done.returncode == 3
    assert Profile.from_json(done.stdout).steps.clean
    done = mlsys(folder, "profile", "train.py", "--mode", "light", "--json", "--", "0", "sys.exit()")
    assert done.returncode == 0 and Profile.from_json(done.stdout).steps.clean


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing.py"], "no script 'nothing.py' here; type for example"),
        (["."], "no script '.' here"),
        ([], "profile takes a cell or a script, one of them: type `mlsys profile train.py`"),
        (["train.py", "--compare", "none.json"], "cannot read 'none.json'"),
        (["train.py", "--compare", "train.py"], "cannot read 'train.py', not a profile: the text is not JSON"),
        (["train.py", "--out", "p.pdf"], "no report of format 'pdf'; give a file that ends in one of: .html"),
        (["train.py", "--into", "x"], "--into names a variable of the notebook"),
        (["train.py", "--steps", "0"], "give a whole number from 1 to 1000"),
    ],
)
def test_what_is_typed_wrongly_is_one_line(folder, words, says):
    done = mlsys(folder, "profile", *words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("mlsys: ") and says in line


def test_a_place_that_cannot_be_written_loses_no_measurement(folder):
    done = mlsys(folder, "profile", "train.py", "--mode", "light", "--out", "train.py/p.html", "--", "0")
    assert done.returncode == 2
    assert "clean: median" in done.stdout and "cannot write train.py/p.html" in done.stderr


def test_fix_and_report_say_where_they_work(folder):
    for words, says in ((["fix", "1"], "in a notebook|there"), (["report", "x.html"], "--saved base.json")):
        done = mlsys(folder, *words)
        assert done.returncode == 2 and any(s in done.stderr for s in says.split("|"))


@pytest.mark.parametrize("words", [["--help"], ["transformer", "llama-3-8b"]])
def test_a_reader_that_has_left_is_no_error(words: list[str]):
    """As in `mlsys --help | head -0`. Python alone would say BrokenPipeError, twice."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mlsys_studio.studio.command", *words]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (141, "")
