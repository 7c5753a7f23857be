"""Tokens a second, seconds an iteration, FLOP/s of a device, MFU: give one, have the others.

MFU = FLOP the model needs a token x tokens a second / (devices x dense peak)      Chowdhery et al. 2022, app. B
HFU = the same with the FLOP the hardware does: what is recomputed counts          Korthikanti et al. 2022, sec. 6.3
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..hardware import Device, lookup, peak
from ..views.sheet import Figures, Row, Sheet, Shown
from ..views.units import counted, duration, flop, percent, rate, three
from .amounts import positive, whole
from .architecture import Transformer
from .conventions import named
from .dtypes import dtype_name
from .recompute import Recompute


@dataclass(frozen=True, slots=True)
class Peak:
    """A device's dense peak in FLOP/s, and who says so."""

    flops: float
    dtype: str
    source: str


@dataclass(frozen=True, slots=True)
class Utilization(Shown):
    """Of a training run on `devices` devices; FLOP/s are of one device, tokens of all."""

    mfu: float
    hfu: float
    tokens_per_second: float
    flops_per_second: float  # a device's, which the model needs
    hardware_flops_per_second: float  # a device's, with recomputation
    flops_per_token: float
    devices: int
    peak: Peak
    tokens_per_iteration: float | None = None
    convention: str = "by hand"

    @property
    def iteration_seconds(self) -> float | None:
        """None where the tokens of an iteration are not known."""
        return self.tokens_per_iteration / self.tokens_per_second if self.tokens_per_iteration else None

    def rows(self) -> tuple[Row, ...]:
        iteration = self.iteration_seconds
        each = f"of {rate(self.peak.flops)} {self.peak.dtype}, dense"
        rows = [
            Row("MFU", percent(self.mfu), f"convention {self.convention}, {each}"),
            Row("HFU", percent(self.hfu), "recomputation counts"),
            Row("FLOP/s a device", rate(self.flops_per_second), "which the model needs"),
            Row("tokens/s", f"{self.tokens_per_second:,.0f}", counted(self.devices, "device")),
        ]
        if iteration is not None:
            rows.append(Row("iteration", duration(iteration * 1e9), f"{self.tokens_per_iteration:,.0f} tokens"))
        return tuple(rows)

    def sheet(self) -> Sheet:
        return Sheet("Utilization", f"peak: {self.peak.source}", (Figures("", self.rows()),))


def peak_of(device: Device | str | None, dtype: str = "bfloat16", flops: float | None = None) -> Peak:
    """The dense spec peak of a device, or `flops` (FLOP/s) given by hand."""
    dtype = dtype_name(dtype)
    if flops is not None:
        return Peak(positive("peak", flops), dtype, "given by hand")
    if device is None:
        raise UsageError(
            "a share of peak needs a peak: give a device, such as device='H100-SXM5-80GB', or peak= in FLOP/s"
        )
    found = lookup(device)
    return Peak(peak(found, dtype), dtype, f"{found.name}, {found.peak_source}")


def utilization(
    flops_per_token: float,
    peak: Peak,
    *,
    devices: int = 1,
    hardware_flops_per_token: float | None = None,
    tokens_per_second: float | None = None,
    iteration_seconds: float | None = None,
    flops_per_second: float | None = None,
    mfu: float | None = None,
    tokens_per_iteration: float | None = None,
    convention: str = "by hand",
) -> Utilization:
    """All of a run's rates from one of them.

    `flops_per_token`: training FLOP, for MFU; `hardware_flops_per_token`: those with recomputation, for HFU (default:
    none is recomputed). Give exactly one of `tokens_per_second` (of all devices together), `iteration_seconds` (with
    `tokens_per_iteration`), `flops_per_second` (one device's) and `mfu` (0 to 1). More than the peak is an error.
    """
    needed = positive("flops_per_token", flops_per_token)
    done = (
        needed if hardware_flops_per_token is None else positive("hardware_flops_per_token", hardware_flops_per_token)
    )
    if done < needed:
        raise UsageError("the hardware cannot do less than the model needs: hardware_flops_per_token < flops_per_token")
    given = {
        "tokens_per_second": tokens_per_second,
        "iteration_seconds": iteration_seconds,
        "flops_per_second": flops_per_second,
        "mfu": mfu,
    }
    said = [name for name, value in given.items() if value is not None]
    if len(said) != 1:
        raise UsageError(f"give exactly one of {', '.join(given)}, not {' and '.join(said) or 'none'}")
    name, value = said[0], positive(said[0], given[said[0]])
    fastest = whole("devices", devices) * peak.flops / done  # tokens a second of a hardware that never waits
    if name == "tokens_per_second":
        speed, limit = value, f"at most {fastest:,.0f}, of all devices together"
    elif name == "iteration_seconds":
        if tokens_per_iteration is None:
            raise UsageError(
                "iteration_seconds needs tokens_per_iteration as well; with a model give batch=, the sequences of all devices"
            )
        tokens = positive("tokens_per_iteration", tokens_per_iteration)
        speed, limit = tokens / value, f"at least {three(tokens / fastest)} for {tokens:,.0f} tokens of all devices"
    elif name == "flops_per_second":
        speed, limit = value * devices / needed, f"at most {rate(fastest * needed / devices)}, of one device"
    else:
        speed, limit = value * devices * peak.flops / needed, f"at most {three(needed / done)}"
    if speed > fastest * (1 + 1e-9):
        raise UsageError(
            f"{name}={value:g}{f' ({rate(value)})' if name == 'flops_per_second' else ''} is {percent(speed / fastest)} of "
            f"the peak: with devices={devices}, {flop(done)} a token and {rate(peak.flops)} {peak.dtype} a device, {name} "
            f"can be {limit}"
        )
    return Utilization(
        mfu=speed * needed / (devices * peak.flops),
        hfu=speed * done / (devices * peak.flops),
        tokens_per_second=speed,
        flops_per_second=speed * needed / devices,
        hardware_flops_per_second=speed * done / devices,
        flops_per_token=needed,
        devices=devices,
        peak=peak,
        tokens_per_iteration=tokens_per_iteration,
        convention=convention,
    )


def utilization_of(
    model: Transformer,
    peak: Peak,
    *,
    sequence: int,
    convention: str = "counted",
    recompute: Recompute = "none",
    batch: int | None = None,
    **measured,
) -> Utilization:
    """`utilization` of a model: its FLOP a token by a named convention; `batch` sequences make an iteration."""
    model.reaches(whole("sequence", sequence))
    count = named(convention).per_token
    return utilization(
        count(model, sequence, "none"),
        peak,
        hardware_flops_per_token=count(model, sequence, recompute),
        tokens_per_iteration=None if batch is None else whole("batch", batch) * sequence,
        convention=convention,
        **measured,
    )
