"""The planner against published runs: one published efficiency a device, no constant a row.

    python tests/benchmarks/planner.py

Predicts the achieved TFLOP/s a GPU of Megatron's weak-scaling table (Table 1) and of its strong-scaling one (Table 2),
each at the table's own tensor, pipeline and data parallelism. What the paper does not say, the number of chunks, is the
planner's best; the micro-batch is 1, as wherever the paper names it, and then once more the planner's best.
Then how far off each row of Table 1 is when the efficiency is fitted to the other nine, the same for Llama 3's three
published runs, and where its layout stands among all. (Its place rests on two habits of current software. At 16,384 GPUs,
with gradients reduced in 32 bits every micro-batch it was 27th instead of 8th, and without recomputing the MLP's activation
alone 37th.) Exits with 1 if a row at micro-batch 1 is off by more than 15 %, two rows stand in the wrong order that the
paper has 5 % apart, or Llama 3's layout is not among the ten best.
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from heading import heading

from mlsys_studio.profilers.calculators.cluster import cluster, rates
from mlsys_studio.profilers.calculators.conventions import flops_per_token
from mlsys_studio.profilers.calculators.layout import Layout
from mlsys_studio.profilers.calculators.layouts import RECOMPUTE, Candidate, schedules, settings
from mlsys_studio.profilers.calculators.plan import Choice, plan, predict
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError

TABLES = json.loads((Path(__file__).parents[1] / "data" / "megatron_sc21.json").read_text())
SEQUENCE, VOCAB = 2048, 51_200
TOLERANCE, APART = 0.15, 0.05
MICRO_BATCHES = {"1": (1,), "best": (1, 2, 4, 8, 16)}
# arXiv:2407.21783, Table 4: GPUs, CP, DP, tokens of a sequence, sequences of a rank, TFLOP/s a GPU; TP 8, PP 16.
# FLOP are taken with half of attention, the only way in which the three agree: with all of it the long sequences would be
# 0.57 of what is predicted where the short ones are 0.80, and by 6N they would be faster than a run that loses nothing.
LLAMA = [(8_192, 1, 64, 8_192, 32, 430), (16_384, 1, 128, 8_192, 16, 400), (16_384, 16, 8, 131_072, 16, 380)]


def tflops(row: dict[str, Any], micro_batch: str, efficiency: float | None = None) -> tuple[float, Choice]:
    """Predicted TFLOP/s a GPU by the paper's own count, at the best fitting chunks (and micro-batch)."""
    model = build(
        row["name"], hidden=row["hidden"], layers=row["layers"], heads=row["heads"], vocab=VOCAB, positions=SEQUENCE,
        tied=True,
    )  # fmt: skip
    gpus = cluster("A100-SXM4-80GB", row["gpus"], inter="InfiniBand-HDR")
    dp = row["gpus"] // row["tp"] // row["pp"]
    found = []
    for size in MICRO_BATCHES[micro_batch]:
        if row["batch"] % (dp * size):
            continue
        micro_batches = row["batch"] // dp // size
        for schedule, chunks in schedules(model, row["pp"], micro_batches):
            if schedule == "zero-bubble" or (row["layers"] // row["pp"]) % chunks:
                continue  # published later; and Megatron's chunks are equal
            layout = Layout(dp=dp, tp=row["tp"], pp=row["pp"], schedule=schedule, chunks=chunks)
            candidate = Candidate(layout, size, micro_batches, "full")
            try:
                found.append(
                    predict(
                        model, gpus, candidate, sequence=SEQUENCE, dtype="float16", efficiency=efficiency,
                        software="megatron21",
                    )
                )  # fmt: skip
            except UsageError:
                continue  # does not fit
    best = min(found, key=lambda choice: choice.step.total)
    return flops_per_token(model, SEQUENCE, "megatron21") * best.tokens_per_second / row["gpus"] / 1e12, best


def llama_tflops(row: tuple[int, ...], efficiency: float | None = None) -> float:
    """Predicted TFLOP/s a GPU of Llama 3 405B in a published layout, at its best settings."""
    devices, cp, dp, sequence, share, _ = row
    model, gpus = preset("llama-3-405b"), cluster("H100-SXM5", devices, inter="RoCE-400")
    layout = Layout(dp=dp, tp=8, pp=16, cp=cp)
    walked = settings(
        model, layout, global_batch=dp * share, sequence_parallel=True, fits=lambda candidate: candidate.layout.zero < 3
    )
    found = []
    for candidate in walked:
        for recompute in RECOMPUTE:
            try:
                tried = replace(candidate, recompute=recompute)
                found.append(predict(model, gpus, tried, sequence=sequence, efficiency=efficiency))
            except UsageError:
                continue  # does not fit
    fastest = max(choice.tokens_per_second for choice in found)
    return flops_per_token(model, sequence, "megatron_now") * fastest / devices / 1e12


def fitted(rows: Sequence[Any], off: Callable[[Any, float], float]) -> float:
    """The efficiency at which these rows are right on (geometric) average."""
    low, high = 0.3, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(math.log(off(row, middle)) for row in rows) > 0 else (middle, high)
    return (low + high) / 2


def table(title: str, rows: list[dict[str, Any]], micro_batch: str) -> list[float]:
    print(f"\n{title}")
    print("   model    GPUs  TP PP   DP  micro chunks   published  predicted   error   where the step goes")
    errors = []
    for row in rows:
        found, choice = tflops(row, micro_batch)
        step, layout = choice.step, choice.layout
        error = found / row["tflops"] - 1
        errors.append(error)
        shares = {name: getattr(step, name) / step.total for name in step.__slots__}
        said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.01)
        print(
            f"{row['name']:>8} {row['gpus']:>7} {layout.tp:>3} {layout.pp:>2} {layout.dp:>4} "
            f"{choice.candidate.micro_batch:>6} {layout.chunks:>6} {row['tflops']:>11} {found:>10.1f} {error:>+7.1%}   {said}"
        )
    print(f"largest error {max(map(abs, errors)):.1%}, mean {sum(map(abs, errors)) / len(errors):.1%}")
    return errors


def order(rows: list[dict[str, Any]], errors: list[float]) -> int:
    """Pairs in the wrong order that the paper has at least `APART` apart."""
    pairs = itertools.combinations(
        [(row["tflops"], row["tflops"] * (1 + e)) for row, e in zip(rows, errors, strict=True)], 2
    )
    agree = wrong = apart = 0
    for (a, x), (b, y) in pairs:
        agree += (a - b) * (x - y) > 0
        wrong += (a - b) * (x - y) < 0
        apart += (a - b) * (x - y) < 0 and abs(a / b - 1) >= APART
    print(
        f"order: {agree} pairs as published, {wrong} not (Kendall's tau {(agree - wrong) / (agree + wrong):.2f})",
        end="; ",
    )
    print(f"{apart} of those not are published {APART:.0%} or more apart")
    return apart


def left_out(rows: Sequence[Any], name: Callable[[Any], str], off: Callable[[Any, float], float]) -> None:
    """`off(row, efficiency)`: predicted over published."""
    print("\nleave one out: the efficiency fitted to the others")
    errors = []
    for row in rows:
        efficiency = fitted([other for other in rows if other is not row], off)
        errors.append(off(row, efficiency) - 1)
        print(f"{name(row):>24}  efficiency {efficiency:.3f}  error {errors[-1]:+.1%}")
    print(f"largest error {max(map(abs, errors)):.1%}, mean {sum(map(abs, errors)) / len(errors):.1%}")


def llama_runs() -> None:
    print("\nLlama 3 405B on H100, TP 8 PP 16, TFLOP/s with half of attention")
    for row in LLAMA:
        found = llama_tflops(row)
        print(
            f"{row[0]:>7} GPUs, CP {row[1]:>2}, {row[3]:>7,} tokens: published {row[-1]}, predicted {found:.0f}, error "
            f"{found / row[-1] - 1:+.1%}"
        )
    left_out(LLAMA, lambda row: f"{row[0]} GPUs, CP {row[1]}", lambda row, e: llama_tflops(row, e) / row[-1])


def llama() -> bool:
    """TP 8, CP 1, PP 16 for 16 M tokens (Table 4): whether it is among the ten best."""
    listed = True
    for devices in (8_192, 16_384):
        begun = time.perf_counter()
        gpus = cluster("H100-SXM5", devices, inter="RoCE-400")
        found = plan("llama-3-405b", gpus, global_batch=2048, sequence=8192, best=10**6)
        seconds = time.perf_counter() - begun
        degrees = [(c.layout.tp, c.layout.cp, c.layout.pp, c.layout.dp) for c in found.best]
        place = degrees.index((8, 1, 16, devices // 128))
        print(
            f"Llama 3 405B, {devices} GPUs: published layout TP 8 PP 16 DP {devices // 128} is place {place + 1} of "
            f"{len(degrees)}; {seconds:.1f} s"
        )
        listed = listed and place < 10 and seconds < 10
    print(f"\n{replace(found, best=found.best[:10])}")
    return listed


def main() -> int:
    print(heading())
    a100 = rates(cluster("A100-SXM4-80GB", 8).device, "float16")
    print(f"# A100: efficiency {a100.efficiency:.3f} of peak and bandwidth: {a100.source}")
    errors = table("Table 1", TABLES["table1"], "1")
    wrong = order(TABLES["table1"], errors)
    more = table("Table 2, pipeline, tensor and data parallelism", TABLES["table2"], "1")
    left_out(TABLES["table1"], lambda row: row["name"], lambda row, e: tflops(row, "1", e)[0] / row["tflops"])
    order(TABLES["table1"], table("Table 1 again, at the planner's best micro-batch", TABLES["table1"], "best"))
    llama_runs()
    print()
    listed = llama()
    return 0 if max(map(abs, [*errors, *more])) <= TOLERANCE and not wrong and listed else 1


if __name__ == "__main__":
    sys.exit(main())
