"""Time by module of the model: its kernels in the forward, and those of the backward that belong to its operators.

On a device a module's time is that of the kernels its operators launched; on a CPU that of the operators themselves. An
autograd node belongs to the module whose operator made it: the profiler writes the link (`fwdbwd`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..trace import Trace
from .dialects import Kind
from .kernels import owners
from .layers import Layers
from .nesting import enclosing, parents


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """One module with all that is in it, in the order of the model; ns, added up over its runs."""

    name: str
    depth: int
    runs: int
    forward_ns: int
    backward_ns: int

    @property
    def nanoseconds(self) -> int:
        return self.forward_ns + self.backward_ns


def modules(trace: Trace) -> tuple[tuple[ModuleTime, ...], int]:
    """(every module, ns that belong to none). Nothing where the trace has no modules."""
    layers = Layers(trace)
    if not layers.layers:
        return (), 0
    event, spent = _work(trace)
    layer, backward = _placed(trace, layers, event)
    sums = np.zeros((len(layers.layers) + 1, 2), np.int64)  # the last, index -1: outside of all
    np.add.at(sums, (layer, backward.astype(int)), spent)
    for i in range(len(layers.layers) - 1, -1, -1):  # inner before outer
        if (parent := layers.layers[i].parent) >= 0:
            sums[parent] += sums[i]
    return tuple(_in_order(layers, sums)), int(sums[-1].sum())


def _work(trace: Trace) -> tuple[np.ndarray, np.ndarray]:
    """(the operator, -1: unknown; ns) of every piece of work."""
    work = trace.on_device()
    if len(work):
        return owners(trace, work), trace.end[work] - trace.start[work]
    operators = trace.of(Kind.OPERATOR)
    own = trace.end[operators] - trace.start[operators]
    for lane in np.unique(trace.lane[operators]).tolist():
        mine = np.flatnonzero(trace.lane[operators] == lane)
        parent = parents(trace.start[operators][mine], trace.end[operators][mine])
        length = (trace.end - trace.start)[operators][mine]
        np.subtract.at(own, mine[parent[parent >= 0]], length[parent >= 0])
    return operators, np.maximum(own, 0)


def _placed(trace: Trace, layers: Layers, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(layer, whether by its backward) of every operator."""
    layer, backward = np.full(len(event), -1), np.zeros(len(event), bool)
    forward_of = {(lane, time): (by, at) for by, at, lane, time in trace.autograd.tolist()}
    for lane in np.unique(trace.lane[event[event >= 0]]).tolist():
        mine = np.flatnonzero((event >= 0) & (trace.lane[event] == lane))
        time = trace.start[event[mine]]
        layer[mine] = layers.at(lane, time)
        left = np.flatnonzero(layer[mine] < 0)
        made = _maker(trace, forward_of, lane, time[left])
        for by in {by for by, _ in made if by >= 0}:
            chosen = [i for i, (each, _) in enumerate(made) if each == by]
            at = mine[left[chosen]]
            layer[at] = layers.at(by, np.array([made[i][1] for i in chosen], np.int64))
            backward[at] = True
    return layer, backward


def _maker(trace: Trace, forward_of: dict[tuple[int, int], tuple[int, int]], lane: int, time: np.ndarray) -> list[tuple[int, int]]:  # fmt: skip
    """(lane, start) of the forward's operator behind the autograd node around each instant; (-1, 0): none."""
    starts = np.array([start for by, start in forward_of if by == lane], np.int64)
    nodes = np.flatnonzero((trace.lane == lane) & (trace.kind == Kind.OPERATOR) & np.isin(trace.start, starts))
    start, end = trace.start[nodes], trace.end[nodes]
    found = enclosing(start, end, parents(start, end), time)
    return [forward_of[lane, int(start[i])] if i >= 0 else (-1, 0) for i in found.tolist()]


def _in_order(layers: Layers, sums: np.ndarray) -> Iterator[ModuleTime]:
    """Outer before inner, neighbours as they were first called."""
    inside: dict[int, list[int]] = {}
    for i, each in enumerate(layers.layers):
        inside.setdefault(each.parent, []).append(i)
    waiting = [(i, 0) for i in reversed(inside.get(-1, []))]
    while waiting:
        i, depth = waiting.pop()
        yield ModuleTime(layers.layers[i].name, depth, layers.runs[i], *sums[i].tolist())
        waiting += [(child, depth + 1) for child in reversed(inside.get(i, []))]
