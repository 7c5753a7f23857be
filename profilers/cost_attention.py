"""Costs of fused attention: two products forward and five backward over the (query, key) pairs the mask leaves.

Scores stay on chip, so bytes are q, k, v, the result and one log-sum a row. The composite "math" form needs nothing
here: its products and softmax have events of their own.
"""

from __future__ import annotations

from math import prod

from .cost_registry import Call, Cost, OpCost, costs


def pairs(rows: int, columns: int, mask: str = "") -> int:
    """(query, key) pairs a mask leaves, counted and not halved: a causal square has s(s+1)/2.

    "top left": row i sees the first i + 1 keys, as every kernel behind scaled_dot_product_attention aligns it.
    "bottom right": the last row sees all keys. "": no mask, or one given as a tensor, whose values no event has.
    """
    if not mask:
        return rows * columns
    square = min(rows, columns)
    triangle = square * (square + 1) // 2
    if mask == "top left":
        return triangle + (rows - square) * columns
    return triangle + rows * (columns - square)


FORWARD = (
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_cudnn_attention_forward",
)
BACKWARD = (
    "aten::_scaled_dot_product_flash_attention_backward",
    "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    "aten::_scaled_dot_product_efficient_attention_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward",
    "aten::_scaled_dot_product_fused_attention_overrideable_backward",
    "aten::_cudnn_attention_backward",
)


RAW_FORWARD = ("aten::_flash_attention_forward", "aten::_efficient_attention_forward")
RAW_BACKWARD = ("aten::_flash_attention_backward", "aten::_efficient_attention_backward")


@costs(*FORWARD, *RAW_FORWARD)
def attention(call: Call) -> Cost:
    """q [b, h, s, d], k [b, g, t, d], v [b, g, t, e] -> [b, h, s, e]; g < h heads of k and v are shared, not repeated.

    The raw ones have the heads behind the sequence: q [b, s, h, d], k [b, t, g, d].
    """
    return _forward(call, **_sizes(call)) if dense(call) else None


@costs(*BACKWARD, *RAW_BACKWARD)
def attention_backward(call: Call) -> Cost:
    """Scores again, then the gradients of v, probabilities, q and k: 3 products of width d, 2 of width e."""
    return _backward(call, **_sizes(call)) if dense(call) else None


def model_flops(call: Call) -> int | None:
    """What the model asks for: all pairs, masked or not, and no scores again in the backward, which has twice the
    forward's products then. The convention of MFU, and the same whichever kernel runs."""
    if not dense(call):
        return None
    size = _sizes(call)
    forward = 2 * size["heads"] * size["s"] * size["t"] * (size["d"] + size["e"])
    return 2 * forward if "backward" in call.name else forward


def _sizes(call: Call) -> dict[str, int]:
    q, k, v = (call.shape(name) for name in ("query", "key", "value"))
    heads, along = (q[0] * q[2], 1) if call.name in RAW_FORWARD + RAW_BACKWARD else (prod(q[:-2]), -2)
    return dict(heads=heads, s=q[along], t=k[along], d=q[-1], e=v[-1])


def dense(call: Call) -> bool:
    """Four dimensions, no table of lengths, no sliding window: the lengths of packed sequences are in no event."""
    packed = call.nbytes("cum_seq_q", "cu_seqlens_q") > 0
    window = call.value("window_size_left", -1) >= 0 or call.value("window_size", -1) > 0
    return len(call.shape("query")) == 4 and not packed and not window


def _mask(call: Call) -> str:
    """Raw flash attention aligns its causal mask bottom right; the memory-efficient one says which by a number."""
    if kind := call.value("custom_mask_type", 0):
        return {1: "top left", 2: "bottom right"}[kind]
    if not call.value("is_causal", False):
        return ""
    return "bottom right" if call.name.startswith("aten::_flash") else "top left"


def _forward(call: Call, heads: int, s: int, t: int, d: int, e: int) -> OpCost:
    flops = 2 * heads * pairs(s, t, _mask(call)) * (d + e)
    return OpCost(flops, call.read() + heads * s * (e * call.itemsize("query") + 4))


def _backward(call: Call, heads: int, s: int, t: int, d: int, e: int) -> OpCost:
    flops = 2 * heads * pairs(s, t, _mask(call)) * (3 * d + 2 * e)
    return OpCost(flops, call.read() + call.nbytes("query", "key", "value"))
