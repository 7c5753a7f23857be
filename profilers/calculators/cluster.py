"""Devices, nodes and the links between them: what a layout is planned on."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

from ..errors import UsageError
from ..hardware import Device, lookup, peak
from .amounts import efficiency as share_of_peak, whole
from .collectives import Group
from .links import Link, between, link, links


@dataclass(frozen=True, slots=True)
class Cluster:
    """`devices` alike, `per_node` to a node. Ranks are numbered node by node."""

    device: Device = field(hash=False)  # it holds dicts
    devices: int
    per_node: int
    intra: Link  # within a node, a device's port
    inter: Link  # between nodes, a device's port

    @property
    def nodes(self) -> int:
        return self.devices // self.per_node

    def group(self, ranks: int, stride: int) -> Group:
        """`ranks` ranks that are `stride` apart, as they fall on nodes."""
        together = max(1, self.per_node // stride)
        return Group(ranks, ranks if ranks <= together else gcd(ranks, together), self.intra, self.inter)

    def neighbour(self, stride: int) -> Link:
        """The link to the rank `stride` further on."""
        return self.intra if stride < self.per_node else self.inter


@dataclass(frozen=True, slots=True)
class Rates:
    """What one device of a cluster reaches at best; FLOP/s and B/s."""

    peak: float  # dense, as promised
    matmul: float
    bandwidth: float
    multiprocessors: int | None  # None: not known, and no loss to a last wave is counted
    efficiency: float  # matmul / peak, and taken of the promised bandwidth alike
    source: str  # of the efficiency
    attention: tuple[float, float] | None = None  # flash attention forward and backward; None: as fast as products


def cluster(
    device: str | Device,
    devices: int,
    *,
    per_node: int = 8,
    intra: str | Link | None = None,
    inter: str | Link | None = None,
) -> Cluster:
    """A cluster by its device's and links' names; `intra` is by default the device's own link.

    Several nodes need `inter`, because no device says which network it is on.
    """
    whole("devices", devices)
    whole("per_node", per_node)
    spec = lookup(device)
    per_node = min(per_node, devices)
    if devices % per_node:
        raise UsageError(f"{devices} devices do not fill nodes of {per_node}; give per_node=, or whole nodes")
    if devices > per_node and inter is None:
        raise UsageError(f"{devices} devices are {devices // per_node} nodes; give inter=, one of {', '.join(links())}")
    inside = intra if intra is not None else inter if per_node == 1 else between(spec.name)
    alone = Link("none", 1.0, 0.0)  # one device talks to nobody
    near = link(inside) if inside is not None else alone
    return Cluster(spec, devices, per_node, near, near if inter is None else link(inter))


def rates(device: Device, dtype: str, efficiency: float | None = None) -> Rates:
    """The device's rates at one efficiency: that of its best published matmul, unless given.

    Flash attention is slower than the best matmul by as much as published, at any efficiency.
    """
    promised = peak(device, dtype)
    if device.bandwidth is None:
        raise UsageError(f"the memory bandwidth of {device.name} is not known; give a Device with bandwidth=")
    best = device.matmul_flops.get("bfloat16" if dtype == "float16" else dtype)  # one unit, one rate
    if efficiency is None:
        if best is None:
            raise UsageError(
                f"nobody published the best {dtype} matmul of {device.name}; give efficiency=, "
                "the share of its dense peak that a large matmul reaches there (`mlsys doctor` measures it)"
            )
        efficiency, source = best / promised, f"best published matmul {best / 1e12:.0f} TFLOP/s (stas00/ml-engineering)"
    else:
        efficiency, source = share_of_peak(efficiency), "given"
    attention = None
    if device.attention_flops and best is not None:
        slower = promised * efficiency / best
        attention = device.attention_flops["forward"] * slower, device.attention_flops["backward"] * slower
    return Rates(
        peak=promised,
        matmul=promised * efficiency,
        bandwidth=device.bandwidth * efficiency,
        multiprocessors=device.multiprocessors,
        efficiency=efficiency,
        source=source,
        attention=attention,
    )
