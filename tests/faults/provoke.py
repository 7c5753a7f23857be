"""Provoke every cause, vary what came out, and write a labelled corpus.

    python tests/faults/provoke.py --out DIR [--only data_format/] [--seed N] [--variations 10] [--workers 2]

Writes DIR/opened.jsonl, unopened.jsonl (a tenth of the seeds, by hash: not to be looked at until the end),
undecidable.jsonl (the variation lost the evidence), composed.jsonl (texts of hardware and schedulers that are not
here, counted apart), healthy.jsonl, and provoked.jsonl: how each provocation went. A text that does not show what its
fault claims is never written.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from composed import composed_records
from fault import FAULTS, Fault, fill
from stage import Outcome, Unavailable, end_all, perform
from variations import Varied, concatenated, decidable, folder, healthy, place, vary

for path in sorted((HERE / "causes").glob("*.py")):
    importlib.import_module(f"causes.{path.stem}")

HEALTHY_VARIATIONS = 3
SHELVES = ("opened", "unopened", "undecidable", "composed", "healthy")
LAST_LINES = {"elastic_summary": None, "slurm_summary": "job_scheduler", "peers_complain": "network"}


@dataclass(frozen=True, slots=True)
class Provoked:
    fault: Fault
    values: dict[str, str]
    outcome: Outcome | None
    trouble: str  # empty: the output shows what the fault claims

    @property
    def evidence(self) -> tuple[str, ...]:
        """The words without which nobody could know the cause."""
        return tuple(fill(words, self.values) for words in self.fault.enough or self.fault.says)


def provoke(fault: Fault, seed: int) -> Provoked:
    values = fault.drawn(seed)
    try:
        outcome = perform(fault.script, fault.stage, values, fault.needs)
    except Unavailable as reason:
        return Provoked(fault, values, None, f"skipped: {reason}")
    return Provoked(fault, values, outcome, _trouble(fault, values, outcome))


def _trouble(fault: Fault, values: dict[str, str], outcome: Outcome) -> str:
    if outcome.timed_out:
        return f"ran into its limit of {fault.stage.seconds} s"
    lost = [words for words in (fill(words, values) for words in fault.says) if words not in outcome.text]
    if lost:
        return f"does not say {lost[0]!r}"
    wanted = outcome.exit == fault.exit if fault.exit is not None else outcome.exit != 0
    return "" if wanted else f"exit code {outcome.exit}, not {fault.exit}"


def records(provoked: Provoked, seed: int, count: int) -> Iterator[dict]:
    """`count` variations of one provocation; the first is the output as it was."""
    fault, outcome = provoked.fault, provoked.outcome
    assert outcome is not None
    for number in range(min(count, HEALTHY_VARIATIONS) if fault.category == "healthy" else count):
        lot = random.Random(f"{fault.id}/{seed}/{number}")
        files: dict[str, str] = {}
        if outcome.ranks and number % 2 and fault.category != "healthy":
            files = _rank_files(outcome, lot)
            varied = Varied(concatenated(files), ("folder",))
        elif fault.category == "healthy":
            varied = healthy(outcome.text, lot, plain=number == 0)
        else:
            varied = vary(outcome.text, outcome.exit, lot, plain=number == 0, single=fault.ranks == 1)
        yield _record(provoked, varied, files, 10 * seed + number)


def _rank_files(outcome: Outcome, lot: random.Random) -> dict[str, str]:
    """Each rank's own file, and what the launcher alone said."""
    launcher = "".join(line for line in outcome.text.splitlines(keepends=True) if not line.startswith("[default"))
    spot = lot.getrandbits(32)
    files = {**folder(outcome.ranks, lot), "launcher.log": launcher}
    return {name: place(text, random.Random(spot)) for name, text in files.items()}


def _record(provoked: Provoked, varied: Varied, files: dict[str, str], seed: int) -> dict:
    fault = provoked.fault
    last = [name for name in varied.applied if name in LAST_LINES]
    return {
        "id": f"{fault.id}/{seed}",
        "source": f"tests/faults:{fault.id}",
        "text": varied.text,
        "category": fault.category,
        "cause": fault.cause,
        "root_cause": fault.because,
        "fix": fault.fix,
        "label_confidence": fault.confidence,
        "hard": fault.hard or ("consequence" if last else None),
        "decoy_category": fault.decoy or (LAST_LINES[last[0]] if last else None),
        "elided": bool({"elided", "missing_head", "cut_off"} & set(varied.applied)),
        "obtained_via": "composed line" if fault.composed else "provoked",
        "seed": seed,
        "rank": fault.first_rank,
        "ranks": fault.ranks,
        "files": files,
        "exit": provoked.outcome.exit if provoked.outcome else None,
        "variations": list(varied.applied),
        "undecidable": not decidable(varied.text, provoked.evidence),
        "composed": fault.composed,
    }


def shelf(record: dict) -> str:
    """The file a record belongs into."""
    if record["composed"]:
        return "composed"
    if record["category"] == "healthy":
        return "healthy"
    if record["undecidable"]:
        return "undecidable"
    fault = record["id"].rsplit("/", 1)[0]
    apart = int(hashlib.sha256(fault.encode()).hexdigest(), 16) % 10
    return "unopened" if record["seed"] % 10 == apart else "opened"


def _write(rows: Iterable[dict], files: Mapping[str, TextIO], causes: dict[str, Counter[str]]) -> None:
    """At once: an interrupted run keeps what it has."""
    for row in rows:
        files[shelf(row)].write(json.dumps(row) + "\n")
        causes[shelf(row)][f"{row['category']}/{row['cause']}"] += 1
    for file in files.values():
        file.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the corpus")
    parser.add_argument("--only", default="", help="part of the ids to provoke, such as storage_io/ or disk_full")
    parser.add_argument("--seed", type=int, default=0, help="draws names, sizes, steps and variations")
    parser.add_argument("--variations", type=int, default=10, help="texts a provocation")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: (end_all(), os._exit(128 + number)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = [fault for name, fault in FAULTS.items() if arguments.only in name]
    rows = [record for record in composed_records(arguments.seed) if arguments.only in record["id"]]
    causes: dict[str, Counter[str]] = {shelf: Counter() for shelf in SHELVES}
    with ExitStack() as stack, ThreadPoolExecutor(arguments.workers) as pool:
        files = {shelf: stack.enter_context(open(arguments.out / f"{shelf}.jsonl", "w")) for shelf in SHELVES}
        report = stack.enter_context(open(arguments.out / "provoked.jsonl", "w"))
        _write(rows, files, causes)
        for provoked in pool.map(lambda fault: provoke(fault, arguments.seed), chosen):
            outcome, name = provoked.outcome, provoked.fault.id
            seconds = outcome.seconds if outcome else 0.0
            print(f"{seconds:6.1f} s  {name}  {provoked.trouble}", flush=True)
            report.write(json.dumps({"fault": name, "trouble": provoked.trouble, "seconds": round(seconds, 1)}) + "\n")
            if not provoked.trouble:
                _write(records(provoked, arguments.seed, arguments.variations), files, causes)
    for name, counted in causes.items():
        print(f"{name}: {counted.total()} texts, {len(counted)} causes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
