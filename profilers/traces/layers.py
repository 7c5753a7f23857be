"""Which module of the model an instant lies in, where the trace was recorded with stacks: `nn.Module: Linear_0`."""

from __future__ import annotations

import re

import numpy as np

from ..trace import Trace
from .blocks import Layer
from .dialects import Kind
from .nesting import enclosing, parents

MODULE = re.compile(r"^nn\.Module: (.+?)(?:_\d+)?$")


class Layers:
    """`layers`, outer before inner; a module called again in the same place is the same layer. `runs` counts its calls."""

    def __init__(self, trace: Trace) -> None:
        self.layers: list[Layer] = []
        self.runs: list[int] = []
        self._lanes: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
        known: dict[tuple[int, str], int] = {}
        hits = np.flatnonzero(np.isin(trace.name, trace.codes(MODULE, Kind.PYTHON)) & (trace.kind == Kind.PYTHON))
        for lane in np.unique(trace.lane[hits]).tolist():
            mine = hits[trace.lane[hits] == lane]
            start, end = trace.start[mine], trace.end[mine]
            parent = parents(start, end)
            code = np.full(len(mine) + 1, -1)  # the last, index -1: no module
            for i, (name, outer) in enumerate(zip(trace.name[mine].tolist(), parent.tolist(), strict=True)):
                code[i] = self._layer(known, int(code[outer]), trace.names[name])
            self._lanes[lane] = start, end, parent, code

    def _layer(self, known: dict[tuple[int, str], int], parent: int, said: str) -> int:
        found = known.setdefault((parent, said), len(self.layers))
        if found == len(self.layers):
            kind = MODULE.match(said)
            self.layers.append(Layer(said.removeprefix("nn.Module: "), kind[1] if kind else said, parent))
            self.runs.append(0)
        self.runs[found] += 1
        return found

    def at(self, lane: int, time: np.ndarray) -> np.ndarray:
        """The innermost layer around each instant of a thread; -1: none."""
        if lane not in self._lanes:
            return np.full(len(time), -1)
        start, end, parent, code = self._lanes[lane]
        return code[enclosing(start, end, parent, time)]
