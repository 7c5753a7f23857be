"""Every way to lay a model out over a cluster, and why most of them cannot be.

The degrees of parallelism are walked first, because most are refused for a reason that no other setting mends; then, for
degrees that can be, ZeRO stage, micro-batch, schedule and recomputation. Not walked: GPipe, which idles as long as 1F1B
and holds more; more recomputation than is needed to fit, which only costs time; and context parallelism over several
sequences a micro-batch, which is half of both with more messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import inf, isqrt
from typing import Literal

from .architecture import MLP, Experts, Transformer
from .cluster import Cluster
from .layout import Layout
from .recompute import Recompute

MICRO_BATCHES = 16  # largest micro-batch tried
CHUNKS = 8  # most model chunks a stage tried
RECOMPUTE: tuple[Recompute, ...] = ("none", "selective", "full")  # fastest first

Reason = Literal["devices", "node", "heads", "KV heads", "width", "experts", "stages", "sequence", "batch", "memory"]


@dataclass(frozen=True, slots=True)
class Candidate:
    layout: Layout
    micro_batch: int  # sequences
    micro_batches: int  # a step and data-parallel rank
    recompute: Recompute


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: Reason
    sentence: str
    needed: float = 0.0  # bytes a device, where memory is the reason


def refusal(
    model: Transformer, cluster: Cluster, layout: Layout, *, global_batch: int, sequence: int
) -> Refusal | None:
    """Why these degrees cannot be, whatever the other settings; None if they can, memory aside."""
    tp, attention = layout.tp, [block.attention for block in {each.block for each in model.stack}]
    experts = [each.block.mlp for each in model.stack if isinstance(each.block.mlp, Experts)]
    widths = {mlp.width for each in model.stack for mlp in mlps(each.block.mlp)}
    most = model.layers + 2  # embedding and head may have a stage of their own

    def refused(reason: Reason, sentence: str) -> Refusal:
        return Refusal(reason, f"{described(layout)}: {sentence}")

    if layout.devices != cluster.devices:
        return refused("devices", f"takes {layout.devices} devices, and the cluster has {cluster.devices}")
    if tp > cluster.per_node:
        return refused(
            "node", f"tp={tp} reaches over nodes of {cluster.per_node}, whose network every layer would wait for"
        )
    for a in attention:
        if a.heads % tp:
            return refused("heads", f"tp={tp} does not divide {a.heads} heads")
        if a.latent is None and a.kv_heads % tp:
            return refused("KV heads", f"tp={tp} does not divide {a.kv_heads} KV heads")
    if any(width % tp for width in widths):
        return refused("width", f"tp={tp} does not divide an MLP of {max(widths)}")
    if layout.ep > 1 and not experts:
        return refused("experts", f"ep={layout.ep} needs experts, and {model.name} has none")
    if any(mlp.count % layout.ep for mlp in experts):
        return refused("experts", f"ep={layout.ep} does not divide {max(mlp.count for mlp in experts)} experts")
    if layout.pp * layout.chunks > most:
        return refused(
            "stages",
            f"{layout.pp} stages{f' x {layout.chunks} chunks' * (layout.chunks > 1)} are more than {model.layers} layers "
            "and both ends",
        )
    if sequence % (2 * layout.cp if layout.cp > 1 else 1):
        return refused(
            "sequence", f"cp={layout.cp} needs a sequence divisible by {2 * layout.cp}, and {sequence} is not"
        )
    if global_batch % layout.dp:
        return refused("batch", f"a batch of {global_batch} is not divisible by dp={layout.dp}")
    return None


def degrees(model: Transformer, cluster: Cluster) -> Iterator[Layout]:
    """Every product tp x pp x cp x dp of the devices, with every ep that divides dp x cp."""
    sparse = any(isinstance(each.block.mlp, Experts) for each in model.stack)
    for tp in divisors(cluster.devices):
        for pp in divisors(cluster.devices // tp):
            for cp in divisors(cluster.devices // tp // pp):
                dp = cluster.devices // tp // pp // cp
                for ep in divisors(dp * cp) if sparse else [1]:
                    yield Layout(dp=dp, tp=tp, pp=pp, cp=cp, ep=ep)


def frugal(layout: Layout, global_batch: int, sequence_parallel: bool) -> list[Candidate]:
    """Of these degrees the settings that can need the least memory: which ZeRO stage does depends on the layers' size."""
    whole = replace(layout, sequence_parallel=sequence_parallel and layout.tp > 1)
    stages = (1, 2, 3) if layout.dp * layout.cp > 1 else (0,)
    return [Candidate(replace(whole, zero=zero), 1, global_batch // layout.dp, "full") for zero in stages]


def fastest(
    candidates: Iterable[Candidate], seconds: Callable[[Candidate], float], fits: Callable[[Candidate], bool]
) -> Candidate | None:
    """The fastest of these that fits, each with as little recomputation as that takes."""
    best, least = None, inf
    for each in candidates:
        for recompute in RECOMPUTE:
            candidate = replace(each, recompute=recompute)
            took = seconds(candidate)
            if took >= least:
                break  # more recomputation is slower still, so that nobody need ask for its memory
            if fits(candidate):
                best, least = candidate, took
                break
    return best


def settings(
    model: Transformer, layout: Layout, *, global_batch: int, sequence_parallel: bool, fits: Callable[[Candidate], bool]
) -> Iterator[Candidate]:
    """Every setting of degrees that can be, without recomputation; of those that do not fit even with it, not all."""
    share = global_batch // layout.dp
    most = MICRO_BATCHES if layout.cp == 1 else 1
    for zero in (0, 1, 2, 3) if layout.dp * layout.cp > 1 else (0,):
        whole = replace(layout, zero=zero, sequence_parallel=sequence_parallel and layout.tp > 1)
        for micro_batch in [size for size in divisors(share) if size <= most]:
            micro_batches = share // micro_batch
            if not fits(Candidate(whole, micro_batch, micro_batches, "full")):
                break  # other schedules hold as much as 1F1B or more, and so do larger micro-batches
            for schedule, chunks in schedules(model, layout.pp, micro_batches):
                tried = replace(whole, schedule=schedule, chunks=chunks)
                yield Candidate(tried, micro_batch, micro_batches, "none")


def schedules(model: Transformer, stages: int, micro_batches: int) -> Iterator[tuple[str, int]]:
    """(schedule, chunks) that a pipeline of so many stages can run."""
    yield "1f1b", 1
    if stages == 1:
        return
    if micro_batches >= stages:
        yield "zero-bubble", 1
    for chunks in range(2, min(CHUNKS, (model.layers + 2) // stages) + 1):
        if micro_batches % stages == 0:
            yield "interleaved", chunks


def described(layout: Layout) -> str:
    """TP 8 PP 16 DP 128; what is 1 is left out."""
    parts = [
        f"{name.upper()} {getattr(layout, name)}"
        for name in ("tp", "cp", "pp", "ep", "dp")
        if getattr(layout, name) > 1
    ]
    return " ".join(parts) or "one device"


def mlps(given: MLP | Experts) -> list[MLP]:
    """The kinds of MLP a layer has."""
    if isinstance(given, MLP):
        return [given]
    return [given.each, *([given.shared] if given.shared else [])]


@cache
def divisors(n: int) -> list[int]:
    low = [d for d in range(1, isqrt(n) + 1) if n % d == 0]
    return sorted({*low, *(n // d for d in low)})
