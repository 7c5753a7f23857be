"""Did work go on, or end well, after what looked like a failure?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .case import STEPS, Reading
from .endings import ending
from .hits import LEAST, QUIET, SETTING, Hit
from .lines import Line
from .rules import Rules

LEFTOVERS = "resources were left behind"  # by a run that ended, well or not
_ENDED = re.compile(
    r"^\S+: error: |^error: |can't open file|Fatal Python error|^Segmentation fault|^Bus error|^Killed|^KeyboardInterrupt"
)
# What no healthy line says of its own run.
_BROKE = re.compile(
    r"\berrors?(?=:| (?:occur|while|during|in|when|at|code|loading|running)\b)|\b(?:failed|failures?|fails|fatal|abort(?:ed|ing)?|crash(?:ed|es)?|killed|denied|refused|terminated|panic|died|evicted|deleted|stalled|hung|stuck|exception"
    r"|unreachable|cannot|could not|couldn.t|unable to|not found|no such|timed out|out of memory|corrupt(?:ed)?|lost|exceeded|segfault|core dumped)\b"
    r"|(?-i:\b[A-Z]\w*(?:Error|Exception)\b|\bFAIL\b)",
    re.IGNORECASE,
)
_WARNS = re.compile(r".{0,40}\bwarn(?:ing|s)?\b", re.IGNORECASE)
_LAST_LINES = 1000  # in which an unexplained failure is looked for
_LONGEST_TRACEBACK = 300  # lines


def survived(reading: Reading, ranked: Sequence[Hit], rules: Rules) -> bool:
    """Did work go on, or end well, after the last thing that looked like a failure? Or was it over before?"""
    real = [hit for hit in reading.hits if not hit.soft and hit.strength >= LEAST]
    last = max((hit.index for hit in real), default=-1)
    if reading.note:  # the metrics were judged by their whole course
        return False
    if ranked and ranked[0].cause.id == "user_cancelled":
        return any(ended_well(line.text, rules) for line in reading.lines[: ranked[0].index])
    ends = [event.index for event in reading.consequences if event.event != LEFTOVERS]
    over = max([last, *ends])
    if over < 0:
        return True
    who = reading.lines[over]
    rest = zip(reading.lines[over + 1 :], reading.kinds[over + 1 :], strict=True)
    after = [line.text for line, kind in rest if (line.source, line.rank) == (who.source, who.rank) and kind == "log"]
    if any(ended_well(text, rules) for text in after):
        return True
    if over > last or _uncaught(reading, last):
        return False
    progress = sum(bool(rules.progress.search(text)) for text in after)
    handled = any(rules.handled.search(line.text) for line in reading.lines[max(0, last - 12) : last + 6])
    warned = reading.lines[last].level == "warning"
    return progress >= STEPS or ((handled or warned) and progress >= 1)


def ended_well(text: str, rules: Rules) -> bool:
    """Does the line say that it ended well? What finished with an exit code other than 0 did not."""
    return bool(rules.finished.search(text)) and not ending(text)


def unexplained(reading: Reading, rules: Rules) -> int | None:
    """The first line that says plainly that something broke, that no rule explains, and after which neither work nor a
    good end is told. Records below an error, settings, and what is told to be dealt with do not count."""
    known = {hit.index for hit in reading.hits if not hit.soft} | {event.index for event in reading.consequences}
    found: int | None = None
    within = ""  # the level of the record that indented lines go on with
    start = max(0, len(reading.lines) - _LAST_LINES)
    for index, (line, kind) in enumerate(zip(reading.lines[start:], reading.kinds[start:], strict=True), start):
        if kind not in ("log", "exception") or not line.text.strip():
            continue
        within = line.level or (within if line.text[0].isspace() else "")
        badly = bool(ending(line.text)) and not rules.planned.search(line.text)
        if found is None:
            if index not in known and within not in QUIET and (badly or _broke(line, rules)):
                found = index
        elif not badly and (rules.progress.search(line.text) or ended_well(line.text, rules)):
            found = None
    return found


def _broke(line: Line, rules: Rules) -> bool:
    if not _BROKE.search(line.text) or SETTING.match(line.text) or _WARNS.match(line.text):
        return False
    return not any(each.search(line.text) for each in (rules.benign, rules.planned, rules.handled, rules.instead))


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
