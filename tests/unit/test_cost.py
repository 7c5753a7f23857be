"""What operators cost. Witnesses: torch's own counter on meta tensors, masks counted one by one, tensors' own nbytes."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from operator_calls import flops, own, record, the_call
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mlsys_studio.profilers import cost_registry, operators
from mlsys_studio.profilers.cost import DISPATCH, Call, OpCost, cost_of, costs, dtype_of, optimizer_bytes, own_costs
from mlsys_studio.profilers.cost_attention import pairs
from mlsys_studio.profilers.cost_memory import broadcast

aten = torch.ops.aten


def counted(work) -> int:
    """What torch's counter says of the same work on the meta device."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def call(name: str, *arguments: object, dtype: str = "float32") -> Call:
    """A call as the profiler would record it: tuples of ints are tensors, [..] are lists of numbers, the rest scalars."""
    shapes = tuple(a if isinstance(a, tuple) else None for a in arguments)
    frozen = tuple(tuple(a) if isinstance(a, list) else None if isinstance(a, tuple) else a for a in arguments)
    return Call(name, shapes, tuple("" if s is None else dtype for s in shapes), frozen)


def cost(*arguments, **options) -> OpCost:
    found = cost_of(call(*arguments, **options))
    assert isinstance(found, OpCost)
    return found


def meta(*shape: int, **options) -> Tensor:
    return torch.empty(*shape, device="meta", **options)


# -- matrix products ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mm", [(3, 5), (5, 7)]),
        ("mm", [(1, 1), (1, 1)]),
        ("mm", [(0, 5), (5, 7)]),
        ("bmm", [(2, 3, 5), (2, 5, 7)]),
        ("addmm", [(7,), (3, 5), (5, 7)]),
        ("addmm", [(3, 7), (3, 5), (5, 7)]),
        ("baddbmm", [(2, 3, 7), (2, 3, 5), (2, 5, 7)]),
    ],
)
def test_products_as_torch_counts_them(name: str, shapes):
    found = cost(f"aten::{name}", *shapes)
    assert found.flops == counted(lambda: getattr(aten, name)(*(meta(*s) for s in shapes)))
    result = getattr(aten, name)(*(meta(*s) for s in shapes))
    assert found.bytes == 4 * (sum(meta(*s).numel() for s in shapes) + result.numel())


@pytest.mark.parametrize(
    ("name", "shapes", "as_product"),
    [
        ("mv", [(3, 5), (5,)], [(3, 5), (5, 1)]),
        ("addmv_", [(3,), (3, 5), (5,)], [(3, 5), (5, 1)]),
        ("dot", [(5,), (5,)], [(1, 5), (5, 1)]),
        ("addbmm", [(3, 7), (2, 3, 5), (2, 5, 7)], [(3, 10), (10, 7)]),
        ("_grouped_mm", [(4, 3, 5), (4, 5, 7)], [(12, 5), (5, 7)]),
        ("_grouped_mm", [(12, 5), (4, 5, 7), (4,)], [(12, 5), (5, 7)]),
        ("_grouped_mm", [(3, 20), (20, 7), (4,)], [(3, 20), (20, 7)]),
        ("_grouped_mm", [(4, 3, 5), (5, 28), (4,)], [(3, 5), (5, 28)]),
        ("mkldnn_linear", [(2, 3, 5), (7, 5)], [(6, 5), (5, 7)]),
    ],
)
def test_products_in_disguise(name: str, shapes, as_product):
    assert cost(f"aten::{name}", *shapes).flops == counted(lambda: aten.mm(*(meta(*s) for s in as_product)))


def test_fp8_and_int8_products_write_wider_than_they_read():
    scaled = cost_of(
        Call(
            "aten::_scaled_mm",
            ((16, 32), (32, 64), (), (), None, None, None, None),
            ("float8_e4m3fn", "float8_e4m3fn", "float32", "float32", "", "", "", ""),
            (None,) * 8,
        )
    )
    assert scaled == OpCost(2 * 16 * 32 * 64, 16 * 32 + 32 * 64 + 8 + 2 * 16 * 64)
    assert cost("aten::_int_mm", (16, 32), (32, 64), dtype="int8").bytes == 16 * 32 + 32 * 64 + 4 * 16 * 64


def test_a_narrow_dtype_moves_half():
    assert 2 * cost("aten::mm", (3, 5), (5, 7), dtype="bfloat16").bytes == cost("aten::mm", (3, 5), (5, 7)).bytes


# -- convolutions ------------------------------------------------------------------------------------------------------

CONVOLUTIONS = [  # x, w, stride, padding, dilation, transposed, output padding
    ((2, 6, 9, 10), (8, 6, 3, 3), 1, 0, 1, False, 0),
    ((2, 6, 9, 10), (8, 6, 3, 2), 2, 1, 1, False, 0),
    ((2, 6, 19, 20), (8, 6, 3, 3), 1, 2, 2, False, 0),
    ((2, 6, 9), (8, 6, 4), 3, 2, 1, False, 0),
    ((2, 6, 7, 8, 9), (8, 6, 3, 2, 1), 1, 1, 1, False, 0),
    ((2, 6, 9, 10), (6, 8, 3, 3), 2, 1, 1, True, 1),
    ((2, 6, 9), (6, 8, 3), 2, 0, 2, True, 0),
]


def convolve(x, w, stride, padding, dilation, transposed, extra, groups=1):
    n = len(w) - 2
    return aten.convolution(
        meta(*x), meta(*w), None, [stride] * n, [padding] * n, [dilation] * n, transposed, [extra] * n, groups
    )


@pytest.mark.parametrize("setting", CONVOLUTIONS)
def test_convolution_forward(setting):
    x, w, stride, padding, dilation, transposed, extra = setting
    n, witness, out = len(w) - 2, counted(lambda: convolve(*setting)), convolve(*setting)
    s, p, d, e = ([v] * n for v in (stride, padding, dilation, extra))
    leaves = (
        [cost("aten::cudnn_convolution_transpose", x, w, p, e, s, d, 1, False, False, False),
         cost("aten::_convolution", x, w, None, s, p, d, True, e, 1, False, False, True, True)]
        if transposed
        else [cost("aten::mkldnn_convolution", x, w, None, p, s, d, 1),
              cost("aten::cudnn_convolution", x, w, p, s, d, 1, False, False, False)]
    )  # fmt: skip
    assert [leaf.flops for leaf in leaves] == [witness] * 2
    assert [leaf.bytes for leaf in leaves] == [4 * (meta(*x).numel() + meta(*w).numel() + out.numel())] * 2


@pytest.mark.parametrize("setting", CONVOLUTIONS)
@pytest.mark.parametrize("mask", list(itertools.product([True, False], repeat=3)))
def test_convolution_backward_with_each_mask(setting, mask):
    x, w, stride, padding, dilation, transposed, extra = setting
    n, out = len(w) - 2, tuple(convolve(*setting).shape)
    rest = ([out[1]], [stride] * n, [padding] * n, [dilation] * n, transposed, [extra] * n, 1)
    witness = counted(lambda: aten.convolution_backward(meta(*out), meta(*x), meta(*w), *rest, list(mask)))
    assert cost("aten::convolution_backward", out, x, w, *rest, list(mask)).flops == witness


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [2, 3, 6])
def test_groups_cost_what_as_many_separate_convolutions_cost(transposed: bool, groups: int):
    """torch's counter is no witness for a grouped backward: it counts the weight's gradient `groups` times."""
    x, w = (2, 6, 9, 10), (6, 12 // groups, 3, 3) if transposed else (12, 6 // groups, 3, 3)
    part_x, part_w = (2, 6 // groups, 9, 10), (w[0] // groups, *w[1:])
    settings = (2, 1, 1, transposed, 0)
    out, part_out = convolve(x, w, *settings, groups).shape, convolve(part_x, part_w, *settings).shape
    rest = ([2, 2], [1, 1], [1, 1], transposed, [0, 0])

    def backward(o, x, w, groups):
        return cost("aten::convolution_backward", tuple(o), x, w, [o[1]], *rest, groups, [True, True, False])

    assert tuple(part_out) == (out[0], out[1] // groups, *out[2:])
    assert backward(out, x, w, groups).flops == groups * backward(part_out, part_x, part_w, 1).flops
    forward = counted(lambda: convolve(x, w, *settings, groups))
    assert (
        backward(out, x, w, groups).flops
        == 2 * forward
        == 2 * groups * counted(lambda: convolve(part_x, part_w, *settings))
    )


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: nn.Conv2d(3, 4, 3, padding=1), (1, 3, 5, 5)),  # _slow_conv2d_forward
        (lambda: nn.Conv2d(8, 16, 3, padding=1), (4, 8, 16, 16)),  # mkldnn_convolution
        (lambda: nn.Conv2d(1, 2, 3, dilation=2), (1, 1, 9, 9)),  # slow_conv_dilated2d
        (lambda: nn.Conv1d(8, 16, 3), (4, 8, 32)),
        (lambda: nn.Conv3d(4, 8, 3), (2, 4, 6, 6, 6)),
        (lambda: nn.ConvTranspose2d(8, 16, 3, stride=2), (4, 8, 16, 16)),  # oneDNN, without an operator
        (lambda: nn.ConvTranspose2d(2, 3, 3), (1, 2, 5, 5)),
        (lambda: nn.Conv2d(8, 16, 3).double(), (4, 8, 16, 16)),  # no oneDNN in double
        (lambda: nn.ConvTranspose2d(8, 16, 3).double(), (4, 8, 16, 16)),
        (lambda: nn.Conv2d(8, 16, 3).bfloat16(), (4, 8, 16, 16)),
        (lambda: nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last), (4, 8, 16, 16)),
    ],
)
def test_whichever_kernel_runs_a_convolution_it_is_counted_once(build, shape):
    def work(device: str):
        layer = build().to(device)
        x = torch.zeros(shape, device=device, dtype=layer.weight.dtype, requires_grad=True)
        return lambda: layer(x).sum().backward()

    assert flops(work("cpu")) == counted(work("meta"))


# -- attention ---------------------------------------------------------------------------------------------------------

SDPA = [
    ((2, 4, 7, 8), (2, 4, 7, 8), (2, 4, 7, 8)),
    ((2, 4, 7, 8), (2, 4, 11, 8), (2, 4, 11, 6)),
    ((1, 1, 1, 4), (1, 1, 9, 4), (1, 1, 9, 4)),
]


def forwards(q, k, v, causal: bool) -> dict[str, OpCost]:
    return {
        "flash": cost("aten::_scaled_dot_product_flash_attention", q, k, v, 0.0, causal, False, None),
        "cpu": cost("aten::_scaled_dot_product_flash_attention_for_cpu", q, k, v, 0.0, causal, None, None),
        "efficient": cost("aten::_scaled_dot_product_efficient_attention", q, k, v, None, True, 0.0, causal, None),
        "cudnn": cost("aten::_scaled_dot_product_cudnn_attention", q, k, v, None, True, 0.0, causal, False, None),
        "any": cost("aten::_scaled_dot_product_fused_attention_overrideable", q, k, v, None, 0.0, causal, False, None),
    }


def backwards(q, k, v, causal: bool) -> dict[str, OpCost]:
    out, rows, name = (*q[:-1], v[-1]), q[:-1], "aten::_scaled_dot_product_{}_backward"
    tables, seed = (None, None, q[2], k[2]), (None, None)
    return {
        "flash": cost(name.format("flash_attention"), out, q, k, v, out, rows, *tables, 0.0, causal, *seed, None),
        "cpu": cost(name.format("flash_attention_for_cpu"), out, q, k, v, out, rows, 0.0, causal, None, None),
        "efficient": cost(
            name.format("efficient_attention"), out, q, k, v, None, out, rows, *seed, 0.0, [True] * 4, causal, None
        ),
        "cudnn": cost(name.format("cudnn_attention"), out, q, k, v, out, rows, *seed, None, *tables, 0.0, causal, None),
    }


@pytest.mark.parametrize(("q", "k", "v"), SDPA)
def test_attention_as_torch_counts_it(q, k, v):
    forward = counted(lambda: aten._scaled_dot_product_efficient_attention(meta(*q), meta(*k), meta(*v), None, True))
    assert {c.flops for c in forwards(q, k, v, False).values()} == {forward}
    from torch.utils.flop_counter import sdpa_backward_flop_count

    backward = sdpa_backward_flop_count((*q[:-1], v[-1]), q, k, v)
    assert {c.flops for c in backwards(q, k, v, False).values()} == {backward}


@pytest.mark.parametrize(("s", "t"), [(7, 7), (1, 1), (4, 9), (9, 4), (1, 5), (5, 1)])
def test_a_causal_mask_leaves_what_it_leaves(s: int, t: int):
    top_left = int(torch.ones(s, t).tril().sum())
    assert pairs(s, t, "top left") == top_left
    assert pairs(s, t, "bottom right") == int(torch.ones(s, t).tril(t - s).sum())
    q, k = (2, 4, s, 8), (2, 4, t, 8)
    assert {c.flops for c in forwards(q, k, k, True).values()} == {2 * 8 * top_left * 16}
    assert {c.flops for c in backwards(q, k, k, True).values()} == {2 * 8 * top_left * 40}


def test_the_cpu_kernel_aligns_its_mask_top_left():
    """The docstring's claim, asked of the kernel: with values that are one-hot, the result shows who was seen."""
    q, k = torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 5, 5)
    seen = F.scaled_dot_product_attention(q, k, torch.eye(5).reshape(1, 1, 5, 5), is_causal=True) > 0
    assert torch.equal(seen[0, 0], torch.ones(3, 5).tril() > 0)


def test_shared_heads_are_not_repeated():
    q, k = (2, 8, 16, 4), (2, 2, 16, 4)
    shared, repeated = forwards(q, k, k, False), forwards(q, q, q, False)
    for kernel in shared:
        assert shared[kernel].flops == repeated[kernel].flops
        assert repeated[kernel].bytes - shared[kernel].bytes == 2 * 4 * 2 * 6 * 16 * 4


def test_raw_kernels_have_heads_behind_the_sequence():
    q, k, v = SDPA[1]
    turned = [(b, s, h, d) for b, h, s, d in (q, k, v)]
    same = forwards(q, k, v, False)["flash"]
    flash = cost("aten::_flash_attention_forward", *turned, None, None, 7, 11, 0.0, False, False, *[None] * 7)
    efficient = cost(
        "aten::_efficient_attention_forward", *turned, None, None, None, None, None, 0.0, 0, True, None, None, None
    )
    assert flash == efficient == same
    causal = cost(
        "aten::_efficient_attention_forward", *turned, None, None, None, None, None, 0.0, 1, True, None, None, None
    )
    assert causal.flops == forwards(q, k, v, True)["flash"].flops


def test_packed_sequences_and_windows_are_uncounted():
    q = (21, 4, 8)
    assert (
        cost_of(call("aten::_flash_attention_forward", q, q, q, (4,), (4,), 9, 9, 0.0, True, False, *[None] * 7))
        is None
    )
    q = (2, 7, 4, 8)
    assert (
        cost_of(
            call("aten::_flash_attention_forward", q, q, q, None, None, 7, 7, 0.0, True, False, None, 3, *[None] * 5)
        )
        is None
    )


def test_a_given_mask_is_read_and_counts_as_dense():
    x = torch.randn(2, 4, 7, 8)
    seen = the_call(
        lambda: F.scaled_dot_product_attention(x, x, x, attn_mask=torch.zeros(7, 7)),
        "_scaled_dot_product_flash_attention_for_cpu",
    )
    plain = forwards(x.shape, x.shape, x.shape, False)["cpu"]
    found = cost_of(seen)
    assert (
        isinstance(found, OpCost)
        and found.flops == plain.flops
        and plain.bytes < found.bytes <= plain.bytes + 4 * 2 * 4 * 49
    )


# -- whole models ------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.a, self.b = heads, nn.LayerNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, s, w = x.shape
        q, k, v = self.qkv(self.a(x)).view(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(y.transpose(1, 2).reshape(b, s, w))
        return x + self.down(F.dropout(F.gelu(self.up(self.b(x)))))

    causal = False


class GPT(nn.Module):
    def __init__(self, width=32, layers=2, vocabulary=50):
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        return F.cross_entropy(self.head(self.norm(self.blocks(x))).flatten(0, 1), tokens.flatten())


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.left = nn.Sequential(nn.Conv2d(16, 16, 3, padding=2, dilation=2), nn.GroupNorm(4, 16), nn.SiLU())
        self.right = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.grow = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.interpolate(self.grow(self.left(x) + self.right(x)), scale_factor=0.5)
        return F.cross_entropy(self.head(F.avg_pool2d(x, 2)), torch.zeros(len(x), dtype=torch.long, device=x.device))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 16, 2), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(2, x.shape[1], 16, device=x.device, requires_grad=True)
        return F.mse_loss(
            self.head(self.lstm(x, (start, start.clone()))[0]), torch.zeros(*x.shape[:2], 3, device=x.device)
        )


MODELS = {
    "gpt": (GPT, lambda device: torch.zeros(2, 12, dtype=torch.long, device=device)),
    "cnn": (CNN, lambda device: torch.zeros(4, 3, 32, 32, device=device)),
    "lstm": (Recurrent, lambda device: torch.zeros(5, 4, 8, device=device, requires_grad=True)),
    "encoder": (
        lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        lambda device: torch.zeros(2, 7, 32, device=device),
    ),
}


def training(name: str, device: str, dtype: torch.dtype | None = None):
    build, data = MODELS[name]
    torch.manual_seed(0)
    model = build().to(device)
    x = data(device)

    def step() -> None:
        with torch.autocast(device if device == "cpu" else "cpu", dtype, enabled=dtype is not None):
            out = model(x)
        out.float().sum().backward()

    return step


def expected(name: str) -> int:
    """torch's count on meta, where attention is the plain composite: it keeps the scores that flash computes again."""
    b, h, s, d, layers = 2, 4, 12, 8, 2
    again = layers * 2 * b * h * s * s * d if name == "gpt" else 0
    return counted(training(name, "meta")) + again


@pytest.mark.parametrize("name", MODELS)
def test_a_training_step_is_counted_whole(name: str):
    """Forward and backward under the real profiler against torch's counter; nothing may stay uncounted."""
    found = own(training(name, "cpu"))
    assert {c.name for c, cost in found if cost is None} == set()
    assert sum(cost.flops for _, cost in found if isinstance(cost, OpCost)) == expected(name)


@pytest.mark.parametrize("name", ["gpt", "cnn"])
def test_autocast_changes_dtypes_and_not_flops(name: str):
    found = own(training(name, "cpu", torch.bfloat16))
    assert {c.name for c, cost in found if cost is None} == set()
    assert sum(cost.flops for _, cost in found if isinstance(cost, OpCost)) == expected(name)
    assert {dtype_of(c) for c, cost in found if isinstance(cost, OpCost) and cost.flops} == {"bfloat16"}


def test_a_causal_model_saves_exactly_the_masked_pairs(monkeypatch: pytest.MonkeyPatch):
    full = flops(training("gpt", "cpu"))
    monkeypatch.setattr(Block, "causal", True)
    b, h, s, d, layers = 2, 4, 12, 8, 2
    masked = int((torch.ones(s, s).tril() == 0).sum())
    assert full - flops(training("gpt", "cpu")) == layers * 2 * b * h * masked * (2 + 5) * d


def test_the_fused_encoder_is_counted_by_its_parts():
    layer, x = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval(), torch.zeros(2, 7, 32)

    def fused():
        with torch.no_grad():
            layer(x)

    found = own(fused)
    names = {c.name: cost for c, cost in found}
    assert names["aten::_transformer_encoder_layer_fwd"] is DISPATCH and None not in names.values()
    b, s, w, up = 2, 7, 32, 64
    by_hand = 2 * b * s * (4 * w * w + 2 * w * up) + 4 * b * s * s * w
    assert sum(cost.flops for _, cost in found if isinstance(cost, OpCost)) == by_hand


# -- what only moves data ----------------------------------------------------------------------------------------------

A, B, ROW, ONE = torch.ones(4, 5), torch.ones(4, 5), torch.ones(5), torch.ones(())


@pytest.mark.parametrize(
    ("name", "work", "expected"),
    [
        ("add", lambda: A + B, A.nbytes + B.nbytes + (A + B).nbytes),
        ("add", lambda: A + ROW, A.nbytes + ROW.nbytes + A.nbytes),
        ("mul", lambda: ROW[:, None] * ROW, 2 * ROW.nbytes + 25 * 4),
        ("mul", lambda: A * ONE, A.nbytes + 4 + A.nbytes),
        ("add_", lambda: A.clone().add_(B), 3 * A.nbytes),
        ("relu", lambda: F.relu(A), 2 * A.nbytes),
        ("neg", lambda: -ONE.expand(4, 5), 4 + A.nbytes),  # one element read, twenty written
        ("gt", lambda: A > B, 2 * A.nbytes + 20),  # one byte of bool each
        ("where", lambda: torch.where(A > 0, A, B), 20 + 3 * A.nbytes),
        ("add", lambda: torch.add(A, B, out=torch.empty(4, 5)), 3 * A.nbytes),  # out is not read
        ("mul", lambda: A.bfloat16() * B, A.nbytes // 2 + 2 * A.nbytes),  # the wider dtype is written
        ("addcmul_", lambda: A.clone().addcmul_(B, B), 4 * A.nbytes),
        ("copy_", lambda: torch.empty(4, 5).copy_(ROW), A.nbytes + ROW.nbytes),
        ("copy_", lambda: A.bfloat16(), A.nbytes + A.nbytes // 2),
        ("fill_", lambda: torch.empty(4, 5).fill_(1.0), A.nbytes),
        ("normal_", lambda: torch.empty(4, 5).normal_(), A.nbytes),
        ("cat", lambda: torch.cat([A, B]), 4 * A.nbytes),
        ("sum", lambda: A.sum(0), A.nbytes + ROW.nbytes),
        ("sum", lambda: A.sum(), A.nbytes + 4),
        ("sum", lambda: (A > 0).sum(), 20 + 8),
        ("argmax", lambda: A.argmax(1), A.nbytes + 4 * 8),
        ("max", lambda: A.max(1), A.nbytes + 4 * (4 + 8)),
        ("max", lambda: torch.max(A, B), 3 * A.nbytes),
        ("cumsum", lambda: A.cumsum(0), 2 * A.nbytes),
        ("_softmax", lambda: A.softmax(-1), 2 * A.nbytes),
        ("native_layer_norm", lambda: F.layer_norm(A, (5,)), 2 * A.nbytes + 2 * 4 * 4),
        ("native_layer_norm", lambda: F.layer_norm(A, (5,), ROW, ROW), 2 * A.nbytes + 2 * ROW.nbytes + 2 * 4 * 4),
        ("topk", lambda: A.topk(2), A.nbytes + 4 * 2 * (4 + 8)),
        ("sort", lambda: A.sort(stable=True), 2 * A.nbytes + 20 * 8),
        ("index_select", lambda: A.index_select(0, torch.tensor([1, 1, 2])), 3 * 8 + 2 * 3 * ROW.nbytes),
        ("index_select", lambda: F.embedding(torch.tensor([[1, 2]]), A), 2 * 8 + 2 * 2 * ROW.nbytes),
        ("gather", lambda: A.gather(1, torch.zeros(4, 2, dtype=torch.long)), 8 * 8 + 2 * 8 * 4),
        ("index_add_", lambda: A.clone().index_add_(0, torch.tensor([1]), ROW[None]), 8 + 3 * ROW.nbytes),
        ("tril", lambda: A.tril(), 2 * A.nbytes),
        ("nll_loss_forward", lambda: F.nll_loss(A, torch.zeros(4, dtype=torch.long)), 4 * 8 + (4 + 2) * 4),
        ("max_pool2d_with_indices", lambda: F.max_pool2d(torch.ones(1, 2, 5, 5), 2, return_indices=True), 200 + 2 * 4 * 12),
        ("max_pool2d_with_indices", lambda: F.max_pool2d(torch.ones(1, 2, 5, 5), 2, ceil_mode=True, return_indices=True), 200 + 2 * 9 * 12),
        ("upsample_nearest2d", lambda: F.interpolate(torch.ones(1, 2, 3, 3), scale_factor=2), 72 + 4 * 72),
    ],
)  # fmt: skip
def test_bytes_by_hand(name: str, work, expected: int):
    assert cost_of(the_call(work, name)) == OpCost(0, expected)


@pytest.mark.parametrize(
    ("name", "layer", "shape", "expected"),
    [
        # grad and x read, gradients of x, w, b written; per row (channel, group) two statistics read, and w
        ("native_layer_norm_backward", nn.LayerNorm(5), (4, 5), 3 * 80 + 2 * 16 + 2 * 20 + 2 * 20),
        ("native_group_norm_backward", nn.GroupNorm(2, 6), (4, 6, 3), 3 * 288 + 2 * 32 + 24 + 2 * 24),
        ("native_batch_norm_backward", nn.BatchNorm1d(6), (4, 6, 3), 3 * 288 + 2 * 24 + 24 + 2 * 24),
        ("_softmax_backward_data", nn.Softmax(-1), (4, 5), 3 * 80),
        ("gelu_backward", nn.GELU(), (4, 5), 3 * 80),
        ("threshold_backward", nn.ReLU(), (4, 5), 3 * 80),
        ("max_pool2d_with_indices_backward", nn.MaxPool2d(2, return_indices=False), (1, 2, 4, 4), 32 + 64 + 128),
        ("_adaptive_avg_pool2d_backward", nn.AdaptiveAvgPool2d(2), (1, 2, 4, 4), 32 + 128),
        ("upsample_bilinear2d_backward", nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 4), 512 + 128),
    ],
)
def test_bytes_of_backward_by_hand(name: str, layer: nn.Module, shape, expected: int):
    x, seed = torch.randn(shape, requires_grad=True), None
    seed = torch.randn_like(layer(x))  # a gradient that is not expanded from one number
    assert cost_of(the_call(lambda: layer(x).backward(seed), name)) == OpCost(0, expected)


def test_an_embeddings_gradient_is_the_whole_table():
    table, index = torch.randn(100, 8, requires_grad=True), torch.tensor([[1, 2, 3]])
    seed = torch.randn(1, 3, 8)
    seen = the_call(lambda: F.embedding(index, table).backward(seed), "embedding_dense_backward")
    assert cost_of(seen) == OpCost(0, seed.nbytes + index.nbytes + table.nbytes)


def test_broadcasting_is_torchs():
    for shapes in ([(4, 1), (5,)], [(), (2, 3)], [(0, 3), (1, 3)], [(2, 1, 4), (3, 1), (1,)]):
        assert broadcast(shapes) == tuple(torch.broadcast_shapes(*shapes))


# -- optimizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "name", "passes"),
    [
        (lambda p: torch.optim.AdamW(p, fused=True), "_fused_adamw_", 7),
        (lambda p: torch.optim.Adam(p, fused=True, amsgrad=True), "_fused_adam_", 9),
        (lambda p: torch.optim.SGD(p, lr=0.1, fused=True), "_fused_sgd_", 3),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True), "_fused_sgd_", 5),
        (lambda p: torch.optim.Adagrad(p, fused=True), "_fused_adagrad_", 5),
    ],
)
def test_fused_optimizers_pass_over_their_tensors(build, name: str, passes: int):
    parameters = [torch.randn(10, 3, requires_grad=True), torch.randn(7, requires_grad=True)]
    optimizer = build(parameters)

    def step() -> None:
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer.step()

    step()  # states exist from the first step on
    found = cost_of(the_call(step, name))
    nbytes = sum(p.nbytes for p in parameters)
    assert isinstance(found, OpCost) and 0 <= found.bytes - passes * nbytes <= 8  # a step counter for each tensor


def test_optimizer_bytes_knows_only_optimizers():
    assert optimizer_bytes("aten::_fused_adamw_", 100) == optimizer_bytes("aten::_fused_adam_", 100) == 700
    assert optimizer_bytes("aten::_fused_sgd_", 100) == 300 and optimizer_bytes("aten::_fused_adagrad_", 100) == 500
    assert optimizer_bytes("aten::mm", 100) is optimizer_bytes("aten::sgd", 100) is None


def test_foreach_is_counted_once():
    """On a CPU a loop over the tensors, on CUDA one kernel: own costs are the same in sum."""
    tensors = [torch.ones(10), torch.ones(20)]
    found = own(lambda: torch._foreach_mul_(tensors, 2.0))
    moved = sum(cost.bytes for _, cost in found if isinstance(cost, OpCost))
    assert 2 * 30 * 4 <= moved <= 2 * 30 * 4 + 16  # and the number itself, a tensor for each multiplication


# -- the registry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["view", "as_strided", "transpose", "expand", "select", "slice", "detach", "empty", "reshape", "linear", "matmul"],
)
def test_views_allocations_and_composites_only_dispatch(name: str):
    x = torch.ones(4, 4, requires_grad=True)

    def work() -> None:
        x.view(16).reshape(4, 4).transpose(0, 1).expand(4, 4).select(0, 0).detach()
        torch.matmul(F.linear(x[1:], x), torch.empty(4, 4)).mul(2.0)

    assert cost_of(the_call(work, name)) is DISPATCH


@pytest.mark.parametrize(
    "name",
    [
        "autograd::engine::evaluate_function: AddmmBackward0",
        "AddmmBackward0",
        "torch::autograd::AccumulateGrad",
        "Optimizer.step#AdamW.step",
        "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__",
        "my own region",
        "Torch-Compiled Region: 0/0",
    ],
)
def test_events_that_are_no_operators_only_dispatch(name: str):
    assert cost_of(Call(name, (), ())) is DISPATCH


@pytest.mark.parametrize("name", ["## Call CompiledFxGraph abc ##", "triton_poi_fused_add_0", "aten::_fft_r2c"])
def test_work_without_a_formula_is_uncounted_and_not_free(name: str):
    assert cost_of(Call(name, ((4, 4), None, None, None), ("float32", "", "", ""), (None, (0,), 0, True))) is None


def test_a_signature_nobody_expects_is_uncounted():
    assert cost_of(Call("aten::mm", ((3,),), ("float32",))) is None
    assert cost_of(Call("aten::convolution_backward", (None,) * 11, ("",) * 11, (None,) * 11)) is None


def test_a_cost_is_registered_once():
    name = "mlsys::test_only"
    try:

        @costs(name)
        def twice(call: Call) -> OpCost:
            """x read and written."""
            return OpCost(0, 2 * call.read())

        assert cost_of(call(name, (3, 5))) == OpCost(0, 120)
        with pytest.raises(ValueError, match=r"test_only has a cost already: .*twice"):
            costs(name)(twice)
    finally:
        cost_registry.FORMULAS.pop(name, None)


def test_every_registered_operator_exists_here_or_belongs_to_another_build():
    elsewhere = ("mkldnn::", "mkl::")
    missing = {
        n for n in cost_registry.FORMULAS if not n.startswith(elsewhere) and torch._C._jit_get_operation(n)[0] is None
    }
    assert missing == set()


def test_own_costs_leave_each_operator_its_part():
    whole = [OpCost(10, 100), DISPATCH, OpCost(10, 60), None, OpCost(0, 30), OpCost(4, 4)]
    assert own_costs(whole, [-1, 0, 1, 0, 3, -1]) == [
        OpCost(0, 10),
        DISPATCH,
        OpCost(10, 60),
        None,
        OpCost(0, 30),
        OpCost(4, 4),
    ]
    assert own_costs([OpCost(10, 60), OpCost(10, 60)], [-1, 0]) == [DISPATCH, OpCost(10, 60)]
    assert own_costs([OpCost(0, 0)], [-1]) == [OpCost(0, 0)]
    assert own_costs([], []) == []


def test_overloads_are_told_by_their_arguments():
    def overload(name: str, pattern: str) -> str:
        return operators.overload(f"aten::{name}", pattern)._overloadname

    assert (
        overload("add", "tt.") == "Tensor" and overload("add", "t..") == "Scalar" and overload("add", "tt.t") == "out"
    )
    assert overload("sum", "t.") == "default" and overload("sum", "t...") == "dim_IntList"
    assert overload("index", "t.") == "Tensor"


def test_events_become_calls():
    calls, parents = record(
        lambda: torch.cat([torch.ones(2, 3), torch.ones(4, 3)]).bfloat16() @ torch.ones(3, 1, dtype=torch.bfloat16)
    )
    cat = next(c for c in calls if c.name == "aten::cat")
    assert cat.shapes == (((2, 3), (4, 3)), None) and cat.dtypes == ("float32", "") and cat.concrete == (None, 0)
    product = next(c for c in calls if c.name == "aten::mm")
    assert product.shapes == ((6, 3), (3, 1)) and dtype_of(product) == "bfloat16" and len({*calls}) <= len(calls)
    assert len(parents) == len(calls) and all(p < i for i, p in enumerate(parents))


def test_the_dtype_is_that_of_the_arithmetic():
    assert dtype_of(Call("aten::where", ((2,), (2,), (2,)), ("bool", "bfloat16", "bfloat16"))) == "bfloat16"
    assert dtype_of(Call("aten::_int_mm", ((2, 2), (2, 2)), ("int8", "int8"))) == "int8"
    assert dtype_of(Call("aten::empty", (None,), ("",))) == "float32"
