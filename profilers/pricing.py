"""What each operator of a window costs by itself, and which operator its time belongs to.

An operator's formula covers all it calls; what its callees cost is theirs. An operator without a formula inside one
that has one is a part of it (a backend's entry inside `convolution`), so its time goes there and is not uncounted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from .cost import Cost, OpCost, cost_of, optimizer_bytes, own_costs
from .events import HostEvent


@dataclass(frozen=True, slots=True)
class Priced:
    """`owner` is the event whose time and cost these are; cost None: uncounted."""

    owner: HostEvent
    cost: Cost


def parents(events: Sequence[HostEvent]) -> list[int]:
    """For each event the index of the one around it on its thread, -1 at the top. Events: sorted, outer before inner."""
    out = []
    stacks: dict[int, list[int]] = defaultdict(list)
    for i, e in enumerate(events):
        stack = stacks[e.thread]
        while stack and events[stack[-1]].end <= e.start:
            stack.pop()
        out.append(stack[-1] if stack else -1)
        stack.append(i)
    return out


def price(events: Sequence[HostEvent], parameter_bytes: int) -> list[Priced]:
    """One entry an event. `parameter_bytes`: what the optimizers update, for fused steps without shapes."""
    above = parents(events)
    whole = [_whole(e, parameter_bytes) for e in events]
    own = own_costs(whole, above)
    owners: list[int] = []
    for i in range(len(events)):
        inherits = whole[i] is None and above[i] >= 0 and isinstance(whole[owners[above[i]]], OpCost)
        owners.append(owners[above[i]] if inherits else i)
    return [Priced(events[o], own[o]) for o in owners]


def _whole(event: HostEvent, parameter_bytes: int) -> Cost:
    cost = cost_of(event.call) if event.call is not None else None
    if cost is None and (moved := optimizer_bytes(event.name, parameter_bytes)) is not None:
        return OpCost(0, moved)
    return cost
