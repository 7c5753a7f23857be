"""The first cause before the last error.

Of all that speaks for a cause, the strongest counts; of equally strong ones, the earliest over all ranks; on one line, the
most specific. What only others' deaths explain (SIGTERM, time-outs, closed connections) gives way to anything else. What
was survived (work went on after it) is no failure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .diagnosis import HEALTHY, Alternative, Check, Diagnosis, Evidence, Fix, Link
from .hits import LEAST, STRENGTH, Consequence, Hit, hits
from .lines import Line
from .metrics import Finding, course, series
from .rules import Cause, Rules
from .tracebacks import Kind, kinds

MOST_EVIDENCE, MOST_LINKS, MOST_ALTERNATIVES = 6, 12, 3
LEFTOVERS = "resources were left behind"  # by a run that ended, well or not
LONGEST_TEXT = 500  # letters of a line in the answer
PASSED = 0.55  # strength of what was dealt with: it gives way to all that was not
SOON, STEPS, LONGEST_WAIT = 3, 3, 60  # lines; steps of work that show that it went on; lines in which they are counted
LASTING = ("numerical", "gpu_hardware", "job_scheduler", "collective_hang")  # goes on while steps are printed
_ENDED = re.compile(
    r"^\S+: error: |^error: |can't open file|Fatal Python error|^Segmentation fault|^Bus error|^Killed|^KeyboardInterrupt"
)
_LONGEST_TRACEBACK = 300  # lines
_ANY_EXCEPTION = re.compile(r"^[A-Za-z_][\w.]*(?:: |$)")
_BAR = "%|"  # of a progress bar, which other threads draw on after the failure

# How sure each strength is: set by what its tier means, not fitted; tests/benchmarks/diagnosis_accuracy.py shows by bin
# how often it was right.
_CONFIDENCE = ((3.0, 0.9), (2.0, 0.75), (1.0, 0.5), (0.0, 0.45))
_RIVALLED = 0.67  # where another category is as strong
_ENDED_WELL, _WENT_ON, _NOTHING_SAID = 0.85, 0.6, 0.4  # a failure may stand behind the end of a text that is cut off


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is known before deciding."""

    lines: Sequence[Line]
    kinds: Sequence[Kind]
    hits: list[Hit]  # in the order of time
    consequences: list[Consequence]
    note: str  # what the metrics say, where they decide


def diagnose_lines(lines: Sequence[Line], rules: Rules) -> Diagnosis:
    """The recipe."""
    reading = read(lines, rules)
    ranked = rank(reading.hits)
    if survived(reading, ranked, rules):
        return undecided(reading) if _cut_off(reading) else healthy(reading, rules)
    explained = ranked and ranked[0].strength != PASSED  # what was dealt with does not explain the end
    return decided(reading, ranked) if explained else undecided(reading)


def read(lines: Sequence[Line], rules: Rules) -> Reading:
    parts = kinds(lines)
    found, consequences = hits(lines, parts, rules)
    found = [
        replace(hit, strength=min(hit.strength, PASSED)) if passed(hit, lines, parts, rules) else hit for hit in found
    ]
    numbers = course(series(lines))
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
    who, steps, near = (hit.line.source, hit.line.rank), 0, 0
    after = slice(hit.index + 1, hit.index + 1 + LONGEST_WAIT)
    for line, kind in zip(lines[after], parts[after], strict=True):
        if (line.source, line.rank) != who or kind != "log":
            continue
        near += 1
        if near <= SOON and line.level not in ("error", "warning") and rules.handled.search(line.text):
            return True
        steps += _BAR not in line.text and bool(rules.progress.search(line.text))
        if steps >= STEPS:
            return True
    return False


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


def rank(found: Sequence[Hit]) -> list[Hit]:
    """One hit a cause, best first. A warning alone decides nothing."""
    best: dict[tuple[str, str], Hit] = {}
    place = {id(hit): n for n, hit in enumerate(found)}
    for hit in found:
        key = (hit.cause.category, hit.cause.id)
        if hit.soft or hit.strength < LEAST:
            continue
        if key not in best or hit.strength > best[key].strength:
            best[key] = hit
    return sorted(
        best.values(), key=lambda hit: (-hit.strength, place[id(hit)] - _same_line(hit, found, place), -hit.specific)
    )


def _same_line(hit: Hit, found: Sequence[Hit], place: dict[int, int]) -> int:
    """How far into its line's hits this one stands: hits of one line share one place."""
    first = next(place[id(other)] for other in found if other.index == hit.index)
    return place[id(hit)] - first


def survived(reading: Reading, ranked: Sequence[Hit], rules: Rules) -> bool:
    """Did work go on, or end well, after the last thing that looked like a failure? Or was it over before?"""
    real = [hit for hit in reading.hits if not hit.soft and hit.strength >= LEAST]
    last = max((hit.index for hit in real), default=-1)
    if reading.note:  # the metrics were judged by their whole course
        return False
    if ranked and ranked[0].cause.id == "user_cancelled":
        return any(rules.finished.search(line.text) for line in reading.lines[: ranked[0].index])
    ends = [event.index for event in reading.consequences if event.event != LEFTOVERS]
    over = max([last, *ends])
    if over < 0:
        return True
    who = reading.lines[over]
    rest = zip(reading.lines[over + 1 :], reading.kinds[over + 1 :], strict=True)
    after = [line.text for line, kind in rest if (line.source, line.rank) == (who.source, who.rank) and kind == "log"]
    if any(rules.finished.search(text) for text in after):
        return True
    if over > last or _uncaught(reading, last):
        return False
    progress = sum(bool(rules.progress.search(text)) for text in after)
    handled = any(rules.handled.search(line.text) for line in reading.lines[max(0, last - 12) : last + 6])
    return progress >= STEPS or (handled and progress >= 1)


def _uncaught(reading: Reading, index: int) -> bool:
    """Did the interpreter print it while it ended? Its tracebacks begin with the module, those of a handler with the
    function that has the handler."""
    line = reading.lines[index]
    if _ENDED.search(line.text):
        return True
    top = ""
    for i in range(index - 1, max(-1, index - _LONGEST_TRACEBACK), -1):
        if (reading.lines[i].source, reading.lines[i].rank) != (line.source, line.rank):
            continue
        if reading.kinds[i] == "header":
            return "in <module>" in top and not reading.lines[max(0, i - 1)].level
        if reading.kinds[i] == "frame":
            top = reading.lines[i].text
    return "in <module>" in top  # the header is not in the text


def _cut_off(reading: Reading) -> bool:
    """Is there a traceback whose exception is not in the text?"""
    open_: set[tuple[str, int | None]] = set()
    for line, kind in zip(reading.lines, reading.kinds, strict=True):
        who = (line.source, line.rank)
        if kind == "header":
            open_.add(who)
        elif kind == "exception" or _ANY_EXCEPTION.match(line.text):
            open_.discard(who)
    return bool(open_)


def decided(reading: Reading, ranked: Sequence[Hit]) -> Diagnosis:
    best, others = ranked[0], ranked[1:]
    sure = _confidence(best, reading.hits, others)
    its = [
        hit
        for hit in reading.hits
        if (hit.cause.category, hit.cause.id) == (best.cause.category, best.cause.id) and not hit.soft
    ]
    evidence = _distinct([best, *its])[:MOST_EVIDENCE]
    return Diagnosis(
        category=best.cause.category,
        cause=best.cause.id,
        confidence=round(sure, 2),
        summary=_summary(best, reading),
        evidence=tuple(_evidence(hit.line) for hit in evidence),
        chain=chain(best, ranked, reading.consequences),
        fix=tuple(Fix(*fix) for fix in best.cause.fixes),
        checks=_checks(best.cause),
        alternatives=_alternatives(best, others, sure),
    )


def undecided(reading: Reading) -> Diagnosis:
    checks = (
        Check("mlsys diagnose FOLDER-OF-ALL-RANKS", "the cause is in an earlier part, or in the log of another rank"),
        Check("sudo dmesg -T | tail -100", "whether the kernel or the GPU driver stopped it", probe="kernel_log"),
    )
    said = reading.consequences[0].event if reading.consequences else "it ended"
    summary = f"Cannot tell from this: {said}, and what went before is not in the text."
    events = tuple(_link(e.line, e.event, None, "consequence") for e in _first_events(reading.consequences))
    return Diagnosis(
        None,
        None,
        0.0,
        summary,
        tuple(_evidence(e.line) for e in reading.consequences[:MOST_EVIDENCE]),
        events,
        checks=checks,
    )


def healthy(reading: Reading, rules: Rules) -> Diagnosis:
    texts = [line.text for line in reading.lines]
    ended = any(rules.finished.search(text) for text in texts)
    shown = ended or any(rules.progress.search(text) for text in texts)
    sure = _ENDED_WELL if ended else _WENT_ON if shown else _NOTHING_SAID
    quiet = [hit for hit in reading.hits if hit.strength >= LEAST]
    summary = "Nothing failed here"
    if quiet:
        summary += f"; what looks like it ({quiet[-1].line.text.strip()[:100]}) was dealt with"
    return Diagnosis(HEALTHY, None, sure, summary + ".", tuple(_evidence(hit.line) for hit in quiet[:2]))


def chain(best: Hit, ranked: Sequence[Hit], consequences: Sequence[Consequence]) -> tuple[Link, ...]:
    """From the first cause on: what other ranks then met, and how the job was ended."""
    links = [_link(best.line, best.cause.summary.rstrip("."), best.cause.id, "cause")]
    later = [hit for hit in ranked if hit.index > best.index and (hit.strength <= 1 or hit.line.rank != best.line.rank)]
    events = [(hit.index, _link(hit.line, hit.cause.summary.rstrip("."), hit.cause.id, "consequence")) for hit in later]
    events += [
        (e.index, _link(e.line, e.event, None, "consequence"))
        for e in _first_events(consequences)
        if e.index > best.index
    ]
    return tuple([*links, *(link for _, link in sorted(events, key=lambda pair: pair[0]))][:MOST_LINKS])


def _first_events(consequences: Sequence[Consequence]) -> list[Consequence]:
    seen: set[str] = set()
    return [e for e in consequences if not (e.event in seen or seen.add(e.event))]


def _confidence(best: Hit, found: Sequence[Hit], others: Sequence[Hit]) -> float:
    sure = next(share for strength, share in _CONFIDENCE if best.strength >= strength)
    rivals = [hit for hit in others if hit.cause.category != best.cause.category and hit.strength >= best.strength]
    if rivals:
        sure *= _RIVALLED
    same = {hit.index for hit in found if hit.cause.category == best.cause.category and hit.strength >= best.strength}
    return min(0.97, sure + 0.03 * (len(same) > 1 and not rivals))


def _alternatives(best: Hit, others: Sequence[Hit], sure: float) -> tuple[Alternative, ...]:
    left = 1 - sure
    shown = others[:MOST_ALTERNATIVES]
    total = sum(hit.strength for hit in shown) or 1
    return tuple(Alternative(hit.cause.category, hit.cause.id, round(left * hit.strength / total, 2)) for hit in shown)


def _summary(best: Hit, reading: Reading) -> str:
    where = ", ".join(
        part
        for part in (
            f"rank {best.line.rank}" if best.line.rank is not None else "",
            f"on {best.line.host}" if best.line.host else "",
            f"at {best.line.time}" if best.line.time else "",
        )
        if part
    )
    said = best.cause.summary
    if reading.note and best.cause.category == "numerical":
        said = f"{said} In the log, {reading.note}."
    return f"{said} First seen in line {best.line.number}" + (f" ({where})." if where else ".")


def _checks(cause: Cause) -> tuple[Check, ...]:
    return tuple(Check(command, why, probe=probe) for command, why, probe in cause.checks)


def _distinct(found: Sequence[Hit]) -> list[Hit]:
    seen: set[int] = set()
    return [hit for hit in found if not (hit.index in seen or seen.add(hit.index))]


def _evidence(line: Line) -> Evidence:
    return Evidence(line.source or None, line.number, line.rank, line.host, line.time, line.text.strip()[:LONGEST_TEXT])


def _link(line: Line, event: str, cause: str | None, role) -> Link:
    return Link(event, cause, line.rank, line.host, line.time, line.number, role)
