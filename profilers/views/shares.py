"""Percentages of a ledger as every view prints them: one decimal, and every sum that a reader may check is exact.

Causes add up to 100.0, the phases of a cause to the cause. Tenths go by largest remainder, first among the causes and
then inside each, so no cause is off by more than a tenth and no two views differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Self, TypeVar

from ..ledger import Ledger

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Shares:
    """Per cent, by cause and by cell; keys as in the ledger's entries."""

    by_cause: Mapping[str, float]
    by_cell: Mapping[tuple[str, str], float]  # (phase, cause)

    @classmethod
    def of(cls, ledger: Ledger) -> Self:
        causes = tenths(ledger.by_cause(), ledger.wall_ns, 1000)
        cells: dict[tuple[str, str], int] = {}
        for cause, share in causes.items():
            parts = {(e.phase, cause): e.nanoseconds for e in ledger.entries if e.cause == cause}
            cells |= tenths(parts, ledger.wall_ns, share)
        return cls({k: tenth / 10 for k, tenth in causes.items()}, {k: tenth / 10 for k, tenth in cells.items()})

    @property
    def mfu(self) -> float:
        """The `useful` row by another name."""
        return self.by_cause.get("useful", 0.0)

    @property
    def hfu(self) -> float:
        return self.mfu + self.by_cause.get("recompute", 0.0)


def tenths(parts: Mapping[K, int], whole: int, total: int) -> dict[K, int]:
    """Tenths of a per cent of `whole` that add up to `total`, which is the parts' own sum in tenths, rounded somehow."""
    exact = {key: divmod(part * 1000, max(1, whole)) for key, part in parts.items()}
    missing = total - sum(tenth for tenth, _ in exact.values())
    up = sorted(exact, key=lambda key: -exact[key][1])[:missing]
    return {key: tenth + (key in up) for key, (tenth, _) in exact.items()}
