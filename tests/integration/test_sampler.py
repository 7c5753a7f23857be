"""Samplers of real processes: never more than one a kernel, none left behind, no hole while the GIL is held.

The "kernel" is a Python process in a group of its own, which evaluates what it is told, on a second thread as a subshell
does. Witness for processes is /proc, for files the folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mlsys_studio.profilers.sampling.places import started
from mlsys_studio.profilers.sampling.ring import Ring

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

KERNEL = """
import json, sys, threading, time
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.sampling.watching import watching

def look(reader="a", hertz=10.0):
    try:
        ring = watching.ring(reader, hertz)
    except UsageError as error:
        return str(error)
    return ring and [str(ring.path), ring.facts["sampler"], ring.newest(ring.samples)]

def serve():
    for line in sys.stdin:
        print(json.dumps(eval(line)), flush=True)

threading.Thread(target=serve, daemon=True).start()
while True:
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        pass
"""


class Kernel:
    def __init__(self, runtime: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", KERNEL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            process_group=0,
        )

    def ask(self, expression: str = "look()"):
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def ring(self) -> tuple[Path, int]:
        """(its file, its sampler), once there is a sample."""
        found = until(lambda: (found := self.ask()) and found[2] and found)
        return Path(found[0]), found[1]

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def until(what: Callable[[], object], seconds: float = 30.0):
    """What it returned as soon as it was true."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")


def samplers_of(process: int) -> list[int]:
    words = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for file in words for word in file.read_text().split()]


def gone(process: int) -> bool:
    return not started(process)


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path)
    yield kernel
    kernel.end()
    until(lambda: not list(tmp_path.glob("*/*")))  # whatever the test did, no file stays


def test_many_readers_have_one_sampler(kernel: Kernel):
    kernel.ask("[threading.Thread(target=look, args=(str(i), 2.0)).start() for i in range(20)]")
    _, sampler = kernel.ring()
    assert samplers_of(kernel.process.pid) == [sampler]
    assert os.getsid(sampler) == sampler != os.getsid(kernel.process.pid)


def test_twenty_interrupts_leave_the_sampler_alone(kernel: Kernel):
    _, sampler = kernel.ring()
    for _ in range(20):
        os.killpg(kernel.process.pid, signal.SIGINT)
        time.sleep(0.02)
    before = kernel.ask()[2]
    assert until(lambda: kernel.ask()[2] > before)
    assert samplers_of(kernel.process.pid) == [sampler]


def test_a_killed_kernel_takes_sampler_and_file_along(kernel: Kernel):
    path, sampler = kernel.ring()
    kernel.process.kill()
    kernel.process.wait()
    until(lambda: gone(sampler) and not path.exists(), 10)


def test_a_killed_sampler_is_followed_by_one_other(kernel: Kernel):
    path, sampler = kernel.ring()
    os.kill(sampler, signal.SIGKILL)
    until(lambda: gone(sampler))  # reaped: no zombie
    again, other = kernel.ring()
    assert again == path and other != sampler
    assert samplers_of(kernel.process.pid) == [other]


def test_a_module_imported_anew_finds_the_sampler_that_runs(kernel: Kernel):
    """As after autoreload."""
    _, sampler = kernel.ring()
    kernel.ask("globals().update(watching=type(watching)())")
    assert kernel.ring()[1] == sampler
    assert samplers_of(kernel.process.pid) == [sampler]


def test_no_hole_while_a_c_call_holds_the_gil(kernel: Kernel):
    path, _ = kernel.ring()
    ring = Ring.open(path)
    first = ring.newest(ring.samples)
    began = time.monotonic()
    kernel.ask("sum(range(150_000_000))")
    held = time.monotonic() - began
    times = [values[0] for _, values in ring.read(ring.samples, first)]
    ring.close()
    assert held > 0.5
    # Asked for 10 a second. A thread of the kernel would have slept through all of it.
    assert max(b - a for a, b in pairwise([began, *times])) < max(0.5, held / 2)
    assert len(times) > 3 * held


def test_a_ring_spoiled_under_a_reader_is_replaced(kernel: Kernel):
    path, _ = kernel.ring()
    path.write_bytes(b"\0" * path.stat().st_size)
    until(lambda: isinstance(found := kernel.ask(), list) and found[2])
    path.unlink()
    assert kernel.ring()[0] == path
    until(lambda: len(samplers_of(kernel.process.pid)) == 1, 10)


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path: Path):
    place = tmp_path / f"mlsys-studio-{os.getuid()}"
    place.mkdir()
    place.chmod(0o777)
    kernel = Kernel(tmp_path)
    try:
        assert "not yours alone" in kernel.ask()
        assert samplers_of(kernel.process.pid) == []
    finally:
        kernel.end()
