"""Which of torch's own operators multiply nothing and so have no FLOPs by convention. Of any other, silence is not zero."""

from __future__ import annotations

from typing import Any

from .. import cost_memory
from ..cost_registry import FORMULAS

# They move, fill, pick, sort, reduce or work element by element, and have no formula in the registry, mostly because a
# profile sees the operators they call. Without the "_" of an in-place form.
_NAMES = """
_aminmax _assert_async _assert_scalar _assert_tensor_metadata _ctc_loss _ctc_loss_backward _cudnn_rnn_flatten_weight
_efficientzerotensor _embedding_bag _embedding_bag_backward _embedding_bag_dense_backward _embedding_bag_forward_only
_functional_assert_async _functional_assert_scalar _functional_sym_constrain_range
_functional_sym_constrain_range_for_size _has_same_storage_numel _index_put_impl _is_all_true _is_any_true _lazy_clone
_pack_padded_sequence _prelu_kernel_backward _print _resize_output _safe_softmax _to_copy _unique _unique2
_unsafe_index _unsafe_index_put _unsafe_masked_index _unsafe_masked_index_put_accumulate _unsafe_view
_weight_norm_interface _weight_norm_interface_backward abs adaptive_avg_pool3d_backward adaptive_max_pool2d
adaptive_max_pool2d_backward adaptive_max_pool3d adaptive_max_pool3d_backward allclose as_strided_scatter
bartlett_window binary_cross_entropy_with_logits bincount binomial blackman_window block_diag bucketize cauchy
channel_shuffle clone col2im complex constant_pad_nd copy copysign cummax cummin cumprod cumsum diag_embed
diagonal_backward diagonal_scatter dist embedding embedding_renorm empty empty_like empty_permuted empty_strided eq
equal exponential eye fill floor_divide fractional_max_pool2d fractional_max_pool2d_backward fractional_max_pool3d
fractional_max_pool3d_backward full full_like ge gelu geometric grid_sampler_2d grid_sampler_2d_backward
grid_sampler_3d grid_sampler_3d_backward gt hamming_window hann_window hardshrink_backward hardtanh_backward heaviside
histc im2col index index_put index_reduce isin kaiser_window le lift lift_fresh log_normal logcumsumexp lt
masked_scatter masked_scatter_backward masked_select max_pool2d_backward max_unpool2d max_unpool3d mish
multi_margin_loss multilabel_margin_loss_backward multilabel_margin_loss_forward native_norm ne new_empty
new_empty_strided new_full new_ones new_zeros nonzero nonzero_static normal normal_functional ones ones_like poisson
polar put rand rand_like randint randint_like randn randn_like range reflection_pad1d_backward
reflection_pad2d_backward reflection_pad3d reflection_pad3d_backward renorm repeat repeat_interleave
replication_pad1d_backward replication_pad2d_backward replication_pad3d replication_pad3d_backward resize rot90
rrelu_with_noise rrelu_with_noise_backward rrelu_with_noise_functional scalar_tensor searchsorted segment_reduce
select_backward select_scatter set slice_backward slice_scatter soft_margin_loss soft_margin_loss_backward
softshrink_backward threshold trace tril tril_indices triu triu_indices unfold_backward uniform unique_consecutive
unique_dim unsafe_split unsafe_split_with_sizes zero zeros zeros_like
"""
# "aten::" names: of those, and of all that the registry knows to move bytes only.
MOVES_ONLY = frozenset(f"aten::{name}" for name in _NAMES.split()) | {
    name for name, formula in FORMULAS.items() if formula.__module__ == cost_memory.__name__
}


def multiplies_nothing(func: Any) -> bool:
    """True of an OpOverload that is named here, a view, or pointwise by torch's own tag; never of a custom operator."""
    import torch

    name = func._schema.name
    if not name.startswith(("aten::", "prim::")):
        return False
    results = [result.alias_info for result in func._schema.returns]
    return (
        name.startswith(("prim::", "aten::_foreach_"))
        or name.rstrip("_") in MOVES_ONLY
        or name in MOVES_ONLY
        or bool({torch.Tag.pointwise, torch.Tag.inplace_view} & set(func.tags))
        or (bool(results) and all(alias is not None and not alias.is_write for alias in results))  # a view
    )
