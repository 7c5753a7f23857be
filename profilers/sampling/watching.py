"""The kernel's side: one sampler a kernel however many look, started by the first look and read by all.

Called from threads that are not the user's, while their code runs: so nothing is imported from them, nothing printed,
and what goes wrong is a sentence.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

from ..errors import UsageError
from . import steps
from .places import ring_of, started
from .ring import Ring, RingError

SAMPLER = f"{__name__.rpartition('.')[0]}.sampler"
PATIENCE = 20.0  # seconds for a sampler's first sample, on a machine that has no core left
RECENT = 5.0  # seconds for which a reader's wish counts


class Watching:
    """`ring()` is the open ring, or None while its sampler starts; UsageError says why there will be none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ring: Ring | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._said = ""
        self._wishes: dict[str, tuple[float, float]] = {}

    def ring(self, reader: str, hertz: float) -> Ring | None:
        """`reader` wants so many samples a second: the sampler takes the fastest wish of the last seconds."""
        with self._lock:
            now = time.monotonic()
            self._wishes = {who: wish for who, wish in self._wishes.items() if now - wish[0] < RECENT}
            self._wishes[reader] = (now, hertz)
            ring = self._open()
            if ring is not None:
                ring.wish(max(wish for _, wish in self._wishes.values()))
            return ring

    def stop(self) -> None:
        """End the sampler; the next look starts another."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()
                self._process.wait(5)
            self._forget()

    def _open(self) -> Ring | None:
        if self._ring is not None and self._alive(self._ring):
            return self._ring
        self._forget()
        path = ring_of(os.getpid())
        with contextlib.suppress(FileNotFoundError, RingError):
            ring = Ring.open(path)
            if self._alive(ring):
                self._ring = ring
                steps.attach(ring.writer(ring.steps))
                return ring
            ring.close()
        self._start(path)
        return None

    def _alive(self, ring: Ring) -> bool:
        """By its sampler: this process or an earlier import of this module may have started it."""
        process = self._process
        if process is not None and process.pid == ring.facts["sampler"]:
            return process.poll() is None and ring.current()
        return ring.current() and started(ring.facts["sampler"]) == ring.facts["sampler_started"] != 0

    def _start(self, path: Path) -> None:
        now = time.monotonic()
        if self._process is not None and self._process.poll() is None:
            if now - self._began < PATIENCE:
                return
            self._process.kill()
            raise UsageError(f"the sampler gave no sample in {PATIENCE:.0f} s: the machine has no time for it")
        if self._said:
            said, self._said = self._said, ""
            raise UsageError(f"the sampler ended: {said}")
        self._began = now
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-m", SAMPLER, str(os.getpid()), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        threading.Thread(target=self._reap, args=(process,), name="mlsys-sampler", daemon=True).start()

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        """No zombie, and its last word is kept."""
        _, said = process.communicate()
        if process.returncode > 0:
            lines = said.decode(errors="replace").strip().splitlines()
            self._said = lines[-1][:300] if lines else f"exit code {process.returncode}"

    def _forget(self) -> None:
        steps.attach(None)
        if self._ring is not None:
            self._ring.close()
            self._ring = None


def environment() -> dict[str, str]:
    """In which a child finds this package where the user put it on sys.path by hand; nothing else of theirs goes along."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    home = Path(__file__).resolve().parents[2]
    installed = str(home.parent) in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    if home.name == SAMPLER.partition(".")[0] and not installed:
        own["PYTHONPATH"] = str(home.parent)
    return own


def _after_fork() -> None:
    global watching
    watching = Watching()


watching = Watching()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
