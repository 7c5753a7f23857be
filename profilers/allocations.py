"""What the memory of one step is: allocated bytes over time by category, and what is alive at their peak.

Parameters, gradients and optimizer state are known exactly, from the live objects; every block taken and given back is
known from torch's profiler. What is neither is "activations and temporaries", or a tensor that was there before.
torch does not see the end of a CPU block older than its recording, so one step is recorded ahead: the gradients and
activations that the step gives back are younger than that.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .forecast import allow, of_memory
from .phases import now
from .roles import MEMORY, MEMORY_LED
from .timeline import Labels

if TYPE_CHECKING:
    from .kineto import Take
    from .step import StepClock

PARAMETERS, GRADIENTS, STATE = "parameters", "gradients", "optimizer state"
OTHERS, REST = "other tensors", "activations and temporaries"
CATEGORIES = (PARAMETERS, STATE, OTHERS, GRADIENTS, REST)  # the longest lived first
MOST_POINTS, LARGEST = 500, 5
TAKES_ROOM = ("aten::empty", "aten::resize_", "aten::new_empty", "aten::set_")  # how operators ask for memory


@dataclass(frozen=True, slots=True)
class Instant:
    """ns since the step began; bytes by category, in the order of `CATEGORIES`."""

    time: int
    phase: str
    bytes: tuple[int, ...]

    @property
    def total(self) -> int:
        return sum(self.bytes)


@dataclass(frozen=True, slots=True)
class Block:
    """Alive at the peak. `operator` made it in `phase` from tensors of `shapes`, or it was there before: "" and its own."""

    operator: str
    phase: str
    shapes: str
    category: str
    bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """One step's allocated memory on `device` ("cpu" or "cuda"). The timeline holds its peak."""

    device: str
    length: int  # of the step, ns
    timeline: tuple[Instant, ...]
    largest: tuple[Block, ...]  # at the peak

    @property
    def peak(self) -> Instant:
        return max(self.timeline, key=lambda instant: instant.total)


@dataclass(frozen=True, slots=True)
class Change:
    """A block taken (bytes > 0) or given back (< 0)."""

    time: int
    pointer: int
    bytes: int
    operator: str = ""
    shapes: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A living block whose purpose is known."""

    category: str
    bytes: int
    shapes: str = ""


class Allocations:
    """The extra: one step ahead, then the step that is shown."""

    name = "memory timeline"

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.done = False
        self.use: MemoryUse | None = None
        self._progress = progress

    def steps(self, clock: StepClock, shaped: Take) -> Generator[str]:
        from .kineto import Take

        forecast = of_memory(shaped.count)
        allow(forecast, "--memory")
        self._progress(f"memory: recording two steps, {forecast}")
        take = Take(shaped.device, shapes=True, memory=True)
        try:
            take.begin(clock)
            yield MEMORY_LED
            before = others(take.device) | known(clock, take.device)
            allocated = on_device(take.device)
            began = now()
            yield MEMORY
            after = known(clock, take.device)
            seen = changes(take.finish(clock).experimental_event_tree(), take.device)
            phases = Labels([(m.time, m.phase) for m in take.marks])
            self.use = account(take.device, seen, before, after, (began, take.end), phases, allocated)
            self.done = True
        finally:
            take.off()


# -- what is alive -----------------------------------------------------------------------------------------------------


def known(clock: StepClock, device: str) -> dict[int, Known]:
    """{pointer: what it is} of parameters, gradients and optimizer state on a device."""
    import torch

    parameters = clock.trained() + [p for model in clock.called() for p in torch.nn.Module.parameters(model)]
    state = (v for o in clock.optimizers.values() for kept in list(o.state.values()) for v in _tensors(kept))
    found = _blocks(state, STATE, device)
    found |= _blocks((p.grad for p in parameters if p.grad is not None), GRADIENTS, device)
    return found | _blocks(parameters, PARAMETERS, device)


def others(device: str) -> dict[int, Known]:
    """Every tensor Python knows of. Walks the garbage collector's objects once (about 0.1 s per million)."""
    import torch

    return _blocks((o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)), OTHERS, device)


def on_device(device: str) -> int | None:
    """Allocated bytes as the allocator counts them; a CPU's has no count."""
    import torch

    return torch.cuda.memory_allocated() if device == "cuda" else None


def _tensors(kept: Any) -> Iterator[Any]:
    import torch

    if isinstance(kept, torch.Tensor):
        yield kept
    elif isinstance(kept, Mapping):
        for value in list(kept.values()):
            yield from _tensors(value)
    elif isinstance(kept, (list, tuple)):
        for value in kept:
            yield from _tensors(value)


def _blocks(tensors: Iterable[Any], category: str, device: str) -> dict[int, Known]:
    found: dict[int, Known] = {}
    for t in tensors:
        with suppress(Exception):  # sparse, fake, functional: no storage, or none of their own
            storage = t.untyped_storage()
            if storage.nbytes() and storage.device.type == device:
                found[storage.data_ptr()] = Known(category, storage.nbytes(), "x".join(map(str, t.shape)))
    return found


# -- what happened -----------------------------------------------------------------------------------------------------


def changes(roots: Iterable[Any], device: str) -> list[Change]:
    """From the profiler's tree, in order of time. An allocation is its nearest operator's that computes something."""
    found: list[Change] = []
    waiting = [(root, "", "") for root in roots]
    while waiting:
        event, operator, shapes = waiting.pop()
        kind = str(event.tag)
        if kind.endswith("Allocation"):
            f = event.extra_fields
            if f.device.type == device:
                found.append(Change(event.start_time_ns, f.ptr, f.alloc_size, operator, shapes))
        elif kind.endswith("TorchOp") and not event.name.startswith(TAKES_ROOM):
            operator, shapes = event.name, _sizes(event.extra_fields)
        waiting += [(child, operator, shapes) for child in event.children]
    return sorted(found, key=lambda change: change.time)


def _sizes(fields: Any) -> str:
    sizes = (getattr(given, "sizes", None) for given in fields.inputs)
    return ", ".join("x".join(map(str, s)) for s in sizes if s)


@dataclass(slots=True)
class _Live:
    category: str
    bytes: int
    operator: str = ""
    phase: str = ""
    shapes: str = ""


def account(
    device: str,
    seen: Sequence[Change],
    before: Mapping[int, Known],
    after: Mapping[int, Known],
    span: tuple[int, int],
    phases: Labels,
    allocated: int | None = None,
) -> MemoryUse:
    """The step `span`; `seen` may begin earlier. `before` and `after`: what is known to live at its two ends.

    `allocated`: the device's own count at the beginning; what `before` does not explain of it are other tensors.
    """
    start, end = span
    live = _at_start([c for c in seen if c.time < start], before, allocated)
    kept = {c.pointer: i for i, c in enumerate(seen) if c.bytes > 0 and c.time < end}  # the last at its place
    given = {c.pointer: i for i, c in enumerate(seen) if c.bytes < 0 and c.time < end}
    sums: dict[str, int] = dict.fromkeys(CATEGORIES, 0)
    for block in live.values():
        sums[block.category] += block.bytes
    points, most, at_peak = (
        [Instant(0, phases.at(start), tuple(sums.values()))],
        sum(sums.values()),
        list(live.values()),
    )
    for i, c in enumerate(seen):
        if not start <= c.time < end:
            continue
        gone = live.pop(c.pointer, None)  # also where it was given back unseen, and is now taken again
        if gone is not None:
            sums[gone.category] -= gone.bytes
        if c.bytes > 0:
            stays = kept[c.pointer] == i and given.get(c.pointer, -1) < i
            category = after[c.pointer].category if stays and c.pointer in after else REST
            live[c.pointer] = _Live(category, c.bytes, c.operator, phases.at(c.time), c.shapes)
            sums[category] += c.bytes
        points.append(Instant(c.time - start, phases.at(c.time), tuple(sums.values())))
        if points[-1].total > most:
            most, at_peak = points[-1].total, list(live.values())
    named = sorted((b for b in at_peak if b.category in (OTHERS, REST)), key=lambda b: -b.bytes)[:LARGEST]
    largest = tuple(Block(b.operator, b.phase, b.shapes, b.category, b.bytes) for b in named)
    return MemoryUse(device, end - start, tuple(thinned(points, end - start)), largest)


def _at_start(earlier: Sequence[Change], before: Mapping[int, Known], allocated: int | None) -> dict[int, _Live]:
    """{pointer: block} alive when the step begins."""
    live: dict[int, _Live] = {}
    for c in earlier:
        live.pop(c.pointer, None)
        if c.bytes > 0:
            live[c.pointer] = _Live(REST, c.bytes, c.operator, "before", c.shapes)
    for pointer, what in before.items():
        if pointer not in live:
            live[pointer] = _Live(what.category, what.bytes, shapes=what.shapes)
        elif what.category != OTHERS:
            live[pointer].category = what.category
    unseen = 0 if allocated is None else allocated - sum(block.bytes for block in live.values())
    if unseen > 0:
        live[-1] = _Live(OTHERS, unseen)  # no pointer is negative
    return live


def thinned(points: Sequence[Instant], length: int, most: int = MOST_POINTS) -> Iterator[Instant]:
    """Of every stretch of the step its highest instant: at most `most` of them, the peak among them."""
    highest: dict[int, Instant] = {}
    for point in points:
        i = min(most - 1, max(0, point.time * most // max(1, length)))
        if i not in highest or point.total > highest[i].total:
            highest[i] = point
    return (highest[i] for i in sorted(highest))
