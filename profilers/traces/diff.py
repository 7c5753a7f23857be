"""What got slower between two traces, in rows that add up to the difference.

A span is compute, plus copies and communication that compute does not hide, plus idle time by cause. Compute is the sum of
its kernels less what ran at the same time: with that as a row of its own, kernels add up as well.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..views.sheet import Figures, Grid, Row, Sheet, Shown
from ..views.units import duration, grown
from .explaining import Explained
from .kernels import short

SCHEMA_VERSION = 1
MOST = 20  # rows on a page; the JSON has them all
Key = tuple[str, str]  # (class, what)


@dataclass(frozen=True, slots=True)
class Change:
    """One row, ns a step (a trace, where steps are not marked in both)."""

    kind: str  # "kernel" | "at the same time" | "exposed" | "idle"
    what: str
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class TraceDiff(Shown):
    """`changes`, the largest first, add up to the difference of the spans."""

    before: Explained
    after: Explained
    per: str  # "step" | "trace"
    changes: tuple[Change, ...]

    def to_json(self) -> str:
        rows = [{"class": c.kind, "what": c.what, "before_us": c.before / 1000, "after_us": c.after / 1000,
                 "change_us": c.change / 1000} for c in self.changes]  # fmt: skip
        total = {"before_us": self._span(self.before) / 1000, "after_us": self._span(self.after) / 1000}
        return json.dumps({"schema_version": SCHEMA_VERSION, "before": self.before.path, "after": self.after.path,
                           "per": self.per, **total, "changes": rows}, indent=1)  # fmt: skip

    def sheet(self) -> Sheet:
        before, after = self._span(self.before), self._span(self.after)
        whole = Row(f"a {self.per}", f"{_signed(after - before)}", f"{duration(before)} became {duration(after)}, {grown(after / before)}" if before else "")  # fmt: skip
        shown = self.changes[:MOST]
        rows = [(c.kind, short(c.what), duration(c.before), duration(c.after), _signed(c.change)) for c in shown]
        if rest := sum(c.change for c in self.changes[MOST:]):
            rows.append(("", f"{len(self.changes) - MOST} smaller changes", "", "", _signed(rest)))
        return Sheet(
            f"{Path(self.before.path).name} → {Path(self.after.path).name}",
            "Rows add up to the whole; kernels are sums of their runs.",
            (
                Figures("", (whole,)),
                Grid("What changed", ("class", "what", "before", "after", "change"), tuple(rows), left=2),
            ),
            (*(f"before: {w}" for w in self.before.warnings), *(f"after: {w}" for w in self.after.warnings)),
        )

    def _span(self, e: Explained) -> float:
        return e.span_ns / (len(e.steps_ns) if self.per == "step" else 1)


def diff(before: Explained, after: Explained) -> TraceDiff:
    """Of two traces of the same program: a step of each if both mark steps."""
    per = "step" if before.steps_ns and after.steps_ns else "trace"
    parts = [(_parts(e), len(e.steps_ns) if per == "step" else 1) for e in (before, after)]
    (old, n), (new, m) = parts
    changes = [Change(*key, old[key] / n, new[key] / m) for key in {**old, **new} if old[key] or new[key]]
    return TraceDiff(before, after, per, tuple(sorted(changes, key=lambda c: (-abs(c.change), c.what))))


def _parts(e: Explained) -> Counter[Key]:
    """The span of one trace, in parts that add up to it."""
    parts: Counter[Key] = Counter()
    for k in e.kernels:
        if k.kind == "compute":
            parts["kernel", k.name] += k.nanoseconds
    inside = sum(parts.values())
    if not inside:  # a CPU: its operators are not told apart
        inside = parts["busy", "operators"] = e.compute_ns
    parts["at the same time", "kernels beside kernels"] = e.compute_ns - inside
    parts["exposed", "copies and communication"] = e.busy_ns - e.compute_ns
    for cause, ns in e.idle.items():
        parts["idle", cause] = ns
    return parts


def _signed(ns: float) -> str:
    return f"{'+' if ns > 0 else ''}{duration(ns)}"
