"""A calculator's answer for a terminal and for a page: what it is of, its figures, how each was found, a picture.

A result says what it holds as a `Sheet` of rows, tables and bars; text and HTML are drawn from that one description, so
a figure cannot differ between them. Everything a sheet holds is text from anywhere: both views escape it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from .columns import columns, crop, pad, plain, wrap
from .html import heads, section, table, view
from .markup import Markup, joined, name, tag
from .palette import series
from .units import number, percent, three

WIDTH = 80
_BAR = "█▓▒░▚▞▤▥"  # parts of a bar told apart without colour
_HEIGHTS = "▁▂▃▄▅▆▇█"
_TALL = 140  # pixels of a curve
_LONG, _WORDS = 32, 60  # letters from which a word gives way; percent of a table for such words


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `note` says by what convention, or from which source."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; the first `left` columns are words, the others numbers."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars of stacked parts on one scale: ((label, value said, (part, ...)), ...), parts as in `legend`."""

    title: str
    legend: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """How one figure follows another: points (x, y), x growing; where y is compared with, a dashed line at `limit`."""

    title: str
    x: str
    y: str
    points: tuple[tuple[float, float], ...]
    limit: tuple[str, float] | None = None


class Drawing(Protocol):
    """A part with a file of its own, that draws itself, such as `stack.py`."""

    @property
    def title(self) -> str: ...
    def lines(self, width: int) -> list[str]: ...
    def markup(self) -> Markup: ...


Part = Figures | Grid | Bars | Curve | Drawing


@dataclass(frozen=True, slots=True)
class Sheet:
    """`basis`: what every figure rests on, in words: model, dtype, peak and where they come from."""

    title: str
    basis: str
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()


class Shown:
    """Results that have a `sheet()` show themselves, in a terminal and in a notebook."""

    __slots__ = ()

    def sheet(self) -> Sheet:
        raise NotImplementedError

    def __str__(self) -> str:
        return sheet_text(self.sheet())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        sheet = self.sheet()
        return {"text/plain": sheet_text(sheet), "text/html": sheet_html(sheet)}


# -- text ----------------------------------------------------------------------------------------------------------------


def sheet_text(sheet: Sheet, width: int = WIDTH) -> str:
    """Lines of at most `width` columns."""
    lines = [crop(sheet.title, width), *wrap(sheet.basis, width), "─" * width]
    blocks = [_part_text(part, width) for part in sheet.parts]
    said = [line for note in sheet.notes for line in _noted(note, width)]
    return "\n\n".join("\n".join(block) for block in [lines, *blocks, said] if block)


def _noted(note: str, width: int) -> list[str]:
    first, *rest = wrap(note, width - 2)
    return [f"· {first}", *(f"  {line}" for line in rest)]


def _part_text(part: Part, width: int) -> list[str]:
    match part:
        case Figures():
            body = _figures_text(part.rows, width)
        case Grid():
            body = _grid_text(part, width)
        case Bars():
            body = _bars_text(part, width)
        case Curve():
            body = _curve_text(part, width)
        case _:
            body = [crop(line, width) for line in part.lines(width)]
    return [crop(part.title, width), *body] if part.title else body


def _figures_text(rows: Sequence[Row], width: int) -> list[str]:
    label = min(max((columns(plain(row.label)) for row in rows), default=0), 34)
    value = max((columns(plain(row.value)) for row in rows), default=0)
    lines = []
    for row in rows:
        said = plain(row.value)
        head = f"  {pad(row.label, label)}  {' ' * (value - columns(said))}{said}"
        notes = wrap(row.note, width, " " * (columns(head) + 2)) if row.note else []
        if notes and width - columns(head) < 24:  # no room beside it
            lines += [crop(head, width), *wrap(row.note, width, "      ")]
        else:
            first = notes[0].lstrip() if notes else ""
            lines += [crop(f"{head}  {first}".rstrip(), width), *notes[1:]]
    return lines


def _grid_text(grid: Grid, width: int) -> list[str]:
    cells = [grid.heads, *grid.rows]
    widths = [max(columns(plain(row[i])) for row in cells) for i in range(len(grid.heads))]
    gap = 2
    over = sum(widths) + gap * len(widths) - width
    while over > 0 and grid.left:  # words give way, the longest first, numbers never
        longest = max(range(grid.left), key=lambda i: widths[i])
        if widths[longest] <= 8:
            break
        widths[longest], over = widths[longest] - 1, over - 1
    if over > 0:
        gap = 1

    def line(row: Sequence[str]) -> str:
        said = [
            pad(cell, w) if i < grid.left else " " * max(0, w - columns(plain(cell))) + crop(cell, w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return crop((" " * gap + (" " * gap).join(said)).rstrip(), width)

    return [line(row) for row in cells]


def _bars_text(bars: Bars, width: int) -> list[str]:
    label = min(max((columns(plain(row[0])) for row in bars.rows), default=0), 26)
    numbers = max((columns(plain(row[1])) for row in bars.rows), default=0)
    room = max(8, width - label - numbers - 6)
    most = max((sum(parts) for _, _, parts in bars.rows), default=0) or 1
    lines = []
    for said, value, parts in bars.rows:
        drawn, end = "", 0.0
        for mark, part in zip(_marks(len(parts)), parts, strict=True):
            end += part
            drawn += mark * (round(end / most * room) - len(drawn))
        lines.append(f"  {pad(said, label)}  {pad(drawn, room)}  {value:>{numbers}}")
    key = "  ".join(f"{mark} {plain(part)}" for mark, part in zip(_marks(len(bars.legend)), bars.legend, strict=True))
    return [*lines, *(wrap(key, width, "  ") if len(bars.legend) > 1 else [])]


def _curve_text(curve: Curve, width: int) -> list[str]:
    """One mark a point, as high as its y; then both ends in numbers."""
    if not curve.points:
        return []
    bottom, top = _reach(curve)
    shown = curve.points[:: -(-len(curve.points) // (width - 4))]
    heights = ((y - bottom) / (top - bottom) for _, y in shown)
    line = "".join(_HEIGHTS[min(int(height * len(_HEIGHTS)), len(_HEIGHTS) - 1)] for height in heights)
    (x0, y0), (x1, y1) = curve.points[0], curve.points[-1]
    ends = f"{curve.y}: {three(y0)} at {curve.x} {number(x0)}, {three(y1)} at {number(x1)}"
    if curve.limit:
        ends += f"; {curve.limit[0]} {three(curve.limit[1])}"
    return [f"  {line}", *wrap(ends, width, "  ")]


def _reach(curve: Curve) -> tuple[float, float]:
    """From 0 up; from below it where a curve goes there, as a loss may."""
    every = [y for _, y in curve.points] + ([curve.limit[1]] if curve.limit else [])
    bottom, top = min(0.0, *every), max(0.0, *every)
    return bottom, top if top > bottom else bottom + 1


def _marks(count: int) -> list[str]:
    return [_BAR[i % len(_BAR)] for i in range(count)]


# -- HTML ----------------------------------------------------------------------------------------------------------------


def sheet_html(sheet: Sheet) -> str:
    """Self-contained, without a script."""
    head = tag("header", tag("h2", sheet.title), tag("p", sheet.basis, class_="soft"))
    noted = tag("ul", *(tag("li", note) for note in sheet.notes)) if sheet.notes else None
    return view(head, *(section(part.title, _part_html(part)) for part in sheet.parts), noted)


def _part_html(part: Part) -> Markup:
    match part:
        case Figures():
            rows = [
                tag(
                    "tr",
                    tag("td", row.label, class_="left"),
                    tag("td", row.value),
                    tag("td", row.note, class_="left break soft"),
                )
                for row in part.rows
            ]
            return tag("div", tag("table", tag("tbody", *rows)), class_="wide")
        case Grid():
            return _grid_html(part)
        case Bars():
            return _bars_html(part)
        case Curve():
            return _curve_html(part)
        case _:
            return part.markup()


def _grid_html(grid: Grid) -> Markup:
    """Words that are long, such as a kernel's, share what the numbers leave: cut short, and whole to hover over."""
    long = {i for i in range(grid.left) if any(len(row[i]) > _LONG for row in grid.rows)}
    width = f"width:{_WORDS // max(1, len(long))}%"

    def cell(i: int, text: str) -> Markup:
        if i in long:
            return tag("td", text, class_="left long", style=width, title=plain(text))
        return tag("td", text, class_="left" if i < grid.left else None)

    rows = [tag("tr", *(cell(i, text) for i, text in enumerate(row))) for row in grid.rows]
    return table(heads(grid.heads[: grid.left], grid.heads[grid.left :]), rows)


def _curve_html(curve: Curve) -> Markup:
    """Lines between points in percent of the width, because a picture that is scaled would scale its letters."""
    points, limit = curve.points, curve.limit
    bottom, top = _reach(curve)
    first, last = points[0][0], points[-1][0]

    def across(x: float) -> str:
        return f"{(x - first) / ((last - first) or 1) * 100:.3f}%"

    def down(y: float) -> str:
        return f"{_TALL - (y - bottom) / (1.08 * (top - bottom)) * _TALL:.1f}"

    marks = [
        tag("line", x1=across(a), y1=down(b), x2=across(c), y2=down(d), stroke=series(1)[0], stroke_width=2)
        for (a, b), (c, d) in pairwise(points)
    ]
    if limit:
        marks.append(tag("line", x1="0", x2="100%", y1=down(limit[1]), y2=down(limit[1]), class_="median"))
    words = _curve_text(curve, 400)[1].strip()
    picture = tag("svg", tag("title", curve.title), tag("desc", words), *marks, width="100%", height=_TALL, role="img")
    return joined(picture, tag("p", words, class_="soft"))


def _bars_html(bars: Bars) -> Markup:
    """One picture a bar, so that label and number keep their own column at any width."""
    most = max((sum(parts) for _, _, parts in bars.rows), default=0) or 1
    colours = series(len(bars.legend))
    rows = []
    for said, value, parts in bars.rows:
        words = ", ".join(f"{part} {percent(size / most)}" for part, size in zip(bars.legend, parts, strict=True))
        picture = tag(
            "svg",
            tag("title", f"{said}: {value}"),
            tag("desc", f"Of the longest bar: {words}."),
            *_segments(bars.legend, parts, colours, most),
            width="100%",
            height=16,
            role="img",
            style="margin:0",
        )
        rows.append(
            tag("tr", tag("td", name(said), class_="left"), tag("td", picture, style="width:100%"), tag("td", value))
        )
    key = [
        joined(tag("span", class_="swatch", style=f"background:{colour}"), part)
        for part, colour in zip(bars.legend, colours, strict=True)
    ]
    legend = tag("p", *(tag("span", each) for each in key), class_="legend") if len(bars.legend) > 1 else None
    return joined(tag("div", tag("table", tag("tbody", *rows)), class_="wide"), legend)


def _segments(legend: Sequence[str], parts: Sequence[float], colours: Sequence[str], most: float) -> Iterable[Markup]:
    left = 0.0
    for part, value, colour in zip(legend, parts, colours, strict=True):
        if value > 0:
            yield tag(
                "rect",
                tag("title", f"{part}: {percent(value / most)} of the longest"),
                x=f"{left / most * 100:.3f}%",
                width=f"{value / most * 100:.3f}%",
                height=16,
                fill=colour,
                class_="segment",
            )
        left += value
