"""The utilisation of a measured run, and what every other convention would say of the same speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from ..hardware import Device, detect
from ..views.sheet import Bars, Figures, Sheet, Shown
from ..views.units import percent
from .architecture import Transformer
from .conventions import CONVENTIONS, named
from .models import model as named_model
from .recompute import Recompute
from .utilization import Utilization, peak_of, utilization_of


@dataclass(frozen=True, slots=True)
class RunUtilization(Shown):
    """`by_convention`: MFU of the same tokens a second, under each convention that speaks of such a model."""

    model: Transformer
    sequence: int
    run: Utilization
    by_convention: Mapping[str, float]

    def sheet(self) -> Sheet:
        said = named(self.run.convention)
        rows = tuple((name, percent(share), (share,)) for name, share in self.by_convention.items())
        return Sheet(
            f"MFU of {self.model.name}, {self.sequence:,} tokens a sequence",
            f"{self.run.peak.dtype}, dense peak: {self.run.peak.source}. FLOP a token by {said.name}: {said.formula} "
            f"({said.source}). Sizes: {self.model.provenance}.",
            (Figures("", self.run.rows()), Bars("The same speed under every convention", ("MFU",), rows)),
        )


def mfu(
    config: Any = None,
    *,
    sequence: int,
    device: Device | str | None = None,
    devices: int = 1,
    tokens_per_second: float | None = None,
    iteration_seconds: float | None = None,
    flops_per_second: float | None = None,
    mfu: float | None = None,
    batch: int | None = None,
    recompute: Recompute = "none",
    convention: str = "counted",
    dtype: str = "bfloat16",
    peak: float | None = None,
    **sizes: Any,
) -> RunUtilization:
    """MFU, HFU, tokens/s and seconds an iteration from any one of them.

    Give one of `tokens_per_second` (all devices together), `iteration_seconds` (with `batch`, the sequences of all
    devices), `flops_per_second` (one device's) and `mfu` (0 to 1). `device` is a name, by default this
    machine's GPU; `peak` is a device's dense peak in FLOP/s, by hand.

    Raises
    ------
    UsageError
        An unknown model, device, dtype or convention; a speed beyond the peak, with the input that must be wrong.
    """
    model = named_model(config, **sizes)
    at = peak_of(device or (None if peak else detect()), dtype, peak)
    run = utilization_of(
        model,
        at,
        sequence=sequence,
        convention=convention,
        recompute=recompute,
        batch=batch,
        devices=devices,
        tokens_per_second=tokens_per_second,
        iteration_seconds=iteration_seconds,
        flops_per_second=flops_per_second,
        mfu=mfu,
    )
    shares = {name: _share(name, model, sequence, run) for name in CONVENTIONS}
    return RunUtilization(model, sequence, run, {name: each for name, each in shares.items() if each is not None})


def _share(convention: str, model: Transformer, sequence: int, run: Utilization) -> float | None:
    """None where the convention says nothing of such a model."""
    try:
        flops = named(convention).per_token(model, sequence, "none")
    except UsageError:
        return None
    return flops * run.tokens_per_second / (run.devices * run.peak.flops)
