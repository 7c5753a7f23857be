"""Two pictures of a profile: the waterfall of its ledger, and the strip of its steps.

Widths are percentages and heights pixels, so letters keep their size at any width. Each picture has a title and a
description that say in words what it shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ledger import Ledger
from ..profile import StepTimes
from .markup import Markup, tag
from .palette import colour, ink_on
from .shares import Shares
from .units import duration

ROLES = {"warmup": "warm-up", "clean": "clean", "window": "profiled"}
_BAR, _STRIP, _MOST_BARS = 44, 88, 160
_NARROW = 320  # pixels of the narrowest page; what needs more than these is left out of narrow ones (style.py)


def waterfall(ledger: Ledger) -> Markup:
    """One bar, the whole wall time, a segment per cause in the ledger's order; wide segments carry their name."""
    causes = ledger.by_cause()
    shares = Shares.of(ledger).by_cause
    segments, began = [], 0
    for cause, ns in causes.items():
        segments.append(_segment(cause, shares[cause], began / ledger.wall_ns, ns / ledger.wall_ns, ns / ledger.steps))
        began += ns
    words = ", ".join(f"{cause} {share:.1f} %" for cause, share in shares.items())
    return _picture("Where the time of a step went", f"A bar of the whole step: {words}.", _BAR, segments)


def strip(times: StepTimes) -> Markup | None:
    """A bar per step, warm-up, clean and profiled ones apart; one that is taller than the picture has a broken outline."""
    groups = [(role, walls) for role in ROLES if (walls := getattr(times, role))]
    if not groups:
        return None
    top = max((*times.clean, *times.window), default=max(times.warmup, default=1)) * 1.15 or 1
    drawn = [(role, _grouped(walls)) for role, walls in groups]
    slots = sum(len(bars) + 1 for _, bars in drawn) - 1
    marks, at = [], 0
    for role, bars in drawn:
        marks += _bars(role, bars, at, slots, top)
        at += len(bars) + 1
    y = _height(times.median, top)
    line = tag("line", x1="0", x2="100%", y1=y, y2=y, class_="median")
    words = "; ".join(
        f"{len(walls)} {ROLES[role]}: {duration(min(walls))} to {duration(max(walls))}" for role, walls in groups
    )
    return _picture("Step times", f"{words}. Dashed line: median, {duration(times.median)}.", _STRIP, [*marks, line])


def _picture(title: str, description: str, height: int, marks: Sequence[Markup]) -> Markup:
    return tag("svg", tag("title", title), tag("desc", description), *marks, width="100%", height=height, role="img")


def _segment(cause: str, percent: float, left: float, width: float, step_ns: float) -> Markup:
    """A nested picture, because it clips: a name can never run into the next segment."""
    fill = colour(cause)
    said = tag("title", f"{cause}: {duration(step_ns)} a step, {percent:.1f} %")
    box = tag("rect", width="100%", height="100%", fill=fill, class_="segment")
    text, needed = None, 6.4 * len(cause) + 12  # 6.4: a letter
    if width * 640 > needed:
        text = tag(
            "g",
            tag("text", cause, x=7, y=18, fill=ink_on(fill), class_="strong"),
            tag("text", f"{percent:.1f} %", x=7, y=34, fill=ink_on(fill)),
            class_=None if width * _NARROW > needed else "spare",
        )
    return tag("svg", said, box, text, x=_percent(left), y=0, width=_percent(width), height=_BAR)


def _grouped(walls: Sequence[int]) -> list[int]:
    """Every step, or the slowest of every so many."""
    every = -(-len(walls) // _MOST_BARS)
    return [max(walls[i : i + every]) for i in range(0, len(walls), every)]


def _bars(role: str, walls: Sequence[int], at: int, slots: int, top: float) -> Iterator[Markup]:
    for i, wall in enumerate(walls):
        y = _height(wall, top)
        beyond = wall > top
        yield tag(
            "rect",
            tag("title", f"{ROLES[role]} step, {duration(wall)}"),
            x=_percent((at + i + 0.1) / slots),
            width=_percent(0.8 / slots),
            y=y,
            height=f"{_STRIP - y:.1f}",
            class_=f"{role} beyond" if beyond else role,
        )


def _height(wall: float, top: float) -> float:
    return round(max(0.0, _STRIP - wall / top * _STRIP), 1)


def _percent(share: float) -> str:
    return f"{share * 100:.3f}%"
