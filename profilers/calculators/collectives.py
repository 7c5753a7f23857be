"""How long collectives take: latency times messages, and bytes over bandwidth (Thakur, Rabenseifner & Gropp 2005).

    n ranks, S bytes, α seconds a message, B bytes a second in one direction

    ring  all-gather, reduce-scatter    (n-1) α +   (n-1)/n S / B
          all-reduce                   2(n-1) α + 2 (n-1)/n S / B     reduce-scatter, then all-gather
    tree  all-reduce                2⌈log₂ n⌉ α + 2         S / B     two trees, pipelined (Sanders et al. 2009; NCCL)
          all-to-all                    (n-1) α +   (n-1)/n S / B     each pair exchanges its part

S is what every rank holds at the larger end: before a reduce-scatter, after an all-gather. Over several nodes the ranks
of one node first share the work, so that each sends its part through its own port (NCCL's rings and rails do the same).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2
from typing import Literal

from ..errors import UsageError
from .links import Link

Collective = Literal["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "send"]


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks that communicate, `in_node` of them in each node they touch."""

    ranks: int
    in_node: int
    intra: Link
    inter: Link

    def __post_init__(self) -> None:
        if self.ranks < 1 or self.in_node < 1 or self.ranks % self.in_node:
            raise UsageError(
                f"{self.ranks} ranks cannot be {self.in_node} a node; give a number of ranks that in_node divides"
            )

    @property
    def nodes(self) -> int:
        return self.ranks // self.in_node


def all_reduce(size: float, group: Group) -> float:
    """Seconds until every rank has the sum of `size` bytes. Across nodes whichever of ring and tree is faster."""
    part = size / group.in_node
    across = min(ring_all_reduce(part, group.nodes, group.inter), tree_all_reduce(part, group.nodes, group.inter))
    return ring_all_reduce(size, group.in_node, group.intra) + across


def all_gather(size: float, group: Group) -> float:
    """Seconds until every rank has all `size` bytes, of which it had 1/ranks."""
    across = ring_pass(size / group.in_node, group.nodes, group.inter)
    return across + ring_pass(size, group.in_node, group.intra)


def reduce_scatter(size: float, group: Group) -> float:
    """Seconds until every rank has its 1/ranks of the sum of `size` bytes: an all-gather backwards."""
    return all_gather(size, group)


def all_to_all(size: float, group: Group) -> float:
    """Seconds until every rank has sent each other one its 1/ranks of `size` bytes; both kinds of link at once."""
    each = size / group.ranks
    inside, outside = group.in_node - 1, group.ranks - group.in_node
    return max(
        inside * (group.intra.latency + each / group.intra.bandwidth),
        outside * (group.inter.latency + each / group.inter.bandwidth),
    )


def send(size: float, link: Link) -> float:
    """Seconds of one message."""
    return link.latency + size / link.bandwidth


def ring_pass(size: float, ranks: int, link: Link) -> float:
    """One way around a ring: all-gather or reduce-scatter of `size` bytes."""
    return (ranks - 1) * (link.latency + size / ranks / link.bandwidth)


def ring_all_reduce(size: float, ranks: int, link: Link) -> float:
    return 2 * ring_pass(size, ranks, link)


def tree_all_reduce(size: float, ranks: int, link: Link) -> float:
    return 0.0 if ranks == 1 else 2 * (ceil(log2(ranks)) * link.latency + size / link.bandwidth)


def bus_bandwidth(collective: Collective, size: float, ranks: int, seconds: float) -> float:
    """B/s as nccl-tests prints `busbw`: what the links carried, comparable with their bandwidth for any `ranks`."""
    if seconds <= 0:
        raise UsageError(f"a collective of {seconds!r} seconds has no bandwidth; give its measured seconds, above 0")
    share = 1.0 if collective == "send" else (ranks - 1) / ranks
    return (2 if collective == "all-reduce" else 1) * share * size / seconds
