"""A roofline: work per byte across, work per second upwards, both in powers of ten, under the limits of a device."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .columns import crop, plain, wrap
from .markup import Markup, joined, tag
from .palette import series
from .units import bandwidth, rate, three

_TALL = 260  # pixels
_ROWS = 12  # lines of text
_NAMED = 5  # the longest operators' names are in the picture, the others' where one points
_LEAST, _MOST = 1e-3, 1e6  # FLOP/B shown; what lies beyond is drawn at the edge


@dataclass(frozen=True, slots=True)
class LogLog:
    """points: (label, FLOP/B, FLOP/s, share of the time); roofs: (name, FLOP/s); slope: B/s."""

    title: str
    points: tuple[tuple[str, float, float, float], ...]
    roofs: tuple[tuple[str, float], ...]
    slope: float

    def lines(self, width: int) -> list[str]:
        """A point is a letter, the first being the longest operator; `·` is the highest roof."""
        if not self.points:
            return []
        across, (x0, x1), (y0, y1) = width - 4, *self._ends()
        canvas = [[" "] * across for _ in range(_ROWS)]
        top = max(roof for _, roof in self.roofs)
        for column in range(across):
            y = min(top, 10 ** (x0 + (x1 - x0) * column / (across - 1)) * self.slope)
            canvas[_row(math.log10(y), y0, y1)][column] = "·"
        for i, (_, x, y, _) in reversed(list(enumerate(self.points[:26]))):
            column = round((_log(x) - x0) / (x1 - x0) * (across - 1))
            canvas[_row(math.log10(y), y0, y1)][column] = chr(ord("a") + i)
        said = f"FLOP/B from {three(10**x0)} to {three(10**x1)}; {self._words()} a is the longest operator, b the next."
        return [*("  " + "".join(line).rstrip() for line in canvas), *wrap(said, width, "  ")]

    def markup(self) -> Markup:
        if not self.points:
            return tag("p", "No operator has a known cost.", class_="soft")
        (x0, x1), (y0, y1) = self._ends()
        drawn = [*_decades(x0, x1, y0, y1), *self._limits(x0, x1, y0, y1)]
        for i, (label, x, y, share) in enumerate(self.points):
            words = f"{label}: {rate(y)} at {three(x)} FLOP/B, {share:.1%} of the time"
            at = {"cx": f"{_across(x, x0, x1):.2%}", "cy": f"{_down(y, y0, y1):.1f}"}
            radius = f"{3 + 12 * math.sqrt(share):.1f}"
            drawn.append(tag("circle", tag("title", words), **at, r=radius, fill=series(1)[0], fill_opacity="0.65"))
            if i < _NAMED:
                left = _across(x, x0, x1) > 0.8
                beside = {"dx": -14 if left else 14, "text_anchor": "end" if left else None}
                drawn.append(
                    tag("text", crop(plain(label), 40), x=at["cx"], y=at["cy"], dy="4", fill="currentColor", **beside)
                )
        picture = tag(
            "svg", tag("title", self.title), tag("desc", self._words()), *drawn, width="100%", height=_TALL, role="img"
        )
        said = "Across: FLOP a byte; upwards: FLOP a second. A circle's area is time. "
        return joined(picture, tag("p", said + self._words(), class_="soft"))

    def _words(self) -> str:
        ridges = ", ".join(f"{name} {rate(roof)} from {three(roof / self.slope)} FLOP/B" for name, roof in self.roofs)
        return f"The limits: {bandwidth(self.slope)} of memory; {ridges}."

    def _limits(self, x0: float, x1: float, y0: float, y1: float) -> Iterator[Markup]:
        top = max(roof for _, roof in self.roofs)
        yield _line((10**x0, 10**x0 * self.slope), (top / self.slope, top), (x0, x1), (y0, y1))
        for _, roof in self.roofs:
            yield _line((roof / self.slope, roof), (10**x1, roof), (x0, x1), (y0, y1))

    def _ends(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """log10 of both ends of both axes: the points, and the ridges between memory and compute."""
        xs = [_log(x) for _, x, _, _ in self.points] + [_log(roof / self.slope) for _, roof in self.roofs]
        x0, x1 = math.floor(min(xs)), math.ceil(max(xs) + 0.01)
        ys = [math.log10(y) for _, _, y, _ in self.points] + [math.log10(roof) for _, roof in self.roofs]
        return (x0, x1), (math.floor(min(ys)), max(ys) + 0.3)


def _decades(x0: float, x1: float, y0: float, y1: float) -> Iterator[Markup]:
    """A faint line at every power of ten between the ends, with its value."""
    faint, said = {"stroke": "var(--line)"}, {"fill": "var(--soft)"}
    for power in range(math.ceil(x0), math.floor(x1) + 1, 1 if x1 - x0 <= 5 else 2):
        x = f"{(power - x0) / (x1 - x0):.2%}"
        yield tag("line", x1=x, x2=x, y1=0, y2=_TALL, **faint)
        if power < x1:
            yield tag("text", f"{three(10.0**power)} FLOP/B", x=x, y=_TALL - 4, dx=3, **said)
    for power in range(math.floor(y0) + 1, math.floor(y1) + 1):
        y = f"{_down(10.0**power, y0, y1):.1f}"
        yield tag("line", x1=0, x2="100%", y1=y, y2=y, **faint)
        yield tag("text", rate(10.0**power), x=3, y=y, dy=-3, **said)


def _log(x: float) -> float:
    return math.log10(min(max(x, _LEAST), _MOST))


def _row(y: float, y0: float, y1: float) -> int:
    return min(_ROWS - 1, max(0, round((y1 - y) / (y1 - y0) * (_ROWS - 1))))


def _across(x: float, x0: float, x1: float) -> float:
    return (_log(x) - x0) / (x1 - x0)


def _down(y: float, y0: float, y1: float) -> float:
    return (y1 - math.log10(y)) / (y1 - y0) * _TALL


def _line(a: tuple[float, float], b: tuple[float, float], xs: Sequence[float], ys: Sequence[float]) -> Markup:
    ends = {
        "x1": f"{_across(a[0], *xs):.2%}",
        "y1": f"{_down(a[1], *ys):.1f}",
        "x2": f"{_across(b[0], *xs):.2%}",
        "y2": f"{_down(b[1], *ys):.1f}",
    }
    return tag("line", **ends, stroke=series(3)[2], stroke_width=2)
