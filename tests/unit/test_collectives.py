"""Collectives against a ring and a tree that are run message by message, and properties of every kind."""

from math import ceil, log2

import pytest

from mlsys_studio.profilers.calculators.collectives import (
    Group,
    all_gather,
    all_reduce,
    all_to_all,
    bus_bandwidth,
    reduce_scatter,
    ring_all_reduce,
    ring_pass,
    send,
    tree_all_reduce,
)
from mlsys_studio.profilers.calculators.links import Link
from mlsys_studio.profilers.errors import UsageError

FAST, SLOW = Link("fast", 300e9, 3e-6), Link("slow", 25e9, 10e-6)
SIZE = 256e6


def passed_around(n: int, size: float, link: Link) -> float:
    """A ring run step by step: each rank hands the part it received last to its neighbour until all have all."""
    have = [{rank} for rank in range(n)]
    sending, seconds = list(range(n)), 0.0
    while any(len(parts) < n for parts in have):
        sending = [sending[rank - 1] for rank in range(n)]
        for rank in range(n):
            have[rank].add(sending[rank])
        seconds += link.latency + size / n / link.bandwidth
    return seconds


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_a_ring_takes_as_long_as_its_messages(n):
    assert ring_pass(SIZE, n, FAST) == pytest.approx(passed_around(n, SIZE, FAST))
    assert ring_all_reduce(SIZE, n, FAST) == pytest.approx(2 * passed_around(n, SIZE, FAST))


@pytest.mark.parametrize("n", [2, 3, 4, 9, 128])
def test_a_trees_latency_is_its_depth_up_and_down(n):
    reached, depth = 1, 0
    while reached < n:  # each rank that has it passes it to one more
        reached, depth = 2 * reached, depth + 1
    assert tree_all_reduce(0, n, SLOW) == pytest.approx(2 * depth * SLOW.latency)
    assert depth == ceil(log2(n))


def test_large_messages_go_around_the_ring_and_small_ones_up_the_tree():
    far = Group(64, 1, FAST, SLOW)
    assert all_reduce(10e9, far) == pytest.approx(ring_all_reduce(10e9, 64, SLOW))
    assert all_reduce(1e3, far) == pytest.approx(tree_all_reduce(1e3, 64, SLOW))


def test_nodes_share_the_work_so_that_each_port_carries_its_part():
    """8 GPUs a node, 4 nodes: inside 7/8 of the bytes twice, outside 3/4 of an eighth of them twice."""
    group = Group(32, 8, Link("fast", 300e9, 0), Link("slow", 25e9, 0))
    assert all_reduce(SIZE, group) == pytest.approx(2 * (7 / 8 * SIZE / 300e9 + 3 / 4 * SIZE / 8 / 25e9))
    assert all_gather(SIZE, group) == pytest.approx(7 / 8 * SIZE / 300e9 + 3 / 4 * SIZE / 8 / 25e9)


def test_all_to_all_leaves_a_node_with_the_share_of_ranks_outside():
    group = Group(16, 8, Link("fast", 300e9, 0), Link("slow", 25e9, 0))
    assert all_to_all(SIZE, group) == pytest.approx(SIZE * 8 / 16 / 25e9)
    assert all_to_all(SIZE, Group(8, 8, Link("fast", 300e9, 0), SLOW)) == pytest.approx(SIZE * 7 / 8 / 300e9)


KINDS = [all_reduce, all_gather, reduce_scatter, all_to_all]


@pytest.mark.parametrize("collective", KINDS)
def test_one_rank_costs_nothing(collective):
    assert collective(SIZE, Group(1, 1, FAST, SLOW)) == 0


@pytest.mark.parametrize("collective", KINDS)
@pytest.mark.parametrize("ranks, in_node", [(8, 8), (16, 8), (64, 1), (128, 8)])
def test_more_bandwidth_is_never_slower_and_more_bytes_never_faster(collective, ranks, in_node):
    def seconds(size: float, more: float = 1.0) -> float:
        intra, inter = (Link(link.name, link.bandwidth * more, link.latency) for link in (FAST, SLOW))
        return collective(size, Group(ranks, in_node, intra, inter))

    assert seconds(SIZE, 2) < seconds(SIZE) < seconds(2 * SIZE) <= 2 * seconds(SIZE)


def test_bus_bandwidth_of_a_ring_without_latency_is_the_links():
    """The definition of nccl-tests' busbw: comparable with the wire, whatever the number of ranks."""
    wire = Link("wire", 100e9, 0)
    for n in (2, 8, 64):
        assert bus_bandwidth("all-reduce", SIZE, n, ring_all_reduce(SIZE, n, wire)) == pytest.approx(100e9)
        assert bus_bandwidth("all-gather", SIZE, n, ring_pass(SIZE, n, wire)) == pytest.approx(100e9)
    assert bus_bandwidth("send", SIZE, 2, send(SIZE, wire)) == pytest.approx(100e9)


def test_ranks_that_do_not_fill_nodes_are_refused():
    with pytest.raises(UsageError, match="12 ranks cannot be 8 a node"):
        Group(12, 8, FAST, SLOW)
