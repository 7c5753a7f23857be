"""How far more devices help: Amdahl's law for a fixed amount of work, Gustafson's for work that grows with them."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from ..views.sheet import Row
from ..views.units import percent, ratio
from .amounts import whole


def amdahl(serial: float, devices: int) -> float:
    """Speed-up over one device when the share `serial` of one device's time cannot be divided (Amdahl 1967)."""
    _check(serial, devices)
    return 1 / (serial + (1 - serial) / devices)


def gustafson(serial: float, devices: int) -> float:
    """Work done over one device's in the same time, `serial` being a share of the parallel run (Gustafson 1988)."""
    _check(serial, devices)
    return serial + (1 - serial) * devices


@dataclass(frozen=True, slots=True)
class Doubling:
    """What twice the devices would bring a step if all of it that is no computing stayed as long."""

    serial: float  # that share of the step
    same_work: float  # speed-up of the same step
    twice_the_work: float  # work in the same time

    def rows(self) -> tuple[Row, ...]:
        stays = f"the {percent(self.serial)} of the step that are no computing stay"
        return (
            Row("the same batch", ratio(self.same_work), f"as fast; Amdahl 1967: {stays}"),
            Row("a batch twice as large", ratio(self.twice_the_work), f"the work a second; Gustafson 1988: {stays}"),
        )


def doubling(computing: float, total: float) -> Doubling:
    """Of a step of `total` seconds, of which `computing` are divided among the devices."""
    serial = 1 - computing / total
    return Doubling(serial, amdahl(serial, 2), gustafson(serial, 2))


def _check(serial: float, devices: int) -> None:
    if isinstance(serial, bool) or not isinstance(serial, int | float) or not 0 <= serial <= 1:
        raise UsageError(f"the serial part is a share of the time, from 0 to 1, and {serial!r} is not")
    whole("devices", devices)
