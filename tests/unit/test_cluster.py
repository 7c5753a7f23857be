"""Clusters: where ranks fall on nodes, and rates with their one efficiency."""

from collections import Counter

import pytest

from mlsys_studio.profilers.calculators.cluster import cluster, rates
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.hardware import lookup


@pytest.mark.parametrize("ranks, stride", [(8, 1), (4, 8), (16, 1), (16, 2), (6, 4), (3, 2), (64, 1), (8, 16)])
def test_a_group_knows_how_many_of_its_ranks_share_a_node(ranks, stride):
    """Witness: number the ranks and look; where nodes get unlike numbers, the least is not overstated."""
    found = cluster("H100-SXM5", 1024, inter="InfiniBand-NDR").group(ranks, stride)
    on_node = Counter(rank * stride // 8 for rank in range(ranks))
    assert found.in_node <= max(on_node.values())
    if len(set(on_node.values())) == 1:
        assert found.in_node == max(on_node.values())


def test_neighbours_in_a_node_use_its_link():
    built = cluster("A100-SXM4-80GB", 64, inter="InfiniBand-HDR")
    assert (built.neighbour(4).name, built.neighbour(8).name, built.nodes) == ("NVLink3", "InfiniBand-HDR", 8)


@pytest.mark.parametrize(
    "device, dtype, published", [("A100-SXM4-80GB", "bfloat16", 0.87), ("H100-SXM5", "float16", 0.80)]
)
def test_the_efficiency_is_the_published_one(device, dtype, published):
    """stas00/ml-engineering prints 87 % and 80 % of the dense peak."""
    found = rates(lookup(device), dtype)
    assert found.efficiency == pytest.approx(published, abs=0.005) and "published" in found.source
    assert found.matmul / found.peak == pytest.approx(found.bandwidth / lookup(device).bandwidth)


def test_attention_is_slower_than_products_by_as_much_as_published():
    """FlashAttention-2: 73 and 63 % of an A100's peak; FlashAttention-3: 616 and 561 TFLOP/s of an H100 at 16k tokens."""
    a100, h100 = rates(lookup("A100-SXM4-80GB"), "bfloat16"), rates(lookup("H100-SXM5"), "bfloat16")
    assert a100.attention == pytest.approx((0.73 * 312e12, 0.63 * 312e12), rel=0.01)
    assert h100.attention == pytest.approx((616e12, 561e12))
    halved = rates(lookup("H100-SXM5"), "bfloat16", h100.efficiency / 2)
    assert halved.attention == pytest.approx((308e12, 280.5e12))
    assert rates(lookup("T4"), "float16", 0.8).attention is None


def test_one_device_needs_no_link():
    assert cluster("T4", 1).nodes == 1


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: cluster("H101", 8), "no spec for device 'H101'"),
        (lambda: cluster("H100-SXM5", 16, inter="NDR9000"), "no link is called 'NDR9000'"),
        (lambda: cluster("H100-SXM5", 16), "16 devices are 2 nodes; give inter="),
        (lambda: cluster("H100-SXM5", 12, inter="NDR"), "12 devices do not fill nodes of 8"),
        (lambda: cluster("H100-SXM5", -8), "devices must be a whole number of at least 1"),
        (lambda: rates(lookup("H100-SXM5"), "bfloat16", 1.2), "efficiency is a share of the peak"),
        (lambda: rates(lookup("T4"), "float16"), "nobody published the best float16 matmul of T4; give efficiency="),
        (lambda: rates(lookup("T4"), "bfloat16"), "T4 has no bfloat16 peak"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(UsageError, match=said):
        call()
