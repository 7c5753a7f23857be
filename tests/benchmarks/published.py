"""Published figures computed again by the public functions: how many of each category, and how far off the worst is.

    python tests/benchmarks/published.py [another file of entries.json]

The entries are those of `tests/data/published.json`, the adapter is that of `tests/unit/test_published.py`. An entry whose
inputs do not determine its figure is a target only. Exits with 1 where one is off by more than its own tolerance.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from heading import heading

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from test_published import CATEGORIES, OURS, Undetermined, compute


def main(path: Path) -> int:
    print(heading())
    print(f"# {path.name}; error and tolerance are relative\n")
    print(f"{'category':<20} computed  targets  off  largest error  its tolerance  entry")
    entries = json.loads(path.read_text())["entries"]
    wrong, total = 0, Counter[str]()
    for category in CATEGORIES:
        errors, targets = [], 0
        for entry in (each for each in entries if each["category"] == category):
            try:
                error = abs(compute(entry) / entry["published"] - 1)
            except Undetermined:
                targets += 1
                continue
            errors.append((error, entry["rel_tolerance"], entry["name"]))
        off = sum(error > tolerance for error, tolerance, _ in errors)
        if errors:
            error, tolerance, name = max(errors)
            print(
                f"{category:<20} {len(errors):>8} {targets:>8} {off:>4} {error:>13.2%} {tolerance:>14.2%}  {name[:40]}"
            )
        wrong += off
        total.update(computed=len(errors), targets=targets)
    print(f"\n{total['computed']} computed, {wrong} beyond their tolerance, {total['targets']} targets only")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else OURS))
