"""Run a script where it must fail, and leave nothing behind.

With root, every run has its own mount, process, network, IPC and host-name namespaces: a full tmpfs, a busy port, a
killed worker or a forgotten semaphore is seen by nobody else and ends with the run. Without root a run has only a
session of its own, and faults that need more are skipped by name.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fault import Stage, fill

UNSHARE = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"]
# Everything a library might write goes to the run's own folder; one thread, no hub, no colours by themselves.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "COLUMNS": "120",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run said: all of it in the order of arrival, and each rank's own file where there were several."""

    text: str
    exit: int
    seconds: float
    timed_out: bool = False
    ranks: Mapping[int, str] = field(default_factory=dict)


RUNNING: set[subprocess.Popen] = set()


class Unavailable(Exception):
    """This machine cannot set the stage; the message says why."""


@cache
def has(need: str) -> bool:
    if need == "root":
        probe = [*UNSHARE, "--net", "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /dev/shm && ip link set lo up"]
        return os.geteuid() == 0 and shutil.which("unshare") is not None and _works(probe)
    if need == "vision":
        return _vision().is_dir()
    return shutil.which(need) is not None


def perform(script: str, stage: Stage, values: Mapping[str, str], needs: tuple[str, ...] = ()) -> Outcome:
    for need in (*needs, *(["root"] if stage.tmpfs or stage.memory_mb or stage.unprivileged else [])):
        if not has(need):
            raise Unavailable(f"needs {need}")
    with _folder() as folder, _cgroup(stage.memory_mb) as cgroup:
        (folder / values["script"]).write_text(fill(script, values))
        for name, text in stage.files.items():
            (folder / fill(name, values)).parent.mkdir(parents=True, exist_ok=True)
            (folder / fill(name, values)).write_text(fill(text, values))
        environment = {**_environment(folder), **{name: fill(value, values) for name, value in stage.env.items()}}
        if stage.packages:
            environment["PATH"] = f"{_throw_away(stage.packages, folder, environment)}:{environment['PATH']}"
        began = time.monotonic()
        text, code, late = _run(_command(stage, values, cgroup), folder, environment, stage)
        ranks = {rank: _plain(log, folder) for rank, log in _rank_logs(folder)}
        return Outcome(_plain(text, folder), code, time.monotonic() - began, late, ranks)


def _run(command: list[str], folder: Path, environment: dict[str, str], stage: Stage) -> tuple[str, int, bool]:
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        RUNNING.add(process)
        late = False
        try:
            process.wait(stage.seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
            RUNNING.discard(process)
        output.seek(0)
        return output.read().decode("utf-8", "replace"), process.returncode, late


def end_all() -> None:
    """For whoever is interrupted: a run in a session of its own does not hear our signals."""
    for process in list(RUNNING):
        _end(process)


def _end(process: subprocess.Popen) -> None:
    """The whole session: with a process namespace, its first process takes all others with it.

    A killed `unshare` is gone before the namespace it made; the kernel lets that one's first process go last.
    """
    firsts = []
    if process.poll() is None:
        firsts = _watch_children(process.pid)
        process.kill()
        process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for first in firsts:
        select.select([first], [], [], 10)
        os.close(first)


def _watch_children(process: int) -> list[int]:
    """File descriptors that can be read once a child has ended."""
    watched = []
    with suppress(OSError):  # a child, or the process, that ends while we look
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            watched.append(os.pidfd_open(int(child)))
    return watched


def _command(stage: Stage, values: Mapping[str, str], cgroup: Path | None) -> list[str]:
    command = fill(stage.command, values)
    limits = " ".join(f"--{name}={value}" for name, value in stage.limits.items())
    if limits:
        command = f"prlimit {limits} sh -c {shlex.quote(command)}"
    if stage.unprivileged:
        # Root without capabilities is an ordinary user to files that are not its own, and can still run our Python.
        command = f"chown -R 65534 */; setpriv --bounding-set=-all --inh-caps=-all sh -c {shlex.quote(command)}"
    if not has("root"):
        return ["sh", "-c", f"{command}\nexit $?"]
    # A host name that resolves: without it torchrun waits for a name server for ever.
    lines = ["hostname node-7", "echo 127.0.0.1 localhost node-7 > .hosts", "mount --bind .hosts /etc/hosts"]
    if not stage.network:
        lines.append("ip link set lo up")
    shared = {"/dev/shm": "512m", **stage.tmpfs}
    lines += [
        f"mkdir -p {folder} && mount -t tmpfs -o size={size},mode=1777 tmpfs {folder}"
        for folder, size in shared.items()
    ]
    if cgroup:
        lines.append(f"echo 0 > {cgroup}/cgroup.procs")
    net = [] if stage.network else ["--net"]
    return [*UNSHARE, *net, "sh", "-c", "\n".join([*lines, command, "exit $?"])]


def _environment(folder: Path) -> dict[str, str]:
    keep = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_", "LC_")) or "proxy" in name.lower()
    }
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    own = {name: str(folder) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    return {**keep, **QUIET, **own, "PATH": path, "VISION": str(_vision())}


def _throw_away(packages: tuple[str, ...], folder: Path, environment: dict[str, str]) -> Path:
    """A virtual environment that also sees this one's packages, behind its own."""
    home = folder / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True, env=environment)
    (site,) = (home / "lib").glob("python3*/site-packages")
    (site / "behind.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"]
    ran = subprocess.run(
        [*pip, "--ignore-installed", *packages],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    if ran.returncode:
        raise Unavailable(
            f"pip could not install {' '.join(packages)}: {(ran.stderr.strip().splitlines() or ['?'])[-1][:120]}"
        )
    return home / "bin"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cgroup(memory_mb: int | None) -> Iterator[Path | None]:
    """A memory cgroup, of version 1 or 2, that is gone afterwards."""
    if memory_mb is None:
        yield None
        return
    old = Path("/sys/fs/cgroup/memory")
    home, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = home / f"job-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(memory_mb * 2**20))
    except OSError as error:
        raise Unavailable(f"needs a memory cgroup: {error.strerror}") from error
    try:
        yield group
    finally:
        for _ in range(50):  # the kernel needs a moment to take the last task out
            try:
                group.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def _rank_logs(folder: Path) -> list[tuple[int, str]]:
    """`rank3.log` of the script's own, or torchrun's `…/attempt_0/3/stderr.log`."""
    own = [(int(re.findall(r"\d+", path.name)[0]), path) for path in folder.glob("rank*.log")]
    elastic = [(int(path.parent.name), path) for path in folder.glob("logs/**/attempt_0/*/stderr.log")]
    return [(rank, path.read_text(errors="replace")) for rank, path in sorted(own + elastic)]


def _plain(text: str, folder: Path) -> str:
    """No path of this machine: its folders become $HOME, $ENV and $BASE, which a variation fills."""
    places = {
        str(folder / "env"): "$ENV",
        str(folder): "$HOME",
        str(_vision()): "$ENV/lib/python3.11/site-packages",
        sys.prefix: "$ENV",
        sys.base_prefix: "$BASE",
    }
    for place, name in places.items():
        text = text.replace(place, name)
    return text


def _vision() -> Path:
    return Path(sys.prefix) / "vision"


def _works(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0
