"""Amounts on top of each other over time: in letters their sum, in a picture every part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Markup, joined, tag
from .palette import series

HEIGHTS = "▁▂▃▄▅▆▇█"
TALL, ACROSS = 160, 160  # pixels, bars


@dataclass(frozen=True, slots=True)
class Stack:
    """points: (x, amount of every part), x growing; an amount holds until the next point. `says` writes an amount."""

    title: str
    parts: tuple[str, ...]
    points: tuple[tuple[float, tuple[float, ...]], ...]
    ends: tuple[str, str]  # what to write under the first and the last point
    says: Callable[[float], str]

    def lines(self, width: int) -> list[str]:
        """One letter a stretch, as high as its highest instant."""
        if not self.points:
            return []
        bars = [sum(amounts) for amounts in self._bars(width - 4)]
        most = max(bars) or 1
        drawn = "".join(HEIGHTS[min(7, int(max(0.0, each) / most * 7.999))] for each in bars)
        low, high = self.ends
        return [f"  {drawn}", f"  {low:<{len(drawn) - len(high)}}{high}"]

    def markup(self) -> Markup:
        if not self.points:
            return tag("p", "Nothing was recorded.", class_="soft")
        bars = self._bars(ACROSS)
        most = max(map(sum, bars)) or 1
        shown = [i for i in range(len(self.parts)) if any(bar[i] for bar in bars)]
        colours = dict(zip(shown, series(len(shown)), strict=True))
        drawn = [rect for i, bar in enumerate(bars) for rect in self._bar(i, bar, colours, most)]
        words = f"The highest sum is {self.says(most)}."
        picture = tag(
            "svg", tag("title", self.title), tag("desc", words), *drawn, width="100%", height=TALL, role="img",
            shape_rendering="crispEdges",  # or the page shines through between the bars
        )  # fmt: skip
        key = [
            tag("span", tag("span", class_="swatch", style=f"background:{colours[i]}"), self.parts[i]) for i in shown
        ]
        ends = tag("p", f"From {self.ends[0]} to {self.ends[1]}. {words}", class_="soft")
        return joined(picture, tag("p", *key, class_="legend"), ends)

    def _bars(self, count: int) -> list[tuple[float, ...]]:
        """The amounts in each of `count` equal stretches, at the instant where their sum is highest."""
        first, last = self.points[0][0], self.points[-1][0]
        inside: list[list[tuple[float, ...]]] = [[] for _ in range(count)]
        for x, amounts in self.points:
            inside[min(count - 1, int((x - first) / ((last - first) or 1) * count))].append(amounts)
        before = self.points[0][1]
        bars = []
        for found in inside:
            bars.append(max(found or [before], key=sum))
            before = found[-1] if found else before
        return bars

    def _bar(self, at: int, amounts: Sequence[float], colours: dict[int, str], most: float) -> list[Markup]:
        drawn, base = [], 0.0
        for i, colour in colours.items():
            height = amounts[i] / most * TALL
            if height >= 0.05:
                top = max(0.0, TALL - base - height)
                drawn.append(
                    tag("rect", x=f"{at / ACROSS:.3%}", y=f"{top:.1f}", width=f"{1.04 / ACROSS:.3%}", height=f"{height:.1f}", fill=colour)
                )  # fmt: skip
            base += height
        return drawn
