"""Real operator calls of the CPU profiler, with the event each lies in."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

from mlsys_studio.profilers.cost import Call, Cost, OpCost, cost_of, own_costs
from mlsys_studio.profilers.stderr import without_announcements


def record(work: Callable[[], object]) -> tuple[list[Call], list[int]]:
    """(calls, parents) of one run of `work`; work on several threads is not told apart here."""
    recording = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    with without_announcements():
        recording.__enter__()
    work()
    with without_announcements():
        recording.__exit__(None, None, None)
    assert recording.profiler and recording.profiler.kineto_results
    events = sorted(recording.profiler.kineto_results.events(), key=lambda e: (e.start_ns(), -e.duration_ns()))
    parents, open_events = [], []
    for i, event in enumerate(events):
        while open_events and open_events[-1][0] <= event.start_ns():
            open_events.pop()
        parents.append(open_events[-1][1] if open_events else -1)
        open_events.append((event.end_ns(), i))
    return [Call.from_event(event) for event in events], parents


def own(work: Callable[[], object]) -> list[tuple[Call, Cost]]:
    """Each call of `work` with its own cost."""
    calls, parents = record(work)
    return list(zip(calls, own_costs([cost_of(call) for call in calls], parents), strict=True))


def flops(work: Callable[[], object]) -> int:
    return sum(cost.flops for _, cost in own(work) if isinstance(cost, OpCost))


def the_call(work: Callable[[], object], name: str) -> Call:
    """The innermost call of that name (outer ones of it pass on to the last)."""
    return [call for call in record(work)[0] if call.name == f"aten::{name}"][-1]
