"""The sampler: a child process of a Jupyter kernel that writes what the machine does into the kernel's ring.

A process, because a thread of the kernel stands still whenever a C call holds the GIL, which is when its user wonders.
It has a session of its own, as Jupyter's interrupt goes to the kernel's whole group. It ends when its parent is another
than the one that started it (the kernel died), when nobody has read for a minute, or when the ring has another file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from .gpus import Gpus
from .host import Host
from .nvml import Nvml
from .places import started, sweep
from .ring import Ring

UNREAD = 60.0  # seconds
FASTEST, SLOWEST = 10.0, 1.0  # samples a second


def main(arguments: list[str]) -> None:
    """The parent's process id and the ring's path."""
    parent, path = int(arguments[0]), Path(arguments[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, leave)
    sweep(path.parent)
    gpus = Gpus(Nvml.load())
    facts = {
        "host": socket.gethostname(),
        "sampler": os.getpid(),
        "sampler_started": started(os.getpid()),
        **gpus.facts(),
    }
    ring = Ring.create(path, len(gpus.devices), facts)
    try:
        run(ring, Host(parent), gpus, lambda: os.getppid() == parent)
    finally:
        if ring.current():
            with contextlib.suppress(OSError):
                path.unlink()
        gpus.close()


def run(
    ring: Ring,
    host: Host,
    gpus: Gpus,
    wanted: Callable[[], bool],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sample at the rate the readers wish, for as long as there are any."""
    writer = ring.writer(ring.samples)
    due = clock()
    while wanted() and ring.current():
        read, hertz = ring.wished()
        now = clock()
        if now - read > UNREAD:
            return
        writer.put((*host.sample(now), *gpus.sample(host.processes, now)))
        # At least once a second: so soon a wish for more is heard, and the death of the kernel seen.
        due = max(due + 1 / min(max(hertz, SLOWEST), FASTEST), clock())
        sleep(max(0.0, due - clock()))


def leave(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
