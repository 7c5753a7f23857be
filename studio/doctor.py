"""Verdicts on a machine: what is right, what is wrong, and the command that mends it. Facts in, checks out.

Only torch itself can say whether it reaches the GPU and can record traces. It is asked in a child process, which runs
while the facts are read and is given up after a bounded time: a doctor that hangs is no doctor.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import Any, Literal

from ..profilers.environment import Machine, in_gib, look
from ..profilers.views.columns import crop

Verdict = Literal["ok", "warn", "fail"]

WIDTH, _COLUMN = 80, " " * 23  # of the text, and where what was found begins
PATIENCE = 2.6  # seconds, for torch's answer
GIB = 2**30

_ASK = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "gpus": torch.cuda.device_count() if cuda else 0,
    "kineto": torch.profiler.kineto_available(),
    "threads": torch.get_num_threads(),
    "nccl": ".".join(map(str, torch.cuda.nccl.version())) if cuda and torch.distributed.is_nccl_available() else None,
}))
"""


@dataclass(frozen=True, slots=True)
class Torch:
    """What torch said of itself. `error` is set, and the rest empty, where it did not answer."""

    gpus: int = 0
    kineto: bool = False
    threads: int = 0
    nccl: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    mend: str | None = None  # what to type or do


@dataclass(frozen=True, slots=True)
class Examination:
    """One check a line. Shows itself as text (80 columns), HTML and JSON."""

    host: str
    checks: tuple[Check, ...]

    @property
    def exit_code(self) -> int:
        return int(any(check.verdict == "fail" for check in self.checks))

    @property
    def headline(self) -> str:
        counts = [f"{sum(c.verdict == v for c in self.checks)} {v}" for v in ("fail", "warn", "ok")]
        return f"mlsys doctor on {self.host}: {', '.join(counts)}"

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "exit_code": self.exit_code}, indent=1)

    def __str__(self) -> str:
        lines = [crop(self.headline, WIDTH), ""]
        for check in self.checks:
            mark = check.verdict.upper() if check.verdict == "fail" else check.verdict
            lines += wrap(check.found, WIDTH, initial_indent=f"  {mark:5} {check.name:14} ", subsequent_indent=_COLUMN)
            if check.mend:
                # A command may be copied: it stays on one line where it can, and is broken at blanks only.
                lead = _COLUMN + "-> " if len(_COLUMN) + 3 + len(check.mend) <= WIDTH else "  -> "
                lines += wrap(check.mend, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead),
                              break_long_words=False, break_on_hyphens=False)  # fmt: skip
        return "\n".join(lines)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        from ..profilers.views.html import table, view
        from ..profilers.views.markup import tag

        rows = [
            tag(
                "tr",
                tag("td", check.verdict, class_=f"left {check.verdict}"),
                tag("td", check.name, class_="left"),
                tag(
                    "td", check.found, tag("div", tag("code", check.mend)) if check.mend else None, class_="left break"
                ),
            )
            for check in self.checks
        ]
        return {"text/plain": str(self), "text/html": view(tag("h2", self.headline), table([], rows))}


def examine() -> Examination:
    """This machine, in at most about three seconds."""
    deadline = time.monotonic() + PATIENCE
    asked = subprocess.Popen([sys.executable, "-c", _ASK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with asked:
        try:
            machine = look()
            torch = _answer(asked, deadline) if machine.packages["torch"] else None
        finally:
            asked.kill()
    return diagnose(machine, torch)


def diagnose(machine: Machine, torch: Torch | None) -> Examination:
    """The verdicts, from facts alone. `torch` is None where it is not installed."""
    checks = [
        *_software(machine, torch),
        *_gpu(machine, torch),
        *_processors(machine, torch),
        *_memory(machine),
        *_files(machine),
        *_timing(machine),
    ]
    return Examination(machine.host, tuple(checks))


def _answer(asked: subprocess.Popen[str], deadline: float) -> Torch:
    try:
        said, complaint = asked.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Torch(error=f"importing torch takes more than {PATIENCE} s here, so it was not asked")
    if asked.returncode:
        return Torch(error=complaint.strip().rpartition("\n")[2] or f"it ended with code {asked.returncode}")
    return Torch(**json.loads(said))


def _software(machine: Machine, torch: Torch | None) -> Iterator[Check]:
    good = _at_least(machine.python, 3, 11)
    yield Check("Python", "ok" if good else "fail", machine.python, None if good else "install Python 3.11 or newer")
    yield _package(machine, "torch", (2, 11), "fail", "profile, fix and doctor's own questions need it")
    if torch and torch.error:
        late = "not asked" in torch.error
        verdict: Verdict = "warn" if late else "fail"
        yield Check("torch answers", verdict, torch.error, "python -c 'import torch; print(torch.cuda.is_available())'")
    elif torch:
        mend = None if torch.kineto else _install("--force-reinstall torch")
        found = "traces can be recorded" if torch.kineto else "this torch was built without Kineto: no operator times"
        yield Check("torch.profiler", "ok" if torch.kineto else "fail", found, mend)
    yield _compiler(machine)
    if machine.driver and machine.driver.gpus:
        yield _package(machine, "triton", (3, 6), "warn", "the Triton kernels and torch.compile need it")
    yield _package(machine, "ipython", (8, 18), "warn", "%mlsys needs it")
    yield _package(machine, "ipykernel", (7,), "warn", "notebooks need it; live numbers while a cell runs need 7")
    yield _package(machine, "jupyterlab", (4, 6), "warn", "`make lab` needs it")


def _compiler(machine: Machine) -> Check:
    lack = machine.toolchain.lack()
    if lack is None:
        return Check("compiler", "ok", f"{machine.toolchain.compiler}, for torch.compile on the CPU")
    what, mend = lack
    return Check("compiler", "warn", f"torch.compile will fail on the CPU: {what}", mend)


def _gpu(machine: Machine, torch: Torch | None) -> Iterator[Check]:
    driver = machine.driver
    if driver is None:
        yield Check("GPU", "ok", "no NVIDIA driver: everything runs on the CPU")
        return
    if driver.error or not driver.gpus:
        found = f"the driver is installed and does not work: {driver.error or 'it lists no GPU'}"
        yield Check("GPU", "fail", found, "nvidia-smi; then reload or reinstall the driver, or restart this machine")
        return
    for index, gpu in enumerate(driver.gpus):
        yield Check(f"GPU {index}", "ok", f"{gpu.name}, {in_gib(gpu.memory)}, driver {gpu.driver}, CUDA {driver.cuda}")
    if torch is None:
        return
    built = machine.torch_cuda
    if built is None:
        yield Check("CUDA", "fail", "torch is a CPU build and cannot use the GPU", _install("--force-reinstall torch"))
    elif driver.cuda and _numbers(driver.cuda)[:1] < _numbers(built)[:1]:
        found = f"torch was built for CUDA {built}, the driver runs at most {driver.cuda}"
        yield Check("CUDA", "fail", found, f"update the NVIDIA driver, or install a torch built for CUDA {driver.cuda}")
    elif torch.error:
        return  # said once already, by "torch answers"
    elif torch.gpus == 0:
        found = f"torch (CUDA {built}) sees none of {len(driver.gpus)} GPU(s)"
        yield Check(
            "CUDA", "fail", found, "python -c 'import torch; torch.cuda.init()' says why; see CUDA_VISIBLE_DEVICES"
        )
    else:
        yield Check("CUDA", "ok", f"torch (CUDA {built}) sees {torch.gpus} of {len(driver.gpus)} GPU(s)")
        many = torch.gpus > 1
        if torch.nccl:
            yield Check("NCCL", "ok", torch.nccl)
        elif many:
            yield Check(
                "NCCL",
                "warn",
                "torch was built without it: no training on several GPUs",
                _install("--force-reinstall torch"),
            )


def _processors(machine: Machine, torch: Torch | None) -> Iterator[Check]:
    usable, quota = machine.cpus_usable, machine.cpu_quota
    found = f"{machine.cpu}; {usable} of {machine.cpus} CPUs usable"
    reasons = []
    if machine.cpus_allowed < machine.cpus:
        reasons.append(f"affinity allows {machine.cpus_allowed}")
    if quota and quota < machine.cpus_allowed:
        reasons.append(f"the cgroup grants {quota:g}")
    yield Check("CPU", "ok", f"{found} ({', '.join(reasons)})" if reasons else found)
    stated = machine.threads.get("OMP_NUM_THREADS", "")
    threads = int(stated) if stated.isdigit() else torch.threads if torch else 0
    if threads > usable:
        found = f"{threads} compute threads on {usable} CPUs wait for each other"
        yield Check("threads", "warn", found, f"export OMP_NUM_THREADS={usable}")
    elif threads:
        yield Check("threads", "ok", f"{threads} compute threads")


def _memory(machine: Machine) -> Iterator[Check]:
    limit = machine.memory_limit
    found = in_gib(machine.memory) + (f", of which the cgroup grants {in_gib(limit)}" if limit else "")
    small = (limit or machine.memory or 2 * GIB) < 2 * GIB
    yield Check("memory", "warn" if small else "ok", found, "give this container 2 GiB or more" if small else None)
    if machine.shm is not None:
        small = machine.shm < GIB
        found = f"{in_gib(machine.shm)} of /dev/shm, through which loader workers hand over batches"
        mend = (
            "docker run --shm-size=8g (or --ipc=host); on a host: mount -o remount,size=8G /dev/shm" if small else None
        )
        yield Check("shared memory", "warn" if small else "ok", found, mend)
    if machine.huge_pages:
        found = f"pages of {machine.page_size // 1024} KiB; transparent huge pages: {machine.huge_pages}"
        yield Check("pages", "ok", found)


def _files(machine: Machine) -> Iterator[Check]:
    few = 0 <= machine.open_files < 4096  # -1: no limit
    wanted = 65536 if machine.open_files_hard < 0 else min(65536, machine.open_files_hard)
    count = "no limit" if machine.open_files < 0 else f"{machine.open_files} at once"
    found = count + (": loader workers may run out" if few else "")
    yield Check("open files", "warn" if few else "ok", found, f"ulimit -n {wanted}" if few else None)
    small = machine.disk_free < 5 * GIB
    found = f"{in_gib(machine.disk_free)} free here"
    yield Check(
        "disk", "warn" if small else "ok", found, "free some: a trace or checkpoint may not fit" if small else None
    )
    found = f"{machine.cache}" + (
        "" if machine.cache_writable else " cannot be written: ceilings are measured each time"
    )
    mend = None if machine.cache_writable else "export MLSYS_CACHE_DIR=a folder you may write to"
    yield Check("cache", "ok" if machine.cache_writable else "warn", found, mend)


def _timing(machine: Machine) -> Iterator[Check]:
    if machine.clock is None:
        return
    # arm64's only clock is as cheap as x86's tsc; the others are system calls of a microsecond and more.
    cheap = machine.clock in ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page")
    found = machine.clock if cheap else f"{machine.clock} is slow to read: step times carry its price"
    mend = None if cheap else "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
    yield Check("clock", "ok" if cheap else "warn", found, mend)


def _package(machine: Machine, name: str, needed: tuple[int, ...], verdict: Verdict, why: str) -> Check:
    found, version = machine.packages[name], ".".join(map(str, needed))
    command = _install(f"'{name}>={version}'")
    if found is None:
        return Check(name, verdict, f"not installed; {why}", command)
    if not _at_least(found, *needed):
        return Check(name, verdict, f"{found}, older than {version}; {why}", command)
    return Check(name, "ok", found)


def _at_least(version: str, *needed: int) -> bool:
    return _numbers(version) >= needed


def _numbers(version: str) -> tuple[int, ...]:
    """(2, 13, 0) of "2.13.0+cu130"; a release candidate counts as its release."""
    parts = version.partition("+")[0].split(".")
    return tuple(int(part) if part.isdigit() else 0 for part in parts[:3])


def _install(what: str) -> str:
    return f"python -m pip install {what}"
