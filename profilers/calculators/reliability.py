"""A long run on devices that fail: how often to checkpoint, what share of the time is then training, how many spares.

    M  mean seconds between failures of the whole run      δ  seconds a checkpoint stops it      R  seconds to restart
    τ  seconds of training between two checkpoints

Failures are taken as independent and memoryless, so n devices fail n times as often as one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import exp, expm1, lgamma, log, log1p, sqrt

from ..errors import UsageError
from ..views.sheet import Figures, Row, Sheet, Shown
from ..views.units import duration, percent
from .amounts import positive, whole

MOST_UNITS = 10**6
CONFIDENCE = 0.99  # that as many units as are needed are up


def young(mtbf: float, write: float) -> float:
    """Best τ to first order, sqrt(2 δ M) (Young 1974)."""
    positive("mtbf", mtbf)
    positive("write", write)
    return sqrt(2 * write * mtbf)


def daly(mtbf: float, write: float) -> float:
    """Best τ to higher order (Daly 2006, eq. 37); M where a checkpoint takes 2M or longer."""
    positive("mtbf", mtbf)
    positive("write", write)
    if write >= 2 * mtbf:
        return mtbf
    ratio = sqrt(write / (2 * mtbf))
    return sqrt(2 * write * mtbf) * (1 + ratio / 3 + ratio**2 / 9) - write


def goodput(mtbf: float, write: float, restart: float, interval: float) -> float:
    """Share of the wall time that is training and is kept: τ / (M e^(R/M) (e^((τ+δ)/M) - 1)) (Daly 2006, eq. 20)."""
    positive("mtbf", mtbf)
    positive("interval", interval)
    if not all(isinstance(given, int | float) and given >= 0 for given in (write, restart)):
        raise UsageError(f"write and restart are seconds of at least 0, not {write!r} and {restart!r}")
    if (interval + write + restart) / mtbf > 700:  # e^700 is the largest a float holds: no checkpoint is ever reached
        return 0.0
    return interval / (mtbf * exp(restart / mtbf) * expm1((interval + write) / mtbf))


def available(device_mtbf: float, repair: float) -> float:
    """Share of the time a device is up that fails every `device_mtbf` seconds and is back after `repair`."""
    positive("device_mtbf", device_mtbf)
    return device_mtbf / (device_mtbf + positive("repair", repair))


def spares(needed: int, availability: float, confidence: float = CONFIDENCE) -> int:
    """Fewest spare units with which `needed` are up at any moment with this probability (binomial).

    A unit is what is swapped at once, usually a node; `availability` is its own.
    """
    whole("needed", needed)
    if not 0 < availability <= 1 or not 0 < confidence < 1:
        raise UsageError(
            f"spares(availability={availability!r}, confidence={confidence!r}): "
            "availability in (0, 1], confidence between 0 and 1"
        )
    if needed / availability > MOST_UNITS:
        raise UsageError(
            f"{needed:,} units that are up {percent(availability)} of the time need more spares than any hall has"
        )

    def enough(extra: int) -> bool:
        return _at_most(extra, needed + extra, 1 - availability) >= confidence

    low, high = -1, 0
    while not enough(high):
        low, high = high, 2 * high + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True, slots=True)
class Reliability(Shown):
    """Seconds; `goodput` at `interval`, which is Daly's."""

    devices: int
    device_mtbf: float
    mtbf: float
    write: float
    restart: float
    interval: float
    young: float
    goodput: float
    spares: int | None = None  # nodes; None where nobody said how long a repair takes

    def rows(self) -> tuple[Row, ...]:
        wrote = f"{_said(self.write)} a checkpoint, {_said(self.restart)} a restart"
        rows = [
            Row("a failure every", _said(self.mtbf), f"{_said(self.device_mtbf)} a device / devices"),
            Row("checkpoint every", _said(self.interval), f"Daly 2006, eq. 37; {wrote}"),
            Row("by Young's rule", _said(self.young), "Young 1974: sqrt(2 x write x MTBF)"),
            Row("goodput", percent(self.goodput), "share of time that is training and kept; Daly 2006, eq. 20"),
        ]
        if self.spares is not None:
            rows.append(
                Row("spare nodes", f"{self.spares:,}", f"{percent(CONFIDENCE)} of the time enough are up; binomial")
            )
        return tuple(rows)

    def sheet(self) -> Sheet:
        basis = (
            f"{self.devices:,} devices, {_said(self.write)} a checkpoint, {_said(self.restart)} a restart; "
            "failures independent and memoryless"
        )
        return Sheet("Reliability", basis, (Figures("", self.rows()),))


def reliability(
    devices: int, *, device_mtbf: float, write: float, restart: float, repair: float | None = None, per_node: int = 8
) -> Reliability:
    """A run's failures, best checkpoint interval and goodput, from one device's mean seconds between failures.

    With `repair`, the seconds until a node is back, also how many spare nodes: one fails when any of its devices does.
    """
    whole("devices", devices)
    whole("per_node", per_node)
    positive("device_mtbf", device_mtbf)
    nodes = -(-devices // per_node)
    mtbf = device_mtbf / devices
    interval = daly(mtbf, write)
    return Reliability(
        devices=devices,
        device_mtbf=device_mtbf,
        mtbf=mtbf,
        write=write,
        restart=restart,
        interval=interval,
        young=young(mtbf, write),
        goodput=goodput(mtbf, write, restart, interval),
        spares=None if repair is None else spares(nodes, available(device_mtbf / per_node, repair)),
    )


@dataclass(frozen=True, slots=True)
class Failures:
    """How devices fail and what a failure costs; seconds. `repair`: until its node is back, if spares are asked for."""

    device_mtbf: float
    write: float
    restart: float
    repair: float | None = None

    def of(self, devices: int, per_node: int) -> Reliability:
        return reliability(devices, per_node=per_node, **{f.name: getattr(self, f.name) for f in fields(self)})


def _said(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else duration(seconds * 1e9)


def _at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) for X of binomial(n, p); in logarithms, because n is thousands."""
    if p == 0:
        return 1.0
    if k >= n:
        return 1.0
    return sum(
        exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log1p(-p)) for i in range(k + 1)
    )
