"""Costs of convolutions, of any dimension, grouped, dilated or transposed, forward and backward.

Every weight [o, i/g, *k] meets each output position once, whatever the padding; transposed ([i, o/g, *k]), each input
position. Dilation and layout change where elements lie, not how many are multiplied.
"""

from __future__ import annotations

from math import prod
from typing import Any

from .cost_registry import DISPATCH, Call, Cost, OpCost, Shape, costs


def each(values: Any, dimensions: int) -> Shape:
    """One value for each spatial dimension, where torch allows a single one for all."""
    given = tuple(values) if isinstance(values, tuple) else (values,)
    return given if len(given) == dimensions else given[:1] * dimensions


def spatial(call: Call, x: Shape, kernel: Shape) -> Shape:
    """Output size a dimension: floor((x + 2p - d(k-1) - 1) / s) + 1."""
    n = len(kernel)
    padding, stride, dilation = (
        each(call.value(a, (0,) if a == "padding" else (1,)), n) for a in ("padding", "stride", "dilation")
    )
    sizes = zip(x[-n:], kernel, padding, stride, dilation, strict=True)
    return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, p, s, d in sizes)


def spatial_transposed(call: Call, x: Shape, kernel: Shape) -> Shape:
    """Output size a dimension: (x - 1)s - 2p + d(k-1) + output_padding + 1."""
    n = len(kernel)
    padding, extra = (each(call.value(a, (0,)), n) for a in ("padding", "output_padding"))
    stride, dilation = (each(call.value(a, (1,)), n) for a in ("stride", "dilation"))
    sizes = zip(x[-n:], kernel, padding, extra, stride, dilation, strict=True)
    return tuple((size - 1) * s - 2 * p + d * (k - 1) + e + 1 for size, k, p, e, s, d in sizes)


@costs(
    "aten::mkldnn_convolution",
    "aten::cudnn_convolution",
    "aten::cudnn_convolution_relu",
    "aten::cudnn_convolution_add_relu",
    "aten::miopen_convolution",
    "aten::miopen_depthwise_convolution",
    "aten::miopen_convolution_relu",
    "aten::miopen_convolution_add_relu",
    "aten::_slow_conv2d_forward",
    "aten::slow_conv3d_forward",
    "aten::slow_conv_dilated2d",
    "aten::slow_conv_dilated3d",
    "aten::_conv_depthwise2d",
    "aten::conv_depthwise3d",
    "aten::_nnpack_spatial_convolution",
    "aten::convolution_overrideable",
    "mkldnn::_convolution_pointwise",
)
def convolution(call: Call) -> Cost:
    """x [b, i, *in], w [o, i/g, *k] -> [b, o, *out]."""
    x, w = call.shapes[0], call.shape("weight", "W")
    out = spatial(call, x, w[2:])
    batch = prod(x[: -len(out) - 1])  # nothing before the channels: one image
    return OpCost(2 * batch * prod(out) * prod(w), call.read() + call.itemsize() * batch * w[0] * prod(out))


@costs(
    "aten::cudnn_convolution_transpose",
    "aten::miopen_convolution_transpose",
    "aten::slow_conv_transpose2d",
    "aten::slow_conv_transpose3d",
    "mkldnn::_convolution_transpose_pointwise",
)
def transposed_convolution(call: Call) -> Cost:
    """x [b, i, *in], w [i, o/g, *k] -> [b, o, *out]."""
    x, w = call.shapes[:2]
    n = len(w) - 2
    out, batch = spatial_transposed(call, x, w[2:]), prod(x[: -n - 1])
    channels = w[1] * call.value("groups", 1)
    return OpCost(2 * batch * prod(x[-n:]) * prod(w), call.read() + call.itemsize() * batch * channels * prod(out))


@costs("aten::_convolution")
def undecided_convolution(call: Call) -> Cost:
    """Chooses a library's operator, with one exception: oneDNN's transposed convolution has none and runs right here."""
    return transposed_convolution(call) if call.value("transposed") else DISPATCH


@costs("aten::convolution_backward", "aten::_slow_conv2d_backward", "aten::convolution_backward_overrideable")
def convolution_backward(call: Call) -> Cost:
    """grad_output [b, o, *out], x, w: as many FLOPs as forward for each of the gradients of x and w that is wanted.

    A product reads the other two tensors: x is not read where only its own gradient is wanted, nor w.
    """
    grad, x, w = call.shapes[:3]
    n = len(w) - 2
    positions = (x if call.value("transposed", False) else grad)[-n:]
    to_x, to_w, *to_bias = call.value("output_mask", (True, True, True))
    flops = 2 * prod(grad[: -n - 1]) * prod(positions) * prod(w) * (bool(to_x) + bool(to_w))
    bias = call.itemsize() * grad[-n - 1] if any(to_bias) else 0
    moved = call.nbytes(0) + (call.nbytes(1) + call.nbytes(2)) * (bool(to_x) + bool(to_w)) + bias
    return OpCost(flops, moved)
