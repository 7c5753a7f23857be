"""Activations kept for the backward. Witness: what autograd really saves, by saved_tensors_hooks, byte for byte."""

from __future__ import annotations

from typing import Any

import pytest

from mlsys_studio.profilers.calculators.activations import (
    Kernels,
    ends_kept,
    korthikanti_activation_bytes,
    layer_kept,
    score_bytes_over_hidden,
)
from mlsys_studio.profilers.calculators.hugging_face import from_config
from mlsys_studio.profilers.calculators.shards import stack
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.errors import UsageError

torch = pytest.importorskip("torch")
F, nn = torch.nn.functional, torch.nn
B, S, H = 3, 16, 64


def saved(module: Any, *inputs: Any, **kwargs: Any) -> tuple[int, int]:
    """(bytes kept, of them in logits' log-softmax): each storage once, parameters and buffers apart."""
    own = {t.untyped_storage().data_ptr() for t in (*module.parameters(), *module.buffers())}
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor  # held, or its address might be used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(*inputs, **kwargs)
    logits = sum(t.untyped_storage().nbytes() for t in kept.values() if t.shape[-1:] == (VOCAB,))
    assert result is not None
    return sum(t.untyped_storage().nbytes() for t in kept.values()), logits


VOCAB = 51


# -- plain torch ------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """GPT's layer in torch's own modules."""

    def __init__(self, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.norms = heads, nn.ModuleList([nn.LayerNorm(H), nn.LayerNorm(H)])
        self.qkv = nn.ModuleList([nn.Linear(H, H) for _ in range(3)])
        self.out, self.up, self.down = nn.Linear(H, H), nn.Linear(H, 4 * H), nn.Linear(4 * H, H)

    def forward(self, x: Any) -> Any:
        read = self.norms[0](x)
        q, k, v = (each(read).view(B, S, self.heads, -1).transpose(1, 2) for each in self.qkv)
        mixed = self.attend(q, k, v).transpose(1, 2).reshape(B, S, H)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norms[1](x))))

    def attend(self, q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class Plain(Layer):
    def attend(self, q: Any, k: Any, v: Any) -> Any:
        return (q @ k.transpose(-1, -2) / 8).softmax(-1) @ v


def gpt(**sizes: Any) -> Any:
    return build(hidden=H, layers=1, heads=4, vocab=VOCAB, **sizes)


@pytest.mark.parametrize("layer", [Layer, Plain])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gpts_layer(layer: type[Layer], dtype: Any):
    x = torch.randn(B, S, H, dtype=dtype, requires_grad=True)
    kernels = Kernels(dtype.itemsize, flash=layer is Layer)
    kept = layer_kept(gpt().stack[0].block, gpt(), keys=S, kernels=kernels).on_device(1, False)
    if dtype == torch.bfloat16:  # on a CPU statistics of a LayerNorm in bf16 are bf16; on a GPU they are fp32
        kept -= 2 * 2 * 2
    assert saved(layer(4).to(dtype), x)[0] == B * S * kept


class OneKernel(torch.autograd.Function):
    """A fused gated activation: both inputs kept, nothing else (Megatron-LM's bias-SwiGLU)."""

    @staticmethod
    def forward(ctx: Any, gate: Any, up: Any) -> Any:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


class OneNorm(torch.autograd.Function):
    """A fused RMSNorm: input and reciprocal root kept, what torch's `_fused_rms_norm` returns for its backward."""

    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any) -> Any:
        root = torch.rsqrt(x.float().square().mean(-1, keepdim=True))
        ctx.save_for_backward(x, weight, root)
        return (x.float() * root).to(x.dtype) * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError


class Fused(nn.Module):
    """Llama's layer with fused kernels; `parallel` reads one norm twice, PaLM's way."""

    def __init__(self, kv_heads: int, width: int, parallel: bool) -> None:
        super().__init__()
        self.kv_heads, self.parallel = kv_heads, parallel
        self.weights = nn.ParameterList([torch.ones(H), torch.ones(H)])
        sizes = {"q": (H, H), "k": (H, kv_heads * 16), "v": (H, kv_heads * 16), "o": (H, H)}
        sizes |= {"gate": (H, width), "up": (H, width), "down": (width, H)}
        self.linear = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

    def forward(self, x: Any) -> Any:
        to, read = self.linear, OneNorm.apply(x, self.weights[0])
        q, k, v = (to[name](read).view(B, S, -1, 16).transpose(1, 2) for name in "qkv")
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        mixed = to["o"](mixed.transpose(1, 2).reshape(B, S, H))
        if not self.parallel:
            x = x + mixed
            read = OneNorm.apply(x, self.weights[1])
        return x + to["down"](OneKernel.apply(to["gate"](read), to["up"](read)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_llamas_layer_with_fused_kernels(kv_heads: int, parallel: bool, dtype: Any):
    model = gpt(kv_heads=kv_heads, mlp_width=96, gated=True, norm="rms", bias=False, parallel=parallel)
    x = torch.randn(B, S, H, dtype=dtype, requires_grad=True)
    kept = layer_kept(model.stack[0].block, model, keys=S, kernels=Kernels(dtype.itemsize, fused=True))
    assert saved(Fused(kv_heads, 96, parallel).to(dtype), x)[0] == B * S * kept.on_device(1, False)


class Sparse(nn.Module):
    """Experts on tokens sorted by expert, each an equal share; the result weighted after the last product."""

    def __init__(self, count: int, active: int, width: int) -> None:
        super().__init__()
        self.active, self.count = active, count
        self.router = nn.Linear(H, count, bias=False)
        self.gate, self.up = (nn.Parameter(torch.randn(count, H, width)) for _ in range(2))
        self.down = nn.Parameter(torch.randn(count, width, H))

    def forward(self, x: Any) -> Any:
        tokens = x.view(-1, H)
        chance, chosen = self.router(tokens).softmax(-1, dtype=torch.float32).topk(self.active)
        order = chosen.view(-1).argsort()
        places = order // self.active
        routed = tokens[places].view(self.count, -1, H)
        made = torch.bmm(F.silu(torch.bmm(routed, self.gate)) * torch.bmm(routed, self.up), self.down)
        back = made.view(-1, H)[order.argsort()].view(-1, self.active, H)
        return (back * chance[..., None]).sum(1)


def test_experts():
    model = gpt(mlp_width=8, gated=True, norm="rms", experts=4, active_experts=2, expert_width=24)
    x = torch.randn(B, S, H, requires_grad=True) * 1.0
    dense = gpt(mlp_width=8, gated=True, norm="rms")
    kernels = Kernels(4)
    both = [layer_kept(m.stack[0].block, m, keys=S, kernels=kernels).on_device(1, False) for m in (model, dense)]
    experts = both[0] - both[1] + 4 * 8 * 4  # without the dense MLP's 4 f
    read = H * 4  # the norm's result, counted with the norm
    assert saved(Sparse(4, 2, 24), x)[0] == B * S * (experts + read)


# -- transformers -----------------------------------------------------------------------------------------------------

FAMILIES = {
    "Llama": dict(num_key_value_heads=2),
    "Qwen3": dict(num_key_value_heads=2, head_dim=16),
    "Olmo2": dict(num_key_value_heads=4),
    "DeepseekV3": dict(
        num_key_value_heads=4,
        q_lora_rank=24,
        kv_lora_rank=20,
        qk_nope_head_dim=12,
        qk_rope_head_dim=4,
        v_head_dim=16,
        first_k_dense_replace=2,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_transformers(family: str, dtype: Any):
    """Every byte of it, beside the tables of the rotary positions, which all layers share, and the shifted labels."""
    if family == "Olmo2" and dtype != torch.float32:
        pytest.skip("its norms multiply in fp32, and keep more")
    transformers = pytest.importorskip("transformers")
    sizes = dict(hidden_size=H, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=VOCAB)
    config = getattr(transformers, f"{family}Config")(**sizes, **FAMILIES[family], use_cache=False, pad_token_id=0)
    module = getattr(transformers, f"{family}ForCausalLM")._from_config(config, attn_implementation="sdpa").to(dtype)
    ids = torch.zeros(B, S, dtype=torch.long)
    found, logits = saved(module, ids, labels=ids)
    model, kernels = from_config(config), Kernels(dtype.itemsize)
    kept = sum(
        each.count * layer_kept(each.block, model, keys=S, kernels=kernels).on_device(1, False) for each in stack(model)
    )
    kept += sum(end.on_device(1, False) for end in ends_kept(model, kernels))
    turned = 4 if family == "DeepseekV3" else 16  # of a head, what carries the position: a cosine and a sine each
    aside = 2 * S * turned * dtype.itemsize + (B * S * 8 + 4)
    assert logits == B * S * VOCAB * 4  # log-softmax, in fp32 whatever the dtype
    assert found - logits - aside == B * S * kept


def test_gpt2_of_transformers_with_probabilities():
    """Eager attention in fp32: probabilities kept once, by their softmax and for the product with the values.

    With the exact GELU, one operator; GPT-2's own is made of eight, and keeps more.
    """
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_embd=H,
        n_layer=2,
        n_head=4,
        vocab_size=VOCAB,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        use_cache=False,
        activation_function="gelu",
        bos_token_id=0,
        eos_token_id=0,
    )
    module = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="eager")
    ids = torch.zeros(B, S, dtype=torch.long)
    found, logits = saved(module, ids, labels=ids)
    model, kernels = from_config(config), Kernels(4, flash=False)
    kept = sum(
        each.count * layer_kept(each.block, model, keys=S, kernels=kernels).on_device(1, False) for each in stack(model)
    )
    kept += sum(end.on_device(1, False) for end in ends_kept(model, kernels))
    aside = S * 8 + (B * S * 8 + 4)  # positions' indices; labels
    assert found - logits - aside == B * S * kept


# -- Korthikanti et al. -------------------------------------------------------------------------------------------------


def without_statistics(model: Any, tp: int, sequence_parallel: bool, flash: bool = False) -> float:
    kept = layer_kept(model.stack[0].block, model, keys=2048, kernels=Kernels(2, flash=flash, fused=True, dropout=True))
    two_norms = 2 * 2 * 4 / (tp if sequence_parallel else 1)
    return kept.on_device(tp, sequence_parallel) - two_norms


@pytest.mark.parametrize("tp", [1, 2, 8])
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_closed_form_is_korthikantis(tp: int, sequence_parallel: bool):
    """34 + 5 as/h derived twice: theirs, and the sum over what each of our layer's tensors keeps."""
    model = build(hidden=1024, layers=1, heads=16, vocab=100)
    theirs = korthikanti_activation_bytes(
        sequence=2048, batch=1, hidden=1024, heads=16, tp=tp, sequence_parallel=sequence_parallel
    )
    assert 2048 * without_statistics(model, tp, sequence_parallel) == theirs


def test_korthikantis_equations_by_hand():
    """sbh = 2048 · 4 · 6144 for the 22B model, as = 64 · 2048; 8 ranks."""
    sizes: dict[str, Any] = dict(sequence=2048, batch=4, hidden=6144, heads=64)
    sbh, scores = 50_331_648, 5 * 64 * 2048 / 6144
    assert korthikanti_activation_bytes(**sizes) == pytest.approx(sbh * (34 + scores))
    assert korthikanti_activation_bytes(**sizes, tp=8) == pytest.approx(sbh * (10 + 3 + scores / 8))
    assert korthikanti_activation_bytes(**sizes, tp=8, sequence_parallel=True) == pytest.approx(sbh * (34 + scores) / 8)
    assert korthikanti_activation_bytes(**sizes, tp=8, recompute="selective") == sbh * 13
    selective = korthikanti_activation_bytes(**sizes, tp=8, sequence_parallel=True, recompute="selective", layers=48)
    assert selective == sbh * 34 / 8 * 48
    assert korthikanti_activation_bytes(**sizes, tp=8, recompute="full") == 2 * sbh


@pytest.mark.parametrize(
    ("heads", "hidden", "printed"), [(96, 12288, 80), (128, 20480, 64)]
)  # section 5: GPT-3, MT-NLG 530B
def test_what_scores_keep_beside_the_rest(heads: int, hidden: int, printed: int):
    assert score_bytes_over_hidden(sequence=2048, hidden=hidden, heads=heads) == printed


def test_published_stacks():
    """Eleven GiB: GPU MODE, lecture 48 (Llama-2-7B's sizes, 256 tokens, batch 8); 69 GB: GPT-2 in fp32, batch 32."""
    lecture = korthikanti_activation_bytes(sequence=256, batch=8, hidden=4096, heads=32, layers=32)
    assert lecture == 11 * 2**30
    blog = korthikanti_activation_bytes(sequence=1024, batch=32, hidden=768, heads=12, layers=12, itemsize=4)
    assert blog / 1e9 == pytest.approx(69, abs=0.5)


def test_mistakes_are_one_sentence():
    with pytest.raises(UsageError, match="16 heads do not divide over tp=3"):
        korthikanti_activation_bytes(sequence=8, batch=1, hidden=64, heads=16, tp=3)
    with pytest.raises(UsageError, match="sequence must be a whole number"):
        korthikanti_activation_bytes(sequence=-8, batch=1, hidden=64, heads=16)
