"""FLOP of a transformer's passes in closed form, to the last one.

A multiplication and an addition are two FLOP, and only products of matrices count: what torch's `FlopCounterMode`
counts, and what a device's peak is stated in. Norms, activations and softmax are some thousandths beside them.

Attention's two products are counted over `pairs` of a query and a key:
    "full"  all of them, as the dense product computes them and most papers count them
    "half"  half of them where a causal mask hides the rest (the FlashAttention papers)
    "seen"  those the mask and the sliding window leave, one by one
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from ..errors import UsageError
from .amounts import whole
from .architecture import MLP, Attention, Block, Experts, Transformer
from .parameters import projections
from .recompute import Recompute

Pairs = Literal["full", "half", "seen"]
Logits = Literal["all", "last"]


@dataclass(frozen=True, slots=True)
class Flops:
    """FLOP by part; the parts sum to `total`."""

    projections: int  # to queries, keys and values, and back
    scores: int  # queries with keys
    values: int  # probabilities with values
    mlp: int  # dense layers, and the experts that run
    router: int
    head: int  # logits, classifier, pooler
    embedding: int  # of image patches; looking a token up costs none

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def layers(self) -> int:
        return self.total - self.head - self.embedding

    @property
    def attention_share(self) -> float:
        """The part that grows with the square of the sequence, of the total."""
        return (self.scores + self.values) / (self.total or 1)

    def __add__(self, other: Flops) -> Flops:
        return Flops(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, n: int) -> Flops:
        return Flops(*(n * getattr(self, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Training:
    """One forward and backward. `recomputed` runs a second time: the hardware does it, the model does not need it."""

    forward: Flops
    backward: Flops
    recomputed: Flops

    @property
    def model(self) -> int:
        """FLOP for MFU."""
        return self.forward.total + self.backward.total

    @property
    def hardware(self) -> int:
        """FLOP for HFU."""
        return self.model + self.recomputed.total


NOTHING = Flops(0, 0, 0, 0, 0, 0, 0)


def forward_flops(
    model: Transformer,
    *,
    batch: int = 1,
    sequence: int,
    encoder_sequence: int | None = None,
    pairs: Pairs = "full",
    logits: Logits = "all",
) -> Flops:
    """FLOP of one forward of `batch` sequences of `sequence` tokens.

    An image's sequence is its patches and the class token. An encoder reads `encoder_sequence` tokens, by default as
    many as the decoder. `logits="last"`: only of each sequence's last token, as a prefill needs them.
    """
    whole("batch", batch)
    whole("sequence", sequence)
    pairs_known(pairs)
    source = sequence if encoder_sequence is None else whole("encoder_sequence", encoder_sequence)
    flops = _ends(model, batch, sequence, logits)
    for each in model.stack:
        flops += _block(each.block, model.hidden, batch, sequence, source, pairs).times(each.count)
    if model.encoder is not None:
        flops += forward_flops(model.encoder, batch=batch, sequence=source, pairs=pairs)
    return flops


def training_flops(
    model: Transformer,
    *,
    batch: int = 1,
    sequence: int,
    encoder_sequence: int | None = None,
    pairs: Pairs = "full",
    recompute: Recompute = "none",
) -> Training:
    """Forward and real backward: each product has a gradient for either factor, except that pixels need none."""
    forward = forward_flops(model, batch=batch, sequence=sequence, encoder_sequence=encoder_sequence, pairs=pairs)
    backward = replace(forward.times(2), embedding=forward.embedding)
    return Training(forward, backward, recomputed(forward, recompute))


def recomputed(forward: Flops, recompute: Recompute) -> Flops:
    """What of a forward runs again in the backward."""
    if recompute == "none":
        return NOTHING
    if recompute == "selective":
        return replace(NOTHING, scores=forward.scores, values=forward.values)
    if recompute == "full":
        return replace(forward, head=0, embedding=0)
    raise UsageError(f'recompute must be "none", "selective" or "full", not {recompute!r}')


def prefill_flops(model: Transformer, *, batch: int = 1, sequence: int, pairs: Pairs = "full") -> Flops:
    """A prompt's forward; only the last token's logits are needed."""
    return forward_flops(model, batch=batch, sequence=sequence, pairs=pairs, logits="last")


def decode_flops(model: Transformer, *, context: int, batch: int = 1, encoder_sequence: int | None = None) -> Flops:
    """One new token for each of `batch` sequences, which attends to `context` tokens, itself included.

    A sliding window bounds the context. Latent attention works on the compressed keys and values themselves: its
    up-projections are absorbed into query and output (DeepSeek-V2, arXiv:2405.04434, 2.1.2). An encoder has run before.
    """
    whole("batch", batch)
    whole("context", context)
    source = context if encoder_sequence is None else whole("encoder_sequence", encoder_sequence)
    flops = _ends(model, batch, 1, "all")
    for each in model.stack:
        flops += _decode_block(each.block, model.hidden, batch, context, source).times(each.count)
    return flops


def pairs_of(attention: Attention, queries: int, keys: int, pairs: Pairs) -> tuple[int, int]:
    """Pairs of one head and sequence as a fraction (numerator, 1 or 2), so that half of an odd number stays exact."""
    if pairs == "full" or not (attention.causal or attention.window):
        return queries * keys, 1
    if pairs == "half":
        return queries * keys, 2 if attention.causal else 1
    return _seen(queries, attention.window), 1


def _block(block: Block, hidden: int, batch: int, sequence: int, source: int, pairs: Pairs) -> Flops:
    tokens = batch * sequence
    flops = _attention(block.attention, hidden, batch, sequence, sequence, pairs) + _mlp(block.mlp, hidden, tokens)
    if block.cross is not None:
        flops += _attention(block.cross, hidden, batch, sequence, source, "full")
    return flops


def _attention(a: Attention, hidden: int, batch: int, queries: int, keys: int, pairs: Pairs) -> Flops:
    query, shared, output = projections(a, hidden)
    count, divisor = pairs_of(a, queries, keys, pairs)
    each = 2 * batch * a.heads * count // divisor
    positions = a.relative_projection * 2 * keys * hidden * a.heads * a.head_dim  # once for the whole batch
    return replace(
        NOTHING,
        projections=2 * batch * (queries * (query + output) + keys * shared) + positions,
        scores=each * a.head_dim * (1 + a.relative_projection),
        values=each * a.value_dim,
    )


def _decode_block(block: Block, hidden: int, batch: int, context: int, source: int) -> Flops:
    a = block.attention
    flops = _mlp(block.mlp, hidden, batch) + _decode_attention(a, batch, min(context, a.window or context))
    flops = replace(flops, projections=2 * batch * sum(projections(a, hidden)))
    if block.cross is not None:  # its keys and values are those of the prompt, and cached
        query, _, output = projections(block.cross, hidden)
        flops += replace(_decode_attention(block.cross, batch, source), projections=2 * batch * (query + output))
    return flops


def _decode_attention(a: Attention, batch: int, keys: int) -> Flops:
    key, value = (
        (a.head_dim, a.value_dim) if a.latent is None else (a.latent.kv_rank + a.latent.rope_dim, a.latent.kv_rank)
    )
    each = 2 * batch * a.heads * keys
    return replace(NOTHING, scores=each * key * (1 + a.relative_projection), values=each * value)


def _mlp(mlp: MLP | Experts, hidden: int, tokens: int) -> Flops:
    if isinstance(mlp, MLP):
        return replace(NOTHING, mlp=2 * tokens * mlp.matrices * hidden * mlp.width)
    flops = _mlp(mlp.each, hidden, tokens * mlp.active)
    if mlp.shared is not None:
        flops += _mlp(mlp.shared, hidden, tokens)
    return replace(flops, router=2 * tokens * hidden * (mlp.count + mlp.shared_gate))


def _ends(model: Transformer, batch: int, sequence: int, logits: Logits) -> Flops:
    h, read = model.hidden, batch * (sequence if logits == "all" else 1)
    head = 2 * read * (model.head * h * model.vocab + model.head_transform * h * h)
    head += 2 * batch * (model.classes * h + model.pooler * h * h)
    return replace(NOTHING, head=head, embedding=2 * batch * (sequence - 1) * 3 * model.patch**2 * h)


def _seen(tokens: int, window: int | None) -> int:
    """Pairs under a causal mask: token i sees i of them, and at most the window."""
    seen = min(window or tokens, tokens)
    return seen * (seen + 1) // 2 + (tokens - seen) * seen


def pairs_known(pairs: str) -> None:
    if pairs not in ("full", "half", "seen"):
        raise UsageError(f'pairs must be "full", "half" or "seen", not {pairs!r}')
