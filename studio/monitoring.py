"""What the machine does for this kernel, for places without the panel: one look, or a picture that follows a cell.

The picture is a display that is replaced from a thread, so it needs no extension and no widget library, and what stands
there when the cell has ended is what the notebook keeps.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ..profilers.errors import UsageError
from ..profilers.sampling.gpus import Gpus
from ..profilers.sampling.host import Host
from ..profilers.sampling.nvml import THROTTLE, Nvml
from ..profilers.sampling.records import GPU, HOST, STEP, as_json
from ..profilers.sampling.ring import Ring
from ..profilers.sampling.watching import watching
from ..profilers.views.sheet import Curve, Figures, Grid, Part, Row, Sheet, Shown
from ..profilers.views.units import bandwidth, duration, number, percent, size, three

REFRESH = 1.0  # seconds between two pictures, at least
MOST_OF_KERNEL = (
    0.01  # of the time goes into pictures, as it does into the panel's questions (extensions/lab/src/pace.ts)
)
SAMPLES, STEPS = 300, 3_000  # the last ones are shown
POINTS = 100  # on a curve: each is drawn anew with every picture
UNKNOWN = "not measured"

Values = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Look(Shown):
    """The newest sample, and those before it. `steps` are what a step clock published."""

    times: tuple[float, ...]  # s, monotonic
    hosts: tuple[Values, ...]
    gpus: tuple[Values, ...]  # of the newest sample
    names: tuple[str, ...]  # of the GPUs
    steps: tuple[Values, ...] = ()

    def to_json(self) -> str:
        newest = self.hosts[-1] if self.hosts else {}
        gpus = [{"name": name, **values} for name, values in zip(self.names, self.gpus, strict=True)]
        return json.dumps({"host": newest, "gpus": gpus, "step": self.steps[-1] if self.steps else None}, indent=1)

    def sheet(self) -> Sheet:
        return Sheet("This kernel on its machine", self._basis(), tuple(self._parts()))

    def _basis(self) -> str:
        if not self.hosts:
            return "No sample yet."
        return "CPU and memory against the limits of this container; the kernel's part includes its child processes."

    def _parts(self) -> Iterator[Part]:
        if not self.hosts:
            return
        yield Figures("Now", tuple(self._figures(self.hosts[-1])))
        if self.gpus:
            heads = ("GPU", "busy", "memory", "this kernel", "power", "slowed by")
            yield Grid("GPUs", heads, tuple(map(self._gpu, self.names, self.gpus)))
        yield from self._curves()

    def _figures(self, now: Values) -> Iterator[Row]:
        if self.steps:
            last = self.steps[-1]
            yield Row("step", _of(last["wall"], duration), f"number {last['number']:.0f}")
            wall, data = (sum(step[part] or 0.0 for step in self.steps) for part in ("wall", "data"))
            if wall > 0:
                yield Row("waiting for data", percent(data / wall), "of the steps shown")
            if last["loss"] is not None:
                yield Row("loss", f"{last['loss']:.4g}")
        yield Row(
            "CPU", _both(now["cpu"], now["cpu_limit"], number), f"cores; this kernel {_of(now['cpu_kernel'], three)}"
        )
        used, limit = now["memory"], now["memory_limit"]
        share = f"{percent(used / limit)} of the limit; " if used is not None and limit else ""
        yield Row("memory", _both(used, limit, _size), f"{share}this kernel {_of(now['memory_kernel'], _size)}")
        for name, label in (("disk", ("read", "write")), ("net", ("in", "out"))):
            rates = [_of(now[f"{name}_{way}"], bandwidth) for way in label]
            yield Row({"disk": "disk of the kernel", "net": "network"}[name], f"{rates[0]} in, {rates[1]} out")

    def _gpu(self, name: str, now: Values) -> tuple[str, ...]:
        mask = int(now["throttle"] or 0)
        return (
            name,
            _of(now["utilisation"], lambda v: f"{v:.0f} %"),
            _both(now["memory_used"], now["memory_total"], _size),
            _of(now["memory_kernel"], _size, "not attributable"),
            _of(now["power"], lambda v: f"{v:.0f} W"),
            ", ".join(reason for bit, reason in THROTTLE.items() if mask & bit) or "nothing",
        )

    def _curves(self) -> Iterator[Curve]:
        began = self.times[0]
        for name, title, unit in (("cpu", "CPU", 1.0), ("memory", "Memory", 2**30)):
            points = [
                (round(t - began, 1), value / unit)
                for t, host in zip(self.times, self.hosts, strict=True)
                if (value := host[name]) is not None
            ]
            limit = self.hosts[-1][f"{name}_limit"]
            if len(points) > 2:
                y = "cores" if name == "cpu" else "GiB"
                yield Curve(title, "s", y, tuple(points), None if limit is None else ("limit", limit / unit))
        for name, title, y, unit in (("wall", "Step time", "ms", 1e6), ("loss", "Loss", "loss", 1.0)):
            points = [
                (n, v / unit) for s in self.steps if (n := s["number"]) is not None and (v := s[name]) is not None
            ]
            if len(points) > 2:
                yield Curve(title, "step", y, tuple(points))


def once(seconds: float) -> Look:
    """Two samples so far apart, by this process itself."""
    host, gpus = Host(os.getpid()), Gpus(Nvml.load())
    try:
        host.sample()
        gpus.sample(host.processes)
        time.sleep(seconds)
        values = host.sample()
        return _look([values + gpus.sample(host.processes)], (), [d.name for d in gpus.devices])
    finally:
        gpus.close()


def of_ring(ring: Ring) -> Look:
    """The last samples of the kernel's own sampler, and the steps published beside them."""
    newest = ring.newest(ring.samples)
    samples = [values for _, values in ring.read(ring.samples, max(0, newest - SAMPLES), POINTS)]
    steps = [values for _, values in ring.read(ring.steps, max(0, ring.newest(ring.steps) - STEPS), POINTS)]
    return _look(samples, steps, [gpu["name"] for gpu in ring.facts.get("gpus", [])])


class Live:
    """A picture in the notebook while a block runs; the last one stays."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle

        self._display: Any = DisplayHandle()
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self.look = Look((), (), (), ())

    def __enter__(self) -> Self:
        self._display.display(self.look)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._done.clear()
        self._thread = threading.Thread(target=self._follow, name="mlsys-monitor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """With a last picture."""
        self._done.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5)
        with contextlib.suppress(UsageError):
            self._refresh()

    def _follow(self) -> None:
        spent = 0.0
        while not self._done.wait(max(REFRESH, spent / MOST_OF_KERNEL) if self.look.hosts else 0.1):
            began = time.thread_time()
            with contextlib.suppress(UsageError):
                self._refresh()
            spent = time.thread_time() - began

    def _refresh(self) -> None:
        ring = watching.ring("monitor", 2.0)
        if ring is not None:
            self.look = of_ring(ring)
            self._display.update(self.look)


def _look(samples: Sequence[tuple[float, ...]], steps: Sequence[tuple[float, ...]], names: Sequence[str]) -> Look:
    width = len(HOST)
    hosts = tuple(as_json(HOST, values[:width]) for values in samples)
    newest = samples[-1] if samples else ()
    gpus = tuple(as_json(GPU, newest[at : at + len(GPU)]) for at in range(width, len(newest), len(GPU)))
    kept = tuple(as_json(STEP, values) for values in steps)
    return Look(tuple(values[0] for values in samples), hosts, gpus, tuple(names), kept)


def _of(value: float | None, say: Any, otherwise: str = UNKNOWN) -> str:
    return otherwise if value is None or not math.isfinite(value) else say(value)


def _both(value: float | None, limit: float | None, say: Any) -> str:
    return f"{_of(value, say)} of {_of(limit, say)}"


def _size(value: float) -> str:
    return size(int(value))
