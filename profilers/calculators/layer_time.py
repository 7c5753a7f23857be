"""How long one layer of a transformer keeps one device busy, forward and backward, before any communication.

A product of matrices is computed in tiles, a wave of one tile a multiprocessor after the other, and a tile is written
when it is done (NVIDIA, Matrix Multiplication Background User's Guide, 3):

    seconds(m, n, k) = waves · 2 · tile · k / (rate of one multiprocessor) + bytes written / bandwidth

so narrow slices under tensor parallelism lose to their last wave and to short sums. Flash attention has a rate of its own,
slower than a matmul's: softmax waits between its products. Everything else is bound by memory: bytes over bandwidth, from
a count of what each kernel reads and writes (`_traffic`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Literal

from .architecture import MLP, Attention, Block, Transformer
from .cluster import Rates
from .compute import pairs_of

TILES = ((256, 128), (128, 256))  # the largest of cuBLAS, and the most efficient ones
LOW = 2  # bytes of an activation: training computes in 16 bits, and in 8 stores its activations in 16


@dataclass(frozen=True, slots=True)
class Software:
    """What the training code does; every figure of a plan rests on it."""

    name: Literal["current", "megatron21"]
    flash: bool  # attention keeps its scores on chip, and skips what the mask hides
    dropout: bool  # after attention's softmax and both halves of a layer, with the mask written
    fused: bool  # loss and optimizer in one kernel each
    sequence_parallel: bool  # norms and dropouts split over the tensor-parallel ranks
    overlap: bool  # pipeline messages, gradients and gathered weights travel during computation
    precision: str  # of weights, gradients and optimizer states (`states`)
    gradient: int  # bytes of a gradient as it is reduced over data-parallel ranks
    source: str


CURRENT = Software(
    "current",
    flash=True,
    dropout=False,
    fused=True,
    sequence_parallel=True,
    overlap=True,
    precision="mixed, fp32 gradients",
    gradient=4,
    source="FlashAttention, fused norms, loss and optimizer, sequence parallelism, overlapped communication",
)
MEGATRON21 = Software(
    "megatron21",
    flash=False,
    dropout=True,
    fused=False,
    sequence_parallel=False,
    overlap=False,
    precision="mixed",
    gradient=2,
    source="Narayanan et al. 2021, arXiv:2104.04473, 4.2: fused softmax, GeLU and dropout, but no flash attention, no "
    "sequence parallelism, no overlap",
)
SOFTWARE = {each.name: each for each in (CURRENT, MEGATRON21)}


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds on one device."""

    matmul: float = 0.0
    memory: float = 0.0

    @property
    def seconds(self) -> float:
        return self.matmul + self.memory

    def __add__(self, other: Work) -> Work:
        return Work(self.matmul + other.matmul, self.memory + other.memory)

    def times(self, n: float) -> Work:
        return Work(n * self.matmul, n * self.memory)


@dataclass(frozen=True, slots=True)
class LayerTime:
    """One micro-batch on one of the devices that share a layer."""

    forward: Work
    inputs: Work  # backward: gradients of the inputs
    weights: Work  # backward: gradients of the weights, added to those of the micro-batches before
    core: Work = Work()  # of the forward: scores, softmax and values
    selective: Work = Work()  # of the forward: what selective recomputation repeats

    @property
    def backward(self) -> Work:
        return self.inputs + self.weights


@dataclass(frozen=True, slots=True)
class Slice:
    """What of a layer one device computes: tokens of its sequence chunk, over the ranks that share the layer."""

    batch: int  # sequences of a micro-batch
    sequence: int
    tp: int
    cp: int
    ep: int

    @property
    def tokens(self) -> int:
        return self.batch * self.sequence // self.cp


def layer_time(block: Block, hidden: int, part: Slice, rates: Rates, software: Software) -> LayerTime:
    """Seconds of one layer, its experts' load being even."""
    products = [*_attention(block.attention, hidden, part), *_mlp(block, hidden, part)]
    forward = inputs = weights = Work()
    for count, m, n, k in products:
        forward += Work(count * matmul(m, n, k, rates))
        inputs += Work(count * matmul(m, k, n, rates))
        weights += Work(count * matmul(k, n, m, rates)) + _moved(3 * LOW * count * k * n, rates)
    core, core_back = _core(block.attention, part, rates, software)
    there, back = _traffic(block, hidden, part, software)
    selective = _moved(_activated(block, part), rates) if software.flash else core  # what flash never keeps
    return LayerTime(
        forward + core + _moved(there, rates), inputs + core_back + _moved(back, rates), weights, core, selective
    )


def head_time(model: Transformer, part: Slice, rates: Rates, software: Software) -> LayerTime:
    """The logits and their loss; under tensor parallelism the vocabulary is split.

    A loss in 32 bits, operator by operator, reads and writes 52 bytes a logit (Megatron's vocab-parallel cross entropy);
    a fused one reads the logits twice and writes their gradient.
    """
    n, h, v = part.tokens, model.hidden, ceil((model.vocab if model.head else model.classes) / part.tp)
    if v == 0:
        return LayerTime(Work(), Work(), Work())
    there, back = (LOW, 2 * LOW) if software.fused else (38, 14)
    return LayerTime(
        Work(matmul(n, v, h, rates)) + _moved(there * n * v, rates),
        Work(matmul(n, h, v, rates)) + _moved(back * n * v, rates),
        Work(matmul(h, v, n, rates)) + _moved(3 * LOW * h * v, rates),
    )


def embedding_time(model: Transformer, part: Slice, rates: Rates) -> LayerTime:
    """Rows looked up, and their gradients added."""
    rows = _moved(2 * LOW * part.tokens * model.hidden, rates)
    return LayerTime(rows, rows, Work())


def optimizer_time(parameters: float, rates: Rates, software: Software) -> float:
    """Adam in 32 bits: reads weight, gradient and both moments, writes three, and the weight in 16 bits.

    Unfused, gradients are also unscaled into 32 bits and read for their norm.
    """
    return parameters * (30 if software.fused else 40) / rates.bandwidth


@lru_cache(16384)
def matmul(m: int, n: int, k: int, rates: Rates) -> float:
    """Seconds of one [m, k] x [k, n]."""
    if rates.multiprocessors is None:
        computed = 2 * m * n * k / rates.matmul
    else:
        one = rates.matmul / rates.multiprocessors
        waves = (ceil(ceil(m / a) * ceil(n / b) / rates.multiprocessors) * a * b for a, b in TILES)
        computed = min(waves) * 2 * k / one
    read = LOW * (m * k + k * n) / rates.bandwidth
    return max(computed, read) + LOW * m * n / rates.bandwidth


def _moved(size: float, rates: Rates) -> Work:
    return Work(memory=size / rates.bandwidth)


def _attention(a: Attention, h: int, part: Slice) -> list[tuple[int, int, int, int]]:
    """(how many, m, n, k) of the projections; heads are split over the tensor-parallel ranks."""
    n, t = part.tokens, part.tp
    out = (1, n, h, a.heads * a.value_dim // t)
    if a.latent is None:
        return [(1, n, (a.heads * a.head_dim + a.kv_heads * (a.head_dim + a.value_dim)) // t, h), out]
    lat = a.latent
    down = lat.kv_rank + lat.rope_dim  # compressed alike on every rank
    up = (1, n, a.heads * (a.head_dim - lat.rope_dim + a.value_dim) // t, lat.kv_rank)
    if lat.q_rank is None:
        return [(1, n, down, h), (1, n, a.heads * a.head_dim // t, h), up, out]
    return [(1, n, down + lat.q_rank, h), (1, n, a.heads * a.head_dim // t, lat.q_rank), up, out]


def _mlp(block: Block, h: int, part: Slice) -> list[tuple[int, int, int, int]]:
    n, t, mlp = part.tokens, part.tp, block.mlp
    if isinstance(mlp, MLP):
        return _two(1, n, h, mlp, t)
    here = mlp.count // part.ep
    routed = ceil(n * mlp.active / here)  # as many come from other ranks as leave for them
    shared = _two(1, n, h, mlp.shared, t) if mlp.shared else []
    return [(1, n, mlp.count, h), *_two(here, routed, h, mlp.each, t), *shared]


def _two(count: int, n: int, h: int, mlp: MLP, t: int) -> list[tuple[int, int, int, int]]:
    width = mlp.width // t
    return [(count, n, (mlp.matrices - 1) * width, h), (count, n, h, width)]


def _core(a: Attention, part: Slice, rates: Rates, software: Software) -> tuple[Work, Work]:
    """Scores and values, forward and backward; under context parallelism each rank has its share of the pairs."""
    heads = part.batch * a.heads // part.tp
    if software.flash:
        pairs, divisor = pairs_of(a, part.sequence, part.sequence, "seen")
        flops = 2 * heads * pairs / divisor / part.cp * (a.head_dim + a.value_dim)
        there, back = rates.attention or (rates.matmul, rates.matmul)
        return Work(flops / there), Work(2.5 * flops / back)  # scores again: FlashAttention-2, 3.2
    s, q = part.sequence, part.sequence // part.cp
    forward = Work(heads * (_strided(q, s, a.head_dim, rates) + _strided(q, a.value_dim, s, rates)))
    score = heads * q * s
    there, back = 2 * LOW, 3 * LOW  # softmax
    if software.dropout:
        there, back = there + 2 * LOW + 1, back + 2 * LOW + 1
    return forward + _moved(there * score, rates), forward.times(2) + _moved(back * score, rates)


def _strided(m: int, n: int, k: int, rates: Rates) -> float:
    """One of a batch of products, whose tiles fill the waves together."""
    read = LOW * (m * k + k * n) / rates.bandwidth
    tiles = m * n
    if rates.multiprocessors is not None:
        tiles = min(ceil(m / a) * a * ceil(n / b) * b for a, b in TILES)
    return max(2 * tiles * k / rates.matmul, read) + LOW * m * n / rates.bandwidth


def _traffic(block: Block, hidden: int, part: Slice, software: Software) -> tuple[float, float]:
    """Bytes that all other kernels of a layer move, forward and backward.

    A norm reads and writes a row, and backward reads it and its gradient twice; a residual reads two and writes one. Of
    the queries, keys and values the bias or rotation is written and read once more, and backward their gradients are.
    """
    a, n = block.attention, part.tokens
    row = n * hidden / (part.tp if software.sequence_parallel else 1)
    qkv = n * (a.heads * a.head_dim + a.kv_heads * (a.head_dim + a.value_dim)) / part.tp
    output = n * a.heads * a.value_dim / part.tp
    masks = 2 * row if software.dropout else 0
    there = LOW * (2 * block.norms + 6) * row + masks + 2 * LOW * qkv
    back = LOW * (5 * block.norms + 6) * row + 2 * LOW * qkv
    back += 2 * (2 * LOW + 1) * row if software.dropout else 0
    back += LOW * (2 * row * a.output_bias + qkv * a.bias)
    if not software.flash:  # heads to rows in a copy of its own
        there, back = there + 2 * LOW * output, back + 2 * LOW * output
    there += _activated(block, part)
    back += sum(LOW * ((5 if mlp.gated else 3) + mlp.bias) * size / part.tp for mlp, size in _activations(block, n))
    if not isinstance(block.mlp, MLP):  # tokens into their expert's order and back
        sent = 4 * LOW * n * block.mlp.active * hidden / part.tp
        there, back = there + sent, back + sent
    return there, back


def _activated(block: Block, part: Slice) -> float:
    """Bytes of the activation functions, forward: gate and up in, or one of them, and their product out."""
    return sum(LOW * (3 if mlp.gated else 2) * size / part.tp for mlp, size in _activations(block, part.tokens))


def _activations(block: Block, tokens: int) -> list[tuple[MLP, int]]:
    """Each MLP that `tokens` pass through, with how many numbers its activation has."""
    if isinstance(block.mlp, MLP):
        return [(block.mlp, tokens * block.mlp.width)]
    each, shared = block.mlp.each, block.mlp.shared
    routed = [(each, tokens * block.mlp.active * each.width)]
    return [*routed, (shared, tokens * shared.width)] if shared else routed
