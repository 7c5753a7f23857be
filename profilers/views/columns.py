"""Text in terminal columns: one line, no control characters, wide letters counted as two.

Names come from traces and other people's files. Control, direction-changing and half (surrogate) characters are made
visible as U+FFFD, so that a name can neither move the cursor, reverse a line nor break an encoder.
"""

from __future__ import annotations

import unicodedata

_BREAKS = {"\t", "\n", "\v", "\f", "\r", "\x85", "\u2028", "\u2029"}
_UNSAFE = {"Cc", "Cf", "Cs", "Cn"}  # control, format (bidirectional, zero width), surrogate, unassigned
_MARKS = {"Mn", "Me"}  # combining: they take no column
_SELECTORS = {"\ufe0e", "\ufe0f"}  # they change the width of the letter before them, differently in every terminal
_LONGEST = 5000


def plain(text: str) -> str:
    """One line that any terminal and any page can show."""
    letters, marks = [], 0
    for letter in text[:_LONGEST]:
        kind = unicodedata.category(letter)
        marks = marks + 1 if kind in _MARKS else 0
        if letter not in _SELECTORS and marks <= 3:  # no script needs more; towers of them cover the lines around
            letters.append(" " if letter in _BREAKS else "\ufffd" if kind in _UNSAFE else letter)
    return "".join(letters)


def columns(text: str) -> int:
    """How many terminal columns plain text takes."""
    return sum(map(_column, text))


def crop(text: str, width: int) -> str:
    """At most `width` columns, the last of them … where something was left out."""
    text = plain(text)
    if columns(text) <= width:
        return text
    kept, used = [], 0
    for letter in text:
        if used + _column(letter) > width - 1:
            break
        kept.append(letter)
        used += _column(letter)
    return "".join(kept) + "…"[:width]


def pad(text: str, width: int) -> str:
    """Exactly `width` columns, from the left."""
    text = crop(text, width)
    return text + " " * (width - columns(text))


def wrap(text: str, width: int, indent: str = "", most: int = 12) -> list[str]:
    """Lines of at most `width` columns, each after `indent`; after `most` lines the rest is left out."""
    room, lines = max(1, width - len(indent)), [""]
    for word in plain(text).split():
        if columns(lines[-1]) + columns(word) + bool(lines[-1]) <= room:
            lines[-1] = f"{lines[-1]} {word}".strip()
        else:
            lines.append(crop(word, room))
    lines = [line for line in lines if line]
    if len(lines) > most:
        lines = [*lines[: most - 1], crop(lines[most - 1] + " …", room)]
    return [indent + line for line in lines]


def _column(letter: str) -> int:
    if unicodedata.category(letter) in _MARKS:
        return 0
    flag = "\U0001f1e6" <= letter <= "\U0001f1ff"  # half a flag is one column or two, as the terminal likes
    return 2 if flag or unicodedata.east_asian_width(letter) in "WF" else 1
