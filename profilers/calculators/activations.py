"""What the forward keeps for the backward: tensors that autograd saves, in bytes a token, layer by layer.

A layer of hidden size h with a query heads, g key/value heads of size d and an MLP of width f keeps, in elements a token,

    input and output of each norm    2 h + 2 h           one input where attention and MLP share it
    queries, keys, values            (a + g) d + g d_v   rotated, as attention takes them
    attention's result               a d_v               and its log-sum-exp in fp32, or without flash a s probabilities
    MLP                              4 f gated, 2 f not  gate, up and the activated gate, their product; 3 f in one kernel
    norms' statistics                1 fp32 number (RMSNorm) or 2 (LayerNorm)

of which queries to MLP are divided over tensor parallel ranks, and the rest too under sequence parallelism. This is
Korthikanti et al.'s 34 + 5 as/h in 16 bits with dropout and without flash attention (arXiv:2205.05198, section 4), whose
equations are here as well, as published.

"fused" means that RMSNorm and the gated activation are one kernel each, which keep their inputs alone (Megatron-LM,
Transformer Engine, Liger, torch.compile). Otherwise they are as transformers' modelling code has them: an RMSNorm keeps
an fp32 copy of its input and the normalized one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import UsageError
from .amounts import positive, whole
from .architecture import MLP, Attention, Block, Experts, Transformer
from .recompute import Recompute

FP32, INDEX, MASK = 4, 8, 1  # bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes a token."""

    split: int = 0  # divided over tensor parallel ranks
    whole: int = 0  # on each of them, and divided only under sequence parallelism
    fixed: int = 0  # divided by no tensor parallelism: tokens on their way to experts, inputs gathered for good
    scores: int = (
        0  # like split; what selective recomputation computes again: probabilities and their dropout, activations
    )

    def __add__(self, other: Kept) -> Kept:
        return Kept(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def on_device(self, tp: int, sequence_parallel: bool) -> float:
        whole = self.whole / tp if sequence_parallel else self.whole
        return (self.split + self.scores) / tp + whole + self.fixed


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a layer is computed, as far as it decides what is kept."""

    itemsize: int = 2  # of activations
    flash: bool = True  # attention keeps no probabilities
    fused: bool = False
    dropout: bool = False  # on probabilities, and after attention, MLP and embedding


def layer_kept(block: Block, model: Transformer, *, keys: int, kernels: Kernels, source: int | None = None) -> Kept:
    """What one layer keeps for a token that attends to `keys` tokens, and `source` of an encoder."""
    attention = _attention(block.attention, model, keys, kernels)
    h, norms = model.hidden, 1 if block.parallel else block.norms
    reads = 1 if block.parallel and block.norms < 2 else 2
    kept = attention + _mlp_kept(block.mlp, model, kernels) + reads_kept(reads, model, kernels)
    kept += Kept(whole=norms * norm_input(model, h, kernels) + block.norms * norm_own(model, h, kernels))
    if kernels.dropout:
        kept += Kept(whole=2 * h * MASK)
    if block.cross is not None:
        kept += _attention(block.cross, model, keys if source is None else source, kernels)
        kept += reads_kept(1, model, kernels)
        kept += Kept(whole=norm_input(model, h, kernels) + norm_own(model, h, kernels) + kernels.dropout * h * MASK)
    return kept


def ends_kept(model: Transformer, kernels: Kernels) -> tuple[Kept, Kept]:
    """What embedding and head keep for a token, the logits apart."""
    h, e = model.hidden, kernels.itemsize
    norm = norm_input(model, h, kernels) + norm_own(model, h, kernels)
    first = Kept(whole=INDEX * bool(model.vocab) + kernels.dropout * h * MASK)
    if model.embedding_norm:
        first += Kept(whole=norm)
    last = Kept(whole=norm if model.final_norm else 0) + reads_kept(int(model.head), model, kernels)
    if model.head_transform:  # a layer, its activation and a norm before the logits
        last += Kept(whole=h * e + h * e + norm)
    return first, last


def layer_moment(block: Block, model: Transformer, *, keys: int, kernels: Kernels) -> int:
    """Bytes a token that one layer has at its widest while it runs forward; gradients on the way back are as wide.

    In parts, as transformers runs it: the embedding, the layer's input, the sum after attention and a norm's result;
    with them the three tensors of a gated activation, or queries, keys and values and those of their rotation.
    """
    a, mlp, h = block.attention, block.mlp, model.hidden
    queries, shared = a.heads * a.head_dim, a.kv_heads * a.head_dim
    attention = queries + shared + a.kv_heads * a.value_dim
    attention += queries if kernels.fused else max(3 * queries, queries + 3 * shared)
    if not kernels.flash:
        attention += 2 * a.heads * keys
    width = (
        mlp.matrices * mlp.width if isinstance(mlp, MLP) else mlp.active * (2 * h + mlp.each.matrices * mlp.each.width)
    )
    if kernels.fused:
        return kernels.itemsize * (2 * h + max(attention, width))
    return kernels.itemsize * max(3 * h + attention, 4 * h + width)


def reads_kept(count: int, model: Transformer, kernels: Kernels) -> Kept:
    """Inputs of projections. Sequence parallelism gathers them; Megatron's kernel keeps its part and gathers again."""
    size = count * model.hidden * kernels.itemsize
    return Kept(whole=size) if kernels.fused else Kept(fixed=size)


def norm_input(model: Transformer, width: int, kernels: Kernels) -> int:
    """The fp32 copy of an RMSNorm in parts, or the input as it is."""
    return width * (FP32 if model.norm == "rms" and not kernels.fused else kernels.itemsize)


def norm_own(model: Transformer, width: int, kernels: Kernels, rows: int = 1) -> int:
    """Statistics of each row, and the normalized input of an RMSNorm in parts."""
    if model.norm == "layer":
        return 2 * FP32 * rows
    return FP32 * rows + (0 if kernels.fused else width * kernels.itemsize)


def _attention(a: Attention, model: Transformer, keys: int, kernels: Kernels) -> Kept:
    e = kernels.itemsize
    values = a.kv_heads * a.value_dim
    kept = Kept(split=(a.heads * a.head_dim + a.kv_heads * a.head_dim + values + a.heads * a.value_dim) * e)
    if kernels.flash:
        kept += Kept(split=a.heads * FP32)
    else:
        kept += Kept(scores=a.heads * keys * (2 * e + MASK if kernels.dropout else e))
    if a.qk_norm is not None:
        width, rows = (a.heads + a.kv_heads) * a.head_dim, 2 if a.qk_norm == "row" else a.heads + a.kv_heads
        kept += Kept(split=norm_input(model, width, kernels) + norm_own(model, width, kernels, rows))
    return kept if a.latent is None else kept + _latent(a, model, kernels)


def _latent(a: Attention, model: Transformer, kernels: Kernels) -> Kept:
    """Both compressed vectors before and after their norms, and the up-projection's result, of which values are a view."""
    lat, e = a.latent, kernels.itemsize
    assert lat is not None
    ranks = [lat.kv_rank, *([lat.q_rank] if lat.q_rank is not None else [])]
    before = sum(norm_input(model, rank, kernels) for rank in ranks)
    if kernels.fused or e == FP32:  # the norm's input is a view, which keeps the rotary part with it
        before += lat.rope_dim * e
    own = sum(norm_own(model, rank, kernels) + rank * e for rank in ranks)
    up = a.heads * (a.head_dim - lat.rope_dim) * e  # beside the values, which are counted with attention
    again = 0 if kernels.fused else a.heads * a.value_dim * e  # the result, copied into the order of tokens
    return Kept(split=up + again, whole=before + own)


def _mlp_kept(mlp: MLP | Experts, model: Transformer, kernels: Kernels) -> Kept:
    if isinstance(mlp, MLP):
        again = mlp.width * kernels.itemsize if kernels.fused else 0  # the activation, of inputs that are kept anyway
        return Kept(split=_widths(mlp, kernels) * mlp.width * kernels.itemsize - again, scores=again)
    h, e, k = model.hidden, kernels.itemsize, mlp.active
    routed = _mlp_kept(mlp.each, model, kernels)
    kept = Kept(
        split=k * routed.split,
        scores=k * routed.scores,
        whole=mlp.count * FP32 + k * INDEX,  # the router's probabilities, and which were chosen
        fixed=k
        * (2 * h * e + FP32 + 2 * INDEX),  # into the experts and out of them; weights, and places there and back
    )
    if mlp.shared is not None:
        kept += _mlp_kept(mlp.shared, model, kernels)
        if mlp.shared_gate:
            kept += Kept(whole=(h + 1) * e)
    return kept


def _widths(mlp: MLP, kernels: Kernels) -> int:
    return 2 if not mlp.gated else 3 if kernels.fused else 4


def korthikanti_activation_bytes(
    *,
    sequence: int,
    batch: int,
    hidden: int,
    heads: int,
    layers: int = 1,
    tp: int = 1,
    sequence_parallel: bool = False,
    recompute: Recompute = "none",
    itemsize: float = 2,
) -> float:
    """Bytes a device keeps of `layers` GPT layers, as Korthikanti et al. 2022, arXiv:2205.05198, Table 2 has them.

                                      none                             selective
        no parallelism, equation 1    sbh (34 + 5 as/h)                34 sbh
        tensor, 2                     sbh (10 + 24/t + 5 as/(ht))      sbh (10 + 24/t)
        and sequence parallel, 4      sbh/t (34 + 5 as/h)              34 sbh/t (6)
        full                          2 sbh

    For 16-bit numbers and dropout masks of one byte; the fp32 statistics of norms are left out. Another `itemsize`
    scales all of it, masks too, as is often done.
    """
    for name, size in {"sequence": sequence, "batch": batch, "hidden": hidden, "heads": heads}.items():
        whole(name, size)
    whole("layers", layers)
    whole("tp", tp)
    positive("itemsize", itemsize)
    if heads % tp:
        raise UsageError(f"{heads} heads do not divide over tp={tp}; give a tp that divides {heads}")
    if recompute == "full":
        per_hidden = 2.0
    else:
        scores = score_bytes_over_hidden(sequence=sequence, hidden=hidden, heads=heads)
        scores = 0.0 if recompute == "selective" else scores
        per_hidden = (34 + scores) / tp if sequence_parallel else 10 + (24 + scores) / tp
    return layers * sequence * batch * hidden * per_hidden * itemsize / 2


def score_bytes_over_hidden(*, sequence: int, hidden: int, heads: int) -> float:
    """5 as/h: what scores, softmax and dropout keep, over sbh; 80 for GPT-3 (arXiv:2205.05198, section 5)."""
    return 5 * whole("heads", heads) * whole("sequence", sequence) / whole("hidden", hidden)
