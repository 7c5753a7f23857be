"""`mfu`: from one of a run's rates to all of them, under a convention with a name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ..registry import Call, verb
from ..subject import SAYS, sizes


@verb
def mfu(
    model: Annotated[list[str], SAYS],
    *,
    sequence: Annotated[int, "tokens of a sequence"],
    device: Annotated[str | None, "such as H100-SXM5-80GB; without it this machine's GPU"] = None,
    devices: Annotated[int, "how many"] = 1,
    tokens_per_second: Annotated[float | None, "of all devices together"] = None,
    iteration_seconds: Annotated[float | None, "seconds an iteration takes; needs --batch"] = None,
    tflops: Annotated[float | None, "TFLOP/s that each device achieves"] = None,
    mfu: Annotated[float | None, "0 to 1: what speed would that be"] = None,
    batch: Annotated[int | None, "sequences of one iteration, of all devices"] = None,
    recompute: Annotated[Literal["none", "selective", "full"], "what runs again in the backward"] = "none",
    convention: Annotated[str, "how FLOP are counted"] = "counted",
    dtype: Annotated[str, "of the matrix products"] = "bfloat16",
    peak: Annotated[float | None, "dense peak of a device in TFLOP/s, by hand"] = None,
    call: Call,
) -> Any:
    """Turn tokens/s, iteration time, TFLOP/s or MFU of a training run into one another."""
    from ...profilers.calculators.mfu import mfu as utilization

    return utilization(
        sizes(model, call),
        sequence=sequence,
        device=device,
        devices=devices,
        tokens_per_second=tokens_per_second,
        iteration_seconds=iteration_seconds,
        flops_per_second=None if tflops is None else tflops * 1e12,
        mfu=mfu,
        batch=batch,
        recompute=recompute,
        convention=convention,
        dtype=dtype,
        peak=None if peak is None else peak * 1e12,
    )
