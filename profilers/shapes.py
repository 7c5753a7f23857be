"""Shapes for a window recorded without them: they come from one extra step, operator by operator.

Recording shapes slows a step by a third, so the timed window goes without. The k-th operator of a phase in a step is
the k-th of that phase in the shaped step where both ran the same operators in the same order; else the k-th of its name.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .events import HostEvent


@dataclass(frozen=True, slots=True)
class Join:
    """How many of the window's operators found their shapes, and how."""

    exact: int = 0
    by_name: int = 0
    lost: int = 0


def join(
    window: Sequence[HostEvent],
    shaped: Sequence[HostEvent],
    group: Callable[[HostEvent], str],
    shaped_group: Callable[[HostEvent], str],
    edges: Sequence[int],
) -> tuple[list[HostEvent], Join]:
    """`window` with the calls of `shaped`. Groups are phase and thread; `edges` are the window's step ends."""
    known: dict[str, list[HostEvent]] = defaultdict(list)
    for e in shaped:
        known[shaped_group(e)].append(e)
    names = {g: [e.name for e in events] for g, events in known.items()}
    by_name: dict[tuple[str, str], list[HostEvent]] = defaultdict(list)
    for g, events in known.items():
        for e in events:
            by_name[g, e.name].append(e)

    parts: dict[tuple[int, str], list[int]] = defaultdict(list)
    for i, e in enumerate(window):
        parts[bisect.bisect_right(edges, e.start), group(e)].append(i)

    out, exact, named, lost = list(window), 0, 0, 0
    for (_, g), indices in parts.items():
        if [window[i].name for i in indices] == names.get(g):
            exact += len(indices)
            for i, e in zip(indices, known[g], strict=True):
                out[i] = replace(window[i], call=e.call)
            continue
        seen: Counter[str] = Counter()
        for i in indices:
            name = window[i].name
            candidates, k = by_name.get((g, name), []), seen[name]
            seen[name] += 1
            if k < len(candidates):
                out[i], named = replace(window[i], call=candidates[k].call), named + 1
            else:
                lost += 1
    return out, Join(exact, named, lost)


def shapes_of(batch: Any, depth: int = 3) -> tuple:
    """The shapes of a batch's first tensors, nested containers followed: equal shapes mean the same work."""
    if isinstance(batch, torch.Tensor):
        return tuple(batch.shape)
    if depth and isinstance(batch, Mapping):
        return tuple(shapes_of(v, depth - 1) for v in list(batch.values())[:16])
    if depth and isinstance(batch, (list, tuple)):
        return tuple(shapes_of(v, depth - 1) for v in batch[:16])
    return ()
