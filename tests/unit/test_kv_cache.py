"""The KV cache. Witnesses: published bytes a token, transformers' own cache, plain sums over layers."""

from __future__ import annotations

import pytest

from mlsys_studio.profilers.calculators.kv_cache import expected_waste, kv_bytes_per_token, kv_cache
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError


@pytest.mark.parametrize(
    ("sizes", "published"),
    [  # DeepSeek-V3 (arXiv:2505.09343), Table 1: KB of 1000 bytes, in bf16
        (dict(layers=61, kv_rank=512, rope_dim=64), 70_272),
        (dict(layers=80, kv_heads=8, head_dim=128), 327_680),
        (dict(layers=126, kv_heads=8, head_dim=128), 516_096),
    ],
)
def test_published_bytes_a_token(sizes: dict, published: int):
    assert kv_bytes_per_token(**sizes) == published


@pytest.mark.parametrize(
    ("name", "published"), [("deepseek-v3", 70_272), ("llama-3.1-405b", 516_096), ("llama-2-7b", 524_288)]
)
def test_a_whole_model_has_the_published_bytes(name: str, published: int):
    assert kv_cache(preset(name), batch=3, sequence=10).used == 30 * published


def test_windowed_layers_stop_growing():
    """Of six layers every third sees all: 4 hold at most 16 tokens, 2 hold all; 2 heads of 8, keys and values, bf16."""
    model = build(hidden=64, layers=6, heads=8, kv_heads=2, vocab=10, window=16, full_every=3)
    for tokens, inside in ((5, 5), (16, 16), (100, 16)):
        assert kv_cache(model, sequence=tokens).used == (4 * inside + 2 * tokens) * 2 * 2 * 8 * 2


def test_blocks_round_each_sequence_up():
    model = build(hidden=64, layers=2, heads=8, vocab=10)
    token = 2 * 2 * 64 * 2
    found = kv_cache(model, batch=3, sequence=33, block=16)
    assert (found.used, found.reserved, found.waste) == (3 * 33 * token, 3 * 48 * token, 3 * 15 * token)
    assert kv_cache(model, sequence=32, block=16).waste == 0
    every = [kv_cache(model, sequence=n, block=16).waste / token for n in range(1, 17)]
    assert sum(every) / len(every) == expected_waste(16) == 7.5


@pytest.mark.parametrize(("dtype", "size"), [("float8", 1), ("int8", 1), ("float16", 2), ("int4", 0.5)])
def test_bytes_follow_the_dtype(dtype: str, size: float):
    model = build(hidden=64, layers=2, heads=8, vocab=10)
    assert kv_cache(model, sequence=7, dtype=dtype).used == 7 * 2 * 2 * 64 * size


def test_heads_divide_over_devices_and_then_repeat():
    model = preset("llama-3.1-70b")  # 8 KV heads
    whole = kv_cache(model, sequence=100).used
    assert [kv_cache(model, sequence=100, tp=tp).used for tp in (1, 2, 8, 16)] == [
        whole,
        whole / 2,
        whole / 8,
        whole / 8,
    ]
    latent = preset("deepseek-v3")
    assert kv_cache(latent, sequence=9, tp=8) == kv_cache(latent, sequence=9)
    with pytest.raises(UsageError, match="8 KV heads do not divide over tp=3"):
        kv_cache(model, sequence=100, tp=3)


def test_a_decoder_with_an_encoder_keeps_its_tokens_too():
    model = build(hidden=64, layers=2, heads=8, vocab=10, encoder_layers=3)
    assert kv_cache(model, sequence=4, encoder_sequence=50).used == (4 + 50) * 2 * 2 * 64 * 2


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_as_large_as_the_cache_transformers_fills(kv_heads: int):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        vocab_size=11,
    )
    cache = transformers.LlamaForCausalLM(config)(torch.zeros(2, 5, dtype=torch.long)).past_key_values
    found = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    model = build(hidden=32, layers=3, heads=4, kv_heads=kv_heads, vocab=11, mlp_width=16, gated=True)
    assert kv_cache(model, batch=2, sequence=5, dtype="float32").used == found


def test_incomplete_sizes_are_named():
    with pytest.raises(UsageError, match="kv_heads and head_dim"):
        kv_bytes_per_token(layers=3, kv_heads=2)
