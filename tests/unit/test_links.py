"""Links: what makers promise in both directions, what one direction reaches, and names that are refused."""

import pytest

from mlsys_studio.profilers.calculators.links import Link, between, link, links
from mlsys_studio.profilers.errors import UsageError


@pytest.mark.parametrize(
    "device, promised",  # GB/s in both directions, from the makers' datasheets
    [("V100-SXM2-32GB", 300), ("A100-SXM4-80GB", 600), ("H100-SXM5", 900), ("B200-SXM", 1800)],
)
def test_nvlink_reaches_most_of_one_direction_and_never_more(device, promised):
    assert 0.75 * promised / 2 < between(device).bandwidth / 1e9 <= promised / 2


@pytest.mark.parametrize("name, gbit", [("InfiniBand-HDR", 200), ("ib ndr", 400), ("100GbE", 100), ("10gbe", 10)])
def test_network_ports_are_bits_over_eight(name, gbit):
    assert 0.95 * gbit / 8 <= link(name).bandwidth / 1e9 <= gbit / 8


def test_every_link_has_a_source_and_a_confidence():
    for name in links():
        assert link(name).source and link(name).confidence in ("high", "medium", "low")


def test_an_unknown_link_is_an_error_that_names_near_ones():
    with pytest.raises(UsageError, match=r"no link is called 'NVLink9'; type one of NVLink"):
        link("NVLink9")


def test_a_device_without_a_known_link_is_an_error():
    with pytest.raises(UsageError, match=r"no link is known between TPU-v4s of one node; give intra="):
        between("TPU-v4")


def test_a_link_without_bandwidth_is_refused():
    with pytest.raises(UsageError, match="bandwidth above 0"):
        Link("mine", bandwidth=0, latency=1e-6)
