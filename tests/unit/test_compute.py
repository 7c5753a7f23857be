"""The closed form of FLOP against published totals, formulas written out here, and properties."""

import itertools
from dataclasses import fields, replace
from typing import Any

import pytest

from mlsys_studio.profilers.calculators.compute import decode_flops, forward_flops, prefill_flops, training_flops
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError

GPT: dict[str, Any] = {"hidden": 64, "layers": 3, "heads": 4, "vocab": 100}


def test_gpt2_has_the_published_flop_to_the_last_one():
    flops = forward_flops(preset("gpt2"), sequence=128)
    assert flops.total == 32_228_179_968  # torch's FlopCounterMode on meta, transformers' GPT2LMHeadModel


def test_a_gpt_layer_is_24BTC2_plus_4BT2C():
    b, t, c, layers, vocab = 2, 32, 64, 3, 100
    assert forward_flops(build(**GPT), batch=b, sequence=t).total == layers * (
        24 * b * t * c * c + 4 * b * t * t * c
    ) + (2 * b * t * c * vocab)


def test_every_product_costs_two_more_in_the_backward():
    passes = training_flops(build(**GPT), sequence=32)
    assert passes.model == 3 * passes.forward.total == passes.hardware


def test_recomputation_is_work_of_the_hardware_not_of_the_model():
    none, selective, full = (
        training_flops(build(**GPT), sequence=32, recompute=kind) for kind in ("none", "selective", "full")
    )
    assert none.model == selective.model == full.model
    assert selective.hardware - none.hardware == 3 * 4 * 32 * 32 * 64  # the two products of three layers
    assert full.hardware - none.hardware == 3 * (24 * 32 * 64 * 64 + 4 * 32 * 32 * 64)  # all but the head


def test_pairs_seen_are_those_a_mask_leaves_one_by_one():
    for window in (None, 1, 5, 40):
        model = build(**GPT, window=window)
        seen = sum(
            1 for q, k in itertools.product(range(32), repeat=2) if k <= q and (window is None or q - k < window)
        )
        assert forward_flops(model, sequence=32, pairs="seen").scores == 3 * 2 * seen * 64
        assert forward_flops(model, sequence=32, pairs="full").scores == 3 * 2 * 32 * 32 * 64
        assert forward_flops(model, sequence=32, pairs="half").scores == 3 * 32 * 32 * 64


def test_decoding_every_token_in_turn_costs_what_one_masked_forward_does():
    model = build(**GPT, kv_heads=2, window=7)
    steps = [decode_flops(model, context=i, batch=3) for i in range(1, 21)]
    assert sum(each.total for each in steps) == forward_flops(model, batch=3, sequence=20, pairs="seen").total


def test_a_prefill_needs_the_logits_of_the_last_token_only():
    model = build(**GPT)
    saved = forward_flops(model, batch=2, sequence=32).total - prefill_flops(model, batch=2, sequence=32).total
    assert saved == 2 * 2 * 31 * 64 * 100


@pytest.mark.parametrize("name", ["llama-3-8b", "mixtral-8x7b", "deepseek-v3", "gpt3-175b"])
def test_flop_grow_with_batch_sequence_and_layers(name):
    model = preset(name)
    deeper = replace(model, stack=(*model.stack, model.stack[-1]))
    sizes = [forward_flops(model, batch=b, sequence=s).total for b, s in ((1, 64), (1, 128), (2, 128), (3, 128))]
    assert sizes == sorted(set(sizes))
    assert forward_flops(model, batch=2, sequence=64).total == 2 * forward_flops(model, sequence=64).total
    assert forward_flops(deeper, sequence=64).total > forward_flops(model, sequence=64).total


@pytest.mark.parametrize(
    "wrong", [{"sequence": 0}, {"sequence": 8, "batch": -1}, {"sequence": 1.5}, {"sequence": True}]
)
def test_a_size_that_cannot_be_is_one_sentence(wrong):
    with pytest.raises(UsageError, match="whole number"):
        forward_flops(build(**GPT), **wrong)


@pytest.mark.parametrize("name", presets())
def test_parts_sum_to_the_whole_and_every_flop_is_half_of_a_multiply_add(name):
    flops = forward_flops(preset(name), batch=3, sequence=49, pairs="seen")
    parts = [getattr(flops, each.name) for each in fields(flops)]
    assert sum(parts) == flops.total and min(parts) >= 0
    assert flops.total // 2 * 2 == flops.total  # to multiply-adds and back
    assert 0 < flops.attention_share < 1
    assert flops.layers + flops.head + flops.embedding == flops.total


@pytest.mark.parametrize("name", presets())
def test_a_mask_and_a_window_only_take_away(name):
    seen, half, full = (forward_flops(preset(name), sequence=300, pairs=pairs) for pairs in ("seen", "half", "full"))
    assert seen.scores <= full.scores and half.scores <= full.scores
    assert seen.mlp == half.mlp == full.mlp
