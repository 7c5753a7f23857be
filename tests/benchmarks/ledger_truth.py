"""The ledger's truth test: inject a known loss, compare what the clean step time lost with what its entry gained.

    python tests/benchmarks/ledger_truth.py [--device cpu|cuda] [--models gpt,cnn,lstm] [--cases sleep,print] [--rounds 3]

Interleaved A/B/A: `injected` is the median difference of *clean* (unprofiled) steps, `attributed` that of the entry,
`spread` how much two equal runs differ. A case passes when the two agree within max(5 %, 1 ms, 2 x spread); 10 % for a
checkpoint, which cools the caches. A tolerance above half the loss proves nothing: void, and measured again. Prints a
row a case and exits with 1 if any failed.

On a CPU A loses it once and B twice. What follows a pause finds its caches cold, whatever the pause was for: that is
`inefficiency` of the operators after it, by definition, and no part of the loss, which is what the entry must hold. A
first loss of 12 ms costs clean steps 1 to 4 ms beyond its length here, a second one behind it about half of that; so
between A and B the length differs, and less else. Of a loss that works instead of sleeping there are twice as many
operators, lines, transforms or checkpoints: they run through the same code and memory, and leave caches as cold as one
half of them does. Nothing is hidden: runs without any loss stand at both ends, and what the first loss cost clean steps
beyond its own entry is printed below each row, and not judged.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed
import torch.multiprocessing
from heading import heading
from workloads import SLEEP, Loss, steps

from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.recording import Recording
from mlsys_studio.studio.advisor.findings import findings

TOLERANCE, CHECKPOINT, PREDICTION = 0.05, 0.10, 0.25
FLOOR_MS = 1.0
STEPS = 52
TRIES = 3  # a void case is measured again

Cells = tuple[tuple[str | None, tuple[str, ...]], ...]  # (phase or None for all, causes or () for all)


@dataclass(frozen=True)
class Case:
    losses: Loss
    where: Cells  # the entries that must hold the loss
    tolerance: float = TOLERANCE
    devices: tuple[str, ...] = ("cpu",)
    models: tuple[str, ...] = ("gpt", "cnn", "lstm")
    repeatable: bool = True  # it can be lost twice

    def times(self, device: str) -> int:
        """How often A has the loss; B has it once more. A GPU's caches do not cool while its host pauses."""
        return 1 if self.repeatable and device == "cpu" else 0


def case(losses: str, phase: str | None, causes: str, **options) -> Case:
    return Case(frozenset(losses.split(" + ")), ((phase, tuple(causes.split("+")) if causes else ()),), **options)


STALL, CHECK = (None, ("data stall",)), ("checkpoint", ())
CASES = {
    "sleep": case("sleep", None, "data stall", devices=("cpu", "cuda")),
    "transform": case("transform", None, "data stall"),
    "print": case("print", "logging", ""),
    "save": case("save", "checkpoint", "", tolerance=CHECKPOINT),
    "tiny": case("tiny", None, "launch+python", devices=("cpu", "cuda")),
    "idle": case("idle", None, "unattributed"),
    "sleep + save": Case(frozenset({"sleep", "save"}), (STALL, CHECK), CHECKPOINT),
    "all-reduce": case("all-reduce", None, "comm", models=("gpt",)),
    "bf16": case(
        "bf16", None, "precision+ceiling+inefficiency", devices=("cpu", "cuda"), models=("gpt",), repeatable=False
    ),
    "item": case("item", None, "sync", devices=("cuda",)),
    "copies": case("copies", None, "copy+sync", devices=("cuda",)),
    "hidden sleep": case("hidden sleep", None, "unattributed+python+launch", devices=("cuda",), models=("gpt",)),
}
NULL = (
    "data stall",
    "launch+python",
    "inefficiency",
    "memory",
    "useful",
    "precision",
    "measurement",
    "unattributed",
    "gc",
)


def profiled(model: str, losses: Loss, device: str, times: int = 1, rank: int = 0) -> Profile:
    gc.collect()
    loop = steps(model, losses if times else frozenset(), device, times, rank)
    with Recording(progress=lambda _: None) as recording:
        for _ in range(STEPS):
            next(loop)
    loop.close()
    assert recording.profile is not None and recording.profile.ledger is not None, recording.profile
    return recording.profile


def entry(profile: Profile, cells: Cells) -> float:
    """ms a step of these cells, `measurement` left out."""
    ledger = profile.ledger
    assert ledger is not None
    total = 0
    for phase, causes in cells:
        total += ledger.nanoseconds(*causes, phase=phase) - (
            0 if causes else ledger.nanoseconds("measurement", phase=phase)
        )
    return total / ledger.steps / 1e6


def clean(profile: Profile) -> float:
    return profile.steps.median / 1e6


def difference(values: Sequence[float]) -> float:
    """The median of B minus the mean of its neighbouring As, for A/B/A/B/.../A."""
    return statistics.median(values[i] - (values[i - 1] + values[i + 1]) / 2 for i in range(1, len(values), 2))


def spread(values: Sequence[float]) -> float:
    return statistics.median(abs(values[i + 2] - values[i]) for i in range(0, len(values) - 2, 2))


Runner = Callable[[str, Loss, str, Sequence[int]], list[Profile]]  # a profile for each number of times


def one_process(model: str, losses: Loss, device: str, times: Sequence[int]) -> list[Profile]:
    return [profiled(model, losses, device, n) for n in times]


def judge(model: str, name: str, device: str, rounds: int, run: Runner) -> bool:
    chosen = CASES[name]
    often = chosen.times(device)
    times = [often, *[often + 1, often] * rounds]
    ends = [0] if often else []
    profiles: list[Profile] = []
    for _ in range(TRIES):
        profiles = run(model, chosen.losses, device, [*ends, *times, *ends])
        without, profiles = ([profiles[0], profiles[-1]], profiles[1:-1]) if often else ([], profiles)
        walls, cells = [clean(p) for p in profiles], [entry(p, chosen.where) for p in profiles]
        injected, attributed = difference(walls), difference(cells)
        noise = max(spread(walls), spread(cells))
        tolerance = max(chosen.tolerance * abs(injected), FLOOR_MS, 2 * noise)
        hidden = name == "hidden sleep"
        if hidden or tolerance <= abs(injected) / 2:
            break
        print(f"{model:5}{name:14} void ({injected:.2f} ms against a tolerance of {tolerance:.2f}), again", flush=True)
    else:
        print(f"{model:5}{name:14} VOID after {TRIES} tries", flush=True)
        return name == "bf16" and prediction(profiles)  # a machine may gain nothing from it: then none may be promised
    passed = abs(attributed - injected) <= tolerance
    where = "; ".join(f"{phase or 'all'}/{'+'.join(causes) or 'all'}" for phase, causes in chosen.where)
    print(
        f"{model:5}{name:14}{statistics.median(walls[::2]):8.2f} ms  injected {injected:7.2f}  attributed {attributed:7.2f}  "
        f"spread {noise:5.2f}  tolerance {tolerance:5.2f}  {'pass' if passed else 'FAIL'}  {where}  {moves(profiles)}",
        flush=True,
    )
    if often:
        first(without, profiles[::2], chosen.where)
    if name == "bf16":
        passed &= prediction(profiles)
    if name == "sleep + save":
        passed &= both(profiles, injected)
    return passed


def first(without: Sequence[Profile], once: Sequence[Profile], where: Cells) -> None:
    """What the first loss costs clean steps beyond what its entry holds: told, not judged."""
    cost, held = (
        statistics.median(of(p) for p in once) - statistics.fmean(of(p) for p in without)
        for of in (clean, lambda p: entry(p, where))
    )
    print(
        f"     the first costs {cost:.2f}, its entry holds {held:.2f}: {cost - held:+.2f} for what follows it",
        flush=True,
    )


def moves(profiles: Sequence[Profile]) -> str:
    """Which causes moved by more than 0.3 ms: where an error would have gone; and what all of them moved by."""
    causes = {e.cause for p in profiles if p.ledger for e in p.ledger.entries}
    moved = {c: difference([entry(p, ((None, (c,)),)) for p in profiles]) for c in sorted(causes)}
    together = sum(d for c, d in moved.items() if c != "measurement")  # a loss leaves cold caches, and they cost too
    return "(" + ", ".join(f"{c} {d:+.2f}" for c, d in moved.items() if abs(d) > 0.3) + f"; together {together:+.2f})"


def both(profiles: Sequence[Profile], injected: float) -> bool:
    """Two losses at once: together they are the whole (judged before), and the one whose size is known is its own.

    Between a sleep and one twice as long the difference may lie on either side of what was planted.
    """
    (stalls, checks) = ([entry(p, (cells,)) for p in profiles] for cells in (STALL, CHECK))
    stall, check = difference(stalls), difference(checks)
    planted = 1e3 * SLEEP
    passed = abs(stall - planted) <= max(TOLERANCE * planted, FLOOR_MS, 2 * spread(stalls)) and check > 0
    print(
        f"     data stall {stall:.2f} (slept {planted:.2f}) + checkpoint {check:.2f} of {injected:.2f}: {'pass' if passed else 'FAIL'}"
    )
    return passed


def prediction(profiles: Sequence[Profile]) -> bool:
    """The finding's prediction against the measured speed-up: within a quarter."""
    said = [next((f.predicted for f in findings(p) if f.key == "precision"), None) for p in profiles[::2]]
    predicted = statistics.median(ratio or 1.0 for ratio in said)  # no finding promises nothing
    measured = statistics.median(clean(p) for p in profiles[::2]) / statistics.median(clean(p) for p in profiles[1::2])
    passed = abs(predicted / measured - 1) <= PREDICTION
    print(f"     predicted {predicted:.2f}x, measured {measured:.2f}x: {'pass' if passed else 'FAIL'}")
    return passed


def null_run(model: str, device: str, rounds: int) -> bool:
    """A against A: no entry moves beyond its spread or 1 ms."""
    profiles = one_process(model, frozenset(), device, [0] * (2 * rounds + 1))
    passed, said = True, []
    for causes in NULL:
        values = [entry(p, ((None, tuple(causes.split("+"))),)) for p in profiles]
        moved, allowed = difference(values), max(FLOOR_MS, 2 * spread(values))
        passed &= abs(moved) <= allowed
        said.append(f"{causes} {moved:+.2f}")
    print(
        f"{model:5}{'null':14}{clean(profiles[0]):8.2f} ms  {'pass' if passed else 'FAIL'}  {', '.join(said)}",
        flush=True,
    )
    return passed


def _rank(rank: int, model: str, losses: Loss, times: Sequence[int], port: int, results) -> None:
    """One of two processes, alone on its core with its threads, as long as there are two cores."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    profiles = []
    for n in times:
        torch.distributed.barrier()
        profiles.append(profiled(model, losses, "cpu", n, rank))
    if rank == 0:
        results.put([p.to_json() for p in profiles])
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def two_ranks(model: str, losses: Loss, device: str, times: Sequence[int]) -> list[Profile]:
    """Rank 0 of one pair of gloo processes. The other comes late to each all-reduce, by a known sleep.

    Asleep it takes no core from the rank that waits, and the bytes of the collective are the same in every run; many
    bytes instead would compete for the cores with the steps themselves (22 and 10 ms in two runs of the same 8 MB).
    """
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    port = free_port()
    ranks = [context.Process(target=_rank, args=(r, model, losses, times, port, results)) for r in range(2)]
    for process in ranks:
        process.start()
    texts = results.get(timeout=600)
    for process in ranks:
        process.join()
    return [Profile.from_json(text) for text in texts]


def free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--models", default="gpt,cnn,lstm")
    parser.add_argument("--cases", default="null," + ",".join(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("no NVIDIA GPU that torch can use: type --device cpu")
        return 2
    print(heading(options.device) + "\n# ms a step", flush=True)
    passed = True
    for model in options.models.split(","):
        for name in options.cases.split(","):
            if name == "null":
                passed &= null_run(model, options.device, options.rounds)
            elif options.device in CASES[name].devices and model in CASES[name].models:
                passed &= judge(
                    model, name, options.device, options.rounds, two_ranks if name == "all-reduce" else one_process
                )
    print("all passed" if passed else "FAILED")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
