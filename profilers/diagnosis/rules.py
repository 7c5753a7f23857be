"""The knowledge base: causes, and the signals by which each shows itself in a text.

One TOML file a category in `data/`; a user's own file has the same form:

    category = "storage_io"                 # one of the taxonomy's, or your own
    [[cause]]
    id = "tape_robot_stuck"
    summary = "The tape robot is stuck."
    certain = ['robot arm E\\d+ not homed']  # the line says it itself
    likely = ['tape mount timed out']       # most often this
    hint = ['tape']                         # compatible; decides only where nothing better is known
    symptom = ['waiting for volume']        # what others show when this happens; gives way to any other cause
    echo = ['volume closed by peer']        # another's end, as its neighbours see it; gives way to symptoms too
    frames = ['in mount_tape']              # in the traceback of an exception that says little itself
    fix = [["Home the arm.", "tapectl home"]]
    check = [["tapectl status", "the arm's position"]]

Patterns are regular expressions without regard to case. A table `{line = …, with = …, unless = …}` asks for a second
pattern near the line, or for its absence on it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from ..errors import UsageError
from .bounded import refused, search
from .literals import required_literals

Tier = Literal["certain", "likely", "hint", "symptom", "echo", "frames", "consequence"]
TIERS: tuple[Tier, ...] = ("certain", "likely", "hint", "symptom", "echo", "frames")  # of a cause
DATA = Path(__file__).with_name("data")
LONGEST_PATTERN = 2000  # characters
_GRAM = 3  # letters by which a line finds the patterns that may match it


@dataclass(frozen=True, slots=True)
class Cause:
    category: str
    id: str
    summary: str
    fixes: tuple[tuple[str, str], ...]  # (text, command)
    checks: tuple[tuple[str, str, str], ...]  # (command, why, name of the probe that runs it, or "")
    source: str


@dataclass(frozen=True, slots=True)
class About:
    """What an exception that no rule knows is about, as its type, its message and its frames show."""

    category: str
    cause: str
    types: re.Pattern[str]
    words: re.Pattern[str]
    places: re.Pattern[str]


@dataclass(frozen=True, eq=False)
class Signal:
    """A pattern and what it speaks for."""

    cause: Cause
    tier: Tier
    line: str
    near: str = ""
    unless: str = ""
    foreign: bool = False  # a user's: searched within a bounded time

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(self.line, re.IGNORECASE)

    @cached_property
    def near_pattern(self) -> re.Pattern[str] | None:
        return re.compile(self.near, re.IGNORECASE) if self.near else None

    @cached_property
    def unless_pattern(self) -> re.Pattern[str] | None:
        return re.compile(self.unless, re.IGNORECASE) if self.unless else None

    def match(self, text: str) -> str | None:
        """What of the line matches."""
        found = search(self.pattern, text) if self.foreign else self.pattern.search(text)
        if found is None or (self.unless_pattern and self.unless_pattern.search(text)):
            return None
        return found[0]


class Index:
    """Patterns by three letters that a line must hold: of some 2,000 only a few are tried on a line."""

    def __init__(self, signals: Iterable[Signal]) -> None:
        self.always: list[Signal] = []
        signals = list(signals)
        self.foreign = [signal for signal in signals if signal.foreign]
        self._grams: dict[str, list[tuple[str, Signal]]] = {}
        literals = [(signal, required_literals(signal.line)) for signal in signals]
        count: dict[str, int] = {}
        for _, any_of in literals:
            for literal in any_of:
                for gram in _grams(literal):
                    count[gram] = count.get(gram, 0) + 1
        for signal, any_of in literals:
            if not any_of:
                self.always.append(signal)
            for literal in any_of:
                rarest = min(_grams(literal), key=lambda gram: count[gram])
                self._grams.setdefault(rarest, []).append((literal, signal))

    def candidates(self, text: str) -> Iterator[tuple[Signal, int]]:
        """Signals that may match, with how many letters of the line they name: the more, the more specific."""
        lower = text.lower()
        found: dict[Signal, int] = dict.fromkeys(self.always, 0)
        for gram in _grams(lower) & self._grams.keys():
            for literal, signal in self._grams[gram]:
                if literal in lower:
                    found[signal] = max(found.get(signal, 0), len(literal))
        yield from found.items()

    def remove(self, signal: Signal) -> None:
        """From now on it is not tried."""
        self.always = [each for each in self.always if each is not signal]
        self.foreign = [each for each in self.foreign if each is not signal]
        for gram, its in self._grams.items():
            self._grams[gram] = [pair for pair in its if pair[1] is not signal]


@dataclass(frozen=True, slots=True)
class Rules:
    causes: tuple[Cause, ...]
    index: Index
    frames: tuple[Signal, ...]
    about: tuple[About, ...]
    dropped: list[str]  # sentences on a user's patterns that took too long
    events: tuple[str, ...]  # what consequences are called, the most telling first
    progress: re.Pattern[str]
    finished: re.Pattern[str]
    handled: re.Pattern[str]
    benign: re.Pattern[str]
    planned: re.Pattern[str]
    instead: re.Pattern[str]

    def cause(self, category: str, id: str) -> Cause:
        return next(cause for cause in self.causes if (cause.category, cause.id) == (category, id))


@lru_cache(maxsize=4)
def rules(extra: tuple[Path, ...] = ()) -> Rules:
    """Ours, with those of the user's files."""
    causes: list[Cause] = []
    signals: list[Signal] = []
    about: list[About] = []
    for path in (*sorted(DATA.glob("*.toml")), *extra):
        if path.name in ("consequences.toml", "healthy.toml"):
            continue
        table = _table(path)
        for cause, its in _causes(table, path):
            causes.append(cause)
            signals += its
        if path.parent == DATA:
            about.append(_about(table))
    healthy = _table(DATA / "healthy.toml")
    events = _table(DATA / "consequences.toml")["consequence"]
    for event in events:
        happened = Cause("", event["event"], "", (), (), "")
        signals += [Signal(happened, "consequence", line) for line in event["lines"]]
    return Rules(
        tuple(causes),
        Index(signal for signal in signals if signal.tier != "frames"),
        tuple(signal for signal in signals if signal.tier == "frames"),
        tuple(about),
        [],
        tuple(event["event"] for event in events),
        *(_any(healthy[key]) for key in ("progress", "finished", "handled", "benign", "planned", "instead")),
    )


def _causes(table: dict[str, Any], path: Path) -> Iterator[tuple[Cause, list[Signal]]]:
    try:
        category = str(table["category"])
        for row in table["cause"]:
            fixes = tuple((str(text), str(command)) for text, command in row.get("fix", []))
            checks = tuple(
                (str(command), str(why), str(probe[0]) if probe else "")
                for command, why, *probe in row.get("check", [])
            )
            cause = Cause(category, str(row["id"]), str(row["summary"]), fixes, checks, str(row.get("source", "")))
            yield cause, [_signal(cause, tier, each, path) for tier in TIERS for each in row.get(tier, [])]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not a file of rules ({type(error).__name__}: {error}); see profilers/diagnosis/rules.py"
        ) from None


def _about(table: dict[str, Any]) -> About:
    its = table["about"]
    words = re.compile(its["words"], re.IGNORECASE)
    return About(table["category"], its["cause"], re.compile(its["types"]), words, re.compile(its["places"]))


def _signal(cause: Cause, tier: Tier, given: str | dict[str, str], path: Path) -> Signal:
    parts = {"line": given} if isinstance(given, str) else given
    foreign = path.parent != DATA
    for pattern in parts.values() if foreign else ():
        if why := refused(pattern) or ("longer than 2,000 letters" if len(pattern) > LONGEST_PATTERN else ""):
            raise UsageError(f"{path}: the pattern {why}")
    return Signal(cause, tier, parts["line"], parts.get("with", ""), parts.get("unless", ""), foreign)


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name a file of rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML ({error})") from None


def _any(patterns: list[str]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


def _grams(text: str) -> set[str]:
    return {text[i : i + _GRAM] for i in range(len(text) - _GRAM + 1)}
