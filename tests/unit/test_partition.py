"""PipeDream's partition against every partition there is."""

import itertools
import random

import pytest

from mlsys_studio.profilers.calculators.partition import Layer, Stage, even, partition
from mlsys_studio.profilers.errors import UsageError

BANDWIDTH = 10e9


def slowest(layers, stages, bandwidth):
    """Seconds between micro-batches of a pipeline: its slowest stage or message, written out."""
    times = []
    for stage in stages:
        inside = layers[stage.first : stage.last + 1]
        compute = sum(layer.seconds for layer in inside)
        agree = 2 * (stage.replicas - 1) * sum(layer.weights for layer in inside) / bandwidth
        times.append(max(compute, agree) / stage.replicas)
        if stage.last + 1 < len(layers):
            times.append(2 * layers[stage.last].activation / bandwidth)
    return max(times)


def everything(count: int, devices: int, replicate: bool):
    """Every way to cut `count` layers into stages and to give each its replicas."""
    for parts in range(1, min(count, devices) + 1):
        for cuts in itertools.combinations(range(1, count), parts - 1):
            edges = [0, *cuts, count]
            for replicas in itertools.product(range(1, devices + 1 if replicate else 2), repeat=parts):
                if sum(replicas) <= devices:
                    yield [Stage(a, b - 1, m) for (a, b), m in zip(itertools.pairwise(edges), replicas, strict=True)]


def uneven(seed: int, count: int):
    dice = random.Random(seed)
    return [
        Layer(dice.uniform(0.1, 1), activation=dice.uniform(0, 4e9), weights=dice.uniform(0, 4e9)) for _ in range(count)
    ]


@pytest.mark.parametrize("replicate", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_no_partition_is_faster(seed, replicate):
    layers = uneven(seed, 6)
    found = partition(layers, 4, BANDWIDTH, replicate=replicate)
    best = min(slowest(layers, stages, BANDWIDTH) for stages in everything(6, 4, replicate))
    assert found.seconds == pytest.approx(best)
    assert slowest(layers, found.stages, BANDWIDTH) == pytest.approx(best)


def test_stages_cover_every_layer_once_and_use_no_more_devices():
    layers = uneven(1, 20)
    found = partition(layers, 8, BANDWIDTH)
    covered = [i for stage in found.stages for i in range(stage.first, stage.last + 1)]
    assert covered == list(range(20)) and sum(stage.replicas for stage in found.stages) <= 8


def test_equal_layers_without_communication_are_shared_out_evenly():
    assert partition([Layer(1.0)] * 12, 4).seconds == pytest.approx(3.0)


def test_vgg_like_weights_at_the_end_are_not_replicated():
    """PipeDream's own example (SOSP 2019, 5.2: 15-1 for VGG-16): light convolutions in front, one heavy layer behind."""
    front, heavy = [Layer(1.0, activation=1e6, weights=1e6)] * 15, Layer(1.0, weights=100e9)
    assert partition([*front, heavy], 16, BANDWIDTH).stages == (Stage(0, 14, 15), Stage(15, 15, 1))


def test_more_bandwidth_and_more_devices_are_never_slower():
    layers = uneven(3, 8)
    by_bandwidth = [partition(layers, 4, bandwidth).seconds for bandwidth in (1e9, 1e10, 1e11)]
    by_devices = [partition(layers, devices, BANDWIDTH).seconds for devices in (1, 2, 3, 4, 5)]
    assert by_bandwidth == sorted(by_bandwidth, reverse=True) and by_devices == sorted(by_devices, reverse=True)


def runs(costs, parts):
    return [sum(costs[a:b]) for a, b in itertools.pairwise(even(costs, parts))]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_the_fast_split_agrees_with_the_programme(seed, parts):
    costs = [layer.seconds for layer in uneven(seed, 7)]
    found = runs(costs, parts)
    assert len(found) == parts and sum(found) == pytest.approx(sum(costs)) and min(found) > 0
    assert max(found) == pytest.approx(partition([Layer(c) for c in costs], parts, replicate=False).seconds)


def test_equal_layers_need_no_more_than_their_share():
    assert max(runs([0.1] * 126, 63)) == pytest.approx(0.2)
    assert max(runs([0.1] * 126, 16)) == pytest.approx(0.8)


def test_numbers_are_layers_and_the_answer_shows_itself():
    found = partition([3.0, 1.0, 1.0, 1.0], 2, replicate=False)
    assert found == partition([Layer(3.0), Layer(1.0), Layer(1.0), Layer(1.0)], 2, replicate=False)
    assert found.seconds == 3.0 and [(s.first, s.last) for s in found.stages] == [(0, 0), (1, 3)]
    assert "a micro-batch every 3.00 s" in str(found) and "1 to 3" in str(found)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(UsageError, match="3 layers cannot fill 4 stages"):
        even([1.0] * 3, 4)
    with pytest.raises(UsageError, match="0 layers on 4 devices"):
        partition([], 4)
