"""Presets against the parameter counts their publishers state."""

import pytest

from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.errors import UsageError

EXACT = {  # elements in the published checkpoints
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-33b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_419_200,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "gpt-oss-20b": 20_914_757_184,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-11b": 11_307_321_344,
    "bert-base": 109_482_240,
    "bert-large": 335_141_888,
    "vit-b-16": 86_567_656,
    "vit-l-16": 304_326_632,
}
ROUNDED = {
    "gpt3-small": 125e6,  # GPT-3: arXiv:2005.14165, Tables 2.1 and D.1
    "gpt3-medium": 356e6,
    "gpt3-large": 760e6,
    "gpt3-xl": 1.32e9,
    "gpt3-2.7b": 2.65e9,
    "gpt3-6.7b": 6.66e9,
    "gpt3-13b": 12.85e9,
    "gpt3-175b": 174.6e9,
    "palm-8b": 8.63e9,  # arXiv:2204.02311, Table 1
    "palm-62b": 62.50e9,
    "palm-540b": 540.35e9,
    "megatron-18.4b": 18.4e9,  # arXiv:2104.04473, Table 1
    "megatron-145.6b": 145.6e9,
    "megatron-1008b": 1008.0e9,
    "gpt-oss-120b": 116.83e9,  # model card
    "gopher-280b": 280e9,  # arXiv:2112.11446
    "chinchilla-70b": 70e9,  # arXiv:2203.15556
}
ACTIVE = {  # as their papers and model cards round them
    "mixtral-8x7b": 12.9e9,
    "mixtral-8x22b": 39e9,
    "deepseek-v2": 21e9,
    "deepseek-v3": 37e9,
    "qwen3-30b-a3b": 3.3e9,
    "qwen3-235b-a22b": 22e9,
}


@pytest.mark.parametrize("name", EXACT)
def test_a_preset_has_exactly_the_parameters_of_the_published_checkpoint(name):
    assert count(preset(name)).total == EXACT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_a_preset_has_the_parameters_its_paper_rounds_to(name):
    assert count(preset(name)).total == pytest.approx(ROUNDED[name], rel=0.005)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_token_passes_through_the_published_part_of_the_experts(name):
    assert count(preset(name)).active == pytest.approx(ACTIVE[name], rel=0.02)


@pytest.mark.parametrize("name", presets())
def test_every_preset_says_where_it_is_from_and_how_sure_that_is(name):
    assert preset(name).source
    assert preset(name).confidence in ("high", "medium", "low")


def test_a_name_may_have_its_maker_and_any_case():
    assert preset("meta-llama/Llama-3.1-8B") == preset("llama_3.1 8b")


def test_llama_3_and_3_1_differ_in_context_alone():
    """8K and 128K tokens: their model cards."""
    three, later = preset("meta-llama/Meta-Llama-3-8B"), preset("meta-llama/Llama-3.1-8B")
    assert (three.context, later.context, three.stack == later.stack) == (8192, 131072, True)


def test_an_unknown_name_is_told_its_neighbours_and_never_becomes_one():
    with pytest.raises(UsageError, match="llama-3-8b"):
        preset("llama-3-9b")


def test_a_slash_may_be_a_maker_or_part_of_the_name():
    assert preset("ViT-B/16") == preset("google/vit-b-16") == preset("vit-b-16")
