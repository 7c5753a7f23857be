"""Which lines speak for which cause, and how loudly.

A signal counts for what its tier says, less where the line itself says that nothing is wrong: a warning, a retry, a
plain line without a word of failure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .bounded import TooSlow
from .endings import MEANS, ending
from .lines import Line
from .rules import Cause, Rules, Signal
from .tracebacks import Kind, cut_off, exception_of
from .unknown import between_packages, frames_above, guess

NEAR_BEFORE, NEAR_AFTER = 60, 12  # lines in which a signal's second pattern is looked for
STRENGTH = {"certain": 3.0, "likely": 2.0, "hint": 1.0, "symptom": 0.6, "echo": 0.5}
LEAST = STRENGTH["echo"]  # below it, a hit says nothing
BARE = 1.5  # an exception's type, where its message says nothing for the same cause
TELLING, BUILT = (
    2.0,
    (1.6, 1.3),
)  # points of a guess by how the exception is built; its strength from there on, and below
CUT = 1.4  # what the frames of a traceback speak for that breaks off before its exception
UNKNOWN = 0.9  # an exception of which nothing is known
_FRAMES = 2.3  # just above the type of an exception: a KeyError within load_weights is one of the checkpoint
_NUMBERS = str.maketrans("", "", "0123456789.")
_ECHOES = ("likely", "hint", "consequence")  # what a line that only reports another's failure does not count for
_LOOKUPS = (  # control flow, where caught
    "KeyError", "AttributeError", "IndexError", "StopIteration", "LookupError", "JSONDecodeError", "UnicodeDecodeError",
)  # fmt: skip
QUIET = ("warning", "info", "debug")  # levels
# An import that fails speaks for what is installed; other words in it are names of modules.
_IMPORTS = ("ModuleNotFoundError",)
_OF_IMPORTS = ("missing_dependency", "version_mismatch")
# What a line gives as the reason for what it reports: the reason is what counts.
_BECAUSE = re.compile(
    r"(?:\b(?:original|root|underlying) (?:reason|cause|error|exception)\b[^:\n]{0,40}|\bcaused by|\bbecause of the following \w+[^:\n]{0,40}): *(?=\S)",
    re.IGNORECASE,
)
_QUOTED = re.compile(r"'[^']{1,200}'\s*")  # what str() gives of a KeyError, where a logger prints no type
_HEADER = "Traceback (most recent"
_RAISES = re.compile(r"\braise ([\w.]+)")
LAST_ERROR = "Last error:"  # after it NCCL says what it met
_HANDLING = "During handling of the above exception"
_SOFT = 2.0  # what is taken off for a warning, and for a line without a word of failure
_RAISED = 0.25  # what is added where the program itself raised it, or the kernel, NCCL or the scheduler says so

_FAILURE_WORDS = re.compile(
    r"error|fail|exception|fatal|abort|cannot|can.t|could ?n.t|could not|unable|traceback|kill|denied|refused|timed? ?out|timeout"
    r"|not found|invalid|unsupported|not supported|mismatch|out of|crash|fault|bus error|throttl|slow(ed)?.?down|slow link|degrad|overheat|lost|corrupt|missing|no such|assert|panic|terminat|exceed"
    r"|unexpected| down\b|hang|hung|stuck|broken|reset|unreachable|unknown|incompatib|too |does(n.t| not)|NVRM|Xid|NCCL WARN|cancel|preempt|must |not |nan\b|exit|illegal|low on|diverg|explod|collaps|\bstall|delet|evict|reclaim",
    re.IGNORECASE,
)
# An option with its help, a variable with its value: they name failures that have not happened. What an ended process
# left (exit code, state, reason) has the same form.
SETTING = re.compile(
    r"^\s*(?:-{1,2}\w[\w-]*(?:[ ,=]|$)|(?:export )?(?:[A-Z][A-Z0-9_]+=\S*\s*)+$"
    r"|(?![^:=]{0,40}\b(?:was|were|has|had|have|did|does|not)\b)(?!.{0,40}(?:exit|reason|state|status|error|signal|exception|cause|message|result|traceback|event|what\(\)|killed|code|xid|slowdown|thermal))"
    r"['\"]?[A-Za-z_][\w ./-]{0,40}['\"]?(?:\s*[:=]\s*(?:[\w.+*\"'-]{1,24}|[\[{(][\])}]?)(?:[,;]\s*[A-Za-z_][\w ./-]{0,40}(?=[:=])|[,;]?\s*$))+$)",
    re.IGNORECASE,
)
_NAMES_ITS_TYPE = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b")  # a warning above a traceback that is about it
_LOUD = re.compile(
    r"NVRM|Watchdog caught|link status|^EXT4-fs|Xid(?!: 0 )|NCCL WARN|oom.?kill(?!\w*[ :=]+0\b)|[Oo]ut of memory: Kill|The actor is dead because its worker|slurmstepd|srun: error|^\*\*\*|blocked for more than|terminate called|what\(\):|^Segmentation fault|^Bus error|^Fatal Python error"
)


@dataclass(frozen=True, slots=True)
class Hit:
    line: Line
    index: int  # of the line among those read
    cause: Cause
    strength: float
    specific: int  # letters of the line that the pattern names
    soft: bool  # a warning at most
    exception: str  # its type, where the line is one


@dataclass(frozen=True, slots=True)
class Consequence:
    line: Line
    index: int
    event: str


def hits(lines: Sequence[Line], kinds: Sequence[Kind], rules: Rules) -> tuple[list[Hit], list[Consequence]]:
    """In the order of the lines."""
    found: list[Hit] = []
    consequences: list[Consequence] = []
    silent: set[str] = set()
    ignored: set[tuple[str, int | None]] = set()  # who is about to print an exception of a finalizer
    speaking: set[tuple[str, int | None]] = set()  # whose last lines are the message of an exception
    for index, (line, kind) in enumerate(zip(lines, kinds, strict=True)):
        who = (line.source, line.rank)
        if "Exception ignored in" in line.text:
            ignored.add(who)
        elif kind == "exception" and who in ignored:
            ignored.remove(who)
            continue
        if kind == "exception" and exception_of(line.text, last=True):
            speaking.add(who)
        elif line.text[:1].strip():  # a message's further lines are indented
            speaking.discard(who)
        if kind == "header":  # a logger's message may stand before it
            line = replace(line, text=line.text.partition(_HEADER)[0].rstrip(" ,:"))
        elif _QUOTED.fullmatch(line.text) and kinds[index + 1 : index + 2] == ["header"]:
            line = replace(line, text=f"KeyError: {line.text}")
        if kind in ("frame", "source", "noise") or not line.text:
            continue
        # Metrics fill a log with one line in other numbers: where it said nothing once, it says nothing again.
        template = line.text.translate(_NUMBERS) if "loss" in line.text else None
        if template in silent:
            continue
        matched = _reason(line.text, rules) or _matched(line.text, rules)
        if template and not matched:
            silent.add(template)
        events = [signal.cause.id for signal, _ in matched if signal.tier == "consequence"]
        exception = exception_of(line.text, last=kind == "exception") if matched or kind == "exception" else None
        if matched and not exception and rules.planned.search(line.text):
            continue
        if events:
            consequences.append(Consequence(line, index, min(events, key=rules.events.index)))
        its = [(signal, named) for signal, named in matched if not (events and signal.tier in _ECHOES)]
        if exception and exception[0] in _LOOKUPS and _replaced(lines, index):
            its = [(signal, named) for signal, named in its if signal.tier == "certain"]
            if not its:
                continue
        told = kinds[index + 1 : index + 2] == ["header"] and _NAMES_ITS_TYPE.search(line.text)
        raised = who in speaking or bool(told) or lines[max(0, index - 1)].text.startswith(LAST_ERROR)
        found_here = _judged(line, lines, index, its, exception, raised, rules) if its else []
        if exception and not (events and not found_here):
            says = {hit.strength for hit in found_here}
            if max(says, default=0) < _FRAMES:
                found_here += _of_frames(lines, kinds, index, exception[0], rules)
            if max((hit.strength for hit in found_here), default=0) <= BARE and min(says, default=1) >= 1:
                found_here.append(built(lines, kinds, index, exception[0], rules))
        if not found_here and (cause := _by_ending(line, rules)):
            found_here = [Hit(line, index, cause, STRENGTH["symptom"], 0, False, "")]
        found += found_here
    for index in cut_off(lines, kinds):
        found += _of_cut(lines, kinds, index, rules)
    return found, consequences


def _replaced(lines: Sequence[Line], index: int) -> bool:
    """Did its handler raise another in its place, which says what the failed look-up means?"""
    return any(line.text.startswith(_HANDLING) for line in lines[index + 1 : index + 4])


def _reason(text: str, rules: Rules) -> list[tuple[Signal, int]]:
    because = _BECAUSE.search(text)
    return _matched(text[because.end() :], rules) if because else []


def _matched(text: str, rules: Rules) -> list[tuple[Signal, int]]:
    found = []
    for signal, named in rules.index.candidates(text):
        try:
            if signal.match(text) is not None:
                found.append((signal, named))
        except TooSlow:
            rules.dropped.append(f"the pattern {signal.line[:60]!r} was too slow, and is left out")
    for signal in [each for each in rules.index.foreign if f"{each.line[:60]!r}" in "".join(rules.dropped)]:
        rules.index.remove(signal)
    return found


def _judged(
    line: Line,
    lines: Sequence[Line],
    index: int,
    matched: list[tuple[Signal, int]],
    exception: tuple[str, str] | None,
    raised: bool,
    rules: Rules,
) -> list[Hit]:
    """One hit a cause, each as strong as its tier and the line's own tone allow."""
    said = raised or bool(_LOUD.search(line.text))
    loud = exception is not None or line.level == "error" or line.native or said
    if (not loud or (line.native and line.level != "error")) and rules.benign.search(line.text):
        return []
    if not loud and SETTING.match(line.text):
        return []
    quiet = line.level in QUIET and exception is None and not line.native and not said
    failing = bool(_FAILURE_WORDS.search(line.text))
    if quiet and line.level == "info" and not failing:
        return []
    soft = quiet or (
        not loud and (not failing or any(each.search(line.text) for each in (rules.handled, rules.instead)))
    )
    best: dict[tuple[str, str], Hit] = {}
    for signal, named in matched:
        if signal.near_pattern and not signal.near_pattern.search(_near(lines, index)):
            continue
        strength = STRENGTH[signal.tier]
        if exception and signal.tier == "likely" and signal.match(exception[1]) is None:
            strength = BARE - _RAISED
        if exception and exception[0] in _IMPORTS and signal.cause.category not in _OF_IMPORTS:
            strength = STRENGTH["hint"]
        if signal.tier not in ("symptom", "echo"):
            strength += _RAISED if loud and not soft else 0
            strength -= _SOFT if soft else 0
        specific = named + 10 * bool(signal.near)
        hit = Hit(line, index, signal.cause, strength, specific, soft, exception[0] if exception else "")
        key = (signal.cause.category, signal.cause.id)
        if key not in best or (hit.strength, hit.specific) > (best[key].strength, best[key].specific):
            best[key] = hit
    return list(best.values())


def _by_ending(line: Line, rules: Rules) -> Cause | None:
    """What the signal or the exit code that the line tells of speaks for, where nothing more is said."""
    means = MEANS.get(ending(line.text) or 0)
    if means is None or line.level in ("info", "debug"):
        return None
    return None if rules.benign.search(line.text) or rules.planned.search(line.text) else rules.cause(*means)


def built(lines: Sequence[Line], kinds: Sequence[Kind], index: int, exception: str, rules: Rules) -> Hit:
    """Of an exception that no rule knows: what its type, its words and its frames speak for."""
    line, named = lines[index], guess(lines, kinds, index, rules)
    if named is None:
        return Hit(line, index, rules.cause("code_error", "invalid_argument"), UNKNOWN, 0, False, exception)
    telling, little = BUILT
    strength = telling if named.points >= TELLING else little
    return Hit(line, index, rules.cause(named.category, named.cause), strength, 0, False, exception)


def _of_frames(lines: Sequence[Line], kinds: Sequence[Kind], index: int, exception: str, rules: Rules) -> list[Hit]:
    """What the traceback above an exception speaks for: the innermost frame that says anything, or two packages that do
    not fit."""
    frames = frames_above(lines, kinds, index)
    cause = _by_frames(frames, rules)
    if cause is None and between_packages(lines[index].text, frames):
        cause = rules.cause("version_mismatch", "incompatible_package_versions")
    return [Hit(lines[index], index, cause, _FRAMES, 0, False, exception)] if cause else []


def _of_cut(lines: Sequence[Line], kinds: Sequence[Kind], index: int, rules: Rules) -> list[Hit]:
    """What a traceback speaks for that breaks off before its exception: what its last line was about to raise, else its
    frames."""
    frames = frames_above(lines, kinds, index, cut=True)
    raises = _RAISES.search(frames[0]) if frames else None
    matched = _matched(f"{raises[1]}: ", rules) if raises else []
    if any(signal.tier == "consequence" for signal, _ in matched):
        return []
    causes = {
        signal.cause: named for signal, named in matched if signal.tier in ("certain", "likely") and not signal.near
    }
    if not causes and (cause := _by_frames(frames, rules)):
        causes = {cause: 0}
    return [Hit(lines[index], index, cause, CUT, named, False, "") for cause, named in causes.items()]


def _by_frames(frames: Sequence[str], rules: Rules) -> Cause | None:
    text = "\n".join(reversed(frames))
    best: tuple[int, Signal] | None = None
    for signal in rules.frames:
        for found in signal.pattern.finditer(text):
            if best is None or found.start() > best[0]:
                best = (found.start(), signal)
    return best[1].cause if best else None


def _near(lines: Sequence[Line], index: int) -> str:
    around = lines[max(0, index - NEAR_BEFORE) : index + NEAR_AFTER]
    return "\n".join(line.text for line in around if line.source == lines[index].source)
