"""How often the diagnosis is right, on labelled texts that it has not seen.

    python tests/benchmarks/diagnosis_accuracy.py FILE.jsonl [--wrong]

Each line is an object with text, category, cause, label_confidence and hard; only `text` is given to `diagnose`. Right is
right of category; abstaining is not right. Score: right 1, abstained 0, wrong -0.5, wrong at a confidence of 0.7 or more
-1. Intervals are 95 %, Wilson's. `--wrong` lists ids with what was said; texts are never printed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path

from heading import heading

from mlsys_studio import diagnose

HARD = ("consequence", "ambiguous", "healthy_trap")
BINS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.01)
SURE = 0.7


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    category: str
    cause: str
    label: str  # how sure the labeller was
    hard: str
    said: str | None
    said_cause: str | None
    confidence: float
    rank: int | None  # of the first cause, where the text is of several ranks
    said_rank: int | None

    @property
    def right(self) -> bool:
        return self.said == self.category

    @property
    def score(self) -> float:
        if self.right or self.said is None:
            return float(self.right)
        return -1.0 if self.confidence >= SURE else -0.5


def answers(path: Path) -> list[Answer]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        d = diagnose(row["text"] + "\n")
        label, hard = row.get("label_confidence") or "", row.get("hard") or ""
        rank = row.get("rank") if (row.get("ranks") or 1) > 1 else None
        said_rank = d.evidence[0].rank if d.evidence else None
        told = (d.category, d.cause, d.confidence)
        found.append(Answer(row["id"], row["category"], row["cause"], label, hard, *told, rank, said_rank))
    return found


def wilson(right: int, of: int) -> tuple[float, float]:
    """Wilson 1927, score interval at 95 %."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, right / of
    middle, half = p + z * z / (2 * of), z * sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return (middle - half) / (1 + z * z / of), (middle + half) / (1 + z * z / of)


def share(name: str, which: Iterable[Answer], holds: Callable[[Answer], bool] = lambda a: a.right) -> None:
    its = list(which)
    right = sum(map(holds, its))
    low, high = wilson(right, len(its))
    said = f"{right / len(its):6.1%}  [{low:.1%}, {high:.1%}]" if its else "     -"
    print(f"  {name:34} {right:4} of {len(its):4}  {said}")


def report(found: Sequence[Answer]) -> None:
    answered = [a for a in found if a.said is not None]
    print("category")
    share("over all (abstained: not right)", found)
    share("where it answered", answered)
    share("coverage", found, lambda a: a.said is not None)
    for label in ("high", "medium", "low"):
        share(f"label's confidence {label}", [a for a in found if a.label == label])
    for hard in ("", *HARD):
        share(f"hard: {hard or 'no'}", [a for a in found if a.hard == hard])
    share("healthy kept healthy", [a for a in found if a.category == "healthy"])
    share("failures called healthy", [a for a in found if a.category != "healthy"], lambda a: a.said == "healthy")
    failing = [a for a in found if a.category != "healthy"]
    print("cause")
    share("over all failures", failing, lambda a: a.right and a.said_cause == a.cause)
    share("where the category is right", [a for a in failing if a.right], lambda a: a.said_cause == a.cause)
    share("rank of the first cause", [a for a in found if a.rank is not None], lambda a: a.said_rank == a.rank)
    print("by category")
    for category in sorted({a.category for a in found}):
        share(category, [a for a in found if a.category == category])
    print("calibration (confidence: how many of these were right)")
    for low, high in pairwise(BINS):
        its = [a for a in answered if low <= a.confidence < high]
        if its:
            share(f"{low:.1f} to {min(high, 1):.1f}, mean {sum(a.confidence for a in its) / len(its):.2f}", its)
    error = sum(abs(a.confidence - a.right) for a in answered) / max(1, len(answered))
    print(f"  mean distance of confidence from truth {error:.2f}")
    print(f"score {sum(a.score for a in found):.1f} of {len(found)}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("--wrong", action="store_true", help="list what was wrong, by id")
    options = arguments.parse_args()
    found = answers(options.file)
    print(heading(), f"\n# {len(found)} texts")
    report(found)
    if options.wrong:
        print("wrong")
        for a in found:
            if not a.right:
                print(
                    f"  {a.id} {a.label} {a.hard}: {a.category}/{a.cause}, said {a.said}/{a.said_cause} at {a.confidence}"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
