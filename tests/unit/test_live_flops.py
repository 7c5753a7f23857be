"""FLOPs of live models. Witnesses: published integers, closed forms written here, torch's own counter on plain layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import hugging_face, products
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from mlsys_studio import flops
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.views.sheet import Bars

# -- published integers ----------------------------------------------------------------------------------------------
# On which FlopCounterMode on meta tensors, the counts torchvision publishes, and closed forms agree.

PUBLISHED = {
    "ResNetForImageClassification": (8_178_368_512, dict(num_labels=1000), (1, 3, 224, 224)),
    "ViTForImageClassification": (35_127_656_448, dict(num_labels=1000), (1, 3, 224, 224)),
    "BertModel": (22_348_431_360, {}, (1, 128)),
    "GPT2LMHeadModel": (32_228_179_968, {}, (1, 128)),
}
# The gradient of the image is not wanted: the first convolution, 2 · output positions · weights.
NOT_WANTED = {
    "ResNetForImageClassification": 2 * 112 * 112 * 64 * 3 * 7 * 7,
    "ViTForImageClassification": 2 * 14 * 14 * 768 * 3 * 16 * 16,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts_to_the_last_digit(name: str):
    expected, sizes, shape = PUBLISHED[name]
    count = flops(hugging_face(name, **sizes), shape)
    assert count.forward == expected
    assert count.backward == 2 * expected - NOT_WANTED.get(name, 0)
    assert (count.recompute, count.total) == (0, count.forward + count.backward)
    assert not count.uncounted


# -- transformers in closed form -----------------------------------------------------------------------------------------


def llama(*, h: int, layers: int, a: int, g: int, f: int, vocab: int, s: int) -> tuple[nn.Module, int]:
    """A model, and the forward FLOP of one sequence of `s` tokens."""
    model = hugging_face(
        "LlamaForCausalLM",
        hidden_size=h,
        num_hidden_layers=layers,
        num_attention_heads=a,
        num_key_value_heads=g,
        intermediate_size=f,
        vocab_size=vocab,
    )
    d = h // a
    layer = products((s, h, h), (s, h, g * d), (s, h, g * d), (s, h, h), *[(s, h, f)] * 3, *[(a, s, s, d)] * 2)
    return model, layers * layer + products((s, h, vocab))


def test_grouped_query_llama():
    model, sequence = llama(h=512, layers=3, a=8, g=2, f=1376, vocab=1000, s=96)
    count = flops(model, (2, 96))
    assert count.forward == 2 * sequence
    assert count.backward == 2 * count.forward


@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixtral_counts_the_experts_a_token_meets(experts: str, dtype: torch.dtype):
    h, layers, a, g, f, vocab, d, s, n, k = 128, 2, 4, 2, 200, 300, 32, 40, 8, 3
    model = hugging_face(
        "MixtralForCausalLM",
        hidden_size=h,
        num_hidden_layers=layers,
        num_attention_heads=a,
        num_key_value_heads=g,
        intermediate_size=f,
        vocab_size=vocab,
        num_local_experts=n,
        num_experts_per_tok=k,
    ).to(dtype)
    model.set_experts_implementation(experts)
    attention = products((s, h, a * d), (s, h, g * d), (s, h, g * d), (s, a * d, h), *[(a, s, s, d)] * 2)
    mixture = products((s, h, n), *[(k * s, h, f)] * 3)
    count = flops(model, (1, s))
    assert count.forward == layers * (attention + mixture) + products((s, h, vocab))
    assert count.backward == 2 * count.forward
    assert not count.uncounted


def test_multi_head_latent_attention():
    h, a, s, q_rank, kv_rank, rope, nope, v = 192, 4, 50, 48, 32, 16, 24, 20
    model = hugging_face(
        "DeepseekV3Model",
        hidden_size=h,
        num_hidden_layers=1,
        first_k_dense_replace=1,
        num_attention_heads=a,
        num_key_value_heads=a,
        intermediate_size=256,
        vocab_size=100,
        q_lora_rank=q_rank,
        kv_lora_rank=kv_rank,
        qk_rope_head_dim=rope,
        qk_nope_head_dim=nope,
        v_head_dim=v,
    )
    count = flops(model, (1, s))
    down = products((s, h, q_rank), (s, h, kv_rank + rope))
    up = products((s, q_rank, a * (nope + rope)), (s, kv_rank, a * (nope + v)))
    scores = products((a, s, s, nope + rope), (a, s, s, v))
    expected = down + up + scores + products((s, a * v, h))
    found = {part.path: part.whole for part in count.modules}["layers.0.self_attn"]
    assert (found.forward, found.backward) == (expected, 2 * expected)
    assert count.forward == expected + products(*[(s, h, 256)] * 3)


def test_loss_in_a_dict_from_keywords():
    model = hugging_face("GPT2LMHeadModel", n_layer=2)
    tokens = torch.zeros(2, 64, dtype=torch.long)
    count = flops(model, input_ids=tokens, labels=tokens)
    assert count.forward == flops(model, (2, 64)).forward
    assert count.backward == 2 * count.forward
    assert "labels int64 [2, 64]" in count.inputs


@pytest.mark.parametrize("backward", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_llama_3_405b_without_its_weights(backward: bool):
    """Seconds and bytes are in tests/benchmarks/flop_counters.py: a clock in a test fails on a busy machine."""
    model, sequence = llama(h=16384, layers=126, a=128, g=8, f=53248, vocab=128256, s=8192)
    count = flops(model, (1, 8192), backward=backward)
    assert count.parameters == 405_853_388_800  # Llama Team 2024, arXiv:2407.21783: "405B"
    assert count.forward == sequence
    assert count.backward == (2 * count.forward if backward else 0)


# -- layers, against torch's counter ---------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(6, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, (3, 5), dilation=2),
            nn.ConvTranspose2d(8, 4, 3, stride=2, output_padding=1),
        ),
        (2, 6, 33, 35),
    ),
    "one dimension": (lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.GELU(), nn.Conv1d(6, 2, 1)), (3, 4, 20)),
    "three dimensions": (lambda: nn.Conv3d(2, 3, (1, 2, 3)), (1, 2, 5, 6, 7)),
    "recurrent": (lambda: nn.LSTM(8, 16, 2, bidirectional=True), (5, 3, 8)),
    "encoder": (lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), (2, 9, 32)),
    "encoder in evaluation": (lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval(), (2, 9, 32)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_as_torch_counts_them(name: str):
    build, shape = LAYERS[name]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        result = build()(torch.empty(shape))
        result = result[0] if isinstance(result, tuple) else result
        result.sum().backward()
    count = flops(build(), shape)
    assert count.total == counter.get_total_flops()
    assert not count.uncounted


def test_a_depthwise_convolution_forward_and_backward():
    """Each of 8 · 15 · 13 outputs meets 3 · 5 weights; torch's counter forgets the groups in the backward."""
    count = flops(nn.Conv2d(8, 8, (3, 5), groups=8, bias=False), torch.empty(2, 8, 17, 17, requires_grad=True))
    assert (count.forward, count.backward) == (2 * 2 * 8 * 15 * 13 * 15, 2 * 2 * 2 * 8 * 15 * 13 * 15)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_the_same_whichever_kernel_runs(causal: bool):
    """Two products over all pairs forward, four backward, whatever a fused kernel computes again."""
    b, heads, s, t, d = 2, 3, 16, 16, 8

    class Asks(nn.Module):
        def __init__(self, *backends: Any) -> None:
            super().__init__()
            self.backends = backends

        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with torch.nn.attention.sdpa_kernel(list(self.backends)):
                return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    given = [torch.empty(b, heads, length, d, requires_grad=True) for length in (s, t, t)]
    kernels = torch.nn.attention.SDPBackend
    by_kernel = [flops(Asks(kind), *given) for kind in (kernels.FLASH_ATTENTION, kernels.MATH)]
    for count in by_kernel:
        assert count.forward == 2 * 2 * b * heads * s * t * d
        assert count.backward == 2 * count.forward
    assert len({tuple(count.by_operator) for count in by_kernel}) == 2  # they were two kernels
    assert "aten::_scaled_dot_product_flash_attention" in by_kernel[0].by_operator


# -- gradients that nobody wants -----------------------------------------------------------------------------------------------


class LoRA(nn.Module):
    """y = W x + B A x with W frozen (Hu et al. 2021, arXiv:2106.09685)."""

    def __init__(self, i: int, o: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(i, o, bias=False).requires_grad_(False)
        self.a, self.b = nn.Linear(i, rank, bias=False), nn.Linear(rank, o, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(x))


class Product(nn.Module):
    def __init__(self, multiply: Callable[..., Tensor], dtype: torch.dtype) -> None:
        super().__init__()
        self.multiply, self.weight = multiply, nn.Parameter(torch.ones(4, 4, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.weight)


PRODUCTS = {
    "mm": (torch.mm, 4 * 4 * 4),
    "bmm": (lambda x, w: torch.bmm(x[None], w[None]), 4 * 4 * 4),
    "addmm": (lambda x, w: torch.addmm(w, x, w), 4 * 4 * 4),
    "mv": (lambda x, w: torch.mv(w, x[0]), 4 * 4),
    "addmv": (lambda x, w: torch.addmv(w[0], w, x[0]), 4 * 4),
    "linear": (F.linear, 4 * 4 * 4),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_complex_multiply_add_is_four_real_ones(name: str):
    """(a + bi)(c + di) + (e + fi): 4 products, 2 sums inside, 2 with e and f."""
    multiply, multiply_adds = PRODUCTS[name]
    for dtype, each in ((torch.float32, 2), (torch.complex64, 8), (torch.complex128, 8)):
        x = torch.ones(4, 4, dtype=dtype)
        assert flops(Product(multiply, dtype), x, backward=False).forward == each * multiply_adds


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.complex64])
def test_operands_of_two_dtypes_are_refused_as_they_would_be_with_data(name: str, dtype: torch.dtype):
    multiply, _ = PRODUCTS[name]
    x = torch.ones(4, 4, dtype=dtype)
    with pytest.raises(RuntimeError):
        Product(multiply, torch.float32)(x)
    with pytest.raises((RuntimeError, UsageError)):
        flops(Product(multiply, torch.float32), x, backward=False)


def test_the_refusal_says_what_meets_what_and_autocast_mends_it():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(UsageError, match=r"0 multiplies float16 by float32 \(aten::addmm\), which torch refuses"):
        flops(model, torch.ones(2, 4, dtype=torch.float16))
    with torch.autocast("cpu", torch.bfloat16):
        assert flops(model, torch.ones(2, 4)).forward == products((2, 4, 4))


def test_low_rank_adapters_leave_the_frozen_gradients_out():
    n, i, m, o, r = 7, 16, 24, 10, 4
    count = flops(nn.Sequential(LoRA(i, m, r), nn.ReLU(), LoRA(m, o, r)), (n, i))
    assert count.forward == products((n, i, m), (n, i, r), (n, r, m), (n, m, o), (n, m, r), (n, r, o))
    first = products((n, r, m), (n, r, m), (n, i, r))  # of B, of A x, of A; nothing of W or x
    second = products((n, r, o), (n, r, o), (n, m, r), (n, m, r), (n, m, o))  # and of x through A and W
    assert count.backward == first + second


def test_the_input_gradient_counts_where_it_is_wanted():
    plain = flops(nn.Linear(16, 24), (7, 16))
    wanted = flops(nn.Linear(16, 24), torch.empty(7, 16, requires_grad=True))
    assert wanted.backward - plain.backward == products((7, 16, 24))


def test_tied_weights_are_one_parameter_and_two_products():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(8, 20, bias=False), nn.Linear(8, 20, bias=False)
            self.out.weight = self.into.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.into(x).sum() + self.out(x)

    count = flops(Tied(), (5, 8))
    assert (count.parameters, count.forward) == (160, 2 * products((5, 8, 20)))


# -- activation checkpointing --------------------------------------------------------------------------------------------------


class Scaled(torch.autograd.Function):
    """A product under no grad mode, as in many a custom layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return grad @ w.T, x.T @ grad


class ScaledLayer(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return Scaled.apply(x, self.weight)


class Rerun(torch.autograd.Function):
    """Checkpointing as libraries write it for themselves."""

    @staticmethod
    def forward(ctx: Any, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.part = part
        ctx.save_for_backward(x)
        return part(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor | None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            y = ctx.part(x)
        torch.autograd.backward(y, grad)
        return None, x.grad


RERUNS: dict[str, Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]] = {
    "not": lambda part, x: part(x),
    "reentrant": lambda part, x: checkpoint(part, x, use_reentrant=True),
    "by hooks": lambda part, x: checkpoint(part, x, use_reentrant=False),
    "by a library's own": lambda part, x: Rerun.apply(part, x),
}


class Checkpointed(nn.Module):
    def __init__(self, what: str, how: str) -> None:
        super().__init__()
        self.first, self.inner, self.scaled = nn.Linear(16, 16), nn.Linear(16, 16), ScaledLayer(16, 16)
        self.what, self.how = what, how

    def forward(self, x: Tensor) -> Tensor:
        parts = {
            "a module": lambda y: self.inner(y).relu(),
            "a function": lambda y: (y @ self.inner.weight).relu(),
            "a module with its own backward": lambda y: self.scaled(y).relu(),
            "a function with its own backward": lambda y: Scaled.apply(y, self.inner.weight).relu(),
        }
        return RERUNS[self.how](parts[self.what], self.first(x))


@pytest.mark.parametrize("how", [each for each in RERUNS if each != "not"])
@pytest.mark.parametrize("what", ["a module", "a function", "a module with its own backward"])
def test_what_the_backward_computes_again_is_apart(what: str, how: str):
    """One product runs again. What the model asks for is the same as without checkpointing."""
    count, plain = flops(Checkpointed(what, how), (5, 16)), flops(Checkpointed(what, "not"), (5, 16))
    one = products((5, 16, 16))
    assert count.recompute == one
    assert (count.forward, count.backward) == (plain.forward, plain.backward) == (2 * one, 3 * one)
    assert count.model_flops == plain.total
    assert count.total == plain.total + one


@pytest.mark.parametrize("how", ["reentrant", "by hooks"])
def test_a_function_with_its_own_backward_runs_again_in_a_checkpoint(how: str):
    assert flops(Checkpointed("a function with its own backward", how), (5, 16)).recompute == products((5, 16, 16))


@pytest.mark.filterwarnings("ignore:.*activation_checkpointing_enable")
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_transformer_runs_its_blocks_twice(reentrant: bool):
    model = hugging_face("GPT2LMHeadModel", n_layer=2).train()
    plain = flops(model, (1, 64))
    model.gradient_checkpointing_enable(dict(use_reentrant=reentrant))
    count = flops(model, (1, 64))
    blocks = sum(part.whole.forward for part in count.modules if part.kind == "GPT2Block")
    assert count.recompute == blocks == plain.forward - products((64, 768, 50257))
    assert count.model_flops == plain.total
    assert all(part.own.recompute == part.own.forward for part in count.modules if ".h." in part.path)


# -- by module -----------------------------------------------------------------------------------------------------------------


def test_every_flop_has_its_module_forward_and_backward():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
            self.twice = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.twice(self.twice(self.body(x)))
            return y @ y.T

    n, one = 5, products((5, 8, 8))
    count = flops(Net(), (n, 8))
    parts = {part.path: part for part in count.modules}
    assert (parts["body.0"].own.forward, parts["body.0"].own.backward) == (one, one)  # no gradient of the input
    assert (parts["body.1"].own.forward, parts["body.1"].own.backward) == (one, 2 * one)
    assert (parts["twice"].own.forward, parts["twice"].own.backward) == (2 * one, 4 * one)
    assert (parts[""].own.forward, parts[""].own.backward) == (products((n, n, 8)), 2 * products((n, n, 8)))
    assert parts["body"].own.total == 0
    assert parts["body"].whole.total == 5 * one
    assert (
        sum(part.own.total for part in count.modules)
        == count.total
        == sum(each.total for each in count.by_operator.values())
    )


def test_a_model_that_multiplies_nothing_has_no_tables():
    shown = str(flops(nn.ReLU(), (2, 3), backward=False))
    assert "forward  0  0 FLOP" in shown and "By operator" not in shown and "1 call of 1 other operator" in shown


def test_the_picture_has_every_module_forward_and_backward():
    """The first one's input needs no gradient."""
    model = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 4))
    bars = next(part for part in flops(model, (1, 4)).sheet().parts if isinstance(part, Bars))
    assert bars.legend == ("forward", "backward")
    assert [(label, parts) for label, _, parts in bars.rows] == [
        ("0 Linear", (products((4, 12)), products((4, 12)))),
        ("1 Linear", (products((12, 4)), 2 * products((12, 4)))),
    ]
