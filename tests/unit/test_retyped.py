"""Operators built anew from what a profiler recorded of them: the same call, in another dtype, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from mlsys_studio.profilers import retyped as module
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.precision import Sample
from mlsys_studio.profilers.retyped import retyped


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SECONDS", 0.1)
    module._retyped.cache_clear()


def calls(run, *names: str) -> dict[str, Call]:
    """What torch's profiler records of these operators while `run` runs."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as recording:
        run()
    assert recording.profiler is not None and recording.profiler.kineto_results is not None
    events = recording.profiler.kineto_results.events()
    return {e.name(): Call.from_event(e) for e in events if e.name() in names}


class Seen(TorchDispatchMode):
    """Which operators ran, on which shapes, strides and dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[tuple[str, tuple]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, torch.Tensor)]
        self.ran.append((func._schema.name, tuple((tuple(t.shape), t.stride(), t.dtype) for t in tensors)))
        return func(*args, **(kwargs or {}))


def train_attention() -> None:
    q, k, v = (torch.randn(2, 16, 3, 8).transpose(1, 2).requires_grad_() for _ in range(3))
    F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()


def train_linear() -> None:
    layer = torch.nn.Linear(24, 40)
    layer(torch.randn(32, 24, requires_grad=True)).sum().backward()


def train_convolution() -> None:
    layer = torch.nn.Conv2d(4, 8, 3, stride=2)
    layer(torch.randn(2, 4, 9, 9, requires_grad=True)).sum().backward()


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (train_linear, "aten::addmm"),
        (train_linear, "aten::mm"),
        (train_attention, "aten::_scaled_dot_product_flash_attention_for_cpu"),
        (train_attention, "aten::_scaled_dot_product_flash_attention_for_cpu_backward"),
        (train_convolution, "aten::convolution_backward"),
        (lambda: torch.baddbmm(torch.zeros(1, 3, 5).expand(2, 3, 5), torch.ones(2, 3, 4), torch.ones(2, 4, 5)), "aten::baddbmm"),
    ],
)  # fmt: skip
def test_the_same_operator_runs_in_both_dtypes_as_it_was_laid_out(run, name: str):
    """Witness: torch's dispatcher, which sees what is really called."""
    call = calls(run, name)[name]
    with Seen() as seen:
        (found,) = retyped([Sample(call, forward=False)], "bfloat16").values()
    assert found > 0
    laid_out = [(shape, strides) for shape, strides in zip(call.shapes, call.strides, strict=True) if shape is not None]
    ran = [tensors for operator, tensors in seen.ran if operator == name]
    assert {tuple((shape, strides) for shape, strides, _ in tensors) for tensors in ran} >= {tuple(laid_out)}
    dtypes = [{dtype for *_, dtype in tensors} for tensors in ran]
    assert {torch.float32} in dtypes and any(torch.bfloat16 in each for each in dtypes)


def test_an_operator_twice_as_wide_takes_longer():
    """Witness: a float64 vector holds half as many numbers."""
    call = Call("aten::mm", ((256, 256), (256, 256)), ("float32", "float32"), (None, None), ((256, 1), (256, 1)))
    (ratio,) = retyped([Sample(call, forward=False)], "float64").values()
    assert ratio > 1.2


def test_a_forward_operator_pays_for_its_casts():
    """Witness: [1, n] @ [n, 1] is a few operations on operands that take long to cast."""
    n = 1 << 18
    call = Call("aten::mm", ((1, n), (n, 1)), ("float32", "float32"), (None, None), ((n, 1), (1, 1)))
    ratios = retyped([Sample(call, forward=True), Sample(call, forward=False)], "float64")
    assert ratios[Sample(call, forward=True)] > ratios[Sample(call, forward=False)]


@pytest.mark.parametrize(
    "call",
    [
        Call("mine::mm", ((2, 2), (2, 2)), ("float32", "float32"), (None, None)),
        Call("aten::mm", ((2, 2), (3, 2)), ("float32", "float32"), (None, None)),
        Call("aten::mm", ((2, 2), (2, 2)), ("int64", "int64"), (None, None)),
        Call("aten::index_select", ((4, 4), None, (2,)), ("float32", "", "int64"), (None, 0, None)),
        Call("aten::cat", (((2, 2), (2, 2)), None), ("float32", ""), (None, 0)),
        Call("aten::no_such_operator", ((2, 2),), ("float32",), (None,)),
    ],
    ids=["not torch's", "refused", "integers", "indices", "a list", "unknown"],
)
def test_what_cannot_be_run_on_made_up_numbers_is_left_out(call: Call):
    assert retyped([Sample(call, forward=True)], "bfloat16") == {}


def test_neither_random_numbers_nor_gradients_notice():
    call = calls(train_attention, "aten::_scaled_dot_product_flash_attention_for_cpu")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    retyped([Sample(c, forward=True) for c in call.values()], "bfloat16")
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.rand(3), expected)


def test_the_same_question_is_measured_once():
    call = Call("aten::mm", ((8, 8), (8, 8)), ("float32", "float32"), (None, None))
    asked = [Sample(call, forward=False)]
    assert retyped(asked, "bfloat16") is retyped(asked, "bfloat16")
