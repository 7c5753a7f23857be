"""What torch.compile needs. Witnesses: folders made here; and torch itself, which fails where we say it will."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mlsys_studio.profilers.compiling import Toolchain, toolchain

pytest.importorskip("torch")

HEALTHY = Toolchain("g++", True, Path("/usr/include/python3.11"), True, Path("/venv/torch"), Path("/tmp/inductor"))


def test_nothing_is_lacking_where_all_is_there():
    assert HEALTHY.lack() is None
    assert replace(HEALTHY, torch=None).lack() is None  # another check says that


@pytest.mark.parametrize(
    ("ails", "what", "mend"),
    [
        ({"found": False}, "no C++ compiler (g++)", "apt-get install g++"),
        ({"headers_found": False}, "Python.h is not in /usr/include/python3.11", "-dev"),
        ({"torch": Path("/my clone/.venv/torch")}, "torch is in '/my clone/.venv/torch'", "type make there"),
        ({"headers": Path("/my python")}, "headers are in '/my python'", "another Python"),
        ({"cache": Path("/my cache")}, "built in '/my cache'", "export TORCHINDUCTOR_CACHE_DIR"),
    ],
)
def test_one_lack_is_one_sentence_with_its_cure(ails, what, mend):
    lack = replace(HEALTHY, **ails).lack()
    assert lack is not None and what in lack[0] and mend in lack[1]


def test_a_compiler_by_name_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    lack = toolchain().lack()
    assert lack is not None and "'no-such-compiler'" in lack[0] and "unset CXX" in lack[1]
    compiler = tmp_path / "mine"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert toolchain().found


def test_torchs_own_cache_folder_is_the_one_we_look_at(monkeypatch: pytest.MonkeyPatch):
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "anything")  # so that what torch sets below is taken back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    ours = toolchain().cache
    assert str(ours) == cache_dir()


COMPILE = "import torch; torch.compile(lambda x: x.sin() * 2 + 1)(torch.ones(100)); print('compiled')"


@pytest.mark.slow
@pytest.mark.parametrize("ailing", ["nothing", "a blank in torch's path", "a blank in the cache's path", "no compiler"])
def test_torch_fails_exactly_where_we_say_so(ailing: str, tmp_path: Path):
    """Where torch has learnt to quote, this test fails, and the refusal can go."""
    import torch

    if toolchain().lack():
        pytest.skip("nothing can be compiled here")
    folder = tmp_path / ("my folder" if "blank" in ailing else "folder")
    folder.mkdir()
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    if "torch's" in ailing:
        (folder / "torch").symlink_to(Path(torch.__file__).parent)
        environment["PYTHONPATH"] = str(folder)
    elif "cache's" in ailing:
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    elif ailing == "no compiler":
        environment["CXX"] = "no-such-compiler"
    says = "from mlsys_studio.profilers.compiling import toolchain; print(toolchain().lack() is None)"
    ran = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
        for code in (COMPILE, says)
    ]
    assert (ran[0].stdout.strip() == "compiled") is (ailing == "nothing"), ran[0].stderr[-2000:]
    assert (ran[1].stdout.strip() == "True") is (ailing == "nothing"), ran[1].stderr
