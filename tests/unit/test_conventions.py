"""Each convention against its paper's formula, written out here, on the GPT block the formulas are of."""

import pytest

from mlsys_studio.profilers.calculators.conventions import CONVENTIONS, compared, flops_per_token, six_n
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError

L, h, H, V, s = 6, 256, 8, 5000, 512
GPT = build(hidden=h, layers=L, heads=H, vocab=V, positions=s, tied=True)
N = 12 * L * h * h + 13 * L * h + (V + s) * h + 2 * h
PAPERS = {
    "counted": 72 * L * h**2 * (1 + s / (6 * h) + V / (12 * L * h)),
    "6n": 6 * N,
    "palm": 6 * N + 12 * L * h * s,
    "megatron21": 96 * L * h**2 * (1 + s / (6 * h) + V / (16 * L * h)),
    "megatron22": 72 * L * h**2 * (1 + s / (6 * h) + V / (12 * L * h)),
    "megatron_now": 12 * L * h**2 * (1 + 1 + s / h / 2 + 4 + V / (2 * L * h)),
    "torchtitan": 6 * N + 12 * L * h * s,  # tied: the embedding is the head
    "mosaic": 6 * N + 12 * L * h * s,
    "chinchilla": 3
    * (2 * V * h + L * (6 * h * h + 2 * s * h + 3 * H * s + 2 * s * h + 2 * h * h + 16 * h * h) + 2 * h * V),
    "nanogpt": 6 * (N - s * h) + 12 * L * h * s,
}


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_is_its_papers_formula_on_a_gpt(name):
    assert flops_per_token(GPT, s, name) == pytest.approx(PAPERS[name], rel=1e-12)


def test_torchtitan_leaves_out_an_embedding_that_is_not_the_head():
    llama = preset("llama-3-8b")  # 8,030,261,248 parameters, 525,336,576 of them in the embedding
    assert flops_per_token(llama, 8192, "torchtitan") == 6 * (8_030_261_248 - 525_336_576) + 12 * 32 * 4096 * 8192


def test_a_token_of_a_model_with_experts_meets_the_active_ones():
    assert flops_per_token(preset("mixtral-8x7b"), 1, "6n") == 6 * 12_879_925_248  # arXiv:2401.04088: 12.9 B


def test_megatron_now_is_the_trainers_formula_for_grouped_queries_and_gated_mlps():
    """NVIDIA/Megatron-LM, num_floating_point_operations: (1 + groups/heads + s/h/2) x ratio + f/h x 3/2."""
    hidden, layers, groups, heads, f, vocab = 4096, 32, 8, 32, 14336, 128256
    terms = 1 + groups / heads + 8192 / hidden / 2 + f / hidden * 1.5 + vocab / (2 * layers * hidden)
    assert flops_per_token(preset("llama-3-8b"), 8192, "megatron_now") == pytest.approx(12 * layers * hidden**2 * terms)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_hardware_never_does_less_than_the_model_needs(name):
    none, selective, full = (flops_per_token(GPT, s, name, kind) for kind in ("none", "selective", "full"))
    assert none <= selective <= full


def test_megatron22_counts_selective_recomputation_as_its_paper_prints_it():
    paper = 72 * L * h**2 * (1 + s / (3 * h) + V / (12 * L * h))
    assert flops_per_token(GPT, s, "megatron22", "selective") == pytest.approx(paper, rel=1e-12)
    twice = 72 * L * h**2 * (1 + s / (6 * h) * 4 / 3 + V / (12 * L * h))  # the two forward products, once more
    assert flops_per_token(GPT, s, "counted", "selective") == pytest.approx(twice, rel=1e-12)


def test_full_recomputation_is_a_third_more_of_6n():
    assert six_n(N, recompute="full") == 8 * N


def test_6n_says_that_it_does_not_know_encoders():
    with pytest.raises(UsageError, match="encoder"):
        flops_per_token(preset("t5-base"), 512, "palm")
    said = {row[0]: row[2] for row in compared(preset("t5-base"), 512).rows}
    assert said["palm"] == "-" != said["counted"]


def test_an_unknown_convention_is_told_the_known_ones():
    with pytest.raises(UsageError, match="palm"):
        flops_per_token(GPT, s, "plam")
