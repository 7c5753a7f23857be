"""Idle time of a device by phase and cause, for all its gaps at once.

These are the rules of `../idle.py` (ledger.md, rule 5) in columns, because a trace has a hundred times the gaps of a live
window; a test holds the two equal to the nanosecond. One rule is a trace's own: an instant in which the loop waits for its
next batch is a data stall even if the next kernel was queued before, as in every account of saved traces we compare with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ledger import CAUSES, PHASES
from .intervals import Intervals

CAUSE = {cause: code for code, cause in enumerate(CAUSES)}
PHASE = {phase: code for code, phase in enumerate(PHASES)}
QUEUEING = (CAUSE["launch"], CAUSE["python"])  # the host's own pace, which a drained queue lays bare
ALL_CAUSES = tuple(CAUSES)
BEGINNING = -(1 << 60)  # ns, before all time; differences to it fit into int64
UNKNOWN = -1

Charged = Counter[tuple[str, str]]  # {(phase, cause): ns}


@dataclass(frozen=True, slots=True)
class Labelled:
    """A function of time: `code[i]` from `edge[i]` to the next edge; the first edge is the beginning."""

    edge: np.ndarray
    code: np.ndarray

    def at(self, t: np.ndarray) -> np.ndarray:
        return self.code[np.searchsorted(self.edge, t, "right") - 1]


class Clock:
    """Runs only while a `Labelled` has one of some codes."""

    def __init__(self, labelled: Labelled, codes: Sequence[int]) -> None:
        self._edge, self._runs = labelled.edge, np.isin(labelled.code, codes)
        self._told = np.append(0, np.cumsum(np.diff(self._edge) * self._runs[:-1]))

    def at(self, t: np.ndarray) -> np.ndarray:
        i = np.searchsorted(self._edge, t, "right") - 1
        return self._told[i] + np.where(self._runs[i], t - self._edge[i], 0)

    def when(self, told: np.ndarray) -> np.ndarray:
        """The first time at which the clock shows this much, or a time after which it stands still."""
        i = np.maximum(np.searchsorted(self._told, told, "left") - 1, 0)
        return self._edge[i] + told - self._told[i]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Idle stretches [start, end) of a device, by start, and the launch of the work that closes each."""

    start: np.ndarray
    end: np.ndarray
    thread: np.ndarray  # that launched it; UNKNOWN if nobody knows
    launch_start: np.ndarray
    launch_end: np.ndarray
    crosses: np.ndarray  # bool: it runs on another stream than what ended at the gap's start
    last_launch: np.ndarray  # end of the last launch before the gap, 0 if none
    drained: np.ndarray  # ns of run-ahead that a blocking wait destroyed, which has not been built up again


def activity(
    phase: Labelled, calls: Intervals, waits: Intervals, compiling: Intervals, gc: Intervals, seen: tuple[int, int]
) -> Labelled:
    """What one thread does at any time, as phase + len(PHASES) * cause: the first that applies, in rule 5's order.

    calls: inside an operator or a runtime call; seen: from the thread's first event to its last.
    """
    edge = np.unique(np.concatenate([phase.edge, *calls, *waits, *compiling, *gc, np.array(seen, np.int64)]))
    now = phase.at(edge)

    def inside(intervals: Intervals) -> np.ndarray:
        return np.searchsorted(np.stack(intervals, 1).ravel(), edge, "right") % 2 == 1

    rules = (
        (now == PHASE["data"], "data stall"),
        ((edge < seen[0]) | (edge >= seen[1]), "unattributed"),  # nobody saw what the thread did
        (inside(waits), "sync"),
        (now == PHASE["checkpoint"], "io"),
        (inside(compiling), "compile"),
        (inside(gc), "gc"),
        (now == PHASE["logging"], "io"),
        (inside(calls), "launch"),
    )
    cause = np.select([holds for holds, _ in rules], [CAUSE[cause] for _, cause in rules], CAUSE["python"])
    return Labelled(edge, now + len(PHASES) * cause)


def charge(gaps: Gaps, threads: Mapping[int, Labelled], main: int, phase: Labelled) -> Charged:
    """Every gap by phase and cause. `threads`: what each did; `main` answers where the closing launch is unknown."""
    found: Charged = Counter()
    known = gaps.thread != UNKNOWN
    queued = known & (gaps.launch_end <= gaps.start)
    for crosses, cause in ((True, "dependency"), (False, "launch")):
        chosen = queued & (gaps.crosses == crosses)
        found += _whole(gaps.start[chosen], gaps.end[chosen], cause, phase)
    answers = np.where(known, gaps.thread, main)
    for thread in np.unique(answers[~queued]).tolist():
        chosen = np.flatnonzero(~queued & (answers == thread))
        if thread in threads:
            found += _late(gaps, chosen, threads[thread], phase)
        else:
            found += _whole(gaps.start[chosen], gaps.end[chosen], "unattributed", phase)
    return found


def _late(gaps: Gaps, chosen: np.ndarray, doing: Labelled, phase: Labelled) -> Charged:
    """Gaps whose closing work was launched too late: what the thread did until then; the launch itself; and what of
    both is the price of a queue that a wait had drained."""
    start, end, left = gaps.start[chosen], gaps.end[chosen], gaps.drained[chosen]
    launched = np.minimum(end, np.maximum(start, gaps.launch_start[chosen]))
    until = np.where(gaps.thread[chosen] == UNKNOWN, end, launched)
    codes = np.unique(doing.code).tolist()
    queueing = Clock(doing, [code for code in codes if code // len(PHASES) in QUEUEING])
    refilled = np.minimum(queueing.when(queueing.at(start) + left), until)
    left = left - (queueing.at(refilled) - queueing.at(start))
    found: Charged = Counter()
    for code in codes:
        cause, now = ALL_CAUSES[code // len(PHASES)], PHASES[code % len(PHASES)]
        clock = Clock(doing, [code])
        before, middle, after = (clock.at(t) for t in (start, refilled, until))
        refilling = int((middle - before).sum()) if CAUSE[cause] in QUEUEING else 0
        found[now, "sync"] += refilling
        found[now, cause] += int((after - before).sum()) - refilling
    refilled = until + np.minimum(left, end - until)
    return found + _whole(until, refilled, "sync", phase) + _whole(refilled, end, "launch", phase)


def _whole(start: np.ndarray, end: np.ndarray, cause: str, phase: Labelled) -> Charged:
    """These stretches charged to one cause; to the data loader while the loop waits for it."""
    found: Charged = Counter()
    for code in np.unique(phase.code).tolist():
        clock = Clock(phase, [code])
        name = PHASES[code]
        found[name, "data stall" if name == "data" else cause] += int((clock.at(end) - clock.at(start)).sum())
    return found
