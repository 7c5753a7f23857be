"""Costs of operators that move data and multiply no matrices: elementwise, copies, norms, reductions, lookups, losses.

No FLOPs, by the ledger's convention: what limits them is traffic. Most differ only in the shape of their result.
"""

from __future__ import annotations

from math import prod

from .cost_convolution import each
from .cost_registry import DISPATCH, SCALAR_TYPES, Call, Cost, OpCost, Shape, costs, itemsize

INDEX = 8  # bytes of an int64 index
# Elementwise, with one byte of bool each.
_ANSWERS = {
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "isnan",
    "isinf",
    "isposinf",
    "isneginf",
    "isfinite",
    "isreal",
    "signbit",
}
_ANSWERS |= {"logical_and", "logical_or", "logical_xor", "logical_not"}


def broadcast(shapes: list[Shape]) -> Shape:
    """The shape that operands of these shapes have together."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def elementwise(call: Call) -> Cost:
    """Operands read as they are, the result written at the shape they broadcast to; in place, at self's."""
    written = call.changed()
    if not written:
        tensors = [i for i in call.tensors if not isinstance(call.shapes[i][0] if call.shapes[i] else 0, tuple)]
        written = prod(broadcast([call.shapes[i] for i in tensors])) * _result_size(call, tensors)
    return OpCost(0, call.read() + written)


def foreach(call: Call) -> Cost:
    """The same on a list of tensors, in one call: `_foreach_add_`, `_foreach_sqrt`, … of the optimizers on CUDA."""
    if call.name.startswith("aten::_foreach_norm"):
        return OpCost(0, call.read() + len(call.shapes[0]) * call.itemsize())
    return OpCost(0, call.read() + (call.changed() or call.nbytes(0)))


def _result_size(call: Call, tensors: list[int]) -> int:
    """Bytes of a result's element: the widest dtype, of tensors with dimensions if there are any; 1 for an answer."""
    if call.name.removeprefix("aten::") in _ANSWERS:
        return 1
    with_dimensions = [i for i in tensors if call.shapes[i]] or tensors
    return max((call.itemsize(i) for i in with_dimensions), default=4)


def _asked_size(call: Call) -> int:
    """Bytes of a result's element where the operator takes a dtype; else self's, but int64 for sums of whole numbers."""
    asked = call.value("dtype")
    if isinstance(asked, int) and asked in SCALAR_TYPES:
        return itemsize(SCALAR_TYPES[asked])
    return call.itemsize() if "float" in call.dtypes[0] else INDEX


# -- one result like the first operand --------------------------------------------------------------------------------


@costs(
    *("aten::" + name for name in (
        "_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data", "_masked_softmax",
        "_masked_softmax_backward", "elu_backward", "leaky_relu_backward", "log_sigmoid_backward", "softplus_backward",
        "prelu", "_prelu_kernel", "hardsigmoid_backward", "hardswish_backward", "mse_loss_backward",
        "smooth_l1_loss_backward", "huber_loss_backward", "binary_cross_entropy_backward", "glu_backward_jvp",
        "flip", "roll", "tril", "triu", "bernoulli", "multi_margin_loss_backward",
        "_transform_bias_rescale_qkv", "log_sigmoid_forward", "native_dropout_backward", "_masked_scale",
        "index_fill", "hardswish", "hardswish_", "pixel_shuffle", "pixel_unshuffle", 
    )),
)  # fmt: skip
def like_first(call: Call) -> Cost:
    """Every operand read, one result as large as the first written."""
    return OpCost(0, call.read() + call.numel(0) * call.itemsize())


@costs("aten::cumsum", "aten::cumprod", "aten::_logcumsumexp")
def running(call: Call) -> Cost:
    """self read, its running result written."""
    return OpCost(0, call.nbytes(0) + call.numel(0) * _asked_size(call))


@costs("aten::native_dropout", "aten::_fused_dropout")
def dropout(call: Call) -> Cost:
    """x read, the result and a mask of bytes written."""
    return OpCost(0, 2 * call.nbytes(0) + call.numel(0))


@costs("aten::sort")
def sort(call: Call) -> Cost:
    """self read, values and their int64 places written."""
    return OpCost(0, 2 * call.nbytes(0) + INDEX * call.numel(0))


@costs("aten::topk")
def topk(call: Call) -> Cost:
    """self read, k values a row and their int64 places written."""
    shape, along = call.shapes[0], call.value("dim", -1)
    kept = call.numel(0) // max(1, shape[along] if shape else 1) * call.value("k")
    return OpCost(0, call.nbytes(0) + kept * (call.itemsize() + INDEX))


# -- writing without reading, copying ----------------------------------------------------------------------------------


@costs(
    *("aten::" + name for name in (
        "zero_", "normal_", "uniform_", "random_", "exponential_", "cauchy_", "log_normal_", "geometric_", "bernoulli_",
        "arange", "linspace", "logspace", "eye", "randperm",
    )),
)  # fmt: skip
def filled(call: Call) -> Cost:
    """self, or out=, written."""
    return OpCost(0, call.changed())


@costs("aten::fill_", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize")
def copied(call: Call) -> Cost:
    """self written, what is copied or filled in read."""
    target, source = (1, 0) if call.name.startswith("aten::_copy_from") else (0, 1)
    return OpCost(0, call.nbytes(target) + (call.nbytes(source) if call.shapes[source] is not None else 0))


@costs("aten::masked_fill_", "aten::index_fill_")
def filled_where(call: Call) -> Cost:
    """The mask or index read, self written; how much of it is in the data, so at most all of it."""
    return OpCost(0, call.read())


@costs("aten::cat", "aten::stack", "aten::_stack", "aten::_chunk_cat")
def joined(call: Call) -> Cost:
    """Every tensor of the list read and written once."""
    return OpCost(0, 2 * call.nbytes(0))


@costs("aten::_local_scalar_dense")
def one_number(call: Call) -> Cost:
    """One element to the host."""
    return OpCost(0, call.itemsize())


# -- reductions --------------------------------------------------------------------------------------------------------


def reduced(call: Call) -> int:
    """Elements left of self when the dimensions of argument `dim` are gone; one where it names none."""
    shape, along = call.shapes[0], call.value("dim", ())
    along = along if isinstance(along, tuple) else (along,)
    if not along:
        return 1
    gone = {axis % max(1, len(shape)) for axis in along}
    return prod(size for axis, size in enumerate(shape) if axis not in gone)


@costs(
    *("aten::" + name for name in (
        "sum", "nansum", "mean", "prod", "amax", "amin", "all", "any", "var", "std", "norm", "linalg_vector_norm",
        "logsumexp", "median", "nanmedian", "count_nonzero", "argmax", "argmin",
    )),
)  # fmt: skip
def reduction(call: Call) -> Cost:
    """self read, what is left of it written; of argmax and argmin its place."""
    size = INDEX if "arg" in call.name else _asked_size(call)
    return OpCost(0, call.nbytes(0) + reduced(call) * size)


@costs("aten::max", "aten::min", "aten::aminmax", "aten::var_mean", "aten::std_mean", "aten::mode", "aten::kthvalue")
def paired_reduction(call: Call) -> Cost:
    """Two results (values and places, variance and mean); max and min of two tensors are elementwise."""
    if len(call.tensors) == 2:
        return elementwise(call)
    second = call.itemsize() if "mean" in call.name or "aminmax" in call.name else INDEX
    return OpCost(0, call.nbytes(0) + reduced(call) * (call.itemsize() + second))


# -- norms -------------------------------------------------------------------------------------------------------------


@costs("aten::native_layer_norm", "aten::_fused_rms_norm")
def layer_norm(call: Call) -> Cost:
    """x [rows, columns] and the weights read; y, and one number a row for each statistic (two, or RMS alone) written."""
    rows = call.numel(0) // max(1, prod(call.value("normalized_shape")))
    statistics = 1 if "rms" in call.name else 2
    return OpCost(0, call.read() + call.nbytes(0) + 4 * statistics * rows)


@costs("aten::native_group_norm")
def group_norm(call: Call) -> Cost:
    """As layer norm, with two numbers for each group of each image."""
    groups = call.value("N") * call.value("group")
    return OpCost(0, call.read() + call.nbytes(0) + 2 * groups * call.itemsize())


@costs(
    *("aten::" + name for name in (
        "native_layer_norm_backward", "_fused_rms_norm_backward", "native_group_norm_backward",
        "native_batch_norm_backward", "batch_norm_backward", "cudnn_batch_norm_backward", "miopen_batch_norm_backward",
    )),
)  # fmt: skip
def norm_backward(call: Call) -> Cost:
    """grad and x read, with the row's or channel's numbers; of the gradients, those that are wanted written."""
    to_x, *to_weights = call.value("output_mask", (True, True, True))
    weight = call.nbytes("weight")
    aside = call.nbytes("running_mean", "running_var")  # evaluation's, not training's
    aside += call.nbytes("reserve")
    return OpCost(
        0, call.read() - aside + bool(to_x) * call.numel(0) * call.itemsize() + sum(map(bool, to_weights)) * weight
    )


@costs(
    *("aten::" + name for name in (
        "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm",
        "_batch_norm_with_update", "_batch_norm_no_update", "_native_batch_norm_legit_no_training",
    )),
)  # fmt: skip
def batch_norm(call: Call) -> Cost:
    """x [n, c, …] once in and once out; c numbers for each weight and statistic."""
    training = call.value("training", call.value("train", "no_" not in call.name))
    channels = call.shapes[0][1] if len(call.shapes[0]) > 1 else 0
    saved = 4 * channels * max(4, call.itemsize()) if training else 0  # 2 saved, 2 running
    return OpCost(0, call.read() + call.nbytes(0) + saved)


# -- lookups -----------------------------------------------------------------------------------------------------------


@costs("aten::index_select")
def index_select(call: Call) -> Cost:
    """A row of self for each index: as many bytes out as in, but no row of self has to be read twice."""
    shape, picked = call.shapes[0], call.numel("index")
    rows = shape[call.value("dim", 0)] if shape else 1
    row = call.numel(0) // max(1, rows) * call.itemsize()
    return OpCost(0, call.nbytes("index") + row * (picked + min(picked, rows)))


@costs("aten::gather", "aten::take")
def gather(call: Call) -> Cost:
    """An element of self for each index."""
    picked = call.numel("index")
    return OpCost(0, call.nbytes("index") + call.itemsize() * (picked + min(picked, call.numel(0))))


@costs(
    *("aten::" + name for name in (
        "scatter", "scatter_", "scatter_add", "scatter_add_", "index_add", "index_add_", "index_copy", "index_copy_",
        "scatter_reduce", "scatter_reduce_",
    )),
)  # fmt: skip
def scatter(call: Call) -> Cost:
    """Index and source read, their elements of self written (read too, to add); all of self copied if not in place."""
    source = next((a for a in ("src", "source") if call.has(a)), None)
    given = call.numel(source) if source else call.numel("index")
    adds = "add" in call.name or "reduce" in call.name
    touched = min(given, call.numel(0)) * call.itemsize() * (1 + adds)
    copied_first = 0 if call.name.endswith("_") else 2 * call.nbytes(0)
    return OpCost(0, call.nbytes("index") + (call.nbytes(source) if source else 0) + touched + copied_first)


@costs("aten::index_put_", "aten::_index_put_impl_")
def index_put(call: Call) -> Cost:
    """Values read and written; the index itself is in no event, and a single value says nothing of how many."""
    values = call.nbytes("values")
    adds = bool(call.value("accumulate", False))
    return OpCost(0, values * (2 + adds)) if call.shape("values") else None


@costs("aten::embedding_dense_backward")
def embedding_backward(call: Call) -> Cost:
    """grad [*, d] and the indices read, the gradient of the whole table written: mostly zeros."""
    width = call.shapes[0][-1]
    return OpCost(0, call.read() + call.value("num_weights") * width * call.itemsize())


# -- pooling and resizing ----------------------------------------------------------------------------------------------


@costs(
    "aten::max_pool2d_with_indices",
    "aten::max_pool3d_with_indices",
    "aten::avg_pool2d",
    "aten::avg_pool3d",
    "aten::mkldnn_max_pool2d",
)
def pool(call: Call) -> Cost:
    """x read, one number for each window written, and its int64 place where max pooling keeps it."""
    x, n = call.shapes[0], 3 if "3d" in call.name else 2
    kernel = each(call.value("kernel_size"), n)
    stride, padding, dilation = (
        each(call.value(a) or default, n) for a, default in (("stride", kernel), ("padding", 0), ("dilation", 1))
    )
    up = stride if call.value("ceil_mode", False) else (1,) * n
    sizes = zip(x[-n:], kernel, padding, stride, dilation, up, strict=True)
    out = [(size + 2 * p - d * (k - 1) - 1 + u - 1) // s + 1 for size, k, p, s, d, u in sizes]
    place = INDEX if "indices" in call.name else 0
    return OpCost(0, call.nbytes(0) + prod(x[:-n]) * prod(out) * (call.itemsize() + place))


@costs("aten::max_pool2d_with_indices_backward", "aten::max_pool3d_with_indices_backward")
def max_pool_backward(call: Call) -> Cost:
    """grad and the places read, the gradient of x written; x itself is not looked at."""
    return OpCost(0, call.nbytes(0, "indices") + call.numel(1) * call.itemsize())


@costs(
    "aten::avg_pool2d_backward",
    "aten::avg_pool3d_backward",
    "aten::_adaptive_avg_pool2d_backward",
    "aten::_adaptive_avg_pool3d_backward",
)
def average_pool_backward(call: Call) -> Cost:
    """grad read, the gradient of x written; of x only the shape is needed."""
    return OpCost(0, call.nbytes(0) + call.numel(1) * call.itemsize())


RESIZING = tuple(
    f"aten::{name}"
    for name in (
        "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
        "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
        "_upsample_nearest_exact3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa",
    )
)  # fmt: skip


@costs("aten::_adaptive_avg_pool2d", "aten::_adaptive_avg_pool3d", *RESIZING)
def resized(call: Call) -> Cost:
    """x read, the same channels at `output_size` written; by scale factors it calls itself with the size."""
    x, size = call.shapes[0], call.value("output_size")
    if size is None:
        return DISPATCH
    return OpCost(0, call.nbytes(0) + prod(x[: -len(size)]) * prod(size) * call.itemsize())


@costs(*(f"{name}_backward" for name in RESIZING))
def resized_backward(call: Call) -> Cost:
    """grad read, the gradient of x at `input_size` written."""
    return OpCost(0, call.nbytes(0) + prod(call.value("input_size")) * call.itemsize())


@costs(
    "aten::reflection_pad1d",
    "aten::reflection_pad2d",
    "aten::replication_pad1d",
    "aten::replication_pad2d",
)
def padded(call: Call) -> Cost:
    """x read, x and its margins written: `pad` has (before, after) for each dimension from the last."""
    x, margins = call.shapes[0], call.value("pad", call.value("padding"))
    sides = [sum(margins[i : i + 2]) for i in range(0, len(margins), 2)][::-1]
    kept = len(x) - len(sides)
    out = (*x[:kept], *(size + more for size, more in zip(x[kept:], sides, strict=True)))
    return OpCost(0, call.nbytes(0) + prod(out) * call.itemsize())


# -- losses ------------------------------------------------------------------------------------------------------------


@costs("aten::nll_loss_forward", "aten::nll_loss2d_forward")
def nll_loss(call: Call) -> Cost:
    """One log-probability for each target; two numbers written unless each loss is wanted."""
    targets = call.numel("target")
    weight = call.nbytes("weight")
    results = targets if call.value("reduction", 1) == 0 else 1
    return OpCost(0, call.nbytes("target") + weight + (targets + results + 1) * call.itemsize())


@costs("aten::nll_loss_backward", "aten::nll_loss2d_backward")
def nll_loss_backward(call: Call) -> Cost:
    """The targets read, a gradient like the log-probabilities written, mostly zeros."""
    weight = call.nbytes("weight")
    return OpCost(0, call.nbytes(0, "target") + weight + call.numel("self") * call.itemsize())


@costs("aten::mse_loss", "aten::smooth_l1_loss", "aten::huber_loss", "aten::binary_cross_entropy")
def loss(call: Call) -> Cost:
    """Prediction and target read; one number written unless each loss is wanted."""
    results = call.numel(0) if call.value("reduction", 1) == 0 else 1
    return OpCost(0, call.read() + results * call.itemsize())


@costs("aten::glu")
def glu(call: Call) -> Cost:
    """x read, half as much written."""
    return OpCost(0, call.nbytes(0) + call.nbytes(0) // 2)


@costs("aten::glu_backward")
def glu_backward(call: Call) -> Cost:
    """grad and x read, a gradient like x written."""
    return OpCost(0, call.read() + call.nbytes(1))


@costs("aten::multinomial")
def multinomial(call: Call) -> Cost:
    """Probabilities read, int64 samples written."""
    shape = call.shapes[0]
    return OpCost(0, call.nbytes(0) + INDEX * prod(shape[:-1]) * call.value("num_samples"))
