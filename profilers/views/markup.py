"""HTML and SVG in which no text can become markup: only `tag` makes markup, and it escapes whatever it did not make.

So safety does not hang on remembering to escape. Names of tags and attributes are ours; everything else is anybody's.
"""

from __future__ import annotations

from html import escape

from .columns import crop, plain

LONGEST = 600  # letters of one text on a page


class Markup(str):
    """Text that `tag` made."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """<name attribute="…">children</name>. `class_` is class, `font_size` is font-size; None leaves a part out."""
    head = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{safe(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{head}>{joined(*children)}</{name}>")


def joined(*children: object) -> Markup:
    """One after the other."""
    return Markup("".join(safe(child) for child in children if child is not None))


def safe(value: object) -> Markup:
    """Markup as it is; any other value as one escaped line of printable text."""
    return value if isinstance(value, Markup) else Markup(escape(crop(str(value), LONGEST), quote=True))


def name(text: str, most: int = 90) -> Markup:
    """A name from outside, cropped, with the longer form to hover over; its direction cannot leave it."""
    full = plain(text)
    return tag("code", crop(full, most), title=full if len(full) > most else None)
