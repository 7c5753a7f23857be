"""How each family of models writes its sizes in a config.json: one reader a `model_type`, to keywords of `sizes.build`.

The names and the defaults that a file leaves out are those of transformers' configuration classes; that they are read
rightly is tested against the models transformers builds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .hugging_face_config import Config

Sizes = dict[str, Any]


# -- decoders in the way of Llama -----------------------------------------------------------------------------------


def _llama(read: Config, tied: bool = False, bias: bool = False) -> Sizes:
    bias = read.flag("attention_bias", bias)
    return {
        "hidden": read.whole("hidden_size"),
        "layers": read.whole("num_hidden_layers"),
        "heads": (heads := read.whole("num_attention_heads")),
        "kv_heads": read.whole("num_key_value_heads", default=heads),
        "head_dim": read.optional("head_dim"),
        "mlp_width": read.whole("intermediate_size"),
        "vocab": read.whole("vocab_size"),
        "gated": True,
        "norm": "rms",
        "bias": False,
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": read.flag("mlp_bias"),
        "tied": read.flag("tie_word_embeddings", tied),
    }


def _windowed(read: Config, sizes: Sizes, window: int | None) -> Sizes:
    return {**sizes, "windows": read.windows(sizes["layers"], window)}


def _mistral(read: Config) -> Sizes:
    return _windowed(read, _llama(read), read.optional("sliding_window"))


def _mixtral(read: Config) -> Sizes:
    experts = {
        "experts": read.whole("num_local_experts"),
        "active_experts": read.whole("num_experts_per_tok"),
        "expert_width": read.whole("intermediate_size"),
    }
    return {**_mistral(read), **experts}


def _qwen2(read: Config) -> Sizes:
    sizes = {**_llama(read), "qkv_bias": read.flag("qkv_bias", True), "output_bias": False}
    if not read.flag("use_sliding_window"):
        return sizes
    window, layers = read.whole("sliding_window"), sizes["layers"]
    if read.items("layer_types") is not None:
        return _windowed(read, sizes, window)
    first = min(read.whole("max_window_layers", default=28, least=0), layers)
    return {**sizes, "windows": [None] * first + [window] * (layers - first)}


def _qwen3(read: Config) -> Sizes:
    sizes = {**_qwen2(read), "qk_norm": "head"}
    if read.family == "qwen3":
        sizes["head_dim"] = read.whole("head_dim", default=128)
    bias = read.flag("attention_bias")
    return {**sizes, "qkv_bias": bias, "output_bias": bias}


def _sparse(read: Config, layers: int) -> Sizes:
    """Qwen's experts: in every `decoder_sparse_step`th layer that `mlp_only_layers` leaves."""
    step, never = read.whole("decoder_sparse_step", default=1), read.items("mlp_only_layers") or []
    return {
        "experts": read.whole("num_experts", "num_local_experts"),
        "active_experts": read.whole("num_experts_per_tok"),
        "expert_width": read.whole("moe_intermediate_size"),
        "dense_layers": [i for i in range(layers) if i in never or (i + 1) % step],
    }


def _qwen2_moe(read: Config) -> Sizes:
    sizes = _qwen2(read)
    shared = {"shared_width": read.whole("shared_expert_intermediate_size"), "shared_gate": True}
    return {**sizes, **_sparse(read, sizes["layers"]), **shared}


def _qwen3_moe(read: Config) -> Sizes:
    sizes = _qwen3(read)
    return {**sizes, **_sparse(read, sizes["layers"])}


def _olmoe(read: Config) -> Sizes:
    experts = {
        "experts": read.whole("num_experts", "num_local_experts"),
        "active_experts": read.whole("num_experts_per_tok"),
        "expert_width": read.whole("intermediate_size"),
    }
    return {**_llama(read), **experts, "qk_norm": "row"}


def _deepseek(read: Config) -> Sizes:
    sizes, rope = _llama(read), read.whole("qk_rope_head_dim")
    first, every = read.whole("first_k_dense_replace", default=0, least=0), read.whole("moe_layer_freq", default=1)
    width = read.whole("moe_intermediate_size")
    return {
        **sizes,
        "kv_heads": sizes["heads"],
        "head_dim": read.whole("qk_nope_head_dim") + rope,
        "value_dim": read.whole("v_head_dim"),
        "kv_rank": read.whole("kv_lora_rank"),
        "q_rank": read.optional("q_lora_rank"),
        "rope_dim": rope,
        "experts": read.whole("n_routed_experts"),
        "active_experts": read.whole("num_experts_per_tok"),
        "expert_width": width,
        "shared_width": width * read.whole("n_shared_experts", default=0, least=0),
        "router_bias": read.family == "deepseek_v3",
        "dense_layers": [i for i in range(sizes["layers"]) if i < first or i % every],
        "prediction_layers": read.whole("num_nextn_predict_layers", default=0, least=0),
    }


def _gpt_oss(read: Config) -> Sizes:
    sizes = _windowed(read, _llama(read, bias=True), read.optional("sliding_window"))
    experts = {
        "experts": read.whole("num_local_experts"),
        "active_experts": read.whole("num_experts_per_tok"),
        "expert_width": read.whole("intermediate_size"),
        "router_bias": True,
        "mlp_bias": True,
    }
    return {**sizes, **experts, "sinks": True}


def _gemma(read: Config) -> Sizes:
    return {**_llama(read, tied=True), "head_dim": read.whole("head_dim", default=256)}


def _gemma2(read: Config) -> Sizes:
    sizes = {**_gemma(read), "norms": 4}
    if read.items("layer_types") is not None:
        return _windowed(read, sizes, read.whole("sliding_window", default=4096))
    return {**sizes, "window": read.whole("sliding_window", default=4096), "full_every": 2}


def _gemma3(read: Config) -> Sizes:
    sizes = {**_gemma(read), "norms": 4, "qk_norm": "head"}
    if read.items("layer_types") is not None:
        return _windowed(read, sizes, read.whole("sliding_window", default=4096))
    every = read.whole("sliding_window_pattern", default=6)
    return {**sizes, "window": read.whole("sliding_window", default=4096), "full_every": every}


def _olmo(read: Config) -> Sizes:
    return {**_llama(read), "norms": 0, "final_norm": False}  # its LayerNorm has nothing to learn


def _olmo2(read: Config) -> Sizes:
    sizes = {**_llama(read), "qk_norm": "row"}
    return _windowed(read, sizes, read.whole("sliding_window", default=4096)) if read.family == "olmo3" else sizes


def _smollm3(read: Config) -> Sizes:
    sizes = _llama(read, tied=True)
    return _windowed(read, sizes, read.whole("sliding_window")) if read.flag("use_sliding_window") else sizes


def _glm4(read: Config) -> Sizes:
    return {**_llama(read), "head_dim": read.whole("head_dim", default=128), "output_bias": False, "norms": 4}


def _cohere(read: Config) -> Sizes:
    read.refuse("use_qk_norm", read.flag("use_qk_norm"), "its norm has a weight for each head")
    return {**_llama(read, tied=True), "norm": "layer", "norm_bias": False, "parallel": True}


def _stablelm(read: Config) -> Sizes:
    read.refuse("qk_layernorm", read.flag("qk_layernorm"), "its norm has a weight for each head")
    parallel = read.flag("use_parallel_residual")
    return {
        **_llama(read),
        "norm": "layer",
        "qkv_bias": read.flag("use_qkv_bias"),
        "output_bias": False,
        "parallel": parallel,
    }


# -- decoders in the way of GPT ---------------------------------------------------------------------------------------


def _gpt2(read: Config) -> Sizes:
    hidden = read.whole("n_embd")
    return {
        "hidden": hidden,
        "layers": read.whole("n_layer"),
        "heads": read.whole("n_head"),
        "mlp_width": read.whole("n_inner", default=4 * hidden),
        "vocab": read.whole("vocab_size"),
        "positions": read.whole("n_positions"),
        "tied": read.flag("tie_word_embeddings", True),
    }


def _gpt_bigcode(read: Config) -> Sizes:
    return {**_gpt2(read), "kv_heads": 1 if read.flag("multi_query", True) else None}


def _gptj(read: Config) -> Sizes:
    rest = {"positions": 0, "parallel": True, "qkv_bias": False, "output_bias": False, "head_bias": True}
    return {**_gpt2(read), **rest, "tied": read.flag("tie_word_embeddings")}


def _gpt_neox(read: Config) -> Sizes:
    bias = read.flag("attention_bias", True)
    return {
        **_llama(read),
        "kv_heads": None,
        "gated": False,
        "norm": "layer",
        "norms": 2,
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": True,
        "parallel": read.flag("use_parallel_residual", True),
    }


def _phi(read: Config) -> Sizes:
    read.refuse("qk_layernorm", read.flag("qk_layernorm"), "its norms have biases")
    rest = {"gated": False, "norm": "layer", "bias": True, "mlp_bias": True, "qkv_bias": True, "output_bias": True}
    return {**_llama(read), **rest, "parallel": True, "head_bias": True}


def _starcoder2(read: Config) -> Sizes:
    bias = read.flag("use_bias", True)
    rest = {"gated": False, "norm": "layer", "qkv_bias": bias, "output_bias": bias, "mlp_bias": bias}
    return _windowed(read, {**_llama(read, tied=True), **rest}, read.optional("sliding_window"))


def _falcon(read: Config) -> Sizes:
    new, parallel = read.flag("new_decoder_architecture"), read.flag("parallel_attn", True)
    hidden, heads = read.whole("hidden_size"), read.whole("num_attention_heads")
    grouped = read.whole("num_kv_heads", default=heads) if new else 1 if read.flag("multi_query", True) else heads
    two = (new and read.optional("num_ln_in_parallel_attn") != 1) or not (new or parallel)
    return {
        "hidden": hidden,
        "layers": read.whole("num_hidden_layers"),
        "heads": heads,
        "kv_heads": grouped,
        "mlp_width": read.whole("ffn_hidden_size", default=4 * hidden),
        "vocab": read.whole("vocab_size"),
        "bias": read.flag("bias"),
        "parallel": new or parallel,
        "norms": 2 if two else 1,
        "tied": read.flag("tie_word_embeddings", True),
    }


def _bloom(read: Config) -> Sizes:
    return {
        "hidden": read.whole("hidden_size", "n_embed"),
        "layers": read.whole("n_layer", "num_hidden_layers"),
        "heads": read.whole("n_head", "num_attention_heads"),
        "vocab": read.whole("vocab_size"),
        "embedding_norm": True,
        "tied": read.flag("tie_word_embeddings", True),
    }


def _opt(read: Config) -> Sizes:
    hidden = read.whole("hidden_size")
    width = read.whole("word_embed_proj_dim", default=hidden)
    read.refuse("word_embed_proj_dim", width != hidden, "its embedding has another width than its layers")
    return {
        "hidden": hidden,
        "layers": read.whole("num_hidden_layers"),
        "heads": read.whole("num_attention_heads"),
        "mlp_width": read.whole("ffn_dim"),
        "vocab": read.whole("vocab_size"),
        "positions": read.whole("max_position_embeddings") + 2,
        "bias": read.flag("enable_bias", True),
        "final_norm": read.flag("do_layer_norm_before", True) and not read.flag("_remove_final_layer_norm"),
        "tied": read.flag("tie_word_embeddings", True),
    }


def _mpt(read: Config) -> Sizes:
    ratio = read.whole("expansion_ratio", default=4)
    read.refuse("expansion_ratio", ratio != 4, "transformers builds it with 4 whatever it says")
    return {
        "hidden": read.whole("d_model"),
        "layers": read.whole("n_layers"),
        "heads": read.whole("n_heads"),
        "vocab": read.whole("vocab_size"),
        "bias": False,
        "norm_bias": False,
        "tied": read.flag("tie_word_embeddings", True),
    }


# -- encoders -----------------------------------------------------------------------------------------------------------


def _bert(read: Config) -> Sizes:
    read.refuse("add_cross_attention", read.flag("add_cross_attention"), "a decoder of it has no closed form")
    return {
        "hidden": read.whole("hidden_size"),
        "layers": read.whole("num_hidden_layers"),
        "heads": read.whole("num_attention_heads"),
        "mlp_width": read.whole("intermediate_size"),
        "vocab": read.whole("vocab_size"),
        "positions": read.whole("max_position_embeddings"),
        "token_types": read.whole("type_vocab_size", least=0),
        "causal": read.flag("is_decoder"),
        "embedding_norm": True,
        "final_norm": False,
        "tied": read.flag("tie_word_embeddings", True),
    }


def _t5(read: Config) -> Sizes:
    layers, kind = read.whole("num_layers"), read.values.get("feed_forward_proj", "relu")
    return {
        "hidden": read.whole("d_model"),
        "layers": read.whole("num_decoder_layers", default=layers),
        "encoder_layers": layers,
        "heads": read.whole("num_heads"),
        "head_dim": read.whole("d_kv"),
        "mlp_width": read.whole("d_ff"),
        "vocab": read.whole("vocab_size"),
        "gated": isinstance(kind, str) and kind.startswith("gated"),
        "bias": False,
        "norm": "rms",
        "relative_buckets": read.whole("relative_attention_num_buckets", default=32),
        "tied": read.flag("tie_word_embeddings", read.family == "t5"),
    }


def _vit(read: Config) -> Sizes:
    image, patch = read.whole("image_size", default=224), read.whole("patch_size", default=16)
    read.refuse("num_channels", read.whole("num_channels", default=3) != 3, "pictures here have three colours")
    return {
        "hidden": read.whole("hidden_size"),
        "layers": read.whole("num_hidden_layers"),
        "heads": read.whole("num_attention_heads"),
        "mlp_width": read.whole("intermediate_size"),
        "qkv_bias": read.flag("qkv_bias", True),
        "patch": patch,
        "positions": (image // patch) ** 2 + 1,
        "causal": False,
    }


READERS: dict[str, Callable[[Config], Sizes]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "deepseek_v2": _deepseek,
    "deepseek_v3": _deepseek,
    "gpt_oss": _gpt_oss,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "olmo": _olmo,
    "olmo2": _olmo2,
    "olmo3": _olmo2,
    "olmoe": _olmoe,
    "phi3": _mistral,
    "granite": _llama,
    "smollm3": _smollm3,
    "glm4": _glm4,
    "cohere": _cohere,
    "stablelm": _stablelm,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "gptj": _gptj,
    "gpt_neox": _gpt_neox,
    "phi": _phi,
    "starcoder2": _starcoder2,
    "falcon": _falcon,
    "bloom": _bloom,
    "opt": _opt,
    "mpt": _mpt,
    "bert": _bert,
    "roberta": _bert,
    "xlm-roberta": _bert,
    "camembert": _bert,
    "t5": _t5,
    "mt5": _t5,
    "vit": _vit,
}
