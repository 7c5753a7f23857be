"""The memory of one step, as text and as HTML: bytes by category over time, and what is alive at the peak."""

from __future__ import annotations

from collections.abc import Iterator

from ..allocations import CATEGORIES, Block, MemoryUse
from .columns import crop, pad
from .markup import Markup, name, tag
from .units import duration, size

_COLOURS = dict(zip(CATEGORIES, ("#7b8794", "#a8763e", "#9b8fc4", "#4a8fd0", "#e0a33c"), strict=True))
_HEIGHTS = "▁▂▃▄▅▆▇█"
_CURVE, _COLUMNS = 120, 160  # pixels, bars
TITLE = "Memory of a step"


def memory_text(use: MemoryUse | None, width: int) -> list[str]:
    """The curve in letters, the peak by category, and the largest blocks alive at it."""
    if use is None or not use.timeline:
        return []
    peak = use.peak
    lines = [crop(f"{TITLE} (allocated, {use.device})", width)]
    lines.append(crop(f"  {curve(use, min(60, width - 4))}", width))
    lines.append(crop(f"  peak {size(peak.total)}, {duration(peak.time)} into the step, in {peak.phase}", width))
    for category, count in zip(CATEGORIES, peak.bytes, strict=False):
        if count:
            lines.append(crop(f"  {pad(category, 30)}{size(count):>12}", width))
    lines += [crop(f"    {size(block.bytes):>10}  {described(block)}", width) for block in use.largest[:5]]
    return lines


def curve(use: MemoryUse, columns: int) -> str:
    """One letter a stretch of the step, as high as its highest instant; a stretch without a change is like the last."""
    most = max(1, use.peak.total)
    return "".join(_HEIGHTS[min(7, max(0, total * 7 // most))] for total in (sum(b) for b in stretches(use, columns)))


def stretches(use: MemoryUse, columns: int) -> Iterator[tuple[int, ...]]:
    """The bytes of each of `columns` equal stretches of the step, at its highest instant."""
    inside: list[list[tuple[int, ...]]] = [[] for _ in range(columns)]
    for instant in use.timeline:
        at = instant.time * columns // max(1, use.length)
        inside[min(columns - 1, max(0, at))].append(instant.bytes)
    last = use.timeline[0].bytes
    for found in inside:
        yield max([*found, last], key=sum) if not found else max(found, key=sum)
        last = found[-1] if found else last


def described(block: Block) -> str:
    """ "aten::addmm [512, 128x128], forward", "a tensor of [16777216], there before the step"."""
    shapes = f" [{block.shapes}]" if block.shapes else ""
    if block.operator:
        return f"{block.operator}{shapes}, {block.phase}"
    return f"a tensor{' of' if shapes else ''}{shapes}, there before the step" if shapes else "there before the step"


def memory_html(use: MemoryUse | None) -> Markup | None:
    """A stacked picture, its legend with the bytes at the peak, and the largest blocks alive there."""
    from .html import heads, section, table

    if use is None or not use.timeline:
        return None
    peak = use.peak
    legend = [
        tag("span", tag("span", class_="swatch", style=f"background:{_COLOURS[category]}"), f"{category} {size(count)}")
        for category, count in zip(CATEGORIES, peak.bytes, strict=False)
        if count
    ]
    said = f"At the peak, {size(peak.total)} allocated on {use.device}, {duration(peak.time)} into the step, in "
    rows = [
        tag("tr", tag("td", name(described(block)), class_="left break"), tag("td", size(block.bytes)))
        for block in use.largest[:10]
    ]
    return section(
        TITLE,
        _picture(use),
        tag("div", *legend, class_="legend"),
        tag("p", said, peak.phase, ".", class_="soft"),
        table(heads(["the largest alive at the peak"], ["size"]), rows) if rows else None,
    )


def _picture(use: MemoryUse) -> Markup:
    most, bars = max(1, use.peak.total), []
    for i, counts in enumerate(stretches(use, _COLUMNS)):
        base = 0
        for category, count in zip(CATEGORIES, counts, strict=False):
            height = count / most * _CURVE
            if height >= 0.05:
                top = f"{max(0.0, _CURVE - base - height):.1f}"
                bars.append(
                    tag(
                        "rect",
                        x=f"{i / _COLUMNS:.3%}",
                        y=top,
                        width=f"{1.04 / _COLUMNS:.3%}",
                        height=f"{height:.1f}",
                        fill=_COLOURS[category],
                    )
                )
            base += height
    description = f"Allocated bytes over one step of {duration(use.length)}; the highest is {size(most)}."
    return tag("svg", tag("title", TITLE), tag("desc", description), *bars, width="100%", height=_CURVE, role="img")
