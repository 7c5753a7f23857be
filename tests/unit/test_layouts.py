"""Layouts: what is walked, what is refused and why."""

import itertools
import random
from dataclasses import replace

import pytest

from mlsys_studio.profilers.calculators.cluster import cluster
from mlsys_studio.profilers.calculators.layout import Layout
from mlsys_studio.profilers.calculators.layouts import (
    degrees,
    described,
    divisors,
    fastest,
    refusal,
    schedules,
    settings,
)
from mlsys_studio.profilers.calculators.sizes import build

LLAMA = build("llama", hidden=4096, layers=30, heads=32, kv_heads=4, gated=True, mlp_width=14336, vocab=128_256)
MOE = build("moe", hidden=1024, layers=8, heads=16, vocab=512, experts=8, active_experts=2, expert_width=1024)


@pytest.mark.parametrize("n", [1, 2, 12, 97, 1920, 16_384])
def test_divisors(n):
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]


@pytest.mark.parametrize("devices", [1, 8, 12, 64])
def test_every_product_of_degrees_is_walked_once(devices):
    """Witness: all quadruples."""
    built = cluster("H100-SXM5", devices, per_node=devices)
    found = [(each.tp, each.pp, each.cp, each.dp) for each in degrees(LLAMA, built)]
    ways = range(1, devices + 1)
    expected = {
        (t, p, c, devices // (t * p * c)) for t, p, c in itertools.product(ways, repeat=3) if devices % (t * p * c) == 0
    }
    assert len(found) == len(set(found)) and set(found) == expected
    assert all(each.devices == devices for each in degrees(MOE, built))


@pytest.mark.parametrize(
    "layout, reason, said",
    [
        (Layout(dp=8), "devices", "takes 8 devices, and the cluster has 64"),
        (Layout(tp=16, dp=4), "node", "tp=16 reaches over nodes of 8"),
        (Layout(tp=8, dp=8), "KV heads", "tp=8 does not divide 4 KV heads"),
        (Layout(pp=64), "stages", "64 stages are more than 30 layers and both ends"),
        (Layout(cp=64), "sequence", "cp=64 needs a sequence divisible by 128, and 8160 is not"),
        (Layout(cp=32, dp=2), "sequence", "cp=32 needs a sequence divisible by 64, and 8160 is not"),
        (Layout(dp=64), "batch", "a batch of 96 is not divisible by dp=64"),
        (Layout(dp=64, ep=2), "experts", "ep=2 needs experts, and llama has none"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(layout, reason, said):
    found = refusal(LLAMA, cluster("H100-SXM5", 64, inter="NDR"), layout, global_batch=96, sequence=8160)
    assert found is not None and found.reason == reason and said in found.sentence


def test_embedding_and_head_may_have_a_stage_of_their_own():
    """30 layers and both ends: 32 runs, and no more."""
    for stages, chunks, possible in ((16, 2, True), (11, 3, False)):
        built = cluster("H100-SXM5", stages, per_node=stages)
        layout = Layout(pp=stages, schedule="interleaved", chunks=chunks)
        assert (refusal(LLAMA, built, layout, global_batch=stages, sequence=1024) is None) == possible


def test_heads_and_experts_must_be_divisible():
    built = cluster("H100-SXM5", 12, per_node=12)
    three = refusal(LLAMA, built, Layout(tp=3, dp=4), global_batch=12, sequence=1024)
    assert three is not None and "tp=3 does not divide 32 heads" in three.sentence
    odd = refusal(MOE, built, Layout(dp=12, ep=3), global_batch=12, sequence=1024)
    assert odd is not None and "ep=3 does not divide 8 experts" in odd.sentence


def test_what_can_be_is_not_refused():
    built = cluster("H100-SXM5", 64, inter="NDR")
    assert refusal(LLAMA, built, Layout(tp=4, pp=4, dp=4), global_batch=64, sequence=8192) is None


def test_schedules_are_those_a_pipeline_can_run():
    """Interleaving needs micro-batches in groups of the stages, and a layer or an end for every chunk."""
    assert list(schedules(LLAMA, 1, 8)) == [("1f1b", 1)]
    assert ("interleaved", 2) in schedules(LLAMA, 4, 8) and ("interleaved", 9) not in schedules(LLAMA, 4, 8)
    assert [name for name, _ in schedules(LLAMA, 4, 6)] == ["1f1b", "zero-bubble"]
    assert max(chunks for _, chunks in schedules(LLAMA, 8, 8)) == 4  # 30 layers and both ends


def test_settings_use_the_whole_batch():
    layout = Layout(dp=4, pp=2)
    found = list(settings(LLAMA, layout, global_batch=32, sequence_parallel=True, fits=lambda c: c.micro_batch < 8))
    assert all(each.micro_batch * each.micro_batches * layout.dp == 32 for each in found)
    assert {each.layout.zero for each in found} == {0, 1, 2, 3} and {each.micro_batch for each in found} == {1, 2, 4}
    assert not list(settings(LLAMA, layout, global_batch=32, sequence_parallel=True, fits=lambda c: False))


def test_a_split_sequence_is_not_batched():
    found = settings(LLAMA, Layout(cp=2, dp=2), global_batch=32, sequence_parallel=True, fits=lambda c: True)
    assert {each.micro_batch for each in found} == {1}


@pytest.mark.parametrize("seed", range(20))
def test_the_fastest_that_fits(seed):
    """Witness: all of them with every recomputation, asked one by one."""
    dice = random.Random(seed)
    candidates = list(settings(LLAMA, Layout(dp=4, pp=2), global_batch=32, sequence_parallel=True, fits=lambda c: True))
    took, fit = {}, {}
    for each in candidates:
        base = dice.random()
        for again, slower in (("none", 0.0), ("selective", 0.01), ("full", 0.3)):
            took[replace(each, recompute=again)] = base + slower
            fit[replace(each, recompute=again)] = dice.random() < 0.1
    found = fastest(candidates, took.__getitem__, fit.__getitem__)
    assert found == min((each for each in took if fit[each]), key=took.__getitem__, default=None)


def test_degrees_in_words():
    assert described(Layout(tp=8, pp=16, dp=128)) == "TP 8 PP 16 DP 128" and described(Layout()) == "one device"
