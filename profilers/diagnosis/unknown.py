"""What an exception that no rule knows is about, by how it is built: the grammar of its type, the words of its message,
the code that raised it.

Each counts a point for the category it speaks for; the places count by how near they are to where it was raised. The
category that leads is named, with little confidence, and none where the lead is small.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .lines import Line
from .rules import Rules
from .tracebacks import Kind

ENOUGH, LEAD = 0.9, 0.25  # points; points before the next
MOST_WORDS = 2  # points that the message can give
GENERAL = {"code_error": 0.6, "config_permission": 0.9}  # what a word of these counts: any message holds some of them
NEAREST, NEXT = 0.75, 0.35  # points of the innermost frame, and of the ones that called it
NEXT_FRAMES = 4
_LONGEST_TRACEBACK = 60  # lines
_PACKAGE = re.compile(r"[/\\](?:site|dist)-packages[/\\]([A-Za-z]\w*)")
_PYTHON = re.compile(r"[/\\]lib(?:64)?[/\\]python3[^/\\]*[/\\](?!site-|dist-)")
_WHERE = re.compile(
    r".*[/\\](?:(?:site|dist)-packages|lib(?:64)?[/\\]python3[^/\\]*)(?=[/\\])|^.*(?=(?:[/\\][^/\\]*){2}\.py)"
)
_FILE = re.compile(r"\.pyx?\b")
# A call or an attribute that the other side does not have: whose fault it is, is told by who met whom.
_DOES_NOT_FIT = re.compile(
    r"has no attribute|unexpected keyword argument|multiple values for|missing \d+ required|takes .{1,30} positional argument"
    r"|cannot import name|no longer|object is not callable"
)


@dataclass(frozen=True, slots=True)
class Guess:
    category: str
    cause: str
    points: float


def guess(lines: Sequence[Line], kinds: Sequence[Kind], index: int, rules: Rules) -> Guess | None:
    """Of the exception (or the line of failure) at `index`."""
    frames = frames_above(lines, kinds, index)
    places = [place(frame) for frame in frames[: 1 + NEXT_FRAMES]]
    said = lines[index].text
    type_, _, message = said.partition(":")
    points: dict[str, float] = {}
    causes = {about.category: about.cause for about in rules.about}
    for about in rules.about:
        words = {found[0].lower() for found in about.words.finditer(message or said)}
        points[about.category] = (
            GENERAL.get(about.category, 1.0) * min(MOST_WORDS, len(words))
            + bool(about.types.search(type_))
            + NEAREST * any(about.places.search(place) for place in places[:1])
            + NEXT * any(about.places.search(place) for place in places[1:])
        )
    ranked = sorted(points.items(), key=lambda item: -item[1])
    if not ranked or ranked[0][1] < ENOUGH or ranked[0][1] - ranked[1][1] < LEAD:
        return None
    category, most = ranked[0]
    return Guess(category, causes[category], most)


def frames_above(lines: Sequence[Line], kinds: Sequence[Kind], index: int, cut: bool = False) -> list[str]:
    """The frames of the traceback that ends at `index`, each with the line it quotes; the innermost first. One that is
    `cut` ends with a frame, not with its exception."""
    who, found, quoted = (lines[index].source, lines[index].rank), [], ""
    for i in range(index - (not cut), max(-1, index - _LONGEST_TRACEBACK), -1):
        if (lines[i].source, lines[i].rank) != who:
            continue
        if kinds[i] in ("header", "exception"):
            break
        if kinds[i] == "source":
            quoted = f"{lines[i].text}\n{quoted}"
        elif kinds[i] == "frame":
            found.append(f"{lines[i].text}\n{quoted}")
            quoted = ""
    return found


def place(frame: str) -> str:
    """A frame without where its package or project lies."""
    return _WHERE.sub("", frame.partition("\n")[0])


def between_packages(said: str, frames: Sequence[str]) -> bool:
    """Did one installed package meet another that does not have what it asks for?"""
    if not _DOES_NOT_FIT.search(said):
        return False
    owners = [owner(frame) for frame in frames]
    met = [name for name in owners if name != "python"][:2]
    return len(met) == 2 and met[0] != met[1] and "" not in met


def owner(frame: str) -> str:
    """The installed package whose code a frame is of; "python" for its own library, "" for anyone else's program."""
    found = _PACKAGE.search(frame)
    return found[1] if found else "python" if _PYTHON.search(frame) or not _FILE.search(frame) else ""
