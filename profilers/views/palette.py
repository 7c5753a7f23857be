"""A colour for each cause: the hue is its family, the lightness tells neighbours apart.

Green is work done, blue is lost on the device, warm is lost on the host or in waiting, grey is unknown. The hues keep
apart in all common kinds of colour blindness, and every use has its name beside it. All of them stand out from a light
and from a dark page, because in a notebook neither we nor the style sheet can know which it is.
"""

from __future__ import annotations

COLOURS = {
    "useful": "#0b7d5e",
    "recompute": "#62b39c",
    "precision": "#285f9e",
    "ceiling": "#8fb3da",
    "memory": "#3576b8",
    "inefficiency": "#4f6a9e",
    "launch": "#d9962e",
    "operators": "#6b8794",
    "uncounted": "#93a5ad",
    "copy": "#b9822f",
    "comm": "#c46a1c",
    "wait for rank": "#e0ab5c",
    "dependency": "#a5793f",
    "data stall": "#c2402f",
    "io": "#e38a74",
    "sync": "#b0507f",
    "python": "#cd8fb2",
    "compile": "#8f62a8",
    "gc": "#b59ac9",
    "measurement": "#858a93",
    "unattributed": "#b4b8be",
}


def colour(cause: str) -> str:
    """Of a cause; grey for one that is not known."""
    return COLOURS.get(cause, "#b4b8be")


def ink_on(background: str) -> str:
    """Black or white, whichever can be read on it (by WCAG's relative luminance)."""
    channels = (int(background[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#101418"


def series(count: int) -> list[str]:
    """So many colours that neighbours are told apart by, for parts that are no causes."""
    hues = ["#3576b8", "#0b7d5e", "#d9962e", "#b0507f", "#8fb3da", "#62b39c", "#8f62a8", "#93a5ad"]
    return [hues[i % len(hues)] for i in range(count)]
