"""A layer's time on one device: its FLOP against the closed form, its bytes against a list of kernels, its waves."""

import math
from dataclasses import replace

import pytest

from mlsys_studio.profilers.calculators.architecture import Repeated
from mlsys_studio.profilers.calculators.cluster import Rates
from mlsys_studio.profilers.calculators.compute import forward_flops
from mlsys_studio.profilers.calculators.layer_time import (
    CURRENT,
    MEGATRON21,
    Slice,
    Work,
    embedding_time,
    head_time,
    layer_time,
    matmul,
    optimizer_time,
)
from mlsys_studio.profilers.calculators.sizes import build

IDEAL = Rates(1e12, 1e12, math.inf, None, 1.0, "no memory, no waves")
ENDLESS = Rates(1e30, 1e30, 1e12, None, 1.0, "memory only")
MODELS = {
    "gpt": build(hidden=1024, layers=1, heads=16, vocab=50_000),
    "llama": build(hidden=1024, layers=1, heads=16, kv_heads=4, gated=True, mlp_width=2816, bias=False, vocab=32_000),
    "window": build(hidden=1024, layers=1, heads=16, window=96, vocab=32_000),
    "experts": build(
        hidden=1024, layers=1, heads=16, vocab=32_000, experts=8, active_experts=2, expert_width=512, shared_width=256
    ),
    "latent": build(
        hidden=1024, layers=1, heads=16, head_dim=96, value_dim=64, kv_rank=128, rope_dim=32, q_rank=256, vocab=32_000
    ),
}


def whole(batch=2, sequence=256, tp=1, cp=1, ep=1):
    return Slice(batch, sequence, tp, cp, ep)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("software, pairs", [(CURRENT, "seen"), (MEGATRON21, "full")])
def test_a_device_computes_the_layers_flop(name, software, pairs):
    """Witness: the closed form that equals the live counter; flash attention's backward does 5 products for 2."""
    model = MODELS[name]
    flops = forward_flops(model, batch=2, sequence=256, pairs=pairs)
    core = flops.scores + flops.values
    time = layer_time(model.stack[0].block, model.hidden, whole(), IDEAL, software)
    assert time.forward.matmul * 1e12 == pytest.approx(flops.layers)
    expected = 2 * (flops.layers - core) + (2.5 if software.flash else 2) * core
    assert time.backward.matmul * 1e12 == pytest.approx(expected)
    assert time.core.matmul * 1e12 == pytest.approx(core)


def test_flash_attention_has_a_rate_of_its_own():
    """Half as fast forward and a quarter backward, at which it takes 2 and 2.5 x 4 of the products' time."""
    slow = replace(IDEAL, attention=(0.5e12, 0.25e12))
    block = MODELS["gpt"].stack[0].block
    usual, found = (layer_time(block, 1024, whole(), rates, CURRENT) for rates in (IDEAL, slow))
    core = usual.core.matmul
    assert found.core.matmul == pytest.approx(2 * core)
    assert found.forward.matmul - usual.forward.matmul == pytest.approx(core)
    assert found.backward.matmul - usual.backward.matmul == pytest.approx((4 - 1) * 2.5 * core)
    plain = [layer_time(block, 1024, whole(), rates, MEGATRON21) for rates in (IDEAL, slow)]
    assert plain[0] == plain[1]  # without flash attention its products are a matmul's


@pytest.mark.parametrize("name", MODELS)
def test_the_head_and_its_gradients_are_three_products(name):
    model = MODELS[name]
    time = head_time(model, whole(), IDEAL, CURRENT)
    assert (time.forward + time.backward).matmul * 1e12 == pytest.approx(
        3 * forward_flops(model, batch=2, sequence=256).head
    )


@pytest.mark.parametrize("name", ["gpt", "llama", "window"])
@pytest.mark.parametrize("software", [CURRENT, MEGATRON21])
@pytest.mark.parametrize("split", [{"tp": 4}, {"cp": 4}, {"tp": 2, "cp": 2}])
def test_shards_sum_to_the_whole(name, software, split):
    model = MODELS[name]
    one, part = (layer_time(model.stack[0].block, 1024, whole(**s), IDEAL, software) for s in ({}, split))
    assert 4 * part.forward.matmul == pytest.approx(one.forward.matmul)
    assert 4 * part.backward.matmul == pytest.approx(one.backward.matmul)


def test_experts_are_shared_out_and_their_tokens_stay_as_many():
    block = MODELS["experts"].stack[0].block
    one, part = (layer_time(block, 1024, whole(ep=ep), IDEAL, CURRENT) for ep in (1, 4))
    assert part.forward.matmul == pytest.approx(one.forward.matmul)  # as many tokens come as leave
    thin, narrow = (layer_time(block, 1024, whole(ep=ep), ENDLESS, CURRENT) for ep in (1, 4))
    assert narrow.weights.memory < thin.weights.memory  # but fewer weights have gradients


def test_a_matmul_waits_for_its_last_wave():
    """NVIDIA's guide, 3.2: an A100 computes 108 tiles of 256 x 128 at a time, and one tile more takes twice as long."""
    a100 = Rates(312e12, 270e12, math.inf, 108, 0.87, "")
    one = matmul(256 * 108, 128, 4096, a100)
    assert one == pytest.approx(2 * 256 * 108 * 128 * 4096 / 270e12)
    assert matmul(256 * 108 + 1, 128, 4096, a100) == pytest.approx(2 * one)
    assert matmul(256 * 216, 128, 4096, a100) == pytest.approx(2 * one)


def test_a_matmul_of_short_sums_is_bound_by_what_it_writes():
    rates = Rates(312e12, 270e12, 1.7e12, 108, 0.87, "")
    assert matmul(8192, 8192, 8, rates) > 2 * 8192 * 8192 / 1.7e12


# What each kernel of a GPT layer reads and writes: bytes an element in 16 bits, masks in 8. In rows of the hidden size,
# in parts of it that tensor parallelism splits, and in scores.
KERNELS_2021 = {
    "forward": [
        ("row", 4, "norm"),
        ("part", 3 * 4, "bias of queries, keys, values"),
        ("score", 4, "softmax"),
        ("score", 5, "dropout"),
        ("part", 4, "heads to rows"),
        ("row", 7, "bias, dropout, residual"),
        ("row", 4, "norm"),
        ("part", 4 * 4, "GeLU"),
        ("row", 7, "bias, dropout, residual"),
    ],
    "backward": [
        ("row", 2 * 5, "dropouts"),
        ("row", 2 * 2, "bias gradients"),
        ("row", 2 * 6, "residuals added"),
        ("row", 2 * 10, "norms: twice what they read, and the gradient"),
        ("part", 4 * 6, "GeLU"),
        ("part", 4 * 2, "its bias gradient"),
        ("part", 4, "rows to heads"),
        ("score", 5, "dropout"),
        ("score", 6, "softmax"),
        ("part", 3 * 4, "gradients of queries, keys, values put together"),
        ("part", 3 * 2, "their bias gradient"),
    ],
}


@pytest.mark.parametrize("tp", [1, 4])
def test_the_kernels_of_2021_move_what_they_must(tp):
    model, part = MODELS["gpt"], whole(tp=tp)
    time = layer_time(model.stack[0].block, 1024, part, ENDLESS, MEGATRON21)
    rows, scores = 512 * 1024, 2 * 16 * 256 * 256
    each = {"row": rows, "part": rows / tp, "score": scores / tp}
    products = layer_time(model.stack[0].block, 1024, part, replace(ENDLESS, bandwidth=1e12), MEGATRON21)
    assert products.forward.matmul > 0  # counted apart: their own operands
    for pass_, found in (("forward", time.forward), ("backward", time.inputs)):
        moved = sum(size * each[kind] for kind, size, _ in KERNELS_2021[pass_])
        assert found.memory * 1e12 == pytest.approx(moved)


def test_the_kernels_of_today_move_what_they_must():
    """Norms, rotation, SwiGLU and residuals of a Llama layer; sequence parallelism splits the rows as well."""
    model, part = MODELS["llama"], whole(tp=4)
    time = layer_time(model.stack[0].block, 1024, part, ENDLESS, CURRENT)
    row, width, heads = 512 * 1024 / 4, 512 * 2816 / 4, 512 * (16 + 2 * 4) * 64 / 4
    forward = {"norms": 2 * 4 * row, "residuals": 2 * 6 * row, "rotation": 4 * heads, "SwiGLU": 6 * width}
    backward = {"norms": 2 * 10 * row, "residuals": 2 * 6 * row, "rotation": 4 * heads, "SwiGLU": 10 * width}
    assert time.forward.memory * 1e12 == pytest.approx(sum(forward.values()))
    assert time.inputs.memory * 1e12 == pytest.approx(sum(backward.values()))


def test_tokens_are_copied_into_their_experts_order_and_back():
    """Two copies, each read and written, of two experts a token; and a router, whose weights are few."""
    dense = replace(MODELS["experts"].stack[0].block, mlp=MODELS["experts"].stack[0].block.mlp.shared)
    sparse, plain = (layer_time(b, 1024, whole(), ENDLESS, CURRENT) for b in (MODELS["experts"].stack[0].block, dense))
    gelu = 4 * 512 * 2 * 512
    assert (sparse.forward.memory - plain.forward.memory) * 1e12 == pytest.approx(4 * 2 * 512 * 2 * 1024 + gelu)


def test_a_loss_operator_by_operator_moves_52_bytes_a_logit():
    """To 32 bits 6, largest 4, less it 8, exponential 8, sum 4, divided 8; backward in place 8, to 16 bits 6."""
    logits = 512 * 50_000
    apart, fused = (head_time(MODELS["gpt"], whole(), ENDLESS, software) for software in (MEGATRON21, CURRENT))
    moved = (6 + 4 + 8 + 8 + 4 + 8) * logits, (8 + 6) * logits
    assert (apart.forward.memory * 1e12, apart.inputs.memory * 1e12) == pytest.approx(moved)
    assert (fused.forward.memory * 1e12, fused.inputs.memory * 1e12) == pytest.approx((2 * logits, 4 * logits))


def test_embedding_rows_are_read_and_written():
    assert embedding_time(MODELS["gpt"], whole(), ENDLESS).forward.memory * 1e12 == pytest.approx(4 * 512 * 1024)


def test_gradients_of_weights_are_added_to_those_before():
    """A sum reads both and writes one: 6 bytes a weight in 16 bits."""
    time = layer_time(MODELS["gpt"].stack[0].block, 1024, whole(), ENDLESS, MEGATRON21)
    assert time.weights.memory * 1e12 == pytest.approx(6 * 12 * 1024**2)


def test_adam_reads_four_and_writes_three_in_full_precision():
    assert optimizer_time(1e9, ENDLESS, CURRENT) * 1e12 == pytest.approx(1e9 * (4 * 4 + 3 * 4 + 2))
    unscaled, norm = 2 + 4, 4
    assert optimizer_time(1e9, ENDLESS, MEGATRON21) * 1e12 == pytest.approx(1e9 * (30 + unscaled + norm))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("software", [CURRENT, MEGATRON21])
def test_longer_is_never_faster(name, software):
    rates = Rates(312e12, 270e12, 1.7e12, 108, 0.87, "")
    block = MODELS[name].stack[0].block

    def seconds(**sizes):
        time = layer_time(block, 1024, whole(**sizes), rates, software)
        return (time.forward + time.backward).seconds

    by_batch = [seconds(batch=batch) for batch in (1, 2, 4, 8)]
    by_sequence = [seconds(sequence=sequence) for sequence in (128, 256, 512, 1024)]
    assert by_batch == sorted(by_batch) and by_sequence == sorted(by_sequence)


def test_a_longer_stack_is_as_many_layers():
    deeper = replace(MODELS["gpt"], stack=(Repeated(3, MODELS["gpt"].stack[0].block),))
    assert deeper.layers == 3 and Work(1, 2).times(3) == Work(3, 6)
