"""Which of the user's lines cost the time, as text and as HTML: the operators of one step, by the line that launched them."""

from __future__ import annotations

from collections.abc import Sequence

from ..stacks import SourceLine
from .columns import crop, pad
from .markup import Markup, name, tag
from .units import ms, places

_MOST_TEXT, _MOST_PAGE = 10, 40
_NUMBER, _SHARE = 10, 7
TITLE = "Your lines"
SAID = "Operators of one step, backward ones at the line of their forward; the step was slowed by being traced."


def lines_text(lines: Sequence[SourceLine], width: int) -> list[str]:
    """The largest; below each its source."""
    if not lines:
        return []
    whole, decimals = max(1, sum(line.nanoseconds for line in lines)), _places(lines)
    room = width - _NUMBER - _SHARE
    out = [f"{pad(TITLE + ', operators of one step', room)}{'ms':>{_NUMBER}}{'%':>{_SHARE}}"]
    for line in lines[:_MOST_TEXT]:
        numbers = f"{ms(line.nanoseconds, decimals):>{_NUMBER}}{line.nanoseconds / whole * 100:>{_SHARE}.1f}"
        out.append(pad(f"{line.where} {line.function}".rstrip(), room) + numbers)
        out.append(crop(f"  {line.text or _NOBODY}", width))
    if len(lines) > _MOST_TEXT:
        rest = sum(line.nanoseconds for line in lines[_MOST_TEXT:])
        numbers = f"{ms(rest, decimals):>{_NUMBER}}{rest / whole * 100:>{_SHARE}.1f}"
        out.append(pad(f"{len(lines) - _MOST_TEXT} more", room) + numbers)
    return out


_NOBODY = "operators that no line launched: autograd's own, or another thread's"


def lines_html(lines: Sequence[SourceLine]) -> Markup | None:
    """A table: line, its source, its phases, its time."""
    from .html import heads, section, table

    if not lines:
        return None
    whole, decimals = max(1, sum(line.nanoseconds for line in lines)), _places(lines)
    rows = [
        tag(
            "tr",
            tag("td", name(f"{line.where} {line.function}".rstrip(), 60), class_="left break"),
            tag("td", name(line.text) if line.text else _NOBODY, class_="left break"),
            tag("td", _by_phase(line, decimals), class_="left spare"),
            tag("td", f"{line.calls}", class_="roomy"),
            tag("td", ms(line.nanoseconds, decimals)),
            tag("td", f"{line.nanoseconds / whole * 100:.1f}"),
        )
        for line in lines[:_MOST_PAGE]
    ]
    columns = [
        *heads(["line", "source"], []),
        *heads(["by phase, ms"], [], "spare"),
        *heads([], ["operators"], "roomy"),
        *heads([], ["ms", "%"]),
    ]
    return section(TITLE, table(columns, rows), tag("p", SAID, class_="soft"))


def _by_phase(line: SourceLine, decimals: int) -> str:
    largest = sorted(line.phases.items(), key=lambda item: -item[1])[:4]
    return ", ".join(f"{phase} {ms(ns, decimals)}" for phase, ns in largest)


def _places(lines: Sequence[SourceLine]) -> int:
    return places(max(line.nanoseconds for line in lines))
