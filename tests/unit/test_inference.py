"""Inference on the roofline. Witnesses: closed forms written here for published models and data sheets."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from mlsys_studio.profilers.calculators.inference import inference, touched_experts
from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.hardware import Device

A100, H100 = "A100-SXM4-80GB", "H100 SXM"  # 312 and 989.4 TFLOP/s in bf16; 2.039 and 3.35 TB/s
TOKEN = 32 * 2 * 4096 * 2  # bytes of Llama-2-7B's cache: 512 KiB
SEVEN = 6_738_415_616  # parameters, of which the embedding has 131,072,000


def test_llama_2_7b_decodes_by_its_weights_over_bandwidth():
    """13.21 GB, that is 13.48 without the input table, of which one row is read; and half of the output's cache."""
    found = inference("llama-2-7b", A100, prompt=1024, output=256)
    weights = 2 * (SEVEN - 131_072_000 + 4096)
    assert found.decode.bytes == weights + (1024 + 128) * TOKEN
    assert found.tpot == pytest.approx((weights + 1152 * TOKEN) / 2.039e12)
    assert found.tpot == pytest.approx(6.78e-3, rel=1e-3) and found.decode.bound == "memory"
    assert found.weights == 2 * SEVEN  # they must be there all the same


def test_a_tied_table_is_read_whole_as_the_head():
    found = inference("llama-3.2-1b", H100, prompt=8, output=2)
    parameters, cache = count(preset("llama-3.2-1b")).total, 9 * 16 * 2 * 8 * 64 * 2
    assert found.decode.bytes == 2 * parameters + cache


def test_llama_2_7b_prefills_by_its_flop_over_peak():
    """2 FLOP a weight and token; half of the pairs of 32 layers, twice, 4096 wide; logits of the last token alone."""
    found = inference("llama-2-7b", A100, prompt=1024, output=256)
    matrices = SEVEN - 2 * 131_072_000 - (2 * 32 + 1) * 4096
    flops = 2 * 1024 * matrices + 32 * 2 * 2 * 4096 * (1024 * 1025 // 2) + 2 * 131_072_000
    assert found.prefill.flops == flops
    assert found.ttft == pytest.approx(flops / 312e12) and found.prefill.bound == "compute"
    assert found.latency == pytest.approx(found.ttft + 255 * found.tpot)


def test_the_largest_batch_is_what_fits_beside_the_weights():
    """80 GB less a tenth, less 13.48 GB, over 1280 tokens of 512 KiB, which are whole blocks of 16."""
    found = inference("llama-2-7b", A100, prompt=1024, output=256)
    assert found.max_batch == int((72e9 - 2 * SEVEN) // (1280 * TOKEN)) == 87
    more = inference("llama-2-7b", A100, prompt=1024, output=257)
    assert more.cache == 1296 * TOKEN
    assert inference("llama-2-7b", A100, batch=88, prompt=1024, output=256).fits is False
    assert "does not fit" in str(inference("llama-2-7b", A100, batch=88, prompt=1024, output=256))


def test_weights_that_do_not_fit_leave_room_for_nobody():
    found = inference("llama-3-70b", A100, prompt=10, output=10)
    assert found.max_batch == 0 and not found.fits and found.by_batch == ()


def test_break_even_is_the_ridge_where_there_is_no_cache():
    """Without a cache a step does 2 FLOP and reads 2 bytes a weight: from batch 312/2.039 = 153 on it computes."""
    found = inference("llama-2-7b", A100, prompt=1024, output=256)
    assert found.roof.ridge == pytest.approx(312e12 / 2.039e12)
    assert found.break_even_weights == pytest.approx(found.roof.ridge, abs=3)  # the rest is attention to one token
    assert found.break_even is None  # of multi-head attention each byte of cache brings one FLOP, whatever the batch


def test_break_even_with_a_cache_is_where_the_two_lines_cross():
    """(2 P + pairs) B / peak = (2 P + cache B) / bandwidth, by hand for Llama-3-8B at 65 tokens."""
    found = inference("llama-3-8b", A100, prompt=64, output=2)
    matrices = 8_030_261_248 - 128_256 * 4096 - (2 * 32 + 1) * 4096
    flops = 2 * matrices + 32 * 4 * 4096 * 65
    read, each = 2 * (matrices + 65 * 4096), 2 * 4096 + 65 * 32 * 2 * 1024 * 2
    crossing = read / 2.039e12 / (flops / 312e12 - each / 2.039e12)
    assert found.break_even is not None
    assert crossing <= found.break_even < crossing + 1


def test_experts_in_demand():
    """E (1 - (1 - k/E)^B), against tokens that choose by lot."""
    draw, experts, active = random.Random(1), 8, 2
    assert touched_experts(experts, active, 1) == active
    for tokens in (2, 5, 16):
        tries = [len({e for _ in range(tokens) for e in draw.sample(range(experts), active)}) for _ in range(20_000)]
        assert touched_experts(experts, active, tokens) == pytest.approx(sum(tries) / len(tries), rel=0.01)


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_mixtral_reads_the_experts_in_demand(batch: int):
    found = inference("mixtral-8x7b", H100, tp=2, batch=batch, prompt=100, output=2)
    total, expert = count(preset("mixtral-8x7b")).total, 3 * 4096 * 14336
    dense = total - 32 * 8 * expert - 32_000 * 4096
    everywhere = (2 * 32 + 1) * 4096 + 32 * 8 * 4096  # norms and routers are whole on both
    read = (dense - everywhere) / 2 + everywhere + batch * 4096 / 2 + 32 * touched_experts(8, 2, batch) * expert / 2
    cache = batch * 101 * 32 * 2 * 8 * 128 * 2 / 2
    assert found.decode.bytes == pytest.approx(2 * read + cache)
    assert found.tpot == pytest.approx((2 * read + cache) / 3.35e12)


def test_deepseek_v3_reads_its_latent_cache_whole_on_each_device():
    """70,272 bytes a token in bf16 (arXiv:2505.09343, Table 1), and as many queries' heads share it."""
    asked: dict[str, Any] = dict(tp=8, prompt=4096, output=2, dtype="float8", cache_dtype="bfloat16")
    one, two = (inference("deepseek-v3", "H200", batch=n, **asked).decode for n in (10_000, 20_000))
    rows = 10_000 * 7168 / 8  # more rows of the embedding; every expert is in demand either way
    assert two.bytes - one.bytes == pytest.approx(10_000 * 4097 * 70_272 + rows, rel=1e-6)


def test_grouped_queries_and_narrow_numbers_save_what_they_save():
    base = inference("llama-3-8b", H100, batch=32, prompt=2048, output=2)
    eight = inference("llama-3-8b", H100, batch=32, prompt=2048, output=2, dtype="int8", cache_dtype="int8")
    assert eight.decode.bytes == base.decode.bytes / 2 and eight.roof.compute_dtype == "int8"
    four = inference("llama-3-8b", H100, batch=32, prompt=2048, output=2, dtype="int4")
    assert four.roof.compute_dtype == four.roof.cache_dtype == "bfloat16"
    assert four.weights == base.weights / 4


def test_a_cached_prefix_saves_its_projections_and_pairs():
    """A prompt of 1024, half of it cached: FLOP of tokens 513 to 1024, each of which sees all before it."""
    base, half = (inference("llama-2-7b", A100, prompt=1024, output=2, prefix_hit=hit) for hit in (0.0, 0.5))
    matrices = SEVEN - 2 * 131_072_000 - (2 * 32 + 1) * 4096
    pairs = sum(range(513, 1025))
    assert half.prefill.flops == 2 * 512 * matrices + 32 * 4 * 4096 * pairs + 2 * 131_072_000
    assert half.ttft < base.ttft and half.tpot == base.tpot


def test_a_draft_of_other_tokens_is_said():
    """Vocabularies: Qwen2.5's 152,064 and 151,936 hold the same tokens, padded; GPT-2's 50,257 are others."""
    asked: dict[str, Any] = dict(prompt=64, output=8, acceptance=0.5)
    family = build("small", hidden=64, layers=2, heads=4, vocab=151_936)
    assert "another vocabulary" not in str(inference("qwen2.5-7b", H100, draft=family, **asked))
    assert "gpt2 has another vocabulary" in " ".join(str(inference("qwen2.5-7b", H100, draft="gpt2", **asked)).split())


def test_drafts():
    """The theorem's speed-up where memory limits both passes; less once checking computes."""
    asked: dict[str, Any] = dict(tp=8, prompt=4096, output=256, draft="llama-3-8b", acceptance=0.7)
    found = inference("llama-3-70b", H100, batch=1, **asked).speculation
    assert found is not None and found.speedup == pytest.approx(found.theorem, rel=1e-3) and found.speedup > 1
    assert found.tokens == pytest.approx(1 + 0.7 + 0.7**2 + 0.7**3 + 0.7**4)
    busy = inference("llama-3-70b", H100, batch=512, **{**asked, "prompt": 16}).speculation
    assert busy is not None and busy.speedup < 0.8 * busy.theorem
    plain = inference("llama-3-70b", H100, tp=8, prompt=4096, output=256)
    assert found.tpot == pytest.approx(plain.tpot / found.speedup)


def test_an_efficiency_stretches_every_time_and_is_said():
    base, half = (inference("llama-2-7b", A100, prompt=64, output=8, efficiency=e) for e in (1.0, 0.5))
    assert half.ttft == pytest.approx(2 * base.ttft) and half.tpot == pytest.approx(2 * base.tpot)
    assert "lower bounds" in str(base) and "50.0 %" in str(half) and "lower bounds" not in str(half)


def test_monotone():
    def times(**changed: Any) -> tuple[float, float]:
        found = inference("llama-3-8b", H100, **{"batch": 4, "prompt": 512, "output": 64, **changed})
        return found.ttft, found.tpot

    for name, values in {"batch": (1, 2, 64), "prompt": (1, 512, 4096)}.items():
        found = [times(**{name: value}) for value in values]
        assert all(a[0] <= b[0] and a[1] < b[1] for a, b in pairwise(found)), name
    shared = [times(tp=tp) for tp in (1, 2, 4, 8)]
    assert all(a[0] > b[0] and a[1] > b[1] for a, b in pairwise(shared))
    deeper = [inference(build(hidden=256, layers=n, heads=4, vocab=999), H100, prompt=64, output=8) for n in (1, 2, 9)]
    assert all(a.ttft < b.ttft and a.tpot < b.tpot and a.max_batch > b.max_batch for a, b in pairwise(deeper))
    rates = [rate for _, rate in inference("llama-3-8b", H100, prompt=512, output=64).by_batch]
    assert len(rates) > 5 and all(a < b for a, b in pairwise(rates))


def test_every_figure_names_its_peak_and_source_in_80_columns():
    text = str(
        inference("mixtral-8x7b", H100, tp=2, prompt=512, output=64, batch=8, draft="llama-3.2-1b", acceptance=0.6)
    )
    assert max(map(len, text.splitlines())) <= 80
    for said in ("989 TFLOP/s", "3.35 TB/s", "spec, dense", "confidence high", "weights bfloat16", "2211.17192"):
        assert said in " ".join(text.split()), said


def test_a_tied_head_reads_its_table_and_no_other_positions():
    """By hand: GPT-2's 124,439,808 parameters, of whose 1,024 rows of positions a token needs its own; and its cache."""
    read = 2 * (124_439_808 - 1_024 * 768 + 768) + 2 * 12 * 768 * 2 * (512 + 32)
    assert inference("gpt2", H100, prompt=512, output=64).decode.bytes == read


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(device="H1000"), "H1000"),
        (dict(device=A100, dtype="float8"), "no float8 peak"),
        (dict(batch=0), "batch"),
        (dict(prompt=-1), "prompt"),
        (dict(output=1.5), "output"),
        (dict(tp=3), "tp=3 does not divide 32 heads"),
        (dict(model="bert-base"), "does not write"),
        (dict(model="t5-small"), "does not write"),
        (dict(efficiency=1.2), "1.2"),
        (dict(prefix_hit=1.0), "prefix_hit"),
        (dict(draft="llama-3.2-1b"), "acceptance="),
        (dict(acceptance=0.5), "give draft="),
        (dict(draft="llama-3.2-1b", acceptance=2), "2"),
        (dict(cache_dtype="fp12"), "fp12"),
        (dict(device=Device("mine", "cuda", 10**9, {"bfloat16": 1e12})), "bandwidth"),
    ],
)
def test_mistakes_are_one_sentence(asked: dict[str, Any], said: str):
    given = {"model": "llama-3-8b", "device": H100, "prompt": 8, "output": 8, **asked}
    with pytest.raises(UsageError, match=said) as error:
        inference(given.pop("model"), given.pop("device"), **given)
    assert "\n" not in str(error.value)
