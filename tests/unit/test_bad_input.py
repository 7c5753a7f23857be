"""What no calculator may answer with a number or a traceback: every keyword of every calculator, given what it cannot be.

Each mistake must come back as one printable sentence that names the keyword's value or the keyword.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

import mlsys_studio as studio
from mlsys_studio.profilers.calculators.layout import Layout
from mlsys_studio.profilers.calculators.links import Link
from mlsys_studio.profilers.errors import UsageError

H100 = "H100-SXM5-80GB"
RUN: dict[str, Any] = {"device": H100, "mfu": 0.4, "tokens": 1e9, "power_w": 700, "pue": 1.1, "kg_per_kwh": 0.4}
MFU: dict[str, Any] = {"config": "gpt2", "sequence": 64, "device": H100, "tokens_per_second": 1e3, "batch": 2}
MEMORY: dict[str, Any] = {"model": "gpt2", "sequence": 64, "device": H100}
ANSWER: dict[str, Any] = {"model": "gpt2", "device": H100, "prompt": 8, "output": 8}
PLAN: dict[str, Any] = {"model": "gpt2", "global_batch": 8, "sequence": 64, "efficiency": 0.5}
SIZES: dict[str, Any] = {"hidden": 64, "layers": 2, "heads": 4, "vocab": 99}


class Hostile:
    def __repr__(self) -> str:
        return "\x1b[31m\n\u202e" * 3


JUNK = ["3", "", b"x", [], {}, (1, 2), 1j, math.nan, math.inf, -math.inf, -1, True, 10**400, Hostile(), "x" * 5000]


def plan(cluster: Any = None, **options: Any) -> Any:
    return studio.plan(cluster=cluster or studio.cluster(H100, 8), **options)


ASKED: list[tuple[Callable[..., object], dict[str, Any], list[str]]] = [
    (
        studio.transformer,
        {"config": "gpt2", **RUN},
        ["batch", "sequence", "devices", "mfu", "tokens", "power_w", "pue"],
    ),
    (studio.transformer, {"config": "gpt2", **RUN}, ["kg_per_kwh", "device", "dtype", "convention", "recompute"]),
    (studio.transformer, SIZES, ["hidden", "layers", "heads", "vocab", "head_dim", "mlp_width", "encoder_layers"]),
    (studio.transformer, SIZES, ["positions", "windows", "norm", "qk_norm", "dense_layers", "experts"]),
    (studio.mfu, MFU, ["sequence", "batch", "devices", "tokens_per_second", "device", "peak", "dtype"]),
    (studio.mfu, {**MFU, "convention": "palm"}, ["convention", "recompute"]),
    (
        studio.memory,
        MEMORY,
        ["batch", "sequence", "layout", "micro_batches", "device", "headroom", "mode", "optimizer"],
    ),
    (studio.memory, MEMORY, ["recompute", "precision", "cache_dtype"]),
    (studio.inference, ANSWER, ["device", "batch", "prompt", "output", "tp", "dtype", "efficiency", "prefix_hit"]),
    (studio.inference, {**ANSWER, "draft": "gpt2", "acceptance": 0.5}, ["acceptance", "drafts"]),
    (plan, PLAN, ["cluster", "global_batch", "sequence", "efficiency", "dtype", "software", "best"]),
    (studio.cluster, {"device": H100, "devices": 8}, ["device", "devices", "intra", "inter"]),
]


@pytest.mark.parametrize(("ask", "given", "keywords"), ASKED)
def test_junk_is_refused_in_one_printable_sentence(ask, given, keywords):
    for keyword in keywords:
        for junk in JUNK:
            if _may_be(keyword, junk):
                continue
            with pytest.raises(UsageError) as caught:
                print(keyword, repr(junk)[:40], ask(**{**given, keyword: junk}))
            said = str(caught.value)
            assert said.isprintable() and len(said) < 1000, (keyword, said)


def _may_be(keyword: str, junk: Any) -> bool:
    """What means something: nothing at all in place of what has a default, one window for each of two layers."""
    if not junk and keyword in ("cluster", "device", "precision", "cache_dtype"):
        return True
    return isinstance(junk, list | tuple) and keyword in ("windows", "dense_layers")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: studio.transformer(**{**SIZES, "layers": 10**8}), "more than a model has"),
        (lambda: studio.transformer(**SIZES, encoder_layers=10**12), "more than a model has"),
        (lambda: studio.transformer(**SIZES, experts=8, dense_layers=10**12), "more than a model has"),
        (lambda: studio.memory("gpt2", sequence=64, layout=Layout(pp=3), cuts=(0, 9, 4, 14)), "growing places"),
        (lambda: studio.memory("gpt2", sequence=64, layout=Layout(pp=3), cuts=5), "cuts must be 4 growing places"),
        (lambda: studio.memory("gpt2", sequence=64, cuts="0 9"), "cuts must be 2 growing places"),
        (lambda: studio.memory("gpt2", sequence=64, cuts=()), "cuts must be 2 growing places"),
        (lambda: studio.memory("gpt2", sequence=64, cuts=([0], [9])), "cuts must be 2 growing places"),
        (lambda: studio.memory("gpt2", sequence=64, flash="no"), "flash must be True or False"),
        (lambda: Layout(sequence_parallel="no"), "sequence_parallel must be True or False"),  # type: ignore[arg-type]
        (lambda: Link("mine", math.inf, 0.0), "bandwidth above 0"),
        (lambda: Link("mine", 1e9, math.nan), "latency"),
        (lambda: studio.mfu("gpt2", sequence=64, device=H100, iteration_seconds=1), "give batch="),
        (lambda: studio.transformer("gpt2", **{**RUN, "power_w": None, "kg_per_kwh": None}), "give power_w"),
        (lambda: studio.transformer("gpt2", **{**RUN, "pue": 0.5}), "takes less than its devices"),
        (lambda: studio.transformer("gpt2", devices=64), "share a run's speed, and none is given"),
        (lambda: studio.transformer(""), "no preset is called ''"),
        (lambda: studio.transformer("/nowhere/config.json"), "No such file or directory; give a preset"),
        (lambda: studio.transformer(__file__[:-3] + ".json"), "No such file or directory"),
        (lambda: studio.inference(**ANSWER, efficiency=1e-25), "from 0.001 to 1"),
        (lambda: plan(**{**PLAN, "efficiency": 1e-25}), "from 0.001 to 1"),
        (lambda: studio.memory(**MEMORY, mode="inference", layout=Layout(dp=8, zero=3)), "zero=3 is of training"),
        (lambda: studio.memory(**MEMORY, mode="inference", optimizer="sgd"), "optimizer='sgd' is of training"),
        (lambda: studio.memory(**MEMORY, mode="inference", recompute="full"), "recompute='full' is of training"),
        (lambda: studio.memory(**MEMORY, mode="inference", micro_batches=2), "micro_batches=2 is of training"),
        (lambda: studio.memory(**MEMORY, cache_dtype="float16"), "training keeps no cache; leave cache_dtype out"),
        (lambda: studio.memory(**MEMORY, block=16), "training keeps no cache; leave block=16 out"),
        (lambda: studio.memory(**MEMORY, mode="inference", layout=Layout(schedule="gpipe")), "schedule='gpipe' is of"),
        (lambda: studio.memory(**MEMORY, mode="inference", layout=Layout(chunks=2)), "chunks=2 is of training"),
        (lambda: studio.partition([0.1, math.nan], 2), "seconds and bytes are numbers from 0"),
        (lambda: studio.partition([0.1, "x"], 2), "seconds and bytes are numbers from 0"),
        (lambda: studio.partition([0.1] * 9999, 99), "too many ways"),
        (lambda: studio.partition([0.1], 2.5), "devices must be a whole number"),
        (lambda: studio.reliability(8, device_mtbf=1e6, write=1, restart=math.nan), "write and restart are seconds"),
        (lambda: studio.reliability(8, device_mtbf=1, write=1, restart=1, repair=1e12), "more spares than any hall"),
        (lambda: studio.amdahl("half", 8), "a share of the time"),
        (lambda: studio.gustafson(math.nan, 8), "a share of the time"),
        (lambda: plan(**PLAN, failures=7), "failures"),
        (lambda: Layout(dp=10**17), "dp must be at most"),
        (lambda: Layout(zero="3"), "zero='3' is none of them"),  # type: ignore[arg-type]
        (lambda: studio.flops("gpt2"), "or of a preset or config ask transformer"),  # type: ignore[arg-type]
        (lambda: studio.transformer("x" * 5000 + ".json"), "cannot read"),
        (lambda: studio.transformer("x" * 5000), "no preset"),
        (lambda: studio.memory("gpt2", sequence=1025), "1,024 positions"),
        (lambda: studio.inference("gpt2", H100, prompt=1024, output=1), "1,024 positions"),
        (lambda: studio.mfu("gpt2", sequence=1025, device=H100, mfu=0.4), "1,024 positions"),
        (lambda: plan(**{**PLAN, "sequence": 1025}), "1,024 positions"),
        (lambda: studio.cluster(H100, 8, intra=""), "no link is called ''"),
    ],
)
def test_what_would_exhaust_memory_or_give_a_wrong_figure_is_refused(ask, says):
    with pytest.raises(UsageError, match=says):
        ask()
