"""Presets against the parameter counts their publishers state."""

import pytest

from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.errors import UsageError

EXACT = {  # elements in the published checkpoints
    "gpt2": 124_439_808,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3-405b": 405_853_388_800,
    "mixtral-8x7b": 46_702_792_704,
    "deepseek-v3": 671_026_419_200,
}
ROUNDED = {"gpt3-175b": 174.6e9}  # arXiv:2005.14165, Table 2.1
ACTIVE = {"mixtral-8x7b": 12.9e9, "deepseek-v3": 37e9}  # arXiv:2401.04088; arXiv:2412.19437


@pytest.mark.parametrize("name", EXACT)
def test_a_preset_has_exactly_the_parameters_of_the_published_checkpoint(name):
    assert count(preset(name)).total == EXACT[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_a_preset_has_the_parameters_its_paper_rounds_to(name):
    assert count(preset(name)).total == pytest.approx(ROUNDED[name], rel=0.001)


@pytest.mark.parametrize("name", ACTIVE)
def test_a_token_passes_through_the_published_part_of_the_experts(name):
    assert count(preset(name)).active == pytest.approx(ACTIVE[name], rel=0.02)


@pytest.mark.parametrize("name", presets())
def test_every_preset_says_where_it_is_from_and_how_sure_that_is(name):
    assert preset(name).source
    assert preset(name).confidence in ("high", "medium", "low")


def test_a_name_may_have_its_maker_and_any_case():
    assert preset("meta-llama/Llama-3.1-8B") == preset("llama_3 8b")


def test_an_unknown_name_is_told_its_neighbours_and_never_becomes_one():
    with pytest.raises(UsageError, match="llama-3-8b"):
        preset("llama-3-9b")
