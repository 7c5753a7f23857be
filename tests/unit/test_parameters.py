"""Parameter counts against formulas of papers, written out here."""

from dataclasses import fields

import pytest

from mlsys_studio.profilers.calculators.parameters import count, weights
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError


def test_the_default_block_is_megatrons_12Lh2():
    """Narayanan et al. 2021, arXiv:2104.04473, eq. 2: 12Lh^2(1 + 13/12h + (V+s)/12Lh), and a final norm of 2h."""
    h, layers, vocab, s = 128, 5, 1000, 64
    model = build(hidden=h, layers=layers, heads=4, vocab=vocab, positions=s, tied=True)
    assert count(model).total == 12 * layers * h * h + 13 * layers * h + (vocab + s) * h + 2 * h


@pytest.mark.parametrize("name", presets())
def test_parts_sum_to_the_whole(name):
    parameters = count(preset(name))
    parts = [f.name for f in fields(parameters) if f.name not in ("idle", "matmul_active")]
    assert sum(getattr(parameters, part) for part in parts) == parameters.total
    assert 0 < parameters.active <= parameters.total
    assert min(getattr(parameters, part) for part in parts) >= 0


@pytest.mark.parametrize("name", presets())
def test_weights_of_the_layers_and_the_head_are_those_a_token_meets(name):
    model = preset(name)
    if model.encoder is None:
        layers = sum(weights(block, model.hidden) for block in model.blocks())
        assert count(model).matmul_active == layers + model.head * model.hidden * model.vocab


@pytest.mark.parametrize(
    "sizes, said",
    [
        ({"hidden": 100, "heads": 3}, "hidden=100 is not divisible by heads=3"),
        ({"hidden": -64}, "at least 1"),
        ({"hidden": 64.0}, "whole number"),
        ({"layers": 0}, "layers must be"),
        ({"hidden": "large"}, "hidden must be"),
        ({"mlp_width": "large"}, "width must be"),
        ({"full_every": "x", "window": 8}, "full_every must be a whole number"),
        ({"bias": "yes"}, "bias must be True or False"),
        ({"tied": 1}, "tied must be True or False"),
        ({"norms": -1}, "norms must be a whole number"),
        ({"norm": "batch"}, "norm must be one of"),
        ({"norm": "r"}, "norm must be one of"),
        ({"dense_layers": 1.5}, "dense_layers must"),
        ({"windows": [1]}, "2 layers need as many windows"),
        ({"stack": ()}, "no size is called stack"),
        ({"depth": 3}, "no size is called depth"),
        ({"layers": 10**9}, "more than a model has"),
        ({"kv_heads": 3}, "share 3 KV heads"),
        ({"gated": True}, "mlp_width"),
        ({"experts": 8}, "active_experts"),
        ({"experts": 2, "active_experts": 3, "expert_width": 8}, "3 active experts of 2"),
        ({"kv_rank": 8}, "rope_dim"),
    ],
)
def test_a_model_that_cannot_be_is_one_sentence(sizes, said):
    with pytest.raises(UsageError, match=said):
        build(**{"hidden": 64, "layers": 2, "heads": 4, "vocab": 10, **sizes})
