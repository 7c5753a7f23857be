"""A number with its unit, in three significant digits. Nanoseconds, bytes and FLOP in; text out."""

from __future__ import annotations

import math

_DAY = 86400e9  # nanoseconds
_SI = tuple((prefix, 10.0**power) for prefix, power in zip("YZEPTGMk", range(24, 0, -3), strict=True))


def duration(ns: float) -> str:
    """71.3 ms, 3 min 5 s, 2 h 10 min, 12 d 4 h; the sign is kept."""
    size, sign = abs(ns), "-" if ns < 0 else ""
    if size >= 1e5 * _DAY:
        return f"{sign}{three(size / _DAY)} d"
    for large, scale, small, part in (("d", _DAY, "h", 3600e9), ("h", 3600e9, "min", 60e9), ("min", 60e9, "s", 1e9)):
        if size >= 2 * scale:
            return f"{sign}{size // scale:.0f} {large} {size % scale // part:.0f} {small}"
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if size >= scale * 0.9995:  # 999.6 µs would print as 1000 µs
            return f"{three(ns / scale)} {unit}"
    return f"{round(ns, 0) + 0.0:.0f} ns"


def signed(ns: int, decimals: int) -> str:
    """Milliseconds with a sign, +0.00 and never -0.00."""
    return f"{round(ns / 1e6, decimals) + 0.0:+.{decimals}f}"


def grown(ratio: float) -> str:
    """A ratio as a change, +2.5% of 1.025; +0.0% and never -0.0%."""
    return f"{round(ratio - 1, 3) + 0.0:+.1%}"


def three(value: float) -> str:
    """Three significant digits, without an exponent below 10**15: 0.0123, 1.23, 12.3, 1230."""
    if not math.isfinite(value) or value == 0:
        return f"{value:.0f}"
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    rounded = float(f"{value:.2e}")  # before its digits are counted: 0.9996 is 1.00
    digits = 2 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{min(max(0, digits), 9)}f}"


def size(count: int) -> str:
    """Powers of 1024, named so: 1.23 GiB."""
    for unit, scale in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            return f"{three(count / scale)} {unit}"
    return f"{count} B"


def flop(count: float) -> str:
    """8.18 GFLOP."""
    return _prefixed(count, "FLOP")


def rate(flops: float) -> str:
    """195 GFLOP/s."""
    return _prefixed(flops, "FLOP/s")


def gb(count: float) -> str:
    """Bytes in powers of 1000, as vendors state them: 28.0 GB."""
    return _prefixed(count, "B")


def bandwidth(bytes_a_second: float) -> str:
    """11.4 GB/s."""
    return _prefixed(bytes_a_second, "B/s")


def _prefixed(value: float, unit: str) -> str:
    for prefix, scale in _SI:
        if abs(value) >= scale * 0.9995:  # 999.6 G would print as 1000 G
            return f"{three(value / scale)} {prefix}{unit}"
    return f"{number(value)} {unit}"


def number(value: float) -> str:
    """A count or a mean of counts: 8, 0.40."""
    return f"{value:.0f}" if abs(value) < 1e15 and value == round(value) else three(value)


def counted(count: int, thing: str) -> str:
    """1 sequence, 4,597 settings."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def percent(share: float) -> str:
    """12.3 %."""
    return f"{round(share * 100, 1) + 0.0:.1f} %" if abs(share) < 1000 else f"{share * 100:.3g} %"


def ratio(value: float | None) -> str:
    """1.80x; an empty text where there is none."""
    return "" if value is None else f"{value:.2f}x" if abs(value) < 1000 else f"{value:.3g}x"


def places(ns: float) -> int:
    """Decimals that show a time of this size in ms with four significant digits; one number for a whole column."""
    ms = abs(ns) / 1e6
    return min(max(3 - math.floor(math.log10(ms)), 0), 6) if ms else 2


def ms(ns: float, decimals: int) -> str:
    """Milliseconds for a column, the unit being in its head."""
    return f"{round(ns / 1e6, decimals) + 0.0:.{decimals}f}"  # + 0.0: nothing is never -0.00
