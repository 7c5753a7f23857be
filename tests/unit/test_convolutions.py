"""Residual networks against torchvision's published metadata, and live where torchvision is here."""

import pytest
import vision

from mlsys_studio.profilers.calculators.convolutions import RESNETS, cost, resnet
from mlsys_studio.profilers.calculators.models import model
from mlsys_studio.profilers.errors import UsageError

PUBLISHED = {  # torchvision 0.28, weights metadata: parameters, and 1e9 multiply-adds for 224 x 224
    "resnet-18": (11_689_512, 1.814),
    "resnet-34": (21_797_672, 3.664),
    "resnet-50": (25_557_032, 4.089),
    "resnet-101": (44_549_160, 7.801),
    "resnet-152": (60_192_808, 11.514),
}


@pytest.mark.parametrize("name", RESNETS)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    parameters, giga = PUBLISHED[name]
    assert resnet(name).parameters == parameters
    assert round(resnet(name).forward_flops() / 2e9, 3) == giga


def test_a_networks_cost_adds_up():
    found = cost(resnet("resnet-50"), batch=3)
    assert found.forward == 3 * 8_178_368_512 == sum(flops for _, flops in found.by_kernel)
    assert "24.5 GFLOP" in str(found) and "4.54" not in str(found)


def test_resnet_50_to_the_last_flop():
    assert resnet("ResNet50").forward_flops() == 8_178_368_512  # torch FlopCounterMode on torchvision's resnet50
    assert resnet("resnet_50").training_flops() == 24_299_077_632  # the same, with its backward


@pytest.mark.parametrize("image", [32, 161, 224, 288])
@pytest.mark.parametrize("name", ["resnet-18", "resnet-50"])
def test_it_is_the_live_count_at_any_size(name, image):
    from mlsys_studio.profilers.calculators.live import flops

    net, _ = vision.model(f"torchvision/{name.replace('-', '')}")
    count = flops(net, (2, 3, image, image))
    assert count.forward == resnet(name).forward_flops(2, image)
    assert count.model_flops == resnet(name).training_flops(2, image)


def test_flop_grow_with_batch_and_picture():
    net = resnet("resnet-50")
    assert net.forward_flops(3) == 3 * net.forward_flops()
    assert net.forward_flops(1, 256) > net.forward_flops(1, 224)


@pytest.mark.parametrize("asked", [lambda: resnet("resnet-51"), lambda: resnet("resnet-50").forward_flops(0)])
def test_what_is_none_is_one_sentence(asked):
    with pytest.raises(UsageError):
        asked()


def test_a_transformer_it_is_not():
    with pytest.raises(UsageError, match="no transformer"):
        model("resnet-50")
