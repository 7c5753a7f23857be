"""Which part of each weight a device holds: tensor and expert parallel slices of the embedding, every layer and the head.

Matrices are cut as Megatron cuts them (Shoeybi et al. 2019, arXiv:1909.08053, section 3): what leads to heads or into an
MLP by its outputs, what leads back by its inputs, tables by vocabulary. Norms, routers, latent down-projections and the
biases after a sum are whole on every device; experts are dealt to the expert parallel ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..errors import UsageError
from .architecture import MLP, Attention, Block, Experts, Transformer
from .states import Numbers


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor [rows, columns], or a vector of `rows` where columns is 0; `cut` names what is divided over tp."""

    rows: int
    columns: int = 0
    cut: str = ""  # "rows" | "columns" | ""
    hidden: bool = True  # in a layer: not a table or head
    least: int = 1  # rows that cannot be cut: one KV head, repeated where there are more devices than heads

    def numbers(self, tp: int) -> Numbers:
        rows = max(-(-self.rows // tp), self.least) if self.cut == "rows" else self.rows  # a vocabulary is padded
        columns = -(-self.columns // tp) if self.cut == "columns" else self.columns
        if not columns:
            return Numbers(rows, vectors=rows)
        inside = rows * columns
        return Numbers(inside, inside if self.hidden else 0, rows + columns)


@dataclass(frozen=True, slots=True)
class Held:
    """Parameters of one device. Experts apart, because fewer ranks have the same ones and share their states."""

    dense: Numbers
    experts: Numbers

    def __add__(self, other: Held) -> Held:
        return Held(self.dense + other.dense, self.experts + other.experts)

    @property
    def total(self) -> int:
        return self.dense.total + self.experts.total


NOTHING = Held(Numbers(0), Numbers(0))


@lru_cache(1024)
def units(model: Transformer, tp: int = 1, ep: int = 1) -> tuple[tuple[int, Held], ...]:
    """What a device holds of the embedding, of each kind of layer in order, and of the head, each with its number.

    An encoder's layers come first. A tied head is a copy of the embedding, which counts only where it is alone.
    """
    layers = [(each.count, block_held(each.block, model, tp, ep)) for each in stack(model)]
    return ((1, _held(_first(model), tp)), *layers, (1, _held(_last(model), tp)))


def stack(model: Transformer):
    """The runs of equal layers, an encoder's first."""
    return (*(model.encoder.stack if model.encoder else ()), *model.stack)


def tied_copy(model: Transformer, tp: int = 1) -> Held:
    """The last stage's own copy of a tied embedding (Narayanan et al. 2021, arXiv:2104.04473)."""
    return (
        _held([Weight(model.vocab, model.hidden, "rows", hidden=False)], tp) if model.tied and model.head else NOTHING
    )


def block_held(block: Block, model: Transformer, tp: int = 1, ep: int = 1) -> Held:
    """One layer's part of a device."""
    dense, experts = Numbers(0), Numbers(0)
    for weight in _block(block, model):
        dense += weight.numbers(tp)
    if isinstance(block.mlp, Experts):
        each = Numbers(0)
        for weight in _mlp(block.mlp.each, model.hidden):
            each += weight.numbers(tp)
        experts = each.times(block.mlp.count // ep)
    return Held(dense, experts)


def check_divisible(model: Transformer, tp: int, ep: int, *, repeat_kv: bool = False) -> None:
    """Refuse degrees that do not divide what they cut. `repeat_kv`: tp may be a multiple of the KV heads."""
    for block in {each.block for each in stack(model)}:
        for attention in (block.attention, block.cross):
            if attention is not None:
                _check_heads(attention, tp, repeat_kv)
        parts = [block.mlp.each, block.mlp.shared] if isinstance(block.mlp, Experts) else [block.mlp]
        for width in (part.width for part in parts if part is not None):
            if width % tp:
                raise UsageError(f"tp={tp} does not divide the MLP's width of {width}; give a tp that does")
        if isinstance(block.mlp, Experts) and block.mlp.count % ep:
            raise UsageError(f"ep={ep} does not divide {block.mlp.count} experts; give an ep that does")
    if ep > 1 and not any(isinstance(each.block.mlp, Experts) for each in stack(model)):
        raise UsageError(f"ep={ep} needs experts, and {model.name} has none; give ep=1")


def _check_heads(a: Attention, tp: int, repeat_kv: bool) -> None:
    if a.heads % tp:
        raise UsageError(f"tp={tp} does not divide {a.heads} heads; give a tp that divides {a.heads}")
    if a.latent is None and a.kv_heads % tp and not (repeat_kv and tp % a.kv_heads == 0):
        raise UsageError(f"tp={tp} does not divide {a.kv_heads} KV heads; give a tp that divides {a.kv_heads}")


def _held(weights: list[Weight], tp: int) -> Held:
    return Held(sum((weight.numbers(tp) for weight in weights), Numbers(0)), Numbers(0))


def _norm(model: Transformer, width: int = 0) -> list[Weight]:
    both = model.norm == "layer" and model.norm_bias
    return [Weight(width or model.hidden)] * (2 if both else 1)


def _first(model: Transformer) -> list[Weight]:
    h = model.hidden
    table = [Weight(model.vocab, h, "rows", hidden=False)] if model.vocab else []
    rows = [Weight(n, h, hidden=False) for n in (model.positions, model.token_types) if n]
    if model.patch:
        table += [Weight(3 * model.patch**2, h, hidden=False), Weight(h), Weight(h)]
    norms = _norm(model) if model.embedding_norm else []
    if model.encoder is not None:  # shares the table, and ends in a norm of its own
        rows += [Weight(model.encoder.positions, h, hidden=False)] if model.encoder.positions else []
        norms = norms + (_norm(model) if model.encoder.final_norm else [])
        norms = norms + (_norm(model) if model.encoder.embedding_norm else [])
    return table + rows + norms


def _last(model: Transformer) -> list[Weight]:
    h, weights = model.hidden, _norm(model) if model.final_norm else []
    if model.head and not model.tied:
        weights = [*weights, Weight(model.vocab, h, "rows", hidden=False)]
    if model.head and model.head_bias:
        weights = [*weights, Weight(model.vocab, cut="rows")]
    if model.head_transform:
        weights = [*weights, Weight(h, h, hidden=False), Weight(h), *_norm(model)]
    if model.classes:
        weights = [*weights, Weight(h, model.classes, hidden=False), Weight(model.classes)]
    return [*weights, Weight(h, h, hidden=False), Weight(h)] if model.pooler else weights


def _block(block: Block, model: Transformer) -> Iterator[Weight]:
    """All but the routed experts."""
    h, norms = model.hidden, block.norms
    yield from _attention(block.attention, h)
    if block.cross is not None:
        yield from _attention(block.cross, h)
        norms += 1
    for _ in range(norms):
        yield from _norm(model)
    mlp = block.mlp
    if isinstance(mlp, MLP):
        yield from _mlp(mlp, h)
        return
    yield Weight(mlp.count, h)
    if mlp.router_bias:
        yield Weight(mlp.count)
    if mlp.shared is not None:
        yield from _mlp(mlp.shared, h)
    if mlp.shared_gate:
        yield Weight(1, h)


def _mlp(mlp: MLP, hidden: int) -> Iterator[Weight]:
    for _ in range(mlp.matrices - 1):
        yield Weight(mlp.width, hidden, "rows")
        if mlp.bias:
            yield Weight(mlp.width, cut="rows")
    yield Weight(hidden, mlp.width, "columns")
    if mlp.bias:
        yield Weight(hidden)


def _attention(a: Attention, hidden: int) -> Iterator[Weight]:
    queries, keys, values = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim
    if a.latent is None:
        for width, head in ((queries, 1), (keys, a.head_dim), (values, a.value_dim)):
            yield Weight(width, hidden, "rows", least=head)
            if a.bias:
                yield Weight(width, cut="rows", least=head)
    else:
        yield from _latent(a, hidden)
    yield Weight(hidden, a.heads * a.value_dim, "columns")
    if a.output_bias:
        yield Weight(hidden)
    if a.relative_projection:
        yield Weight(queries, hidden, "rows")
        yield from [Weight(a.heads, a.head_dim, "rows")] * 2
    if a.relative_buckets:
        yield Weight(a.relative_buckets, a.heads, "columns")
    if a.sinks:
        yield Weight(a.heads, cut="rows")
    if a.qk_norm == "head":
        yield from [Weight(a.head_dim)] * 2
    elif a.qk_norm == "row":
        yield from (Weight(queries, cut="rows"), Weight(keys, cut="rows"))


def _latent(a: Attention, hidden: int) -> Iterator[Weight]:
    lat = a.latent
    assert lat is not None
    query_from = hidden
    if lat.q_rank is not None:
        query_from = lat.q_rank
        yield Weight(lat.q_rank, hidden)
        yield Weight(lat.q_rank)
    yield Weight(a.heads * a.head_dim, query_from, "rows")
    yield Weight(lat.kv_rank + lat.rope_dim, hidden)
    yield Weight(lat.kv_rank)
    yield Weight(a.heads * (a.head_dim - lat.rope_dim + a.value_dim), lat.kv_rank, "rows")
    if a.bias:
        yield from (Weight(width) for width in (lat.q_rank or 0, lat.kv_rank + lat.rope_dim) if width)
