"""Times as they stand in the file, to whole nanoseconds, without a detour over floats.

Microseconds since 1970 need 51 bits before the point; the three decimals Kineto adds do not fit into a double. So the
digits are read as integers: `1724411645095.118` is 1_724_411_645_095_118 ns.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np

NS_SINCE = 10**17  # as microseconds this is the year 5138: a time stamp from here on is in nanoseconds
FAR = 4 * 10**18  # ns, the year 2096
PAST = -(10**17)  # ns; some clocks begin below zero, but not by years
LONGEST = 10**18  # ns; with these three no difference or sum leaves int64
INVALID = np.iinfo(np.int64).min

Texts = Sequence[bytes]  # each the JSON of one value; anything with a buffer will do


def in_nanoseconds(texts: Texts) -> bool:
    """Whether these time stamps, taken as microseconds, would lie beyond any calendar."""
    values = [int(v) for t in texts if (v := _decimal(bytes(t))) is not None]
    return bool(values) and sorted(values)[len(values) // 2] >= NS_SINCE


def nanoseconds(texts: Texts, scale: int = 1000) -> np.ndarray:
    """int64 ns of time stamps as written; INVALID where there is none, or none that int64 can hold.

    scale: ns in the unit of the file, 1000 (microseconds) or 1.
    """
    if not len(texts):
        return np.empty(0, np.int64)
    values = _columns_of_digits(b",".join([*texts, b""]), len(texts), scale)
    return _one_by_one(texts, scale) if values is None else values


def lengths(values: Sequence[float], scale: int = 1000) -> np.ndarray:
    """int64 ns of durations, exact below 2**43 units (100 days of microseconds); INVALID where there is none."""
    try:
        units = np.array(values, np.float64)
    except OverflowError:  # an integer that no double can hold
        units = np.array([min(v, LONGEST) for v in values], np.float64)
    exact = np.clip(units, -1, 2 * LONGEST) * scale
    return np.where(np.abs(exact) <= LONGEST, np.rint(exact), INVALID).astype(np.int64)


def _columns_of_digits(joined: bytes, count: int, scale: int) -> np.ndarray | None:
    """All at once, where every number has its point in the same place, as in a file of one run; else None."""
    width = len(joined) // count
    point = joined.find(b".", 0, width)
    whole, decimals = (width - 1, 0) if point < 0 else (point, width - 2 - point)
    if len(joined) != count * width or not 1 <= whole <= 18 or decimals > 3 or point == width - 2:
        return None
    table = np.frombuffer(joined, np.uint8).reshape(count, width)
    digits = np.delete(table, [width - 1] if point < 0 else [width - 1, point], axis=1)
    separated = (table[:, -1] == ord(",")).all() and (point < 0 or (table[:, point] == ord(".")).all())
    if not separated or digits.min() < ord("0") or digits.max() > ord("9"):
        return None
    values = np.zeros(count, np.int64)
    for column in digits.T[:whole]:
        values = values * 10 + (column - ord("0"))
    if values.max() > FAR // scale or (decimals and scale == 1):
        return None
    for column in digits.T[whole:]:
        values = values * 10 + (column - ord("0"))
    return values * (scale // 10**decimals)


def _one_by_one(texts: Texts, scale: int) -> np.ndarray:
    values = np.full(len(texts), INVALID, np.int64)
    for i, text in enumerate(texts):
        value = _decimal(bytes(text))
        if value is not None and PAST <= value * scale <= FAR:
            values[i] = int((value * scale).to_integral_value("ROUND_HALF_UP"))
    return values


def _decimal(text: bytes) -> Decimal | None:
    """The finite number of a JSON number, or of a string that holds one."""
    if len(text) > 64:
        return None
    try:
        value = Decimal(text.strip(b'" \t\r\n').decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        return None
    return value if value.is_finite() and value.adjusted() < 20 else None
