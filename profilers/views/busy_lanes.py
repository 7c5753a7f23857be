"""Who was busy when: a lane each, filled where it was, on one axis of time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .columns import columns, pad, plain
from .markup import Markup, name, tag
from .palette import series

_DARK = " ░▒▓█"  # by how much of a column's time is filled
_TALL = 16  # pixels of a lane


@dataclass(frozen=True, slots=True)
class BusyLanes:
    """rows: (label, value said, spans); a span is (start, end) on one axis, in order and not overlapping."""

    title: str
    rows: tuple[tuple[str, str, tuple[tuple[float, float], ...]], ...]

    def ends(self) -> tuple[float, float]:
        edges = [edge for _, _, spans in self.rows for span in spans for edge in span]
        return (min(edges), max(max(edges), min(edges) + 1)) if edges else (0.0, 1.0)

    def lines(self, width: int) -> list[str]:
        """Each column as dark as its stretch of time is full."""
        label = min(max((columns(plain(row[0])) for row in self.rows), default=0), 26)
        numbers = max((columns(plain(row[1])) for row in self.rows), default=0)
        room = max(8, width - label - numbers - 6)
        return [
            f"  {pad(said, label)}  {''.join(self._drawn(spans, room))}  {value:>{numbers}}"
            for said, value, spans in self.rows
        ]

    def _drawn(self, spans: tuple[tuple[float, float], ...], room: int) -> Iterator[str]:
        first, last = self.ends()
        slot = (last - first) / room
        for i in range(room):
            began, ended = first + i * slot, first + (i + 1) * slot
            full = sum(max(0.0, min(end, ended) - max(start, began)) for start, end in spans)
            yield _DARK[min(4, round(full / slot * 4))]

    def markup(self) -> Markup:
        first, last = self.ends()
        rows = []
        for said, value, spans in self.rows:
            marks = [
                tag("rect", x=_percent(start - first, last - first), width=_percent(end - start, last - first), height=_TALL,
                    fill=series(1)[0], class_="segment")
                for start, end in spans
            ]  # fmt: skip
            words = tag("title", said), tag("desc", f"{value}, in {len(spans)} stretches.")
            picture = tag("svg", *words, *marks, width="100%", height=_TALL, role="img", style="margin:0")
            cells = tag("td", name(said), class_="left"), tag("td", picture, style="width:100%"), tag("td", value)
            rows.append(tag("tr", *cells))
        return tag("div", tag("table", tag("tbody", *rows)), class_="wide")


def _percent(part: float, whole: float) -> str:
    return f"{part / whole * 100:.3f}%"
