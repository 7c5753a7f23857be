"""`plan`: the layouts in which a cluster trains a model fastest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ...profilers.errors import UsageError
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
    mtbf: Annotated[float | None, "hours between failures of one device (50000 in Llama 3's run): goodput"] = None,
    write: Annotated[float | None, "with --mtbf: seconds a checkpoint stops the run"] = None,
    restart: Annotated[float | None, "with --mtbf: seconds from a failure until it trains again"] = None,
    repair: Annotated[float | None, "with --mtbf: hours until a node is back, for the number of spares"] = None,
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
        "failures": _failures(mtbf, write, restart, repair),
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


def _failures(mtbf: float | None, write: float | None, restart: float | None, repair: float | None) -> Any:
    given = {"--mtbf": mtbf, "--write": write, "--restart": restart}
    if mtbf is write is restart is repair is None:
        return None
    if missing := [name for name, value in given.items() if value is None]:
        raise UsageError(
            f"how a run survives failures also needs {' and '.join(missing)}: --mtbf 50000 --write 30 --restart 600"
        )
    from ...profilers.calculators.reliability import Failures

    assert mtbf is not None and write is not None and restart is not None
    return Failures(mtbf * 3600, write, restart, None if repair is None else repair * 3600)


def _plan(*, model: Any, device: str, devices: int, per_node: int, intra: Any, inter: Any, **options: Any) -> Any:
    from ...profilers.calculators.cluster import cluster
    from ...profilers.calculators.plan import plan as search

    return search(model, cluster(device, devices, per_node=per_node, intra=intra, inter=inter), **options)
