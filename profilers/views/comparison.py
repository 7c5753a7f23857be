"""Two profiles beside each other: the headline, then each cause's change, slower to the right and faster to the left."""

from __future__ import annotations

from ..diff import Change, Diff
from .columns import crop, pad, wrap
from .html import heads, prose, section, table, view
from .markup import Markup, tag
from .text import NUMBER
from .units import duration, ms, places, signed

_LABEL = 21  # "window against clean" and a space


def diff_text(diff: Diff, width: int = 80) -> str:
    """Lines of at most `width` columns (40 at least)."""
    width = max(40, width)
    decimals = places(max(diff.before_ns, diff.after_ns))
    numbers = 3 * NUMBER if width >= 60 else NUMBER
    room = width - _LABEL - numbers - 1
    largest = max((abs(ns) for ns in diff.by_cause().values()), default=0) or 1

    def row(label: str, old: int, new: int, picture: str) -> str:
        columns = [f"{ms(ns, decimals):>{NUMBER}}" for ns in (old, new)] if width >= 60 else []
        change = f"{signed(new - old, decimals):>{NUMBER}}"
        return (pad(label, _LABEL) + "".join(columns) + change + " " + picture).rstrip()

    head = f"{'before':>{NUMBER}}{'after':>{NUMBER}}" if width >= 60 else ""
    lines = [crop(f"before  {diff.before}", width), crop(f"after   {diff.after}", width), "─" * width]
    lines += [*wrap(headline(diff), width, "  "), *wrap(diff.reason, width, "  ", most=6)]
    lines += ["", f"{pad('ms per step', _LABEL)}{head}{'change':>{NUMBER}}"]
    for cause, changes in _causes(diff):
        old, new = sum(c.before for c in changes), sum(c.after for c in changes)
        lines.append(row(cause, old, new, _arrow(new - old, largest, room)))
        if len(changes) > 1:
            moved = [c for c in changes if abs(c.nanoseconds) * 50 > largest]
            lines += [row(f"  {c.phase}", c.before, c.after, "") for c in moved]
    lines += [row("median clean step", diff.before_ns, diff.after_ns, ""), "", *wrap(diff.remainder, width)]
    if diff.notes:
        lines += ["", "Also different", *(line for note in diff.notes[:30] for line in wrap(note, width, "  ", most=3))]
    return "\n".join(lines)


def diff_html(diff: Diff) -> str:
    """Self-contained, as a profile's."""
    decimals = places(max(diff.before_ns, diff.after_ns))
    largest = max((abs(ns) for ns in diff.by_cause().values()), default=0) or 1

    def numbers(old: int, new: int) -> list[Markup]:
        kind = None if abs(new - old) * 50 < largest else "slower" if new > old else "faster"
        values = [tag("td", ms(ns, decimals)) for ns in (old, new)]
        return [*values, tag("td", signed(new - old, decimals), class_=kind)]

    rows = []
    for cause, changes in _causes(diff):
        old, new = sum(c.before for c in changes), sum(c.after for c in changes)
        moved = [f"{c.phase} {signed(c.nanoseconds, decimals)}" for c in changes if abs(c.nanoseconds) * 50 > largest]
        phases = tag("td", ", ".join(moved) if changes[0].phase else "", class_="left soft break spare")
        picture = tag("td", _picture(new - old, largest), class_="roomy", style="min-width:120px;width:24%")
        rows.append(tag("tr", tag("td", cause, class_="left"), *numbers(old, new), picture, phases))
    foot = tag(
        "tr",
        tag("td", "median clean step", class_="left"),
        *numbers(diff.before_ns, diff.after_ns),
        tag("td", class_="roomy"),
        tag("td", class_="spare"),
    )
    columns = [
        *heads(["ms per step"], ["before", "after", "change"]),
        tag("th", "faster | slower", class_="roomy", style="text-align:center"),
        *heads(["by phase"], [], "spare"),
    ]
    notes = tag("ul", *(tag("li", note) for note in diff.notes[:60])) if diff.notes else None
    named = (("before  ", diff.before), ("after  ", diff.after))
    return view(
        tag(
            "header",
            tag("h2", headline(diff)),
            tag("p", prose(diff.reason)) if diff.reason else None,
            *(tag("p", *said, class_="soft") for said in named),
        ),
        section(
            "What moved",
            table(columns, rows, foot),
            tag("p", diff.remainder, class_="soft"),
        ),
        section("Also different", notes) if notes else None,
    )


def headline(diff: Diff) -> str:
    """Both medians, and what they let us claim."""
    if diff.speedup is None:
        return diff.claim
    return f"{duration(diff.before_ns)} → {duration(diff.after_ns)} a step: {diff.claim}"


def _causes(diff: Diff) -> list[tuple[str, list[Change]]]:
    groups: dict[str, list[Change]] = {}
    for change in diff.changes:
        groups.setdefault(change.cause, []).append(change)
    return list(groups.items())


def _arrow(ns: int, largest: int, room: int) -> str:
    """A bar to either side of a middle line."""
    half = max(1, (room - 1) // 2)
    length = round(abs(ns) * half / largest)
    if ns < 0:
        return " " * (half - length) + "█" * length + "│"
    return " " * half + "│" + "█" * length


def _picture(ns: int, largest: int) -> Markup:
    share = abs(ns) / largest * 46  # a margin at either end
    left = 50 - share if ns < 0 else 50
    words = f"{duration(abs(ns))} {'faster' if ns < 0 else 'slower'}" if ns else "no change"
    box = tag("rect", x=f"{left:.2f}%", y=2, width=f"{share:.2f}%", height=10, fill="#0b7d5e" if ns < 0 else "#c2402f")
    middle = tag("line", x1="50%", x2="50%", y1=0, y2=14, stroke="currentColor", stroke_opacity="0.35")
    return tag("svg", tag("title", words), box, middle, width="100%", height=14, role="img", style="margin:0")
