"""A residual network (He et al. 2016, arXiv:1512.03385, Table 1) in closed form: parameters and FLOP of its passes.

As torchvision builds it: a bottleneck's stride is in its 3 x 3 convolution, a shortcut of another shape is a 1 x 1
convolution, every convolution has a batch norm and no bias. A multiply-add is two FLOP; norms, pools and additions have none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import UsageError
from ..views.sheet import Bars, Figures, Row, Sheet, Shown
from ..views.units import flop, percent, three
from .amounts import whole


@dataclass(frozen=True, slots=True)
class ResNet:
    """Four stages of so many blocks; a bottleneck is 1 x 1, 3 x 3, 1 x 1 and ends four times as wide."""

    name: str
    blocks: tuple[int, int, int, int]
    bottleneck: bool
    classes: int = 1000

    @property
    def parameters(self) -> int:
        """Weights, two of a batch norm for each channel, and the classifier with its bias."""
        layers = [layer for layer, _ in convolutions(self, 224)]
        return sum(each.weights + 2 * each.outputs for each in layers) + (layers[-1].outputs + 1) * self.classes

    def forward_flops(self, batch: int = 1, image: int = 224) -> int:
        """Of `batch` pictures of image x image pixels."""
        layers = list(convolutions(self, image))
        products = sum(layer.weights * side * side for layer, side in layers) + layers[-1][0].outputs * self.classes
        return 2 * whole("batch", batch) * products

    def training_flops(self, batch: int = 1, image: int = 224) -> int:
        """Forward and backward: a gradient for either factor of each product, except for the pixels."""
        first, side = next(convolutions(self, image))
        return 3 * self.forward_flops(batch, image) - 2 * batch * first.weights * side * side


@dataclass(frozen=True, slots=True)
class Convolution:
    inputs: int
    outputs: int
    kernel: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs * self.kernel**2


def convolutions(net: ResNet, image: int) -> Iterator[tuple[Convolution, int]]:
    """Every convolution with the side of its output, in order; each stage but the first halves the side."""
    side = _halved(_halved(whole("image", image)))
    yield Convolution(3, 64, 7), _halved(image)
    channels = 64
    for stage, count in enumerate(net.blocks):
        narrow = 64 * 2**stage
        wide = narrow * (4 if net.bottleneck else 1)
        for block in range(count):
            before, side = side, _halved(side) if stage and not block else side
            if net.bottleneck:
                yield Convolution(channels, narrow, 1), before
                yield Convolution(narrow, narrow, 3), side
                yield Convolution(narrow, wide, 1), side
            else:
                yield Convolution(channels, narrow, 3), side
                yield Convolution(narrow, narrow, 3), side
            if channels != wide:
                yield Convolution(channels, wide, 1), side
            channels = wide


RESNETS = {
    each.name: each
    for each in (
        ResNet("resnet-18", (2, 2, 2, 2), False),
        ResNet("resnet-34", (3, 4, 6, 3), False),
        ResNet("resnet-50", (3, 4, 6, 3), True),
        ResNet("resnet-101", (3, 4, 23, 3), True),
        ResNet("resnet-152", (3, 8, 36, 3), True),
    )
}


def known(name: str) -> ResNet | None:
    """By name: resnet-18, -34, -50, -101 or -152, with or without the hyphen; None where it is no such network."""
    return RESNETS.get(str(name).lower().replace("_", "-").replace("resnet", "resnet-").replace("--", "-"))


def resnet(name: str) -> ResNet:
    """The one of this name, or a UsageError."""
    found = known(name)
    if found is None:
        raise UsageError(f"no residual network is called {name!r}; type one of {', '.join(RESNETS)}")
    return found


@dataclass(frozen=True, slots=True)
class ConvolutionCost(Shown):
    """FLOP of a network's passes over `batch` pictures of image x image pixels."""

    model: str
    batch: int
    image: int
    parameters: int
    forward: int
    training: int  # forward and backward
    by_kernel: tuple[tuple[str, int], ...]  # of the forward

    def sheet(self) -> Sheet:
        rows = (
            Row("parameters", f"{self.parameters:,}", f"{three(self.parameters / 1e6)} M"),
            Row("forward", f"{self.forward:,}", f"{flop(self.forward)}; {self.forward // 2:,} MAC"),
            Row("forward + backward", f"{self.training:,}", f"{flop(self.training)}; no gradient of the pixels"),
        )
        bars = tuple((name, percent(n / self.forward), (n / self.forward,)) for name, n in self.by_kernel)
        return Sheet(
            f"FLOPs of {self.model}",
            f"{self.batch:,} x 3 x {self.image} x {self.image}, as torchvision builds it (He et al. 2016, "
            "arXiv:1512.03385, Table 1). A multiply-add is 2 FLOP; norms, pools and additions have none.",
            (Figures("", rows), Bars("A forward's FLOP by kernel", ("share",), bars)),
        )


def cost(net: ResNet, batch: int = 1, image: int = 224) -> ConvolutionCost:
    """What one step costs, and which kernels the forward spends it in."""
    forward = net.forward_flops(batch, image)
    by_kernel: Counter[str] = Counter()
    for layer, side in convolutions(net, image):
        by_kernel[f"{layer.kernel} x {layer.kernel}"] += 2 * batch * layer.weights * side * side
    by_kernel["classifier"] = forward - by_kernel.total()
    training = net.training_flops(batch, image)
    return ConvolutionCost(net.name, batch, image, net.parameters, forward, training, tuple(by_kernel.most_common()))


def _halved(side: int) -> int:
    """By stride 2 with padding."""
    return (side + 1) // 2
