"""Every family against the model that transformers builds from the same config: its parameters and, run, its FLOP."""

import inspect
import json
import random
import warnings
from typing import Any

import pytest

from mlsys_studio.profilers.calculators.compute import decode_flops, forward_flops, prefill_flops, training_flops
from mlsys_studio.profilers.calculators.hugging_face import from_config
from mlsys_studio.profilers.calculators.hugging_face_families import READERS
from mlsys_studio.profilers.calculators.models import model
from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.errors import UsageError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ENCODERS = ("bert", "roberta", "xlm-roberta", "camembert")
SEQUENCE = 24
EAGER = {"attn_implementation": "eager", "experts_implementation": "eager"}  # products that FlopCounterMode knows


def sizes(family: str, draw: random.Random) -> dict[str, Any]:
    """A small model of a family, of random sizes, in the words of its config."""
    heads = draw.choice([2, 4, 6])
    hidden, layers, width, vocab = heads * draw.choice([8, 12, 16]), draw.randint(1, 4), 8 * draw.randint(3, 9), 97
    kv = draw.choice([each for each in (1, 2, 3, heads) if heads % each == 0])
    gpt = {"n_embd": hidden, "n_layer": layers, "n_head": heads, "vocab_size": vocab, "n_positions": 40}
    llama = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": width,
        "vocab_size": vocab,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "tie_word_embeddings": draw.random() < 0.5,
    }
    bert = {name: value for name, value in llama.items() if name not in ("num_key_value_heads", "tie_word_embeddings")}
    experts = {"num_experts": 6, "num_local_experts": 6, "num_experts_per_tok": draw.randint(1, 3)}
    sparse = {
        **experts,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 28,
        "decoder_sparse_step": draw.choice([1, 2]),
        "mlp_only_layers": [0],
    }
    latent = {
        "num_key_value_heads": heads,
        "qk_nope_head_dim": 12,
        "qk_rope_head_dim": 4,
        "v_head_dim": 10,
        "kv_lora_rank": 16,
        "q_lora_rank": draw.choice([None, 24]),
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "n_shared_experts": draw.randint(1, 2),
        "first_k_dense_replace": 1,
        "n_group": 2,
        "topk_group": 1,
    }
    window = {"sliding_window": 16}
    own: dict[str, dict[str, Any]] = {
        "llama": {"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5},
        "mistral": window,
        "mixtral": experts,
        "qwen2": {"use_sliding_window": True, "max_window_layers": 1, **window},
        "qwen2_moe": sparse,
        "qwen3": {"head_dim": 8},
        "qwen3_moe": {**sparse, "head_dim": 8},
        "deepseek_v2": latent,
        "deepseek_v3": latent,
        "gpt_oss": {**experts, "head_dim": 8, **window},
        "gemma": {"head_dim": 16},
        "gemma2": {"head_dim": 16, **window},
        "gemma3_text": {"head_dim": 16, **window},
        "olmo3": window,
        "olmoe": experts,
        "glm4": {"head_dim": 8, "attention_bias": draw.random() < 0.5, "partial_rotary_factor": 0.5},
        "smollm3": {"no_rope_layers": None},
        "stablelm": {
            "use_qkv_bias": draw.random() < 0.5,
            "use_parallel_residual": draw.random() < 0.5,
            "partial_rotary_factor": 0.5,
        },
        "phi": {"partial_rotary_factor": 0.5},
        "gpt_neox": {"use_parallel_residual": draw.random() < 0.5},
        "starcoder2": {"use_bias": draw.random() < 0.5},
        "falcon": {
            "new_decoder_architecture": (new := draw.random() < 0.5),
            "num_kv_heads": kv,
            "parallel_attn": new or draw.random() < 0.5,
            "multi_query": draw.random() < 0.5,
            "bias": draw.random() < 0.5,
        },
        "gptj": {"rotary_dim": 4},
    }
    match family:
        case "gpt2" | "gpt_bigcode" | "gptj":
            return {**gpt, **own.get(family, {})}
        case "bloom":
            return {"hidden_size": hidden, "n_layer": layers, "n_head": heads, "vocab_size": vocab}
        case "mpt":
            return {"d_model": hidden, "n_layers": layers, "n_heads": heads, "vocab_size": vocab}
        case "opt":
            return {
                **bert,
                "ffn_dim": width,
                "word_embed_proj_dim": hidden,
                "do_layer_norm_before": draw.random() < 0.5,
            }
        case "t5" | "mt5":
            rest = {
                "num_layers": layers,
                "num_decoder_layers": draw.randint(1, 4),
                "num_heads": heads,
                "vocab_size": vocab,
            }
            return {"d_model": hidden, "d_kv": 8, "d_ff": width, "decoder_start_token_id": 0, **rest}
        case "vit":
            return {**bert, "image_size": 48, "patch_size": 8, "num_labels": 7}
    return {**(bert if family in (*ENCODERS, "falcon", "gpt_neox") else llama), **own.get(family, {})}


def with_head(family: str):
    """The class that builds the model with its usual head."""
    if family in ENCODERS:
        return transformers.AutoModelForMaskedLM
    if family in ("t5", "mt5"):
        return transformers.AutoModelForSeq2SeqLM
    return transformers.AutoModelForImageClassification if family == "vit" else transformers.AutoModelForCausalLM


def models(family: str, seed: int, on: str):
    """The bare model and the one with its usual head, on a device."""
    draw = random.Random(f"{family} {seed}")
    config = transformers.AutoConfig.for_model(family, **sizes(family, draw))
    for kind in (transformers.AutoModel, with_head(family)):
        with torch.device(on), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield config, kind.from_config(config, **EAGER)


def elements(model) -> int:
    """Parameters, and the buffer in which DeepSeek-V3 keeps its router's bias: checkpoints hold it among them."""
    kept = sum(each.numel() for name, each in model.named_buffers() if name.endswith("e_score_correction_bias"))
    return kept + sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", READERS)
def test_parameters_are_those_of_the_model_transformers_builds(family, seed):
    for config, module in models(family, seed, "meta"):
        assert count(from_config(config, type(module).__name__)).total == elements(module), type(module).__name__


@pytest.mark.parametrize("family", READERS)
def test_flop_are_those_of_the_model_that_runs(family):
    """On a CPU, forward and backward, by torch's FlopCounterMode."""
    from torch.utils.flop_counter import FlopCounterMode

    for config, module in models(family, 0, "cpu"):
        known = from_config(config, type(module).__name__)
        if family == "vit":
            inputs, length = {"pixel_values": torch.zeros(2, 3, 48, 48)}, 37
        else:
            inputs, length = {"input_ids": torch.ones(2, SEQUENCE, dtype=torch.long)}, SEQUENCE
            if family in ("t5", "mt5"):
                inputs["decoder_input_ids"] = inputs["input_ids"]
            if family not in ENCODERS:
                inputs["use_cache"] = False
        with FlopCounterMode(display=False) as forward:
            out = module(**inputs)
        assert forward.get_total_flops() == forward_flops(known, batch=2, sequence=length).total, type(module).__name__
        outputs = [each.sum() for each in out.to_tuple() if torch.is_tensor(each) and each.requires_grad]
        with FlopCounterMode(display=False) as backward:
            torch.stack(outputs).sum().backward()
        assert backward.get_total_flops() == training_flops(known, batch=2, sequence=length).backward.total


@pytest.mark.parametrize(
    "name, config",
    [
        (
            "gpt2",
            {
                "model_type": "gpt2",
                "n_embd": 768,
                "n_layer": 12,
                "n_head": 12,
                "n_positions": 1024,
                "vocab_size": 50257,
            },
        ),
        (
            "mixtral-8x7b",
            {
                "architectures": ["MixtralForCausalLM"],
                "model_type": "mixtral",
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_attention_heads": 32,
                "num_experts_per_tok": 2,
                "num_hidden_layers": 32,
                "num_key_value_heads": 8,
                "num_local_experts": 8,
                "sliding_window": None,
                "tie_word_embeddings": False,
                "vocab_size": 32000,
            },
        ),
    ],
)
def test_a_preset_and_its_published_config_are_the_same_layers(name, config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    for given in (config, tmp_path, str(tmp_path / "config.json")):
        assert model(given).stack == preset(name).stack
        assert count(model(given)) == count(preset(name))


GPT2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 8, "vocab_size": 9}


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"model_type": "mamba"}, "no closed form for model_type 'mamba'; known are llama"),
        ({"model_type": ["gpt2"]}, "no closed form for model_type"),
        ({"model_type": None}, "no closed form for model_type None"),
        ({"n_embd": None}, "has no 'n_embd'"),
        ({"n_embd": "64"}, "'n_embd' .* must be a whole number"),
        ({"n_embd": 64.0}, "'n_embd' .* must be a whole number"),
        ({"n_embd": True}, "'n_embd' .* must be a whole number"),
        ({"n_embd": -64}, "'n_embd' .* must be a whole number"),
        ({"n_embd": 10**400}, "'n_embd' .* must be a whole number"),
        ({"n_layer": 10**8}, "more than a model has"),
        ({"n_embd": 66}, "not divisible by heads=4"),
        ({"tie_word_embeddings": "no"}, "must be true or false"),
        ({"architectures": "GPT2LMHeadModel"}, "must be a list"),
        ({"architectures": ["GPT2ForTokenClassification"]}, "head of 'GPT2ForTokenClassification'"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(wrong, said):
    with pytest.raises(UsageError, match=said) as error:
        model({**GPT2, **wrong})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer_types", [["linear_attention"] * 2, [1, 2], [{}], "full"])
def test_a_kind_of_layer_that_is_not_known_is_no_attention(layer_types):
    config = {"model_type": "mistral", "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {**config, "intermediate_size": 8, "vocab_size": 9, "sliding_window": 4, "layer_types": layer_types}
    with pytest.raises(UsageError, match="layer_types"):
        model(config)


@pytest.mark.parametrize("text", ["", "[1]", "null", "{", "\x00", "[" * 100_000, "1" * 5000])
def test_a_file_that_is_no_config_is_one_sentence(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UsageError):
        model(tmp_path)


@pytest.mark.parametrize(
    "given, sizes, said",
    [
        (None, {}, "hidden, layers, heads, vocab is missing"),
        (None, {"hidden": 8, "layers": 1, "heads": 1, "vocab": 9, "width": 3}, "no size is called width"),
        ("gpt2", {"layers": 3}, "leave out layers"),
        ("gpt-9", {}, "no preset is called"),
        ("nowhere.json", {}, "No such file or directory"),
        (7, {}, "not one"),
    ],
)
def test_what_names_no_model_is_one_sentence(given, sizes, said):
    with pytest.raises(UsageError, match=said):
        model(given, **sizes)


@pytest.mark.parametrize("family", READERS)
def test_no_value_from_outside_is_more_than_one_sentence(family):
    """Each value of a config replaced by each of these: a model, or a UsageError, and never another exception."""
    config = transformers.AutoConfig.for_model(family, **sizes(family, random.Random(family))).to_dict()
    hostile: list[Any] = [
        None,
        "x",
        "",
        -1,
        0,
        1,
        1.5,
        float("nan"),
        True,
        [],
        [None],
        {},
        10**30,
        "🙂" * 100,
        "\x1b[2J",
    ]
    for name in config:
        for value in hostile:
            try:
                count(model({**config, name: value}))
            except UsageError as error:
                assert len(str(error)) < 700 and "\n" not in str(error), (name, value)


@pytest.mark.parametrize(
    "family, name",
    [
        ("gpt2", "gpt2"),
        ("llama", "llama-7b"),
        ("mistral", "mistral-7b"),
        ("mixtral", "mixtral-8x7b"),
        ("deepseek_v3", "deepseek-v3"),
        ("gpt_oss", "gpt-oss-120b"),
        ("bert", "bert-base"),
        ("t5", "t5-small"),
    ],
)
def test_transformers_defaults_are_the_preset(family, name):
    """A configuration class without arguments is the family's first published model."""
    known = model(transformers.AutoConfig.for_model(family))
    assert [each.attention for each in known.blocks()] == [each.attention for each in preset(name).blocks()]
    assert count(known) == count(preset(name))


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "mixtral", "qwen3", "gpt_neox", "falcon", "gemma2"])
def test_decoding_and_prefill_cost_what_they_do_with_a_cache(family):
    from torch.utils.flop_counter import FlopCounterMode

    _, (config, module) = models(family, 1, "cpu")
    known = model(config)
    tokens = torch.ones(2, 12, dtype=torch.long)
    with torch.no_grad():
        with FlopCounterMode(display=False) as prefill:
            cache = module(input_ids=tokens, use_cache=True, logits_to_keep=1).past_key_values
        with FlopCounterMode(display=False) as decode:
            module(input_ids=tokens[:, :1], past_key_values=cache, use_cache=True)
    assert decode.get_total_flops() == decode_flops(known, batch=2, context=13).total
    if "logits_to_keep" in inspect.signature(module.forward).parameters:
        assert prefill.get_total_flops() == prefill_flops(known, batch=2, sequence=12).total
