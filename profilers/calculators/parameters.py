"""How many numbers a model holds, how many of them a token uses, and with how many weights it is multiplied.

Counted from the sizes alone, as the published checkpoints have them: biases and norm weights with the part they belong
to, a tied head once. Extra multi-token-prediction modules are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from .architecture import MLP, Attention, Block, Experts, Transformer


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parts sum to `total`."""

    embedding: int  # token, patch and segment tables
    positions: int
    attention: int
    mlp: int  # dense layers, all experts, and the shared ones
    router: int
    norms: int
    head: int  # logits, classifier or pooler; 0 where the head is the embedding
    idle: int  # of `mlp`: in experts a token is not sent to
    matmul_active: int  # weights a token is multiplied with, a tied head too; no biases, norms, tables

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self)[:7])

    @property
    def active(self) -> int:
        """Of `total`, what one token passes through; the whole embedding table is counted, as publishers do."""
        return self.total - self.idle

    def __add__(self, other: Parameters) -> Parameters:
        return Parameters(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def count(model: Transformer) -> Parameters:
    """Parameters of the model, its encoder included; the encoder shares the embedding."""
    counted = _outside(model)
    for each in model.stack:
        counted += _times(_block(each.block, model), each.count)
    if model.encoder is not None:
        inside = count(model.encoder)
        counted += Parameters(
            0,
            inside.positions,
            inside.attention,
            inside.mlp,
            inside.router,
            inside.norms,
            0,
            inside.idle,
            inside.matmul_active,
        )
    return counted


def weights(block: Block, hidden: int) -> int:
    """Matrix elements a token is multiplied with in one layer; products of activations with one another have none."""
    cross = attention_weights(block.cross, hidden) if block.cross else 0
    return attention_weights(block.attention, hidden) + cross + _active_weights(block.mlp, hidden)


def attention_weights(attention: Attention, hidden: int) -> int:
    """Elements of the query, key, value and output projections."""
    query, shared, output = projections(attention, hidden)
    return query + shared + output


def projections(a: Attention, hidden: int) -> tuple[int, int, int]:
    """Elements on the way to the queries, to keys and values, and back."""
    output = a.heads * a.value_dim * hidden
    if a.latent is None:
        return hidden * a.heads * a.head_dim, hidden * a.kv_heads * (a.head_dim + a.value_dim), output
    lat = a.latent
    query = hidden * a.heads * a.head_dim if lat.q_rank is None else lat.q_rank * (hidden + a.heads * a.head_dim)
    down = hidden * (lat.kv_rank + lat.rope_dim)
    up = lat.kv_rank * a.heads * (a.head_dim - lat.rope_dim + a.value_dim)
    return query, down + up, output


def _outside(model: Transformer) -> Parameters:
    """Everything but the layers."""
    h = model.hidden
    patches = (3 * model.patch**2 + 1 + 1) * h if model.patch else 0  # a weight, a bias, and the class token
    norm = _norm(model)
    transform = h * h + h if model.head_transform else 0
    head = model.head * (model.head_bias * model.vocab + (0 if model.tied else h * model.vocab)) + transform
    ends = model.classes * (h + 1) + model.pooler * (h * h + h)
    return Parameters(
        embedding=(model.vocab + model.token_types) * h + patches,
        positions=model.positions * h,
        attention=0,
        mlp=0,
        router=0,
        norms=(model.final_norm + model.embedding_norm + model.head_transform) * norm,
        head=head + ends,
        idle=0,
        matmul_active=model.head * h * model.vocab + model.head_transform * h * h,
    )


def _block(block: Block, model: Transformer) -> Parameters:
    h, mlp, norms = model.hidden, block.mlp, block.norms
    attention = attention_weights(block.attention, h) + _attention_rest(block.attention, h)
    if block.cross is not None:
        attention, norms = attention + attention_weights(block.cross, h) + _attention_rest(block.cross, h), norms + 1
    router = idle = 0
    if isinstance(mlp, Experts):
        each = _mlp(mlp.each, h)
        idle = (mlp.count - mlp.active) * each
        router = mlp.count * (h + mlp.router_bias) + mlp.shared_gate * h
        width = mlp.count * each + (_mlp(mlp.shared, h) if mlp.shared else 0)
    else:
        width = _mlp(mlp, h)
    return Parameters(0, 0, attention, width, router, norms * _norm(model), 0, idle, weights(block, h))


def _attention_rest(a: Attention, hidden: int) -> int:
    """What is not multiplied: biases, norms of queries and keys, sinks, learned position biases."""
    rest = a.output_bias * hidden + a.sinks * a.heads + a.relative_buckets * a.heads
    rest += a.relative_projection * (hidden + 2) * a.heads * a.head_dim  # multiplied with positions, not with tokens
    if a.latent is None:
        rest += a.bias * (a.heads * a.head_dim + a.kv_heads * (a.head_dim + a.value_dim))
    else:
        compressed = a.latent.q_rank or 0
        rest += compressed + a.latent.kv_rank + a.bias * (compressed + a.latent.kv_rank + a.latent.rope_dim)
    if a.qk_norm == "head":
        rest += 2 * a.head_dim
    elif a.qk_norm == "row":
        rest += (a.heads + a.kv_heads) * a.head_dim
    return rest


def _mlp(mlp: MLP, hidden: int) -> int:
    return mlp.matrices * hidden * mlp.width + mlp.bias * ((mlp.matrices - 1) * mlp.width + hidden)


def _active_weights(mlp: MLP | Experts, hidden: int) -> int:
    if isinstance(mlp, MLP):
        return mlp.matrices * hidden * mlp.width
    shared = _active_weights(mlp.shared, hidden) if mlp.shared else 0
    return mlp.active * _active_weights(mlp.each, hidden) + shared + (mlp.count + mlp.shared_gate) * hidden


def _norm(model: Transformer) -> int:
    return model.hidden * (2 if model.norm == "layer" and model.norm_bias else 1)


def _times(parameters: Parameters, n: int) -> Parameters:
    return Parameters(*(n * getattr(parameters, f.name) for f in fields(parameters)))
