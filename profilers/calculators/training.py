"""What a training run costs: days, device-hours, energy, CO2e and money from its FLOP and how fast they are done.

Nothing is assumed for the user: power, PUE, carbon intensity and price have no default, and what is not given is not said.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..views.sheet import Figures, Row, Sheet, Shown
from ..views.units import rate, three
from .amounts import positive, whole

DAY = 86_400
PETAFLOP_DAY = 1e15 * DAY
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, arXiv:2203.15556, Table 3: 67 B for 1.5 T tokens, 22 a parameter


@dataclass(frozen=True, slots=True)
class Run(Shown):
    """Of a whole run; None where an input it needs was not given."""

    flops: float
    seconds: float
    devices: int
    energy_mwh: float | None = None
    co2_tonnes: float | None = None
    cost: float | None = None
    cost_per_million_tokens: float | None = None
    basis: str = ""

    @property
    def days(self) -> float:
        return self.seconds / DAY

    @property
    def device_hours(self) -> float:
        return self.seconds / 3600 * self.devices

    @property
    def petaflop_days(self) -> float:
        return petaflop_days(self.flops)

    def rows(self) -> tuple[Row, ...]:
        rows = [
            Row("FLOP", f"{self.flops:.3g}", f"{three(self.petaflop_days)} PF-days"),
            Row("time", f"{three(self.days)} days", self.basis),
            Row("device-hours", f"{self.device_hours:,.0f}", f"{self.devices:,} devices"),
        ]
        if self.energy_mwh is not None:
            rows.append(Row("energy", f"{three(self.energy_mwh)} MWh", "power x PUE, as given"))
        if self.co2_tonnes is not None:
            rows.append(Row("CO2e", f"{three(self.co2_tonnes)} t", "carbon intensity as given"))
        if self.cost is not None:
            rows.append(Row("cost", f"{self.cost:,.0f}", "price of a device-hour as given"))
        if self.cost_per_million_tokens is not None:
            rows.append(Row("cost of 10⁶ tokens", three(self.cost_per_million_tokens), ""))
        return tuple(rows)

    def sheet(self) -> Sheet:
        return Sheet("A training run", self.basis, (Figures("", self.rows()),))


def run(
    flops: float,
    *,
    devices: int,
    flops_per_second: float,
    tokens: float | None = None,
    power_w: float | None = None,
    pue: float | None = None,
    kg_per_kwh: float | None = None,
    price_per_device_hour: float | None = None,
) -> Run:
    """A run of `flops` on `devices` that each do `flops_per_second` of them.

    `power_w`: a device's, in watts, with what of its host it is charged for; `pue`: the hall's over the devices' (1.0 for
    none). `tokens` only tells the cost of a million. Take FLOP and FLOP/s by the same convention.
    """
    seconds = positive("flops", flops) / (whole("devices", devices) * positive("flops_per_second", flops_per_second))
    hours = seconds / 3600 * devices
    if kg_per_kwh is not None and power_w is None:
        raise UsageError("CO2e needs the energy; give power_w (watts a device) and pue as well")
    if power_w is not None and pue is None:
        raise UsageError("energy needs the hall's overhead; give pue, such as 1.1, or 1.0 for the devices alone")
    if pue is not None and power_w is None:
        raise UsageError("pue multiplies the devices' power, and none is given; give power_w, the watts of a device")
    energy = None if power_w is None else energy_mwh(hours, power_w, pue or 0)
    cost = None if price_per_device_hour is None else hours * positive("price_per_device_hour", price_per_device_hour)
    return Run(
        flops=flops,
        seconds=seconds,
        devices=devices,
        energy_mwh=energy,
        co2_tonnes=None if energy is None or kg_per_kwh is None else co2_tonnes(energy, kg_per_kwh),
        cost=cost,
        cost_per_million_tokens=None if cost is None or tokens is None else cost / positive("tokens", tokens) * 1e6,
        basis=f"{devices:,} devices, {rate(flops_per_second)} each",
    )


def energy_mwh(device_hours: float, power_w: float, pue: float) -> float:
    """Device-hours x power x PUE (Touvron et al. 2023, arXiv:2302.13971, section 6), in MWh."""
    if positive("pue", pue) < 1:
        raise UsageError(f"a PUE of {pue:g} would be a hall that takes less than its devices; give 1.0 or more")
    return positive("device_hours", device_hours) * positive("power_w", power_w) * pue / 1e6


def co2_tonnes(mwh: float, kg_per_kwh: float) -> float:
    """Tonnes of CO2e; a kg a kWh is a tonne a MWh."""
    return positive("mwh", mwh) * positive("kg_per_kwh", kg_per_kwh)


def petaflop_days(flops: float) -> float:
    """Days of one PFLOP/s (Brown et al. 2020, arXiv:2005.14165, Table D.1)."""
    return flops / PETAFLOP_DAY


def optimal_tokens(params: float) -> float:
    """Tokens for which the model has the least loss its compute can buy: about twenty a parameter (Hoffmann 2022)."""
    return TOKENS_PER_PARAMETER * positive("params", params)


def optimal_params(flops: float) -> float:
    """Parameters of the compute-optimal model, from C = 6ND and D = 20N."""
    return (positive("flops", flops) / (6 * TOKENS_PER_PARAMETER)) ** 0.5
