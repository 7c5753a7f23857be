"""What starting costs: a process with us against the same process without us, in turn (A/B/A), medians and spread.

    python tests/benchmarks/startup.py [--rounds 15]

B minus the mean of its two neighbours A is one sample; the spread is the median difference of neighbouring A. The doctor
is measured whole. Exits 1 if a median is above its target.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

from heading import heading

SHELL = "from IPython.core.interactiveshell import InteractiveShell; shell = InteractiveShell(history_length=0)"
COMMAND = "import sys; from mlsys_studio.studio.command import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    without: str | None  # Python to run as A; None: B is measured whole
    with_us: list[str]  # arguments of the interpreter
    target: float  # seconds


CASES = (
    Case("import mlsys_studio", "pass", ["-c", "import mlsys_studio"], 0.020),
    Case("%load_ext mlsys_studio", SHELL, ["-c", f"{SHELL}\nshell.run_line_magic('load_ext', 'mlsys_studio')"], 0.100),
    Case("mlsys --help", "pass", ["-c", COMMAND, "--help"], 0.150),
    Case("mlsys doctor", None, ["-c", COMMAND, "doctor"], 3.0),
)


def seconds(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


def measure(case: Case, rounds: int) -> tuple[float, float]:
    """(median, spread) in seconds."""
    if case.without is None:
        whole = [seconds(*case.with_us) for _ in range(max(3, rounds // 3))]
        return statistics.median(whole), max(whole) - min(whole)
    bare, extra = [seconds("-c", case.without)], []
    for _ in range(rounds):
        ours = seconds(*case.with_us)
        bare.append(seconds("-c", case.without))
        extra.append(ours - (bare[-1] + bare[-2]) / 2)
    spread = statistics.median(abs(a - b) for a, b in pairwise(bare))
    return statistics.median(extra), spread


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds
    print(heading(), f"\n# {rounds} rounds")
    missed = 0
    for case in CASES:
        seconds(*case.with_us)  # once for the compiled files and the disk cache
        median, spread = measure(case, rounds)
        missed += median > case.target
        verdict = "ok" if median <= case.target else "MISSED"
        print(
            f"  {case.name:24} {1e3 * median:7.1f} ms  spread {1e3 * spread:6.1f}  target {1e3 * case.target:5.0f}  {verdict}"
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
