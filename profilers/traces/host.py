"""What the host's threads of a saved trace did: phases and causes read off the names that PyTorch and its users write.

The live profile marks phases itself; a trace has annotations and, with stacks, frames of Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ..events import HostEvent
from ..timeline import Labels, innermost
from ..trace import STEP, Trace
from .dialects import Kind
from .gaps import BEGINNING, PHASE, Labelled
from .intervals import Intervals, union

PHASES = {  # the first whose pattern finds something in a name
    "data": re.compile(
        r"^enumerate\(DataLoader\)|^\[pl\].*(_next|dataloader)|DataLoaderIter\S*: _?__next__|dataloader\.py\(\d+\): __next__"
    ),
    "checkpoint": re.compile(
        r"torch/serialization\.py\(\d+\): save\b|distributed/checkpoint/.*: (async_)?save\b|^(## )?(save_)?checkpoint(ing)?( ##)?$|\bsave_(checkpoint|model)\b"
    ),
    "optimizer": re.compile(r"^Optimizer\.(step|zero_grad)#"),
    "logging": re.compile(
        r"^<built-in function print>|/logging/__init__\.py\(\d+\): _log\b|torch/utils/tensorboard/.*: add_\w+|(wandb|mlflow)/.*: log\w*$"
    ),
    "backward": re.compile(r"^autograd::engine::evaluate_function"),
}
COMPILING = re.compile(
    r"\(dynamo_timed\)|torch/_dynamo/convert_frame\.py.*(_convert_frame|compile)|torch/_inductor/compile_fx\.py|triton/compiler/compiler\.py"
)
SPEAKING = (Kind.RANGE, Kind.PYTHON, Kind.OPERATOR)  # kinds whose names say what the host does
COLLECTING = re.compile(r"^<built-in (function|method) collect|\bgc\.collect\b|^Python GC")


def loop_thread(trace: Trace) -> int:
    """The lane that drives the device: it has the steps, else the data loader or the optimizer, else most operators."""
    ranges = trace.of(Kind.RANGE)
    for pattern in (STEP, PHASES["data"], PHASES["optimizer"]):
        hits = ranges[np.isin(trace.name[ranges], trace.codes(pattern, Kind.RANGE))]
        if len(hits):
            return int(np.bincount(trace.lane[hits]).argmax())
    for kind in (Kind.OPERATOR, Kind.RUNTIME):
        if len(own := trace.of(kind)):
            return int(np.bincount(trace.lane[own]).argmax())
    return -1


def phases(trace: Trace, lane: int) -> Labels:
    """When the loop's thread was in which phase, by innermost annotation, frame or autograd node."""
    named = {code: p for p, pattern in reversed(PHASES.items()) for code in trace.codes(pattern, *SPEAKING)}
    ours = np.flatnonzero((trace.lane == lane) & np.isin(trace.name, list(named)) & (trace.end > trace.start))
    ours = ours[trace.kind[ours] < Kind.WAIT]
    # Whatever the loader does inside (log, save) is waiting for its batch all the same.
    data = np.isin(trace.name[ours], [code for code, phase in named.items() if phase == "data"])
    waits = union(trace.start[ours][data], trace.end[ours][data])
    inside = np.searchsorted(np.stack(waits, 1).ravel(), trace.start[ours], "right") % 2 == 1
    ours = ours[data | ~inside]
    events = list(host_events(trace, ours))
    if not events:
        return Labels([])
    labels = [named[code] for code in trace.name[ours].tolist()]
    pieces = innermost(events, events[0].start, max(e.end for e in events))
    return Labels([(a, labels[i] if i >= 0 else "other") for a, _, i in pieces] + [(pieces[-1][1], "other")])


def labelled(labels: Labels) -> Labelled:
    """The same function of time, in columns."""
    edge = np.array([BEGINNING, *labels.times], np.int64)
    return Labelled(edge, np.array([PHASE["other"], *(PHASE[labels.at(t)] for t in labels.times)]))


def spans(trace: Trace, lane: int, pattern: re.Pattern[str]) -> Intervals:
    """When a thread was inside events of such names."""
    hits = np.flatnonzero((trace.lane == lane) & np.isin(trace.name, trace.codes(pattern, *SPEAKING)))
    return union(trace.start[hits], trace.end[hits])


def host_events(trace: Trace, indices: np.ndarray) -> Iterator[HostEvent]:
    """The events at these indices, as the rules of the live profile take them."""
    names = trace.names
    columns = (c[indices].tolist() for c in (trace.name, trace.start, trace.end, trace.lane, trace.kind))
    for name, start, end, lane, kind in zip(*columns, strict=True):
        yield HostEvent(names[name], start, end, lane, runtime=kind == Kind.RUNTIME)
