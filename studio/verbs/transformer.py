"""`transformer`: what a model of known sizes costs, before it runs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..registry import Call, verb
from ..subject import SAYS, sizes


@verb
def transformer(
    model: Annotated[list[str], SAYS],
    *,
    batch: Annotated[int | None, "sequences of one step, over all devices; without it one"] = None,
    sequence: Annotated[int | None, "tokens of a sequence; without it the model's context, at most 2048"] = None,
    convention: Annotated[str, "how training FLOP a token are counted"] = "counted",
    recompute: Annotated[Literal["none", "selective", "full"], "what runs again in the backward"] = "none",
    device: Annotated[str | None, "whose peak shares are of, such as H100-SXM5-80GB"] = None,
    devices: Annotated[int, "how many"] = 1,
    dtype: Annotated[str, "of the matrix products"] = "bfloat16",
    mfu: Annotated[float | None, "the share of peak the run reaches, 0 to 1"] = None,
    tokens_per_second: Annotated[float | None, "or its speed, of all devices together"] = None,
    tokens: Annotated[float | None, "of the whole run, such as 15e12"] = None,
    power: Annotated[float | None, "watts a device"] = None,
    pue: Annotated[float | None, "the hall's power over the devices'"] = None,
    carbon: Annotated[float | None, "kg of CO2e a kWh"] = None,
    price: Annotated[float | None, "of a device-hour"] = None,
    sliders: Annotated[bool, "what if: sliders for batch, sequence and devices"] = False,
    call: Call,
) -> Any:
    """Parameters and FLOP of a transformer by closed form; MFU, days, energy and cost of a run."""
    from ...profilers.calculators.transformer import transformer as report
    from ..sliders import Slider, doublings, what_if

    settings = {
        "config": sizes(model, call),
        "batch": batch,
        "sequence": sequence,
        "convention": convention,
        "recompute": recompute,
        "device": device,
        "devices": devices,
        "dtype": dtype,
        "mfu": mfu,
        "tokens_per_second": tokens_per_second,
        "tokens": tokens,
        "power_w": power,
        "pue": pue,
        "kg_per_kwh": carbon,
        "price_per_device_hour": price,
    }
    first = report(**settings)
    if not sliders:
        return first
    moving = [
        Slider("batch", "sequences", doublings(1, 4096, first.batch)),
        Slider("sequence", "tokens a sequence", doublings(128, 131072, first.sequence)),
        Slider("devices", "devices", doublings(1, 16384, devices)),
    ]
    return what_if(call.face, report, {**settings, "batch": first.batch, "sequence": first.sequence}, moving)
