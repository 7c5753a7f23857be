"""Memory of live models. Witnesses: torch's allocator through its profiler, saved_tensors_hooks, real optimizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlsys_studio.profilers.calculators.hugging_face import from_config
from mlsys_studio.profilers.calculators.live_memory import LiveMemory, measure
from mlsys_studio.profilers.calculators.memory import estimate, memory
from mlsys_studio.profilers.errors import UsageError

HIDDEN, VOCAB = 64, 301


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)])
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        b, s, h = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(b, s, 3, 4, h // 4).transpose(1, 3).unbind(2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, s, h))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Gpt(nn.Module):
    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, HIDDEN)
        self.blocks = nn.ModuleList([Block() for _ in range(layers)])
        self.head = nn.Linear(HIDDEN, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> dict[str, Tensor]:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x)
        logits = self.head(x)
        return {"loss": F.cross_entropy(logits.view(-1, VOCAB), ids.view(-1)), "logits": logits}


class Pictures(nn.Module):
    """Convolutions, a buffer that a step changes, and dropout, which draws."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Conv2d(8, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).square().mean()


def ids(batch: int = 3, sequence: int = 24) -> Tensor:
    return torch.zeros(batch, sequence, dtype=torch.long)


def test_the_peak_is_the_allocators():
    """To the byte but for the losses' few scalars; profiled, the same step runs on real memory."""
    found = memory(Gpt(), ids(), run=True)
    assert isinstance(found, LiveMemory) and found.allocator is not None
    assert found.moving == pytest.approx(found.allocator, abs=1024)
    assert found.moving > found.kept > 0 and found.off == pytest.approx(0, abs=1e-3)


def test_a_convolutions_peak_is_below_the_allocators():
    """But for what oneDNN's kernels take for themselves, copies of their operands in another layout, as the sheet says."""
    found = measure(Pictures(), torch.randn(4, 3, 32, 32), run=True)
    assert found.allocator and 0.5 * found.allocator < found.moving <= found.allocator
    assert "workspaces of kernels" in str(found)


def test_what_the_forward_keeps_is_what_autograd_saves():
    """And its results: of the logits those that nobody saved."""
    module, kept = Gpt(), {}
    own = {p.untyped_storage().data_ptr() for p in module.parameters()} | {0}
    inputs = ids()

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = module(inputs)
    saved = {at: t for at, t in kept.items() if at not in own | {inputs.untyped_storage().data_ptr()}}
    expected = (
        sum(t.untyped_storage().nbytes() for t in saved.values()) + result["logits"].nbytes + result["loss"].nbytes
    )
    assert measure(module, inputs).kept == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_closed_form_is_an_upper_bound_and_a_near_one(dtype: torch.dtype):
    """A Llama of transformers: the sum of all parts against the peak of the live step, and the allocator's."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        vocab_size=1000,
        use_cache=False,
        pad_token_id=0,
    )
    module = transformers.LlamaForCausalLM(config).to(dtype)
    live = measure(module, ids(4, 128), labels=ids(4, 128), run=True)
    assert live.allocator
    closed = estimate(from_config(config), batch=4, sequence=128, precision=str(dtype).removeprefix("torch."))
    assert (closed.parts.weights, closed.parts.gradients) == (live.weights, live.gradients)
    assert closed.parts.optimizer == live.optimizer
    really = live.total - live.moving + live.allocator
    assert really <= closed.total <= 1.2 * really
    assert live.moving == pytest.approx(live.allocator, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("width", "kv_heads"), [(344, 2), (64, 4), (64, 1)])
def test_a_forward_alone_is_as_wide_as_its_widest_layer(width: int, kv_heads: int, dtype: torch.dtype):
    """What the allocator sees of a Llama of transformers, where the MLP is widest, or attention by queries or keys."""
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=128,
        intermediate_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        vocab_size=1000,
        use_cache=False,
        pad_token_id=0,
    )
    module = transformers.LlamaForCausalLM(config).to(dtype).eval()
    live = measure(module, ids(4, 128), backward=False, run=True, logits_to_keep=1)
    name = str(dtype).removeprefix("torch.")
    found = estimate(from_config(config), batch=4, sequence=128, mode="inference", precision=name).parts
    places = 128 * (8 + 2 * 32 * dtype.itemsize)  # of each its index, cosines and sines of a head
    assert live.allocator == found.working + places
    assert found.logits == 4 * 1000 * (dtype.itemsize + 4)


def test_states_are_exact():
    module = Gpt()
    for parameter in module.blocks[0].parameters():
        parameter.requires_grad_(False)
    weights = sum(p.nbytes for p in module.parameters())
    wanted = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    found = measure(module, ids())
    assert (found.weights, found.gradients, found.optimizer) == (weights, wanted, 2 * wanted)

    optimizer = torch.optim.AdamW(module.parameters())
    with pytest.raises(UsageError, match="no states yet"):
        measure(module, ids(), optimizer=optimizer)
    module(ids())["loss"].backward()
    optimizer.step()
    counters = 4 * sum(p.requires_grad for p in module.parameters())
    assert measure(module, ids(), optimizer=optimizer).optimizer == 2 * wanted + counters


@pytest.mark.parametrize("run", [False, True])
def test_nothing_of_the_users_is_touched(run: bool):
    module, inputs = Pictures(), torch.randn(2, 3, 16, 16)
    module(inputs).backward()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    gradients = [p.grad for p in module.parameters()]
    values = [None if g is None else g.clone() for g in gradients]
    state = torch.get_rng_state()
    measure(module, inputs, run=run)
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    for p, gradient, value in zip(module.parameters(), gradients, values, strict=True):
        assert p.grad is gradient and gradient is not None and value is not None and torch.equal(gradient, value)


def test_a_forward_alone_keeps_nothing_of_its_layers():
    few, many = (measure(Gpt(n), ids(), backward=False) for n in (2, 8))
    assert few.moving == many.moving and few.gradients == few.optimizer == 0
    assert measure(Gpt(8), ids()).kept > measure(Gpt(2), ids()).kept


def test_grows_with_batch_and_layers():
    assert measure(Gpt(), ids(6)).moving > measure(Gpt(), ids(3)).moving
    assert measure(Gpt(4), ids()).total > measure(Gpt(3), ids()).total


def test_a_model_too_large_for_this_machine():
    """Two trillion weights on meta: 8 TB in fp32, and nothing is allocated."""
    with torch.device("meta"):
        module = nn.Sequential(*[nn.Linear(2**20, 2**20, bias=False) for _ in range(2)])
    found = measure(module, (1, 2**20))
    assert found.weights == found.gradients == 2 * 2**40 * 4
    with pytest.raises(UsageError, match="with data"):
        measure(module, (1, 2**20), run=True)


def test_shown_in_80_columns():
    found: Any = measure(Gpt(), ids(), run=True)
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80 and "the allocator saw" in text
    assert "aten::" in found._repr_mimebundle_()["text/html"]
