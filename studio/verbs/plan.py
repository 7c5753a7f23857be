"""`plan`: the layouts in which a cluster trains a model fastest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..registry import Call, verb
from ..subject import SAYS, sizes


@verb
def plan(
    model: Annotated[list[str], SAYS],
    *,
    device: Annotated[str, "such as H100-SXM5-80GB"],
    devices: Annotated[int, "how many, of all nodes"],
    batch: Annotated[int, "sequences of a step, over all devices"],
    sequence: Annotated[int, "tokens of a sequence"],
    per_node: Annotated[int, "devices of a node"] = 8,
    intra: Annotated[str | None, "link within a node; without it the device's own"] = None,
    inter: Annotated[str | None, "link between nodes, such as InfiniBand-NDR or RoCE-400"] = None,
    dtype: Annotated[str, "of the matrix products"] = "bfloat16",
    efficiency: Annotated[float | None, "share of peak that is reached; without it the best published matmul's"] = None,
    software: Annotated[Literal["current", "megatron21"], "kernels of today, or of 2021"] = "current",
    best: Annotated[int, "layouts to show"] = 10,
    sliders: Annotated[bool, "what if: sliders for devices, batch and sequence"] = False,
    call: Call,
) -> Any:
    """The best parallel layouts of a model over a cluster, with predicted step time, MFU and memory."""
    settings = {
        "model": sizes(model, call),
        "device": device,
        "devices": devices,
        "per_node": per_node,
        "intra": intra,
        "inter": inter,
        "global_batch": batch,
        "sequence": sequence,
        "dtype": dtype,
        "efficiency": efficiency,
        "software": software,
        "best": best,
    }
    if not sliders:
        return _plan(**settings)
    from ..sliders import Slider, doublings, what_if

    moving = [
        Slider("devices", "devices", doublings(per_node, 16384, devices)),
        Slider("global_batch", "sequences a step", doublings(8, 16384, batch)),
        Slider("sequence", "tokens a sequence", doublings(512, 131072, sequence)),
    ]
    return what_if(call.face, _plan, settings, moving)


def _plan(*, model: Any, device: str, devices: int, per_node: int, intra: Any, inter: Any, **options: Any) -> Any:
    from ...profilers.calculators.cluster import cluster
    from ...profilers.calculators.plan import plan as search

    return search(model, cluster(device, devices, per_node=per_node, intra=intra, inter=inter), **options)
