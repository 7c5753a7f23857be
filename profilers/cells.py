"""The account being filled: phase x cause in whole nanoseconds, each with what it consists of."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .ledger import CAUSES, PHASES, Entry, Evidence


@dataclass(slots=True)
class Cells:
    """Cells being filled, with their evidence. `add` is the only way in."""

    sums: Counter = field(default_factory=Counter)
    evidence: dict[tuple[str, str], Counter] = field(default_factory=lambda: defaultdict(Counter))
    counts: dict[tuple[str, str], Counter] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, phase: str, cause: str, ns: int, what: str) -> None:
        if ns:
            self.sums[phase, cause] += ns
            self.evidence[phase, cause][what] += ns
            self.counts[phase, cause][what] += 1

    def move(self, phase: str, source: str, target: str, ns: int, what: str) -> int:
        """At most `ns` from one cause of a phase to another; returns what was moved."""
        taken = max(0, min(ns, self.sums[phase, source]))
        self.sums[phase, source] -= taken
        self.add(phase, target, taken, what)
        return taken

    def entries(self, wall: int, most: int = 5) -> tuple[Entry, ...]:
        """In printing order; refuses an account that does not add up."""
        if min(self.sums.values(), default=0) < 0 or sum(self.sums.values()) != wall:
            raise AssertionError(f"cells sum to {sum(self.sums.values())} ns of {wall} ns: {dict(self.sums)}")
        order = list(CAUSES)
        keys = sorted((k for k, v in self.sums.items() if v), key=lambda k: (order.index(k[1]), PHASES.index(k[0])))
        return tuple(Entry(p, c, self.sums[p, c], self.sums[p, c] / wall, self._why(p, c, most)) for p, c in keys)

    def _why(self, phase: str, cause: str, most: int) -> tuple[Evidence, ...]:
        """The largest reasons; what was moved out of a cell left each of them in proportion."""
        reasons = self.evidence[phase, cause]
        kept = min(1.0, self.sums[phase, cause] / max(1, sum(reasons.values())))
        return tuple(
            Evidence(what, int(ns * kept), self.counts[phase, cause][what]) for what, ns in reasons.most_common(most)
        )
