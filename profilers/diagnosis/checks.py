"""Confirming checks: what this machine can say about a diagnosis. Read-only, at most five seconds each.

A probe answers *confirmed* where it sees the state the diagnosis speaks of, *refuted* where it would have to see it and
does not, and *inconclusive* where it may not look, or where the state may have passed (a disk that was full then).
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..environment import installed, torch_cuda
from .diagnosis import Check, Diagnosis, Verdict

PATIENCE = 5.0  # seconds a check
_FULL = 0.98  # of a file system
_PACKAGES = ("torch", "triton", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "numpy", "transformers", "vllm", "flash-attn")

Answer = tuple[Verdict, str]
_KERNEL = {
    "gpu_hardware": r"NVRM: Xid|NVRM: GPU|AER:|mce: .*Hardware",
    "host_oom": r"Out of memory: Kill|oom-kill|Memory cgroup out of memory",
    "storage_io": r"I/O error|EXT4-fs error|XFS .*error|nvme.*(timeout|abort)|nfs: server|Out of memory: Kill|segfault",
    "gpu_kernel_compile": r"NVRM: Xid|segfault at|trap invalid",
}


def confirm(diagnosis: Diagnosis, root: Path = Path("/")) -> Diagnosis:
    """The same diagnosis, with the checks that can be run from here answered."""
    return diagnosis.with_checks(tuple(_run(check, diagnosis.category or "", root) for check in diagnosis.checks))


def _run(check: Check, category: str, root: Path) -> Check:
    probe = _PROBES.get(check.probe)
    if probe is None:
        return check
    try:
        verdict, found = probe(category, root)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        verdict, found = "inconclusive", f"could not look: {error}"
    return replace(check, result=verdict, found=found)


def _kernel_log(category: str, root: Path) -> Answer:
    text = _output("dmesg", "-T") or _output("journalctl", "-k", "-b", "--no-pager", "-n", "20000")
    if text is None:
        return "inconclusive", "this user may not read the kernel log; ask with sudo"
    pattern = _KERNEL.get(category, "|".join(_KERNEL.values()))
    lines = [line for line in text.splitlines() if re.search(pattern, line)]
    return (
        ("confirmed", lines[-1].strip()[:200])
        if lines
        else ("refuted", "the kernel log of this machine has nothing of the kind")
    )


def _disk(category: str, root: Path) -> Answer:
    used = {str(folder): _used(folder) for folder in (Path.cwd(), root / "tmp", Path.home()) if folder.exists()}
    full = [folder for folder, share in used.items() if share >= _FULL]
    said = ", ".join(f"{folder} {share:.0%} used" for folder, share in used.items())
    return ("confirmed" if full else "inconclusive"), said + ("" if full else " (now)")


def _shm(category: str, root: Path) -> Answer:
    folder = root / "dev/shm"
    if not folder.is_dir():
        return "inconclusive", "there is no /dev/shm here"
    usage = shutil.disk_usage(folder)
    said = f"/dev/shm has {usage.total >> 20} MiB, {usage.free >> 20} MiB free"
    if usage.total <= 64 << 20 or usage.free < 0.02 * usage.total:
        return "confirmed", said
    return "inconclusive", said + " (now)"


def _memory(category: str, root: Path) -> Answer:
    stated = dict(re.findall(r"^(Mem\w+):\s*(\d+)", (root / "proc/meminfo").read_text(), re.MULTILINE))
    total, left = (int(stated.get(key, 0)) >> 10 for key in ("MemTotal", "MemAvailable"))
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    limit = "no limit on locked memory" if locked < 0 else f"locked memory limited to {locked >> 10} KiB"
    return ("confirmed" if left < 0.03 * total else "inconclusive"), f"{left} of {total} MiB available now; {limit}"


def _cgroup(category: str, root: Path) -> Answer:
    for file in ("sys/fs/cgroup/memory.events", "sys/fs/cgroup/memory/memory.oom_control"):
        if (root / file).is_file():
            killed = re.search(r"^oom_kill (\d+)", (root / file).read_text(), re.MULTILINE)
            count = int(killed[1]) if killed else 0
            return ("confirmed" if count else "refuted"), f"oom_kill {count} in /{file}"
    return "inconclusive", "this control group keeps no memory.events"


def _gpu(category: str, root: Path) -> Answer:
    text = _output("nvidia-smi", "-q", "-d", "ECC,ROW_REMAPPER,PERFORMANCE")
    if text is None:
        return "inconclusive", "nvidia-smi is not here, or did not answer"
    if re.search(r"mismatch|couldn't communicate|Unable to determine|GPU is lost|No devices", text):
        return "confirmed", text.strip().splitlines()[-1][:200]
    bad = re.findall(
        r"(?:Uncorrectable[^:\n]*: [1-9]\d*|Remapping Failure Occurred\s*: Yes|Pending\s*: Yes|Thermal Slowdown\s*: Active|Power Brake Slowdown\s*: Active)",
        text,
    )
    return (
        ("confirmed", "; ".join(" ".join(each.split()) for each in bad[:4]))
        if bad
        else ("refuted", "no errors, throttling or remapped rows now")
    )


def _gpu_memory(category: str, root: Path) -> Answer:
    text = _output("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader")
    if text is None:
        return "inconclusive", "nvidia-smi is not here, or did not answer"
    rows = [line.strip() for line in text.splitlines() if re.match(r"\s*\d+,", line)]
    mine = [row for row in rows if row.startswith(f"{os.getpid()},")]
    said = "; ".join(rows[:6]) or "no process holds GPU memory now"
    return ("confirmed" if len(rows) > len(mine) else "inconclusive"), said + (
        " (the first is this kernel)" if mine else ""
    )


def _files(category: str, root: Path) -> Answer:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = len(list((root / "proc/self/fd").iterdir()))
    return (
        "confirmed" if count > 0.9 * soft else "inconclusive"
    ), f"{count} open of {soft} (hard limit {hard}) in this process"


def _links(category: str, root: Path) -> Answer:
    states = {
        card.name: (card / "operstate").read_text().strip()
        for card in sorted((root / "sys/class/net").iterdir())
        if card.name != "lo" and (card / "operstate").is_file()
    }
    ports = {
        str(port.parent.relative_to(root / "sys/class/infiniband")): port.read_text().strip()
        for port in sorted((root / "sys/class/infiniband").glob("*/ports/*/state"))
    }
    down = [name for name, state in {**states, **ports}.items() if "down" in state.lower() or "init" in state.lower()]
    said = ", ".join(f"{name} {state}" for name, state in {**states, **ports}.items()) or "no interface but lo"
    return ("confirmed" if down else "refuted"), said[:300]


def _rendezvous(category: str, root: Path) -> Answer:
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdigit():
        return "inconclusive", "MASTER_ADDR and MASTER_PORT are not set here"
    try:
        with socket.create_connection((host, int(port)), timeout=PATIENCE / 2):
            return "refuted", f"{host}:{port} answers"
    except OSError as error:
        return "confirmed", f"{host}:{port}: {error}"


def _ports(category: str, root: Path) -> Answer:
    port = os.environ.get("MASTER_PORT", "29500")
    wanted = f"{int(port):04X}" if port.isdigit() else "733C"
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        for row in (root / table).read_text().splitlines()[1:] if (root / table).is_file() else ():
            words = row.split()
            if words[1].endswith(f":{wanted}") and words[3] == "0A":
                return "confirmed", f"something listens on port {port} now"
    return "inconclusive", f"nothing listens on port {port} now"


def _versions(category: str, root: Path) -> Answer:
    table = [f"{name} {version}" for name in _PACKAGES if (version := installed(name))]
    driver = root / "proc/driver/nvidia/version"
    said = driver.read_text().split("\n")[0][:90] if driver.is_file() else "no NVIDIA driver"
    return "inconclusive", f"{', '.join(table) or 'none of the usual packages'}; torch for CUDA {torch_cuda()}; {said}"


_PROBES: dict[str, Callable[[str, Path], Answer]] = {
    "kernel_log": _kernel_log,
    "disk": _disk,
    "shm": _shm,
    "memory": _memory,
    "cgroup": _cgroup,
    "gpu": _gpu,
    "gpu_memory": _gpu_memory,
    "files": _files,
    "links": _links,
    "rendezvous": _rendezvous,
    "ports": _ports,
    "versions": _versions,
}


def _used(folder: Path) -> float:
    usage = shutil.disk_usage(folder)
    return 1 - usage.free / max(1, usage.total)


def _output(*words: str) -> str | None:
    """What a program prints; None where it is not there, may not, or takes too long."""
    if not shutil.which(words[0]):
        return None
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, errors="replace", check=False)
    except subprocess.TimeoutExpired:
        return None
    return ended.stdout + ended.stderr if ended.returncode == 0 or words[0] == "nvidia-smi" else None
