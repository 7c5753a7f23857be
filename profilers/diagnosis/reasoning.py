"""The first cause before the last error.

Of all that speaks for a cause, the strongest counts; of equally strong ones, the earliest over all ranks; on one line, the
most specific. What only others' deaths explain (SIGTERM, time-outs, closed connections) gives way to anything else. What
was survived (work went on after it) is no failure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .case import PASSED, Reading, read
from .diagnosis import HEALTHY, Alternative, Check, Diagnosis, Evidence, Fix, Link
from .hits import BUILT, LEAST, Consequence, Hit, built
from .lines import Line
from .missing_rank import missing_rank
from .rules import Cause, Rules
from .survival import ended_well, survived, unexplained
from .tracebacks import cut_off

MOST_EVIDENCE, MOST_LINKS, MOST_ALTERNATIVES = 6, 12, 3
LONGEST_TEXT = 500  # letters of a line in the answer
# How sure each strength is: what its tier means. Where a rival is as strong, and for "healthy", it was lowered to what
# the first run on blind texts showed (tests/benchmarks/results/diagnosis_factory_first.txt: 4 of 10, and 0 of 17).
_CONFIDENCE = ((3.0, 0.9), (2.0, 0.75), (BUILT[0], 0.6), (1.0, 0.5), (0.0, 0.45))
_RIVALLED = 0.67  # where another category is as strong
_ENDED_WELL, _WENT_ON, _NOTHING_SAID = 0.85, 0.6, 0.4  # a failure may stand behind the end of a text that is cut off


def diagnose_lines(lines: Sequence[Line], rules: Rules) -> Diagnosis:
    """The recipe."""
    reading = read(lines, rules)
    ranked = rank(reading.hits)
    well = survived(reading, ranked, rules)
    if not well and ranked and ranked[0].strength != PASSED:  # what was dealt with does not explain the end
        return decided(reading, ranked)
    broke = unexplained(reading, rules)
    if broke is not None:
        return by_its_words(reading, broke, rules)
    return healthy(reading, rules) if well and not cut_off(lines, reading.kinds) else undecided(reading)


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


def decided(reading: Reading, ranked: Sequence[Hit]) -> Diagnosis:
    best, others = ranked[0], ranked[1:]
    sure = _confidence(best, reading.hits, others)
    its = [
        hit
        for hit in reading.hits
        if (hit.cause.category, hit.cause.id) == (best.cause.category, best.cause.id) and not hit.soft
    ]
    evidence = [_evidence(hit.line) for hit in _distinct([best, *its])[:MOST_EVIDENCE]]
    links = chain(best, ranked, reading.consequences)
    summary = _summary(best, reading)
    waits = best.cause.category == "collective_hang" and missing_rank(reading.lines, reading.kinds, its)
    if waits:
        evidence.insert(0, _evidence(waits))
        links = (
            _link(waits, f"rank {waits.rank} did not come to the collective", best.cause.id, "cause"),
            *_then(links),
        )
        summary += f" The others waited for rank {waits.rank}, whose last line is {waits.number}."
    return Diagnosis(
        category=best.cause.category,
        cause=best.cause.id,
        confidence=round(sure, 2),
        summary=summary,
        evidence=tuple(evidence),
        chain=links,
        fix=tuple(Fix(*fix) for fix in best.cause.fixes),
        checks=_checks(best.cause),
        alternatives=_alternatives(best, others, sure),
    )


def undecided(reading: Reading, broke: Line | None = None) -> Diagnosis:
    checks = (
        Check("mlsys diagnose FOLDER-OF-ALL-RANKS", "the cause is in an earlier part, or in the log of another rank"),
        Check("sudo dmesg -T | tail -100", "whether the kernel or the GPU driver stopped it", probe="kernel_log"),
    )
    said = reading.consequences[0].event if reading.consequences else "it ended"
    summary = f"Cannot tell from this: {said}, and what went before is not in the text."
    if broke:
        summary = f"Cannot tell from this: line {broke.number} says that something broke, and no rule knows it."
    events = tuple(_link(e.line, e.event, None, "consequence") for e in _first_events(reading.consequences))
    return Diagnosis(
        None,
        None,
        0.0,
        summary,
        tuple(
            _evidence(line) for line in ([broke] if broke else [e.line for e in reading.consequences[:MOST_EVIDENCE]])
        ),
        events,
        checks=checks,
    )


def by_its_words(reading: Reading, index: int, rules: Rules) -> Diagnosis:
    """Of a line that says that something broke: what a rule takes it for that would not trust it alone, else what its
    words speak for where they are plain; with little confidence."""
    soft = [hit for hit in reading.hits if hit.index == index]
    hit = max(soft, key=lambda hit: (hit.strength, hit.specific), default=None)
    hit = hit or built(reading.lines, reading.kinds, index, "", rules)
    if not soft and hit.strength < BUILT[0]:
        return undecided(reading, hit.line)
    hit = replace(hit, soft=False, strength=1.0)
    return decided(replace(reading, hits=[hit]), [hit])


def healthy(reading: Reading, rules: Rules) -> Diagnosis:
    texts = [line.text for line in reading.lines]
    ended = any(ended_well(text, rules) for text in texts)
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


def _then(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The same events, all of them as what followed."""
    return tuple(replace(link, role="consequence") for link in links)


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
    of = f" of {best.line.source}" if best.line.source else ""
    return f"{said} First seen in line {best.line.number}{of}" + (f" ({where})." if where else ".")


def _checks(cause: Cause) -> tuple[Check, ...]:
    return tuple(Check(command, why, probe=probe) for command, why, probe in cause.checks)


def _distinct(found: Sequence[Hit]) -> list[Hit]:
    seen: set[int] = set()
    return [hit for hit in found if not (hit.index in seen or seen.add(hit.index))]


def _evidence(line: Line) -> Evidence:
    return Evidence(line.source or None, line.number, line.rank, line.host, line.time, line.text.strip()[:LONGEST_TEXT])


def _link(line: Line, event: str, cause: str | None, role) -> Link:
    return Link(event, cause, line.rank, line.host, line.time, line.number, role)
