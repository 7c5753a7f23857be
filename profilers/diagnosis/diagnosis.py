"""What a diagnosis says: the first cause, what proves it, what followed, what to do, and what else it could be.

`category` is None where the text does not decide (then `checks` say how to), and "healthy" where nothing failed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from ..views.sheet import Figures, Grid, Part, Row, Sheet, Shown

SCHEMA = 1
HEALTHY = "healthy"
Verdict = Literal["confirmed", "refuted", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A line of the input: its number is 1-based in the original."""

    source: str | None
    line: int
    rank: int | None
    host: str | None
    time: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Link:
    """One event of the chain from the first cause to the end of the job."""

    event: str
    cause: str | None
    rank: int | None
    host: str | None
    time: str | None
    line: int
    role: Literal["cause", "consequence"]


@dataclass(frozen=True, slots=True)
class Fix:
    text: str
    command: str


@dataclass(frozen=True, slots=True)
class Check:
    """`result` is None until it was run; `probe` names what `--check` runs, if anything can be run from here."""

    command: str
    why: str
    result: Verdict | None = None
    found: str = ""
    probe: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    category: str
    cause: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Diagnosis(Shown):
    """Shows itself as text of 80 columns, as HTML, and as JSON of a fixed schema."""

    category: str | None
    cause: str | None
    confidence: float
    summary: str
    evidence: tuple[Evidence, ...] = ()
    chain: tuple[Link, ...] = ()
    fix: tuple[Fix, ...] = ()
    checks: tuple[Check, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    notes: tuple[str, ...] = ()  # what was not read, or not wholly

    def to_json(self) -> str:
        fields = asdict(self)
        del fields["notes"]
        fields["checks"] = [
            {"command": c.command, "why": f"{c.why}; {c.found}" if c.found else c.why, "result": c.result}
            for c in self.checks
        ]
        return json.dumps({"schema": SCHEMA, **fields}, indent=1)

    def with_checks(self, checks: tuple[Check, ...]) -> Diagnosis:
        return replace(self, checks=checks)

    def sheet(self) -> Sheet:
        parts: list[Part] = []
        if self.chain:
            heads = ("", "rank", "host", "time", "line", "event")
            rows = tuple(
                (
                    "first" if link.role == "cause" else "then",
                    _said(link.rank),
                    _said(link.host),
                    _said(link.time),
                    str(link.line),
                    link.event,
                )
                for link in self.chain
            )
            parts.append(Grid("What happened", heads, rows, left=6))
        if self.evidence:
            rows = tuple(Row(_place(each), "", each.text) for each in self.evidence)
            parts.append(Figures("Evidence", rows))
        if self.fix:
            parts.append(
                Figures("What to do", tuple(_rows((f"{n}", f.text, f.command) for n, f in enumerate(self.fix, 1))))
            )
        if self.checks:
            said = ((check.result or "to run", check.found or check.why, check.command) for check in self.checks)
            parts.append(Figures("Checks", tuple(_rows(said))))
        if self.alternatives:
            rows = tuple((f"{a.category} / {a.cause}", f"{a.confidence:.0%}") for a in self.alternatives)
            parts.append(Grid("It could also be", ("", ""), rows))
        return Sheet(_title(self), self.summary, tuple(parts), self.notes)


def _title(d: Diagnosis) -> str:
    if d.category is None:
        return "Diagnosis: cannot tell from this; the checks below decide"
    if d.category == HEALTHY:
        return f"Diagnosis: healthy, nothing failed here ({d.confidence:.0%} sure)"
    return f"Diagnosis: {d.category} / {d.cause} ({d.confidence:.0%} sure)"


def _place(each: Evidence) -> str:
    where = f"{each.source} " if each.source else ""
    return f"{where}line {each.line}" + (f", rank {each.rank}" if each.rank is not None else "")


def _rows(given: Iterable[tuple[str, str, str]]) -> Iterator[Row]:
    """A command has its line, from which it can be copied."""
    for label, text, command in given:
        yield Row(label, "", text)
        if command:
            yield Row("", "", command)


def _said(value: Any) -> str:
    return "" if value is None else str(value)
