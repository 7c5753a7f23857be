"""The doctor's verdicts, on machines made up here. Witness for the facts: files of a machine made up in a folder."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlsys_studio.profilers import environment as facts
from mlsys_studio.profilers.compiling import Toolchain
from mlsys_studio.profilers.environment import Driver, Gpu, Machine
from mlsys_studio.studio import doctor
from mlsys_studio.studio.doctor import Check, Examination, Torch, diagnose

GIB = 2**30
TOOLS = Toolchain("g++", True, Path("/include"), True, Path("/torch"), Path("/tmp/inductor"))
VERSIONS = {
    "torch": "2.13.0+cu130",
    "triton": "3.7.1",
    "ipython": "9.18.1",
    "ipykernel": "7.4.0",
    "jupyterlab": "4.6.6",
}
HEALTHY = Machine(
    host="box",
    system="Linux 6.1",
    python="3.11.7",
    packages={**VERSIONS, "numpy": "2.4.6"},
    torch_cuda="13.0",
    driver=Driver((Gpu("NVIDIA H200", 139 * GIB, "580.1"), Gpu("NVIDIA H200", 139 * GIB, "580.1")), "13.0"),
    cpu="CPU",
    cpus=16,
    cpus_allowed=16,
    cpu_quota=None,
    threads={},
    memory=128 * GIB,
    memory_limit=None,
    shm=64 * GIB,
    disk_free=500 * GIB,
    open_files=65536,
    open_files_hard=1 << 20,
    page_size=4096,
    huge_pages="madvise",
    clock="tsc",
    cache=Path("cache"),
    cache_writable=True,
    toolchain=TOOLS,
)
TORCH = Torch(gpus=2, kineto=True, threads=16, nccl="2.28.3")


def packages(**versions: str | None) -> dict[str, Any]:
    return {"packages": {**HEALTHY.packages, **versions}}


def found(machine: Machine, torch: Torch | None = TORCH) -> dict[str, Check]:
    return {check.name: check for check in diagnose(machine, torch).checks}


def test_a_healthy_machine_is_healthy():
    examination = diagnose(HEALTHY, TORCH)
    assert {check.verdict for check in examination.checks} == {"ok"}
    assert examination.exit_code == 0
    assert not [check for check in examination.checks if check.mend]


def test_a_laptop_without_a_gpu_is_healthy():
    laptop = replace(HEALTHY, driver=None, torch_cuda=None, **packages(torch="2.13.0+cpu", triton=None))
    assert diagnose(laptop, Torch(kineto=True, threads=4)).exit_code == 0


SICK: list[tuple[str, dict[str, Any], Torch | None, str, str, str]] = [
    ("Python", {"python": "3.10.2"}, TORCH, "fail", "3.10.2", "3.11"),
    ("torch", packages(torch=None), None, "fail", "not installed", "pip install 'torch>=2.11'"),
    ("torch", packages(torch="2.10.0"), TORCH, "fail", "2.10.0, older than 2.11", "pip install 'torch>=2.11'"),
    ("torch.profiler", {}, replace(TORCH, kineto=False), "fail", "without Kineto", "--force-reinstall torch"),
    ("torch answers", {}, Torch(error="OSError: libcudart.so"), "fail", "libcudart.so", "python -c 'import torch"),
    ("triton", packages(triton=None), TORCH, "warn", "not installed", "triton>=3.6"),
    ("ipykernel", packages(ipykernel="6.29.5"), TORCH, "warn", "older than 7", "ipykernel>=7"),
    ("ipython", packages(ipython=None), TORCH, "warn", "not installed", "ipython>="),
    ("jupyterlab", packages(jupyterlab=None), TORCH, "warn", "not installed", "jupyterlab>="),
    (
        "GPU",
        {"driver": Driver((), None, "No devices were found")},
        TORCH,
        "fail",
        "No devices were found",
        "nvidia-smi",
    ),
    ("CUDA", {"torch_cuda": None}, Torch(kineto=True), "fail", "CPU build", "--force-reinstall torch"),
    (
        "CUDA",
        {"driver": replace(HEALTHY.driver, cuda="12.4")},
        TORCH,
        "fail",
        "at most 12.4",
        "update the NVIDIA driver",
    ),
    ("CUDA", {}, replace(TORCH, gpus=0), "fail", "sees none of 2", "CUDA_VISIBLE_DEVICES"),
    ("NCCL", {}, replace(TORCH, nccl=None), "warn", "built without it", "torch"),
    ("threads", {"cpu_quota": 2.0}, TORCH, "warn", "16 compute threads on 2 CPUs", "OMP_NUM_THREADS=2"),
    ("threads", {"threads": {"OMP_NUM_THREADS": "64"}}, TORCH, "warn", "64 compute threads", "OMP_NUM_THREADS=16"),
    ("memory", {"memory_limit": GIB}, TORCH, "warn", "the cgroup grants 1.0 GiB", "2 GiB"),
    ("shared memory", {"shm": 64 * 2**20}, TORCH, "warn", "0.1 GiB of /dev/shm", "--shm-size"),
    ("open files", {"open_files": 1024}, TORCH, "warn", "1024", "ulimit -n 65536"),
    ("disk", {"disk_free": GIB}, TORCH, "warn", "1.0 GiB free", "free some"),
    ("cache", {"cache_writable": False}, TORCH, "warn", "cannot be written", "MLSYS_CACHE_DIR"),
    ("compiler", {"toolchain": replace(TOOLS, found=False)}, TORCH, "warn", "torch.compile will fail", "install g++"),
    (
        "compiler",
        {"toolchain": replace(TOOLS, torch=Path("/my clone/torch"))},
        TORCH,
        "warn",
        "a path with a blank in it",
        "type make there",
    ),
    ("clock", {"clock": "hpet"}, TORCH, "warn", "hpet is slow", "echo tsc"),
]


@pytest.mark.parametrize(("name", "ails", "torch", "verdict", "says", "mend"), SICK)
def test_one_ailment_is_one_verdict_with_its_cure(
    name: str, ails: dict[str, Any], torch: Torch | None, verdict: str, says: str, mend: str
):
    checks = found(replace(HEALTHY, **ails), torch)
    assert checks[name].verdict == verdict
    assert says in checks[name].found
    assert mend in (checks[name].mend or "")
    assert [check.name for check in checks.values() if check.verdict != "ok"] == [name]


def test_a_torch_that_does_not_answer_in_time_is_no_failure():
    torch = Torch(error="importing torch takes more than 2.6 s here, so it was not asked")
    assert diagnose(HEALTHY, torch).exit_code == 0


def test_no_limit_on_open_files_is_no_warning():
    assert found(replace(HEALTHY, open_files=-1))["open files"].verdict == "ok"


def test_the_usable_cpus_say_why_they_are_few():
    said = found(replace(HEALTHY, cpus_allowed=8, cpu_quota=2.5), replace(TORCH, threads=2))["CPU"].found
    assert "2 of 16" in said
    assert "affinity allows 8" in said
    assert "the cgroup grants 2.5" in said


def test_text_fits_80_columns_and_says_everything():
    long = replace(
        HEALTHY, cpu="A processor with a name that goes on and on, as processors' names do these days", shm=1
    )
    text = str(diagnose(long, TORCH))
    assert max(map(len, text.splitlines())) <= 80
    assert "-> docker run --shm-size=8g" in text


def test_html_is_escaped():
    examination = Examination("<b>host</b>", (Check("cpu", "warn", "<script>alert(1)</script>", "a && b"),))
    page = examination._repr_mimebundle_()["text/html"]
    assert "<script>" not in page
    assert "<b>host" not in page
    assert "a &amp;&amp; b" in page


def test_json_is_the_same_examination():
    told = json.loads(diagnose(replace(HEALTHY, python="3.10.2"), TORCH).to_json())
    assert told["exit_code"] == 1
    assert told["checks"][0] == {
        "name": "Python",
        "verdict": "fail",
        "found": "3.10.2",
        "mend": "install Python 3.11 or newer",
    }


def test_this_machine_is_examined_whole():
    checks = {check.name for check in doctor.examine().checks}
    assert {"Python", "torch", "GPU", "CPU", "memory", "open files", "disk", "cache"} <= checks | {"GPU"}


def test_a_torch_that_cannot_be_imported_is_told_in_its_own_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_ASK", "raise OSError('libcudart.so.13: cannot open')")
    assert "OSError: libcudart.so.13: cannot open" in str(doctor.examine()).replace("\n" + " " * 23, " ")


def test_a_torch_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_ASK", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    assert "was not asked" in " ".join(str(doctor.examine()).split())


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_facts_of_a_container(tmp_path: Path):
    root = write(tmp_path, proc__cpuinfo="processor\t: 0\nmodel name\t: Xeon Z\n", proc__meminfo="MemTotal:  1024 kB\n")
    cgroup = root / "sys/fs/cgroup"
    cgroup.mkdir(parents=True)
    (cgroup / "cgroup.controllers").write_text("cpu memory\n")
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("0::/\n")
    (cgroup / "cpu.max").write_text("150000 100000\n")
    (cgroup / "memory.max").write_text("524288\n")
    assert facts.cpu_model(root) == "Xeon Z"
    assert facts.cpu_quota(root) == 1.5
    assert facts.memory_total(root) == 1024 * 1024
    assert facts.memory_limit(root) == 524288


def test_facts_of_a_container_of_the_first_cgroup_version(tmp_path: Path):
    root = write(tmp_path, proc__meminfo="MemTotal:  1024 kB\n")
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text("4:memory:/\n3:cpu,cpuacct:/\n")
    for name, text in {
        "cpu/cpu.cfs_quota_us": "400000",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(2**63 - 4096),
    }.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert facts.cpu_quota(root) == 4.0
    assert facts.memory_limit(root) is None  # its way of saying "none"


def test_a_machine_without_files_has_unknown_facts(tmp_path: Path):
    machine = facts.look(tmp_path)
    unknown = (machine.memory, machine.memory_limit, machine.cpu_quota, machine.shm, machine.clock, machine.huge_pages)
    assert unknown == (None,) * 6
    assert str(diagnose(machine, TORCH))


def fake_nvidia_smi(folder: Path, body: str) -> None:
    script = folder / "nvidia-smi"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(script.stat().st_mode | stat.S_IEXEC)


def test_nvidia_smi_lists_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    body = 'case "$1" in --query*) echo "NVIDIA H200, 143771, 580.95";; *) echo "| CUDA Version: 13.0 |";; esac'
    fake_nvidia_smi(tmp_path, body)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.nvidia_driver() == Driver((Gpu("NVIDIA H200", 143771 * 2**20, "580.95"),), "13.0")


@pytest.mark.parametrize(
    ("body", "error"), [("echo No devices were found; exit 6", "No devices were found"), ("exit 9", "code 9")]
)
def test_nvidia_smi_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, error: str):
    fake_nvidia_smi(tmp_path, body)
    monkeypatch.setenv("PATH", str(tmp_path))
    driver = facts.nvidia_driver()
    assert driver and not driver.gpus
    assert error in (driver.error or "")


def test_nvidia_smi_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake_nvidia_smi(tmp_path, "exec sleep 60")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    driver = facts.nvidia_driver(seconds=0.1)
    assert driver and "did not answer" in (driver.error or "")


def test_the_profiles_environment_holds_no_secret(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told = facts.environment()
    assert told["OMP_NUM_THREADS"] == "2"
    assert "hf_secret" not in str(told)
    assert {"host", "cpu", "cores", "memory", "python", "torch", "cuda", "gpu", "system"} <= set(told)
    assert all(isinstance(value, str) for value in told.values())


def test_torchs_cuda_is_read_without_importing_it():
    pytest.importorskip("torch")
    code = (
        "import sys; from mlsys_studio.profilers.environment import torch_cuda as t; print(t(), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    import torch

    assert ran.stdout.split() == [str(torch.version.cuda), "False"]
