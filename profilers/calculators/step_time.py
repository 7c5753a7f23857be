"""How long a training step of a layout takes, part by part; the parts sum to the step.

    step = m · slowest stage + what the schedule leaves idle + messages between stages
           + exposed gradient reduction and weight gathering + optimizer

A stage's time is its layers' (`layer_time`) with what they recompute and with the messages inside them: all-reduces of
tensor parallelism (an all-gather and a reduce-scatter with sequence parallelism: as many bytes), the ring of context
parallelism, the all-to-alls of expert parallelism. Ranks are numbered tensor first, then context, data, pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

from . import pipelines
from .architecture import Block, Experts, Transformer
from .cluster import Cluster, Rates
from .collectives import all_gather, all_reduce, all_to_all, reduce_scatter, send
from .compute import forward_flops
from .layer_time import LOW, LayerTime, Slice, Software, Work, embedding_time, head_time, layer_time, optimizer_time
from .layout import Layout
from .parameters import weights
from .partition import even
from .recompute import Recompute


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of a step. The first six are an average stage's."""

    matmul: float
    memory: float  # kernels that compute little: norms, activations, softmax, losses, gradients added up
    recompute: float
    tensor: float
    context: float
    expert: float
    imbalance: float  # the slowest stage's over the average one's
    bubble: float
    pipeline: float
    data: float  # exposed: gradients reduced, weights gathered
    optimizer: float

    @property
    def total(self) -> float:
        return sum(getattr(self, name) for name in StepTime.__slots__)

    @property
    def computing(self) -> float:
        """What more devices divide: the rest waits, or sends, as long as before."""
        return self.matmul + self.memory + self.recompute


@dataclass(frozen=True, slots=True)
class Passes:
    """One micro-batch through a run of the model, on one of the devices that share it. Seconds; weights are a count."""

    forward: float = 0.0
    backward: float = 0.0  # with everything that runs again
    gradients: float = 0.0  # of the backward: the weights', which zero-bubble schedules delay
    matmul: float = 0.0
    memory: float = 0.0
    recompute: float = 0.0
    tensor: float = 0.0
    context: float = 0.0
    expert: float = 0.0
    dense: float = 0.0  # weights on one device
    experts: float = 0.0

    def __add__(self, other: Passes) -> Passes:
        return Passes(*(getattr(self, name) + getattr(other, name) for name in Passes.__slots__))

    def __sub__(self, other: Passes) -> Passes:
        return Passes(*(getattr(self, name) - getattr(other, name) for name in Passes.__slots__))

    @property
    def seconds(self) -> float:
        return self.forward + self.backward


def step_time(
    model: Transformer,
    cluster: Cluster,
    layout: Layout,
    *,
    micro_batch: int,
    micro_batches: int,
    sequence: int,
    recompute: Recompute,
    rates: Rates,
    software: Software,
) -> StepTime:
    """Seconds of one step of `micro_batches` times `micro_batch` sequences on each data-parallel rank."""
    part = Slice(micro_batch, sequence, layout.tp, layout.cp, layout.ep)
    whole, slowest, largest = _pipeline(model, cluster, part, recompute, rates, software, layout.pp, layout.chunks)
    m, p = micro_batches, layout.pp
    others = max(p - 1, 1)  # a schedule fills and drains through all stages but the slowest
    idle = pipelines.idle(
        layout.schedule,
        p,
        forward=(whole.forward - slowest.forward) / others,
        backward=(whole.backward - slowest.backward) / others,
        weight=(whole.gradients - slowest.gradients) / others,
        chunks=layout.chunks,
    )
    shards = layout.dp * layout.cp if layout.zero else 1
    expert_shards = shards // layout.ep if layout.zero else 1
    own = largest.dense / shards + largest.experts / expert_shards
    return StepTime(
        matmul=m * whole.matmul / p,
        memory=m * whole.memory / p,
        recompute=m * whole.recompute / p,
        tensor=m * whole.tensor / p,
        context=m * whole.context / p,
        expert=m * whole.expert / p,
        imbalance=m * (slowest.seconds - whole.seconds / p),
        bubble=idle,
        pipeline=_between_stages(model, cluster, layout, part, m, software),
        data=_data(cluster, layout, largest, m, model.layers / p, software),
        optimizer=optimizer_time(own, rates, software),
    )


@lru_cache(4096)
def _pipeline(*given: Any) -> tuple[Passes, Passes, Passes]:
    """All stages together, the slowest one, and the one with the most weights; arguments as of `_stages`."""
    stages = _stages(*given)
    slowest = max(stages, key=lambda stage: stage.seconds)
    return sum(stages, Passes()), slowest, max(stages, key=lambda stage: stage.dense + stage.experts)


def _stages(
    model: Transformer,
    cluster: Cluster,
    part: Slice,
    recompute: Recompute,
    rates: Rates,
    software: Software,
    stages: int,
    chunks: int,
) -> list[Passes]:
    """Each stage's passes; with chunks, stage i has the runs i, i + stages, …"""
    sums = _sums(model, cluster, part, recompute, rates, software)
    runs = [sums[b] - sums[a] for a, b in pairwise(cuts(model, part.sequence, stages * chunks))]
    return [sum(runs[stage::stages], Passes()) for stage in range(stages)]


@lru_cache(512)
def cuts(model: Transformer, sequence: int, runs: int) -> list[int]:
    """Where embedding, layers and head are cut into runs of as equal FLOP as can be."""
    flops = [_flops(replace(model, stack=(each,)), sequence) / each.count for each in model.stack]
    layers = [cost for each, cost in zip(model.stack, flops, strict=True) for _ in range(each.count)]
    ends = forward_flops(model, sequence=sequence, pairs="seen").total - sum(layers)
    return even([1.0, *layers, ends + 1.0], runs)


def _flops(model: Transformer, sequence: int) -> int:
    return forward_flops(model, sequence=sequence, pairs="seen").layers


@lru_cache(128)
def _sums(
    model: Transformer, cluster: Cluster, part: Slice, recompute: Recompute, rates: Rates, software: Software
) -> list[Passes]:
    """Running sums over embedding, layers and head."""
    table = model.vocab * model.hidden / part.tp
    first = _passes(embedding_time(model, part, rates), Work())
    last = _passes(head_time(model, part, rates, software), Work())
    by_block = {
        each.block: _layer(each.block, model.hidden, cluster, part, recompute, rates, software) for each in model.stack
    }
    layers = [by_block[block] for block in model.blocks()]
    ends = replace(first, dense=table), replace(last, dense=0.0 if model.tied else table)
    return list(accumulate([ends[0], *layers, ends[1]], initial=Passes()))


def _layer(
    block: Block, hidden: int, cluster: Cluster, part: Slice, recompute: Recompute, rates: Rates, software: Software
) -> Passes:
    """A layer with its recomputation and its messages."""
    time = layer_time(block, hidden, part, rates, software)
    again = {"none": Work(), "selective": time.selective, "full": time.forward}[recompute]
    tensor, expert = _tensor(block, hidden, cluster, part), _expert(block, hidden, cluster, part)
    ring, ring_back = _ring(block, hidden, cluster, part, time, software)
    times = 3 if recompute == "full" else 2  # forward, backward, and forward again
    repeated = tensor + expert + ring if recompute == "full" else 0.0
    matrices = weights(block, hidden)
    experts = 0
    if isinstance(block.mlp, Experts):
        one = block.mlp.each.matrices * hidden * block.mlp.each.width
        matrices, experts = matrices - block.mlp.active * one, block.mlp.count * one
    return replace(
        _passes(time, again),
        forward=time.forward.seconds + tensor + expert + ring,
        backward=(time.backward + again).seconds + tensor + expert + ring_back + repeated,
        tensor=times * tensor,
        expert=times * expert,
        context=(times - 1) * ring + ring_back,
        dense=matrices / part.tp,
        experts=experts / part.tp / part.ep,
    )


def _passes(time: LayerTime, again: Work) -> Passes:
    whole = time.forward + time.backward
    return Passes(
        forward=time.forward.seconds,
        backward=(time.backward + again).seconds,
        gradients=time.weights.seconds,
        matmul=whole.matmul,
        memory=whole.memory,
        recompute=again.seconds,
    )


def _tensor(block: Block, hidden: int, cluster: Cluster, part: Slice) -> float:
    """Attention and MLP each end in a sum over the tensor-parallel ranks (Shoeybi et al. 2019, arXiv:1909.08053, 3)."""
    sums = 1 if block.parallel else 2
    return sums * all_reduce(LOW * part.tokens * hidden, cluster.group(part.tp, 1))


def _expert(block: Block, hidden: int, cluster: Cluster, part: Slice) -> float:
    """Tokens to their experts and back; each of the tensor-parallel ranks sends its part."""
    if not isinstance(block.mlp, Experts):
        return 0.0
    sent = LOW * part.tokens * block.mlp.active * hidden / part.tp
    return 2 * all_to_all(sent, cluster.group(part.ep, part.tp))


def _ring(
    block: Block, hidden: int, cluster: Cluster, part: Slice, time: LayerTime, software: Software
) -> tuple[float, float]:
    """Keys and values once around the context-parallel ranks, backward with their gradients (arXiv:2310.01889).

    Exposed is what attention's own products do not cover.
    """
    a = block.attention
    if part.cp == 1:
        return 0.0, 0.0
    width = a.latent.kv_rank + a.latent.rope_dim if a.latent else a.kv_heads * (a.head_dim + a.value_dim) / part.tp
    group = cluster.group(part.cp, part.tp)
    link = group.intra if group.nodes == 1 else group.inter
    there = (part.cp - 1) * send(LOW * part.tokens * width, link)
    if not software.overlap:
        return there, 2 * there
    hidden_behind = time.core.seconds
    return max(0.0, there - hidden_behind), max(0.0, 2 * there - 2 * hidden_behind)


def _between_stages(
    model: Transformer, cluster: Cluster, layout: Layout, part: Slice, micro_batches: int, software: Software
) -> float:
    """Activations there and gradients back; each tensor-parallel rank sends its part (arXiv:2104.04473, 4.1).

    Overlapped, only those that fill and drain the pipeline are waited for.
    """
    if layout.pp == 1:
        return 0.0
    whole = LOW * part.tokens * model.hidden
    one = send(whole / layout.tp, cluster.neighbour(layout.tp * layout.cp * layout.dp))
    if not software.sequence_parallel:
        one += all_gather(whole, cluster.group(layout.tp, 1))
    return 2 * one * (layout.pp - 1 if software.overlap else micro_batches * layout.chunks)


def _data(
    cluster: Cluster, layout: Layout, stage: Passes, micro_batches: int, layers: float, software: Software
) -> float:
    """What data parallelism adds: gradients reduced, and under ZeRO weights gathered (arXiv:1910.02054, 7).

    Overlapped, reduction hides behind a backward and gathering behind a forward, but for one layer's part.
    """
    ranks = layout.dp * layout.cp
    dense = cluster.group(ranks, layout.tp), stage.dense
    experts = cluster.group(ranks // layout.ep, layout.tp * layout.ep), stage.experts

    def of(collective, size: int) -> float:
        return sum(collective(size * count, group) for group, count in (dense, experts))

    def exposed(seconds: float, behind: float) -> float:
        return max(seconds / max(layers, 1), seconds - behind) if software.overlap else seconds

    if layout.zero == 0:
        return exposed(of(all_reduce, software.gradient), stage.backward)
    gather = of(all_gather, LOW)
    if layout.zero == 1:
        return exposed(of(reduce_scatter, software.gradient), stage.backward) + exposed(gather, stage.forward)
    reduce = of(reduce_scatter, LOW)  # in the compute dtype, as FSDP2 and DeepSpeed do unless told otherwise
    if layout.zero == 2:  # sharded gradients cannot be added up before they are reduced
        return micro_batches * exposed(reduce, stage.backward) + exposed(gather, stage.forward)
    return micro_batches * (exposed(gather, stage.forward) + exposed(gather + reduce, stage.backward))
