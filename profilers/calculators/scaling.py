"""How far more devices help: Amdahl's law for a fixed amount of work, Gustafson's for work that grows with them."""

from __future__ import annotations

from ..errors import UsageError
from .amounts import whole


def amdahl(serial: float, devices: int) -> float:
    """Speed-up over one device when the share `serial` of one device's time cannot be divided (Amdahl 1967)."""
    _check(serial, devices)
    return 1 / (serial + (1 - serial) / devices)


def gustafson(serial: float, devices: int) -> float:
    """Work done over one device's in the same time, `serial` being a share of the parallel run (Gustafson 1988)."""
    _check(serial, devices)
    return serial + (1 - serial) * devices


def _check(serial: float, devices: int) -> None:
    if not 0 <= serial <= 1:
        raise UsageError(f"the serial part is a share of the time, from 0 to 1, and {serial!r} is not")
    whole("devices", devices)
