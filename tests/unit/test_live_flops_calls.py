"""What a live count takes, names, refuses and shows. Witnesses: closed forms, and sentences a user can act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from networks import hugging_face, products
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mlsys_studio import flops
from mlsys_studio.profilers import cost_registry
from mlsys_studio.profilers.cost import Call, OpCost, costs
from mlsys_studio.profilers.errors import UsageError

# -- what has no formula ---------------------------------------------------------------------------------------------------------


@torch.library.custom_op("mlsys_test::mix", mutates_args=())
def mix(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@mix.register_fake
def _(x: Tensor, w: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], w.shape[1])


class Reads(nn.Module):
    def __init__(self, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner, self.how = nn.Linear(4, 4), how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.inner(x))


class Mixes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.empty(8, 8))

    def forward(self, x: Tensor) -> Tensor:
        return mix(mix(x, self.w), self.w) @ self.w


def test_an_operator_without_a_formula_is_named_and_never_zero():
    count = flops(Mixes(), (5, 8), backward=False)
    assert dict(count.uncounted) == {"mlsys_test::mix": 2}
    assert count.forward == products((5, 8, 8))
    assert "mlsys_test::mix ×2" in str(count)


def test_a_registered_cost_counts_it():
    try:

        @costs("mlsys_test::mix")
        def cost(call: Call) -> OpCost:
            (n, k), (_, m) = call.shapes
            return OpCost(flops=2 * n * k * m, bytes=0)

        count = flops(Mixes(), (5, 8), backward=False)
    finally:
        cost_registry.FORMULAS.pop("mlsys_test::mix", None)
    assert not count.uncounted
    assert count.forward == 3 * products((5, 8, 8))


def test_products_that_have_no_formula_of_ours_are_named_too():
    assert set(flops(nn.Bilinear(3, 4, 5), (2, 3), (2, 4)).uncounted) == {"aten::_trilinear"}
    assert flops(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1), nn.LayerNorm(4)), (2, 4)).uncounted == {}


def test_a_triton_kernel_is_named_by_its_function():
    triton = pytest.importorskip("triton")

    @triton.jit
    def doubled(x, y, n, block): ...

    def launched(x: Tensor) -> Tensor:
        y = torch.empty_like(x)
        torch.library.wrap_triton(doubled)[(1,)](x, y, x.numel(), 64)
        return y

    operator = torch.library.triton_op("mlsys_test::doubled", launched, mutates_args=())
    assert flops(Reads(launched), (2, 4), backward=False).uncounted == {"triton doubled": 1}
    assert flops(Reads(operator), (2, 4), backward=False).uncounted == {"mlsys_test::doubled": 1}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_named_and_its_backward_refused():
    """How many pairs its mask leaves is in a Python function."""
    from torch.nn.attention.flex_attention import flex_attention

    model = Reads(lambda x: flex_attention(*[x.view(1, 1, -1, 4)] * 3))
    assert flops(model, (128, 4), backward=False).uncounted == {"flex_attention": 1}
    with pytest.raises(UsageError, match="not implemented on the CPU"):
        flops(model, (128, 4))


# -- inputs ------------------------------------------------------------------------------------------------------------------------


def test_inputs_as_shapes_as_tensors_and_on_meta():
    for given in ((7, 16), torch.zeros(7, 16), torch.empty(7, 16, device="meta")):
        assert flops(nn.Linear(16, 24), given).forward == products((7, 16, 24))


def test_a_shape_is_of_tokens_where_the_model_begins_with_an_embedding():
    model = nn.Sequential(nn.Embedding(10, 16), nn.Linear(16, 24))
    assert flops(model, (1, 7)).forward == products((7, 16, 24))
    assert flops(model.bfloat16(), (1, 7)).inputs == "int64 [1, 7]"
    assert flops(nn.Linear(4, 4).bfloat16(), (2, 4)).inputs == "bfloat16 [2, 4]"


def test_a_hugging_face_model_brings_its_own_inputs():
    model = hugging_face("GPT2LMHeadModel", n_layer=1)
    tokens = model.dummy_inputs["input_ids"]
    assert flops(model).forward == flops(model, tuple(tokens.shape)).forward


@dataclass
class Answer:
    value: Tensor
    beside: Tensor
    loss: Tensor | None = None


def test_results_in_an_object_of_the_users():
    """Every result is given a gradient, but only the loss where there is one."""
    one = products((2, 4, 4))

    class Answers(nn.Module):
        def __init__(self, trains: bool) -> None:
            super().__init__()
            self.a, self.b, self.trains = nn.Linear(4, 4), nn.Linear(4, 4), trains

        def forward(self, x: Tensor) -> Answer:
            value = self.a(x)
            return Answer(value, self.b(x), value.sum() if self.trains else None)

    assert flops(Answers(False), (2, 4)).backward == 2 * one
    assert flops(Answers(True), (2, 4)).backward == one


def test_without_a_backward():
    count = flops(nn.Linear(16, 24).requires_grad_(False), (7, 16), backward=False)
    assert (count.forward, count.backward, count.total) == (products((7, 16, 24)), 0, products((7, 16, 24)))


def test_under_no_grad_and_under_inference_mode():
    expected = flops(nn.Linear(16, 24), (7, 16))
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert flops(nn.Linear(16, 24), (7, 16)) == expected


def test_under_the_callers_own_modes():
    expected = flops(nn.Linear(16, 24), (7, 16))
    model = nn.Linear(16, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert flops(model, (7, 16)).total == expected.total
    with torch.device("meta"):
        assert flops(model, (7, 16)).total == expected.total
    with FlopCounterMode(display=False):
        assert flops(model, (7, 16)) == expected


def test_a_model_made_for_another_device():
    class OnCuda(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.arange(24, device="cuda")

    assert flops(OnCuda(16, 24), (7, 16)).forward == products((7, 16, 24))


def test_a_compiled_model_is_counted_as_written():
    assert flops(torch.compile(nn.Linear(16, 24)), (7, 16)).forward == products((7, 16, 24))


# -- refusals ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda x: x * x.sum().item(), "Reads depends on values"),
        (lambda x: x if x.sum() > 0 else -x, "Reads depends on values"),
        (lambda x: x[x > 0], "Reads depends on values"),
        (lambda x: torch.from_numpy(x.detach().numpy()), "custom operator"),
        (lambda x: x.detach(), "pass backward=False"),
    ],
)
def test_what_has_no_one_count_is_refused_in_a_sentence(how, says: str):
    with pytest.raises(UsageError, match=says) as refused:
        flops(Reads(how), (2, 4))
    assert "\n" not in str(refused.value)


def test_what_only_training_reads_is_counted_in_evaluation():
    class Drops(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x if self.training and torch.rand(()) < 0.1 else super().forward(x)

    with pytest.raises(UsageError, match=r"try model\.eval\(\)"):
        flops(Drops(4, 4), (2, 4))
    assert flops(Drops(4, 4).eval(), (2, 4)).forward == products((2, 4, 4))


def test_experts_in_a_loop_are_refused_with_what_to_type():
    model = hugging_face("MixtralForCausalLM", hidden_size=64, num_hidden_layers=1, intermediate_size=32, vocab_size=50)
    model.set_experts_implementation("eager")
    with pytest.raises(UsageError, match=r'layers\.0\.mlp.*set_experts_implementation\("grouped_mm"\)'):
        flops(model, (1, 8))


@pytest.mark.parametrize(
    ("model", "inputs", "says"),
    [
        (lambda x: x, ((1, 2),), "was given a function"),
        (nn.Linear(2, 2), (), "give inputs for Linear"),
        (nn.Linear(2, 2), ((-1, 2),), "negative size"),
        (nn.LazyLinear(2), ((1, 2),), "run a lazy one once"),
    ],
)
def test_what_cannot_be_counted_is_refused(model, inputs, says: str):
    with pytest.raises(UsageError, match=says):
        flops(model, *inputs)


def test_a_parameter_made_of_parts_is_refused():
    """As a DTensor's or a quantized one's shape, its own says nothing of what is multiplied."""
    from torch.testing._internal.two_tensor import TwoTensor

    model = nn.Linear(4, 4)
    model.weight = nn.Parameter(TwoTensor(torch.ones(4, 4), torch.ones(4, 4)))
    with pytest.raises(UsageError, match="before it is sharded or quantized"):
        flops(model, (2, 4))
    assert type(model.weight) is TwoTensor


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_refused():
    with pytest.raises(UsageError, match=r"before torch\.jit"):
        flops(torch.jit.script(nn.Linear(2, 2)), (1, 2))


def test_an_error_of_the_model_is_its_own():
    with pytest.raises(RuntimeError, match="reduction dim"):
        flops(nn.Linear(3, 4), (2, 5))


# -- shown -------------------------------------------------------------------------------------------------------------------------


def test_the_text_fits_and_the_page_is_escaped():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("<script>alert(1)</script>" + "x" * 90, nn.Linear(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return next(self.children())(x)

    count = flops(Named(), (3, 4))
    shown = count._repr_mimebundle_()
    assert max(map(len, shown["text/plain"].splitlines())) <= 80
    assert "<script" not in shown["text/html"]
    assert f"{count.forward:,}" in shown["text/plain"]
    assert "Uncounted: none" in shown["text/plain"]


def test_alike_layers_are_one_line():
    text = str(flops(hugging_face("GPT2LMHeadModel"), (1, 16)))
    assert "h.0–11 GPT2Block" in text
    assert max(map(len, text.splitlines())) <= 80


@torch.library.custom_op("mlsys_test::no_fake", mutates_args=())
def without_fake(x: Tensor) -> Tensor:
    return x.clone()


def test_an_operator_that_cannot_run_without_data_is_a_sentence():
    class Calls(nn.Module):
        def forward(self, x):
            return without_fake(x)

    with pytest.raises(UsageError, match=r"custom operator in Calls .* torch\.library\.register_fake"):
        flops(Calls(), torch.zeros(3), backward=False)


def test_a_shape_is_whole():
    with pytest.raises(UsageError, match=r"\(5\.0, 4\) is no shape"):
        flops(nn.Linear(4, 3), (5.0, 4))
