"""Two counts that share no code: equal where the model is what its config says, an error that shows both where not."""

import random
import warnings

import pytest
from test_hugging_face import sizes, with_head

from mlsys_studio.profilers.calculators.cross_check import cross_check
from mlsys_studio.profilers.calculators.hugging_face_families import READERS
from mlsys_studio.profilers.errors import UsageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def built(family: str):
    config = transformers.AutoConfig.for_model(family, **sizes(family, random.Random(family)))
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_head(family).from_config(config)


def inputs(family: str):
    if family == "vit":
        return {"pixel_values": torch.empty(2, 3, 48, 48, device="meta")}
    tokens = torch.empty(2, 16, dtype=torch.long, device="meta")
    return {"input_ids": tokens, "labels": tokens}


@pytest.mark.parametrize("family", READERS)
def test_a_live_count_is_the_closed_form(family):
    from mlsys_studio.profilers.calculators.live import flops

    model, given = built(family), inputs(family)
    assert flops(model, **given).compared == f"equal to the closed form of a {family} config, forward and backward"


def test_a_disagreement_shows_both():
    from mlsys_studio.profilers.calculators.live import flops

    model, given = built("llama"), inputs("llama")
    count = flops(model, **given)
    other = {**given, "input_ids": torch.empty(2, 17, dtype=torch.long, device="meta")}
    with pytest.raises(UsageError, match=f"{count.forward:,} FLOP as it ran and [0-9,]+ by the closed form"):
        cross_check(count, model, (), other)


def test_what_its_config_does_not_tell_is_not_compared():
    from mlsys_studio.profilers.calculators.live import flops

    linear = torch.nn.Linear(4, 4, device="meta")
    assert "no model of transformers" in flops(linear, (2, 4)).compared
    model, given = built("llama"), inputs("llama")
    count = flops(model, **given)
    assert "more than its tokens" in cross_check(count, model, (), {**given, "logits_to_keep": 1})
    model.model.layers[0].self_attn.q_proj.adapter = torch.nn.Linear(4, 4, device="meta")
    assert "parameters and its config says" in cross_check(count, model, (), given)


def test_frozen_weights_leave_the_forward_to_compare():
    from mlsys_studio.profilers.calculators.live import flops

    model, given = built("gpt2"), inputs("gpt2")
    model.transformer.wte.weight.requires_grad_(False)
    assert flops(model, **given).compared.endswith("config, forward")
