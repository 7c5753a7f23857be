"""Blocks of memory from a profiler's trace (`profile_memory=True`): who took each is the operator around its event."""

from __future__ import annotations

import re

import numpy as np

from ..allocations import TAKES_ROOM
from ..errors import UsageError
from ..trace import Trace
from .blocks import NOWHERE, STAGES, Blocks, Layer, Place, pair
from .dialects import Kind
from .host import PHASES, loop_thread
from .intervals import Intervals, union
from .layers import Layers
from .memory_events import HOST, MemoryEvents
from .nesting import enclosing, parents

OWN_CODE = re.compile(r"^(?!torch/|<|typing\.py|enum\.py|contextlib\.py|functools\.py|threading\.py).*\.py\(\d+\): ")


def profiled_blocks(trace: Trace) -> tuple[Blocks, int, list[str]]:
    """(the blocks of the device that took most, the most bytes it reserved, what was left out). Raises UsageError."""
    memory = trace.memory
    if memory is None or not len(memory.time):
        raise UsageError(
            "this trace says nothing of memory: record it with torch.profiler.profile(profile_memory=True), "
            "or save torch.cuda.memory._dump_snapshot() and pass that"
        )
    device = _chosen(memory)
    chosen = np.flatnonzero(memory.device == device)
    taken, given, count = pair(memory.address[chosen], memory.bytes[chosen])
    time, lane = memory.time[chosen], memory.lane[chosen]
    place, places, layers = _places(trace, time, lane)
    inside = taken >= 0
    first = int(memory.allocated[chosen[0]] - memory.bytes[chosen[0]])
    blocks = Blocks(
        _called(memory.devices[device]),
        time,
        taken,
        given,
        count,
        np.where(inside, place[taken], NOWHERE).astype(np.int32),
        places,
        layers,
        _stages(trace, time, lane),
        tuple(int(np.searchsorted(time, start)) for _, start, _ in trace.steps()),
        max(0, first - int(count[~inside].sum())),
    )
    others = [_called(d) for i, d in enumerate(memory.devices) if i != device]
    return blocks, int(memory.reserved[chosen].max()), [f"memory of {other} is not shown" for other in others]


def _chosen(memory: MemoryEvents) -> int:
    """The device whose allocator says most; the host only if there is no other."""
    hosts = np.array([kind == HOST for kind, _ in memory.devices])
    counted = np.bincount(memory.device, minlength=len(hosts))
    return int(np.argmax(np.where(hosts & (not hosts.all()), -1, counted)))


def _called(device: tuple[int, int]) -> str:
    kind, index = device
    return "cpu" if kind == HOST else f"device {max(0, index)}"


def _stages(trace: Trace, time: np.ndarray, lane: np.ndarray) -> np.ndarray:
    """What the program was at, at every event: an autograd pass counts from its first node to its last."""
    at = np.zeros(len(time), np.uint8)
    nodes = np.flatnonzero(np.isin(trace.name, trace.codes(PHASES["backward"], Kind.OPERATOR, Kind.RANGE)))
    steps = np.flatnonzero(np.isin(trace.name, trace.codes(PHASES["optimizer"], Kind.RANGE)))
    for hits, stage in (
        (_passes(trace, nodes), "backward"),
        (union(trace.start[steps], trace.end[steps]), "optimizer"),
    ):
        inside = np.searchsorted(np.stack(hits, 1).ravel(), time, "right") % 2 == 1
        at[inside] = STAGES.index(stage)
    return at


def _passes(trace: Trace, nodes: np.ndarray) -> Intervals:
    """Stretches of autograd nodes between which the loop's thread began no operator of its own."""
    start, end = union(trace.start[nodes], trace.end[nodes])
    if not len(start):
        return start, end
    operators = trace.of(Kind.OPERATOR)
    begun = trace.start[operators[trace.lane[operators] == loop_thread(trace)]]
    splits = np.searchsorted(begun, start[1:], "left") > np.searchsorted(begun, end[:-1], "left")
    return start[np.append(True, splits)], end[np.append(splits, True)]


def _places(trace: Trace, time: np.ndarray, lane: np.ndarray) -> tuple[np.ndarray, tuple[Place, ...], tuple[Layer, ...]]:  # fmt: skip
    """(place, places, layers) of every event, by the operator, the user's frame and the module around it."""
    place = np.zeros(len(time), np.int32)
    places: dict[Place, int] = {Place("", -1): NOWHERE}
    layers = Layers(trace)
    rooms = [i for i, name in enumerate(trace.names) if name.startswith(TAKES_ROOM)]
    frames = trace.codes(OWN_CODE, Kind.PYTHON)
    operator, takes = trace.kind == Kind.OPERATOR, np.isin(trace.name, rooms)
    masks = (operator & ~takes, operator & takes, (trace.kind == Kind.PYTHON) & np.isin(trace.name, frames))
    for each in np.unique(lane).tolist():
        mine = np.flatnonzero(lane == each)
        who, room, frame = (_around(trace, np.flatnonzero(m & (trace.lane == each)), time[mine]) for m in masks)
        around = np.where(who < 0, room, who), frame  # the operator that wanted the room, or torch.empty of the user's
        rows, inverse = np.unique([*around, layers.at(each, time[mine])], axis=1, return_inverse=True)
        found = [Place(_said(trace, operator, frame), layer) for operator, frame, layer in rows.T.tolist()]
        place[mine] = np.array([places.setdefault(p, len(places)) for p in found], np.int32)[inverse.ravel()]
    return place, tuple(places), tuple(layers.layers)


def _around(trace: Trace, events: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The name, as a code, of the innermost of these events around each instant; -1: none."""
    start, end = trace.start[events], trace.end[events]
    found = enclosing(start, end, parents(start, end), at)
    return np.where(found >= 0, trace.name[events][found], -1) if len(events) else found


def _said(trace: Trace, operator: int, frame: int) -> str:
    return " at ".join(trace.names[code] for code in (operator, frame) if code >= 0)
