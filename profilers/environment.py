"""What this machine and its Python are: facts, without a verdict. Read from files; nothing heavy is imported.

A fact that cannot be read is None. Sizes in bytes. `root` stands for `/`, so that a test can bring its own machine.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from .ceilings import cache_folder
from .compiling import Toolchain, toolchain
from .limits import Limits, cores_allowed, memory_total
from .pseudo_files import text

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # the only environment variables ever read or stored
PACKAGES = ("torch", "triton", "numpy", "ipython", "ipykernel", "jupyterlab")


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    memory: int
    driver: str


@dataclass(frozen=True, slots=True)
class Driver:
    """What `nvidia-smi` says. `gpus` is empty and `error` set where it is installed and does not work."""

    gpus: tuple[Gpu, ...]
    cuda: str | None  # newest CUDA the driver can run
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    host: str
    system: str
    python: str
    packages: Mapping[str, str | None]  # name -> version
    torch_cuda: str | None  # CUDA that torch was built for; None: a CPU build, or no torch
    driver: Driver | None  # None: no NVIDIA driver here
    cpu: str
    cpus: int  # online
    cpus_allowed: int  # by affinity
    cpu_quota: float | None  # by cgroup, in CPUs; None: no quota
    threads: Mapping[str, str]  # THREAD_VARIABLES that are set
    memory: int | None
    memory_limit: int | None  # by cgroup; None: no limit
    shm: int | None  # size of /dev/shm
    disk_free: int  # of the working directory's file system
    open_files: int  # soft limit
    open_files_hard: int
    page_size: int
    huge_pages: str | None  # transparent huge pages: "always" | "madvise" | "never"
    clock: str | None  # the kernel's clock source
    cache: Path  # the user's cache folder for this package
    cache_writable: bool
    toolchain: Toolchain  # of torch.compile, on the CPU

    @property
    def cpus_usable(self) -> int:
        quota = self.cpu_quota or self.cpus_allowed
        return max(1, min(self.cpus_allowed, int(quota)))


def look(root: Path = Path("/")) -> Machine:
    """This machine, now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Machine(
        host=socket.gethostname(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: installed(name) for name in PACKAGES},
        torch_cuda=torch_cuda(),
        driver=nvidia_driver(),
        cpu=cpu_model(root),
        cpus=os.cpu_count() or 1,
        cpus_allowed=cores_allowed(),
        cpu_quota=cpu_quota(root),
        threads={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
        memory=memory_total(root),
        memory_limit=memory_limit(root),
        shm=shm_size(root),
        disk_free=shutil.disk_usage(".").free,
        open_files=soft,
        open_files_hard=hard,
        page_size=resource.getpagesize(),
        huge_pages=_bracketed(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        clock=_text(root / "sys/devices/system/clocksource/clocksource0/current_clocksource"),
        cache=cache_folder(),
        cache_writable=_writable(cache_folder()),
        toolchain=toolchain(),
    )


def environment() -> dict[str, str]:
    """What a Profile remembers of where it was measured."""
    machine = look()
    gpus = machine.driver.gpus if machine.driver else ()
    facts = {
        "host": machine.host,
        "system": machine.system,
        "cpu": machine.cpu,
        "cores": f"{machine.cpus_usable} of {machine.cpus}",
        "memory": in_gib(machine.memory_limit or machine.memory),
        "gpu": ", ".join(gpu.name for gpu in gpus) or "none",
        "driver": gpus[0].driver if gpus else "none",
        "python": machine.python,
        "torch": machine.packages["torch"] or "none",
        "cuda": machine.torch_cuda or "none",
        "triton": machine.packages["triton"] or "none",
        "numpy": machine.packages["numpy"] or "none",
        **machine.threads,
    }
    torch = sys.modules.get("torch")
    if torch:
        facts["torch threads"] = str(torch.get_num_threads())
    return facts


def in_gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def torch_cuda() -> str | None:
    """Read from torch's own version file: importing torch takes seconds."""
    spec = find_spec("torch")
    if not spec or not spec.origin:
        return None
    stated = re.search(r"^cuda\b[^=]*=\s*'([^']+)'", _text(Path(spec.origin).parent / "version.py") or "", re.MULTILINE)
    return stated[1] if stated else None


def nvidia_driver(*, seconds: float = 2.0) -> Driver | None:
    """Asked of `nvidia-smi`, a process of its own: initialising CUDA here would forbid the user to fork."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    deadline = time.monotonic() + seconds
    try:
        # Together: on a machine of many GPUs each takes most of a second.
        with (
            subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as listing,
            subprocess.Popen(["nvidia-smi"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as banner,
        ):
            try:
                rows = listing.communicate(timeout=seconds)[0]
                shown = banner.communicate(timeout=max(0.1, deadline - time.monotonic()))[0]
            finally:
                listing.kill()
                banner.kill()
    except subprocess.TimeoutExpired:
        return Driver((), None, f"nvidia-smi did not answer within {seconds:.0f} s")
    except OSError as error:
        return Driver((), None, str(error))
    if listing.returncode:
        return Driver((), None, rows.strip().partition("\n")[0] or f"nvidia-smi ended with code {listing.returncode}")
    cuda = re.search(r"CUDA (?:UMD )?Version: *([\d.]+)", shown)
    return Driver(tuple(_gpu(row) for row in rows.strip().splitlines()), cuda[1] if cuda else None)


def _gpu(row: str) -> Gpu:
    name, memory, driver = (field.strip() for field in row.split(","))
    return Gpu(name, int(memory) * 2**20 if memory.isdigit() else 0, driver)


def cpu_model(root: Path = Path("/")) -> str:
    stated = re.search(r"^(?:model name|Hardware|Model)\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return stated[1].strip() if stated else platform.processor() or platform.machine()


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs the control group grants."""
    quota = Limits(root).cpu_quota
    return quota.limit if quota.folder is not None else None


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes the control group grants."""
    limited = Limits(root).memory_limited
    return int(limited.limit) if limited.folder is not None else None


def shm_size(root: Path = Path("/")) -> int | None:
    folder = root / "dev/shm"
    return shutil.disk_usage(folder).total if folder.is_dir() else None


def _writable(folder: Path) -> bool:
    """Without making it: the nearest folder above that exists decides."""
    existing = next(above for above in (folder, *folder.parents) if above.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _bracketed(file: Path) -> str | None:
    chosen = re.search(r"\[(\w+)\]", _text(file) or "")
    return chosen[1] if chosen else None


def _text(file: Path) -> str | None:
    return text(file).strip() or None
