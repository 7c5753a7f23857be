"""A page as a browser would take it apart: is it well-formed, and does it hold only what we put there?"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_ELEMENTS = """div style header h2 h3 p b span section table thead tbody tfoot tr th td details summary ul ol li dl dt dd
code svg g title desc rect text line"""
_ATTRIBUTES = "class style scope title width height role x y x1 x2 y1 y2 fill stroke stroke-opacity"
ELEMENTS, ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_ATTRIBUTES.split())
STYLES = re.compile(
    r"(background:(#[0-9a-f]{6}|rgba\(\d+,\d+,\d+,[\d.]+\))|--part:\d+%|margin:0|text-align:center|min-width:120px;width:24%)"
)
VOID = frozenset({"meta"})


class Page(HTMLParser):
    """Fails on an element, attribute or nesting that our views do not make."""

    def __init__(self, html: str, document: bool = False) -> None:
        super().__init__(convert_charrefs=True)
        self.elements = ELEMENTS | ({"html", "head", "meta", "body"} if document else frozenset())
        self.attributes = ATTRIBUTES | (
            {"lang", "charset", "name", "content", "http-equiv"} if document else frozenset()
        )
        self.open: list[str] = []
        self.metas: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in self.elements, tag
        for key, value in attrs:
            assert key in self.attributes, (tag, key)
            assert value is not None, (tag, key)
            if key == "style":
                assert STYLES.fullmatch(value), value
            if key in {"x", "y", "x1", "x2", "y1", "y2", "width", "height"}:
                assert re.fullmatch(r"\d+(\.\d+)?%?", value), (tag, key, value)
        if tag == "meta":
            self.metas.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (self.open, tag)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        (self.styles if self.open and self.open[-1] == "style" else self.texts).append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def unknown_decl(self, data: str) -> None:
        raise AssertionError(f"a declaration: {data}")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())
