"""Blocks of memory from `torch.cuda.memory._snapshot()`: who took each is the Python stack it was taken under.

The allocator's history holds the bytes asked for; its segments hold what became of them. Autograd runs the backward on a
thread of its own, without a Python frame: where other blocks have stacks, one without is the backward's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..views.units import size
from .blocks import BEFORE, NOWHERE, STAGES, Blocks, Layer, Place, pair
from .plain_pickle import loads

LARGEST = 2 << 30  # bytes of a file; torch's own viewer gives up at a quarter of it
LIBRARY = re.compile(r"(^|/)torch/|/lib/python3|^<|^\?\?|/contextlib\.py$|\.(cpp|h|c|cu)$")
LOADING = re.compile(r"torch/nn/(modules/\w+\.py (.*\.)?(__init__|_apply|convert|reset_parameters)$|init\.py )|from_pretrained$")  # fmt: skip
BACKWARD = re.compile(
    r"torch/autograd/.* (_engine_run_backward|backward|_make_grads)$|torch/utils/checkpoint\.py .*(unpack_hook|recompute_fn|backward)"
)
OPTIMIZER = re.compile(r"torch/optim/")
CONTAINER = re.compile(r"torch/nn/modules/(container|module)\.py$")
TAKES = "alloc"
GIVES = ("free_requested", "free", "free_completed")  # the first that was recorded
LARGEST_BLOCK = 1 << 50  # bytes
DEEPEST = 400  # frames of a stack

Stack = tuple[tuple[str, int, str], ...]  # (file, line, function), the innermost first


@dataclass(frozen=True, slots=True)
class Segments:
    """What the allocator holds of the device when the snapshot is taken. Bytes."""

    reserved: int
    allocated: int  # in use, rounded as the allocator does
    requested: int  # the same as asked for
    free: int  # in segments partly in use: reserved and not to be given back
    largest_free: int
    whole: int  # in segments of which nothing is in use: empty_cache() returns them


def load_snapshot(path: Path) -> dict[str, Any]:
    """The snapshot in a pickle or JSON file, of plain values. Raises UsageError."""
    try:
        if path.stat().st_size > LARGEST:
            raise UsageError(f"{path.name} has more than {LARGEST >> 30} GiB: record with a smaller max_entries")
        data = path.read_bytes()
        found = json.loads(data) if data[:64].lstrip()[:1] == b"{" else loads(data)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is no snapshot: its JSON is damaged ({type(error).__name__})") from None
    except OSError as error:
        raise UsageError(f"{path.name} cannot be read: {error.strerror or error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("segments"), list):
        raise UsageError(f"{path.name} is no memory snapshot: pass what torch.cuda.memory._dump_snapshot() wrote")
    return found


def snapshot_blocks(snapshot: Mapping[str, Any]) -> tuple[Blocks, Segments, list[str]]:
    """(the blocks of the device with most of them, its segments, what is to be said). Raises UsageError."""
    try:
        return _read(snapshot)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise UsageError(
            f"the snapshot is damaged: an entry of it is not as torch writes them ({type(error).__name__}: {error})"
        ) from None


def _read(snapshot: Mapping[str, Any]) -> tuple[Blocks, Segments, list[str]]:
    histories = [list(history) for history in snapshot.get("device_traces") or []]
    held = {int(s.get("device", 0)) for s in snapshot["segments"]}
    device = max(
        {*held, *range(len(histories))},
        key=lambda d: (len(histories[d]) if 0 <= d < len(histories) else 0, d in held, -d),
        default=0,
    )
    segments = [s for s in snapshot["segments"] if int(s.get("device", 0)) == device]
    history = histories[device] if 0 <= device < len(histories) else []
    ends = next((g for g in GIVES if any(e["action"] == g for e in history)), "")
    events = [e for e in history if e["action"] in (TAKES, ends)]
    stacks = _Stacks()
    place = np.array([stacks.place(e.get("frames") or ()) for e in events], np.int32)
    address = np.array([int(e["addr"]) for e in events], np.int64)
    change = np.array([int(e["size"]) * (1 if e["action"] == TAKES else -1) for e in events], np.int64)
    if len(change) and not 0 < np.abs(change).min() <= np.abs(change).max() <= LARGEST_BLOCK:
        raise ValueError("a block of an impossible size")
    taken, given, count = pair(address, change)
    older = _older(segments, set(address[taken[(taken >= 0) & (given == len(events))]].tolist()))
    blocks = Blocks(
        f"cuda:{device}",
        _times(events),
        np.append(taken, np.full(len(older), BEFORE)),
        np.append(given, np.full(len(older), len(events))),
        np.append(count, np.array(older, np.int64)),
        np.array([*(place[t] if t >= 0 else NOWHERE for t in taken.tolist()), *[NOWHERE] * len(older)], np.int32),
        tuple(stacks.places),
        tuple(stacks.layers),
        _stages(stacks, place, change > 0),
        (),
        0,
    )
    return blocks, _segments(segments), list(_said(history, device, held, blocks))


def _stages(stacks: _Stacks, place: np.ndarray, takes: np.ndarray) -> np.ndarray:
    """What the program was at, at every event. If only takings have stacks, until the next one it is at the same."""
    if len(stacks.places) == 1:
        return np.zeros(len(place), np.uint8)
    if not (place[~takes] != NOWHERE).any():
        last = np.maximum.accumulate(np.where(takes, np.arange(len(place)), 0))
        place = place[last]
    return np.array(stacks.stages, np.uint8)[place]


def _older(segments: Sequence[Mapping[str, Any]], seen: set[int]) -> list[int]:
    """Bytes of the blocks in use that nobody saw being taken."""
    blocks = [b for s in segments for b in _blocks(s) if b["state"] == "active_allocated"]
    return [int(b.get("requested_size") or b["size"]) for b in blocks if int(b["address"]) not in seen]


def _blocks(segment: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A segment's blocks, each with its address, which older versions of torch leave out."""
    found, at = [], int(segment["address"])
    for block in segment["blocks"]:
        found.append({"address": at, **block})
        at += int(block["size"])
    return found


def _segments(segments: Sequence[Mapping[str, Any]]) -> Segments:
    used = [[b for b in _blocks(s) if b["state"] != "inactive"] for s in segments]
    partly = [s for s, blocks in zip(segments, used, strict=True) if blocks]
    free = [int(b["size"]) for s in partly for b in s["blocks"] if b["state"] == "inactive"]
    return Segments(
        sum(int(s["total_size"]) for s in segments),
        sum(int(b["size"]) for blocks in used for b in blocks),
        sum(int(b.get("requested_size") or b["size"]) for blocks in used for b in blocks),
        sum(free),
        max(free, default=0),
        sum(int(s["total_size"]) for s, blocks in zip(segments, used, strict=True) if not blocks),
    )


def _times(events: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """ns; events without a time are 1 us apart."""
    times = [int(e.get("time_us", i)) for i, e in enumerate(events)]
    return np.maximum.accumulate(np.array(times, np.int64) * 1000)


def _said(history: Sequence[Mapping[str, Any]], device: int, held: set[int], blocks: Blocks) -> Iterator[str]:
    for event in history:
        if event["action"] == "oom":
            free = size(int(event["device_free"])) if "device_free" in event else "an unknown amount"
            yield f"out of memory: {size(int(event['size']))} were asked for, {free} of the device were free"
    if not len(blocks.time):
        yield "no history was recorded: call torch.cuda.memory._record_memory_history(stacks='python') before the steps"
    elif len(blocks.places) == 1:
        yield "recorded without stacks: categories and places need _record_memory_history(stacks='python')"
    for other in sorted(held - {device}):
        yield f"memory of cuda:{other} is not shown"


# -- stacks ------------------------------------------------------------------------------------------------------------------


class _Stacks:
    """Every distinct stack is a place; places, their stages and layers are made as stacks come."""

    def __init__(self) -> None:
        self.places = [Place("", -1)]
        self.stages = [STAGES.index("backward")]
        self.layers: list[Layer] = []
        self._known: dict[Stack, int] = {(): NOWHERE}
        self._layers: dict[tuple[int, str, str, int], int] = {}

    def place(self, frames: Sequence[Mapping[str, Any]]) -> int:
        """frames: the innermost first."""
        stack = tuple((str(f["filename"]), int(f["line"]), str(f["name"])) for f in frames[:DEEPEST])
        if stack not in self._known:
            self._known[stack] = len(self.places)
            self.places.append(Place(_site(stack), self._layer(stack)))
            self.stages.append(_stage(stack))
        return self._known[stack]

    def _layer(self, stack: Stack) -> int:
        """The innermost `forward`. One is told from another by the line that calls it, in the `forward` around it."""
        layer, caller = -1, 0
        for file, line, name in reversed(stack):
            if name.rpartition(".")[2] != "forward" or CONTAINER.search(file):
                continue
            key = (layer, file, name, caller)
            if key not in self._layers:
                self._layers[key] = len(self.layers)
                called = f"{name} in {_short(file)}{f', called in line {caller}' if caller else ''}"
                self.layers.append(Layer(called, called, layer))
            layer, caller = self._layers[key], line
        return layer


def _site(stack: Stack) -> str:
    """The user's innermost line, or the innermost of all."""
    own = next((frame for frame in stack if not LIBRARY.search(frame[0])), stack[0])
    return f"{_short(own[0])}:{own[1]} {own[2]}"


def _short(file: str) -> str:
    return "/".join(file.rsplit("/", 2)[-2:])


def _stage(stack: Stack) -> int:
    frames = [f"{file} {name}" for file, _, name in stack]
    for stage, pattern in (("optimizer", OPTIMIZER), ("backward", BACKWARD), ("loading", LOADING)):
        if any(pattern.search(frame) for frame in frames):
            return STAGES.index(stage)
    return STAGES.index("forward")
