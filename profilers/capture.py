"""A capture: one window of a running loop, and what is needed to account for it.

Its times come from a take without shapes, the shapes from one more step, joined operator by operator.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .events import DeviceEvent, Events, HostEvent
from .hardware import Kind
from .idle import launches
from .kineto import Take
from .phases import Mark
from .shapes import join
from .step import Step, StepClock
from .timeline import Labels, Span


@dataclass(frozen=True, slots=True)
class Capture:
    """One window of whole steps [start, end), all times Unix ns, and what is needed to account for it."""

    device: Kind
    start: int
    end: int
    edges: tuple[int, ...]  # the end of every step in the window
    thread: int  # the loop's own, as host events number threads
    host: tuple[HostEvent, ...]  # with calls, where shapes were found
    on_device: tuple[DeviceEvent, ...]
    marks: tuple[Mark, ...]
    spans: Mapping[str, tuple[Span, ...]]  # "gc", "compile", "comm"
    clean_wall: int  # median clean step, 0 where there was none
    clean_phases: Mapping[str, int]
    optimizer_bytes: int  # parameters under the optimizers, for fused steps whose shapes are unknown
    tf32_matmul: bool = False
    tf32_convolution: bool = False
    notes: tuple[str, ...] = ()

    @property
    def wall(self) -> int:
        return self.end - self.start


def build(window: Take, shaped: Take | None, clean: Sequence[Step], clock: StepClock, notes: Sequence[str]) -> Capture:
    """`window` with the shapes of `shaped`, beside the clean steps. Sets the window's end to the device's on CUDA."""
    seen = window.events
    said = list(notes)
    if window.device == "cuda":  # the window ends where the device has done what was launched in it
        began = launches(seen.host, seen.device)
        done = [d.end for i, d in enumerate(seen.device) if i in began and began[i].start < window.closed]
        window.end = max([window.closed, *done])
        window.edges = (*window.edges[:-1], window.end)
    host = seen.host
    if shaped is not None and not window.shapes:
        host, lost = _with_shapes(window, seen, shaped)
        if lost:
            said.append(f"{lost} operators of the window found no shapes: they are uncounted")
        if not same_batches(window, shaped):
            said.append("batch shapes vary: FLOPs and bytes are those of one batch shape")
    elif shaped is not None and window is not shaped:
        said.append("batch shapes vary: shapes were recorded inside the window")
    return Capture(
        device=window.device,
        start=window.start,
        end=window.end,
        edges=window.edges,
        thread=loops_thread(seen),
        host=tuple(host),
        on_device=tuple(seen.device),
        marks=window.marks,
        spans={"comm": tuple(seen.collectives)} | {cause: tuple(spans) for cause, spans in clock.spans.items()},
        clean_wall=int(statistics.median([clock.wall(s) for s in clean])) if clean else 0,
        clean_phases=median_phases(clean),
        optimizer_bytes=clock.optimizer_bytes,  # not summed here: the optimizers may be gone
        tf32_matmul=allows_tf32(torch.backends.cuda.matmul),
        tf32_convolution=allows_tf32(getattr(torch.backends.cudnn, "conv", None)),
        notes=tuple(said),
    )


def _with_shapes(window: Take, seen: Events, shaped: Take) -> tuple[list[HostEvent], int]:
    """The window's host events with their calls, and how many operators found none."""
    phase = Labels([(m.time, m.phase) for m in window.marks])
    shaped_phase = Labels([(m.time, m.phase) for m in shaped.marks])
    # Calls into the CUDA runtime have no shapes, and their number varies from step to step.
    inside = [h for h in shaped.events.host if shaped.start <= h.start < shaped.end and not h.runtime]
    timed = [h for h in seen.host if window.start <= h.start < window.end and not h.runtime]
    ranks, shaped_ranks = _thread_order(timed), _thread_order(inside)
    timed, joined = join(
        timed,
        inside,
        lambda h: f"{phase.at(h.start)}/{ranks[h.thread]}",
        lambda h: f"{shaped_phase.at(h.start)}/{shaped_ranks[h.thread]}",
        window.edges,
    )
    host = [h for h in seen.host if h.runtime or not window.start <= h.start < window.end] + timed
    host.sort(key=lambda h: (h.start, -h.end))
    return host, joined.lost


def same_batches(window: Take, shaped: Take) -> bool:
    """Batches whose shapes differ from the shaped step's: its shapes would not be the window's."""
    return not shaped.batches or not window.batches or set(window.batches) <= set(shaped.batches)


def loops_thread(seen: Events) -> int:
    """The one that signed at the take's begin."""
    return next((h.thread for h in seen.host if h.name == "aten::empty"), seen.host[0].thread if seen.host else 0)


def allows_tf32(backend: Any) -> bool:
    """By the newer setting: reading the older one raises where the user has set the newer."""
    return getattr(backend, "fp32_precision", "") == "tf32"


def _thread_order(events: list[HostEvent]) -> dict[int, int]:
    """Threads numbered by first appearance: the profiler numbers them anew each time."""
    return {t: i for i, t in enumerate(dict.fromkeys(e.thread for e in events))}


def median_phases(steps: Sequence[Step]) -> dict[str, int]:
    """The median of each phase over `steps`, ns."""
    phases = dict.fromkeys(p for s in steps for p in s.phases)
    return {p: int(statistics.median([s.phases.get(p, 0) for s in steps])) for p in phases}
