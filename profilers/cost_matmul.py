"""Costs of matrix products: plain, batched, scaled, grouped, and the recurrent layers that are chains of them."""

from __future__ import annotations

from math import prod

from .cost_registry import DISPATCH, Call, Cost, OpCost, Shape, costs


def product(a: Shape, b: Shape) -> int:
    """FLOPs of [..., m, k] @ [..., k, n]: one multiply-add for each (batch, m, k, n)."""
    return 2 * prod(a) * b[-1]


@costs("aten::mm", "aten::bmm", "aten::_int_mm", "aten::_scaled_mm", "aten::_scaled_mm_v2")
def matmul(call: Call) -> Cost:
    """[b, m, k] @ [b, k, n] -> [b, m, n]; the result as wide as the operands, but 4 bytes of int8 and 2 of fp8."""
    a, b = call.shapes[:2]
    size = {"aten::_int_mm": 4, "aten::_scaled_mm": 2, "aten::_scaled_mm_v2": 2}.get(call.name, call.itemsize())
    return OpCost(product(a, b), call.read() + size * prod(a[:-1]) * b[-1])


@costs("aten::addmm", "aten::addmm_", "aten::baddbmm", "aten::baddbmm_", "aten::_addmm_activation")
def added_matmul(call: Call) -> Cost:
    """input + [b, m, k] @ [b, k, n]: as the product, and the input read as it is (a bias has n elements)."""
    a, b = call.shapes[1:3]
    return OpCost(product(a, b), call.read() + call.itemsize(1) * prod(a[:-1]) * b[-1])


@costs("aten::addbmm", "aten::addbmm_")
def summed_matmul(call: Call) -> Cost:
    """input [m, n] + the sum over b of [b, m, k] @ [b, k, n]."""
    a, b = call.shapes[1:3]
    return OpCost(product(a, b), call.read() + call.itemsize(1) * a[-2] * b[-1])


@costs("aten::addmv", "aten::addmv_", "aten::mv")
def matrix_vector(call: Call) -> Cost:
    """[m, k] @ [k] -> [m]; mv itself is an addmv_ with nothing to add."""
    matrix = call.shapes[0 if call.name == "aten::mv" else 1]
    return OpCost(2 * prod(matrix), call.read() + call.itemsize() * matrix[0])


@costs("aten::dot", "aten::vdot")
def dot(call: Call) -> Cost:
    """[k] · [k] -> one number."""
    return OpCost(2 * prod(call.shapes[0]), call.read() + call.itemsize())


@costs("aten::mkldnn_linear", "mkldnn::_linear_pointwise", "mkl::_mkl_linear")
def linear(call: Call) -> Cost:
    """x [..., k] with a weight [n, k] -> [..., n], and what is fused to it; MKL's packed copy is the weight it reads."""
    x, w = call.shapes[0], call.shape("weight", "W", "ORI_W")
    return OpCost(2 * prod(x) * w[0], call.read() - call.nbytes("MKL_W") + call.itemsize() * prod(x[:-1]) * w[0])


@costs("aten::_grouped_mm", "aten::_scaled_grouped_mm", "aten::_scaled_grouped_mm_v2")
def grouped_matmul(call: Call) -> Cost:
    """Groups along rows, columns or the inner dimension. Ragged groups share the 2-D operands between them.

    [g, m, k] @ [g, k, n]; [t, k] @ [g, k, n]; [g, m, k] @ [k, t]; [m, t] @ [t, n] -> g results.
    """
    a, b = call.shapes[:2]
    if len(a) == len(b) == 2:  # groups along the inner dimension: a whole result each
        multiplied, results = product(a, b), call.shape("offs")[0] * a[0] * b[1]
    elif len(a) == 3 and len(b) == 2:  # groups along the columns: each meets one matrix of a
        multiplied, results = 2 * prod(a[1:]) * b[1], a[1] * b[1]
    else:
        multiplied, results = product(a, b), prod(a[:-1]) * b[-1]
    return OpCost(multiplied, call.read() + max(2, call.itemsize()) * results)


@costs("aten::mkldnn_rnn_layer", "aten::mkldnn_rnn_layer_backward")
def onednn_rnn_layer(call: Call) -> Cost:
    """x [t, b, i] through w_ih [g·h, i] and w_hh [g·h, h]: each matrix meets each row of each time step once.

    Backward: once more for the gradient of what it multiplied, once for its own.
    """
    x, w_ih, w_hh = call.shapes[:3]
    rows, hidden = prod(x[:2]), w_hh[-1]
    forward = 2 * rows * (prod(w_ih) + prod(w_hh))
    if call.name.endswith("backward"):
        return OpCost(2 * forward, call.read() + call.nbytes(0, 1, 2, 3, 4))
    return OpCost(forward, call.read() + call.itemsize() * rows * hidden)


@costs("aten::_cudnn_rnn", "aten::_cudnn_rnn_backward")
def cudnn_rnn(call: Call) -> Cost:
    """All layers at once: every weight matrix of the list meets each row of each time step once."""
    x, weights = call.shapes[:2]
    rows = prod(x[:-1])
    forward = 2 * rows * sum(prod(w) for w in weights if len(w) == 2)
    moved = call.read() - call.nbytes("weight_buf")  # the buffer holds the very weights of the list
    if call.name.endswith("backward"):
        mask = call.value("output_mask", (True, True, True, True))
        return OpCost(forward * (1 + bool(mask[3])), moved + call.nbytes(0) + mask[3] * call.nbytes(1))
    directions = 1 + bool(call.value("bidirectional", False))
    return OpCost(forward, moved + call.itemsize() * rows * call.value("hidden_size") * directions)


@costs("aten::_thnn_fused_lstm_cell")
def lstm_cell(call: Call) -> Cost:
    """The gates' elementwise end: gates [b, 4h] twice and c [b, h] read; h, c and the gates written."""
    return OpCost(0, call.read() + 2 * call.nbytes(2) + call.nbytes(0))


@costs("aten::_transformer_encoder_layer_fwd", "aten::_native_multi_head_attention")
def delegating(call: Call) -> Cost:
    """Fused only by name: every product, softmax and norm inside is an operator with its own event."""
    return DISPATCH
