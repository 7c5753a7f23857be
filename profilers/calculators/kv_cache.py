"""What attention keeps of the tokens it has seen: keys and values, or the latent they are made from.

attention            numbers a token and layer      source
multi-head           2 a d
grouped, multi-query g (d + d_v)                    Shazeer 2019, arXiv:1911.02150; Ainslie et al. 2023, 2305.13245
latent               r + d_rope                     DeepSeek-V2, arXiv:2405.04434, 2.1.2
sliding window       at most `window` tokens of it  Mistral 7B, arXiv:2310.06825, 2
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from ..errors import UsageError
from .amounts import whole
from .architecture import Attention, Latent, Transformer
from .dtypes import itemsize


@dataclass(frozen=True, slots=True)
class Cache:
    """Bytes of `batch` sequences of `sequence` tokens on one device."""

    used: int
    reserved: int  # with the empty places of each sequence's last block

    @property
    def waste(self) -> int:
        return self.reserved - self.used


def kv_bytes_per_token(
    *,
    layers: int,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
    kv_rank: int | None = None,
    rope_dim: int | None = None,
    itemsize: float = 2,
) -> int:
    """Bytes a token, over all layers: of `kv_heads` keys and values, or of a latent and its rotary part."""
    whole("layers", layers)
    if kv_rank is not None and rope_dim is not None:
        latent = Latent(kv_rank, rope_dim)
        attention = Attention(1, 1, rope_dim + 1, 1, latent)
    elif kv_heads is not None and head_dim is not None:
        attention = Attention(kv_heads, kv_heads, head_dim, value_dim or head_dim)
    else:
        raise UsageError("give kv_heads and head_dim, or for latent attention kv_rank and rope_dim")
    return ceil(layers * numbers_a_token(attention) * itemsize)


def kv_cache(
    model: Transformer,
    *,
    batch: int = 1,
    sequence: int,
    dtype: str = "bfloat16",
    block: int = 1,
    tp: int = 1,
    encoder_sequence: int | None = None,
) -> Cache:
    """The cache of one device of `tp`, over all layers; quantized formats without their scales.

    `block` tokens are reserved at a time (16 in vLLM; Kwon et al. 2023, arXiv:2309.06180). A decoder with cross
    attention also keeps keys and values of the encoder's tokens. Where `tp` is a multiple of the KV heads each device
    keeps a copy of one head; a latent is kept whole by each.
    """
    whole("batch", batch)
    whole("sequence", sequence)
    whole("block", block)
    whole("tp", tp)
    source = sequence if encoder_sequence is None else whole("encoder_sequence", encoder_sequence)
    size = itemsize(dtype)
    used = reserved = 0
    for each in model.stack:
        own, cross = each.block.attention, each.block.cross
        tokens = min(sequence, own.window or sequence)
        used += each.count * numbers_a_token(own, tp) * tokens
        reserved += each.count * numbers_a_token(own, tp) * min(_blocks(tokens, block), _blocks(sequence, block))
        if cross is not None:
            used += each.count * numbers_a_token(cross, tp) * source
            reserved += each.count * numbers_a_token(cross, tp) * _blocks(source, block)
    return Cache(ceil(batch * used * size), ceil(batch * reserved * size))


def expected_waste(block: int) -> float:
    """Tokens a sequence leaves empty in its last block, on average over all lengths: half a block."""
    return (whole("block", block) - 1) / 2


def numbers_a_token(attention: Attention, tp: int = 1) -> int:
    """Numbers cached for a token by one layer on one of `tp` devices."""
    if attention.latent is not None:
        return attention.latent.kv_rank + attention.latent.rope_dim
    return kv_heads_each(attention, tp) * (attention.head_dim + attention.value_dim)


def kv_heads_each(attention: Attention, tp: int) -> int:
    """KV heads a device has; one copied where there are more devices than heads."""
    heads = attention.kv_heads
    if heads % tp and tp % heads:
        raise UsageError(f"{heads} KV heads do not divide over tp={tp}; give a tp that divides {heads}")
    return max(1, heads // tp)


def _blocks(tokens: int, block: int) -> int:
    return -(-tokens // block) * block
