"""All that is known of a run before anything is decided: what speaks for a cause, in the order of time, and what followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .hits import LAST_ERROR, STRENGTH, Consequence, Hit, hits
from .lines import Line
from .metrics import Finding, worst_course
from .rules import Rules
from .tracebacks import Kind, kinds

PASSED = 0.55  # strength of what was dealt with: it gives way to all that was not
SOON, STEPS, LONGEST_WAIT = 3, 3, 60  # lines; steps of work that show that it went on; lines in which they are counted
LASTING = ("numerical", "gpu_hardware", "job_scheduler", "collective_hang")  # goes on while steps are printed
_RESULTS = ("nccl_init_system_error", "nccl_buffer_alloc_failed", "nccl_invalid_usage_duplicate_gpu")
_BAR = "%|"  # of a progress bar, which other threads draw on after the failure


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is known before deciding."""

    lines: Sequence[Line]
    kinds: Sequence[Kind]
    hits: list[Hit]  # in the order of time
    consequences: list[Consequence]
    note: str  # what the metrics say, where they decide


def read(lines: Sequence[Line], rules: Rules) -> Reading:
    parts = kinds(lines)
    found, consequences = hits(lines, parts, rules)
    found = [
        replace(hit, strength=min(hit.strength, PASSED)) if passed(hit, lines, parts, rules) else hit for hit in found
    ]
    found = _as_nccl_says(found, lines)
    numbers = worst_course(lines)
    note = ""
    if numbers and numbers.course != "recovered":
        index = next(i for i, line in enumerate(lines) if line is numbers.line)
        cause = rules.cause("numerical", numbers.course)
        found.append(Hit(numbers.line, index, cause, _course_strength(numbers), 100, False, ""))
        note = numbers.says
    elif numbers:  # what the series show to have come back is no failure, whatever the line that shows it says
        found = [hit for hit in found if hit.cause.category != "numerical"]
    found = [hit for hit in found if not _cancelled_for(hit, consequences)]
    order = _order(lines)
    found.sort(key=lambda hit: order(hit.line, hit.index))
    consequences.sort(key=lambda event: order(event.line, event.index))
    return Reading(lines, parts, found, consequences, note)


def _course_strength(numbers: Finding) -> float:
    """A spike may be survived: what a program then died of by its own words comes first."""
    return 1.5 if not numbers.sure else 2.5 if numbers.course == "loss_spike" else STRENGTH["certain"]


def passed(hit: Hit, lines: Sequence[Line], parts: Sequence[Kind], rules: Rules) -> bool:
    """Was it dealt with at once, as the next lines of the same process say, or did steps go on after it?"""
    if hit.cause.category in LASTING or hit.index + 1 >= len(lines):
        return False
    who, steps, near, dealt_with = (hit.line.source, hit.line.rank), 0, 0, False
    after = slice(hit.index + 1, hit.index + 1 + LONGEST_WAIT)
    for line, kind in zip(lines[after], parts[after], strict=True):
        if (line.source, line.rank) != who or kind != "log" or not line.text.strip():
            continue
        if dealt_with:  # a retry that is announced at the very end is not known to have worked
            return True
        near += 1
        dealt_with = near <= SOON and line.level not in ("error", "warning") and bool(rules.handled.search(line.text))
        steps += _BAR not in line.text and bool(rules.progress.search(line.text))
        if steps >= STEPS:
            return True
    return False


def _as_nccl_says(found: list[Hit], lines: Sequence[Line]) -> list[Hit]:
    """NCCL's result is a class of errors; where it adds the last error it met, that is the one."""
    for index, line in enumerate(lines):
        if not line.text.startswith(LAST_ERROR):
            continue
        named = [hit for hit in found if index <= hit.index <= index + SOON and hit.cause.id not in _RESULTS]
        if named:
            found = [hit for hit in found if hit.cause.id not in _RESULTS or abs(hit.index - index) > 2 * SOON]
    return found


def _cancelled_for(hit: Hit, consequences: Sequence[Consequence]) -> bool:
    """Did the scheduler cancel the rest because a process had already ended?"""
    weak = hit.cause.id == "user_cancelled" and "CANCELLED" in hit.line.text and hit.strength < STRENGTH["hint"]
    return weak and any(event.index < hit.index for event in consequences)


def _order(lines: Sequence[Line]):
    """By the clock where every line that has one has the same kind, else by place."""
    clocks = {line.clock[0] for line in lines if line.clock}
    last: dict[tuple[str, int | None], float] = {}
    times: list[float] = []
    for line in lines:
        who = (line.source, line.rank)
        if line.clock:
            last[who] = last[(line.source, None)] = line.clock[1]
        times.append(last.get(who, last.get((line.source, None), 0.0)))
    timed = len(clocks) == 1

    def key(line: Line, index: int) -> tuple[float, int]:
        return (times[index] if timed else 0.0, index)

    return key
