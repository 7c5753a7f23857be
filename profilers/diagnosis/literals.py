"""Of a regular expression, the texts of which at least one must stand in any line that it matches.

Written for the patterns of our rules, and careful with all others: where it cannot tell, it says nothing, and the
pattern is then tried on every line.
"""

from __future__ import annotations

from collections.abc import Iterator

SHORTEST = 3
_CLASSES = "wdsbWDSBAZ"  # escapes that stand for no letter of their own


def required_literals(pattern: str) -> tuple[str, ...]:
    """In lower case; empty where there is no such set."""
    best: tuple[str, ...] = ()
    for branch in _split(pattern, "|"):
        found = _of_sequence(branch)
        if not found:
            return ()
        best += found
    return best


def _of_sequence(pattern: str) -> tuple[str, ...]:
    """The best set of a pattern without alternatives at its top: the one whose shortest text is longest."""
    sets: list[tuple[str, ...]] = []
    run, i = "", 0
    while i < len(pattern):
        letter, piece = pattern[i], ""
        if letter == "(":
            end = _closing(pattern, i)
            inside = pattern[i + 1 : end]
            after = pattern[end + 1 : end + 2]
            optional = after in ("?", "*") or pattern[end + 1 :].startswith("{0")
            if not optional and not inside.startswith("?"):
                sets.append(required_literals(inside))
            if inside.startswith("?:") and not optional:
                sets.append(required_literals(inside[2:]))
            i = end + 1
        elif letter == "[":
            i = _class_end(pattern, i) + 1
        elif letter == "\\":
            if pattern[i + 1] not in _CLASSES and not pattern[i + 1].isdigit():
                piece = pattern[i + 1]
            i += 2
        else:
            piece = "" if letter in ".^$" else letter
            i += 1
        if i < len(pattern) and pattern[i] in "?*+{":  # what is before it may be missing, or repeated
            if pattern[i] == "+" and piece:
                run += piece
            end = pattern.index("}", i) + 1 if pattern[i] == "{" else i + 1
            i = end + (pattern[end : end + 1] == "?")
            piece = ""
        if piece:
            run += piece
        else:
            sets.append((run,))
            run = ""
    sets.append((run,))
    usable = [
        tuple(text.lower() for text in texts) for texts in sets if texts and all(len(t) >= SHORTEST for t in texts)
    ]
    return max(usable, key=lambda texts: min(map(len, texts)), default=())


def _split(pattern: str, mark: str) -> list[str]:
    parts, start = [], 0
    for i, depth in _bare(pattern, 0):
        if pattern[i] == mark and depth == 0:
            parts.append(pattern[start:i])
            start = i + 1
    return [*parts, pattern[start:]]


def _closing(pattern: str, i: int) -> int:
    """Where the group that opens at `i` ends."""
    return next((at for at, depth in _bare(pattern, i) if pattern[at] == ")" and depth == 0), len(pattern) - 1)


def _bare(pattern: str, i: int) -> Iterator[tuple[int, int]]:
    """(place, open groups after it) of every letter from `i` on that is neither escaped nor in a class."""
    depth = 0
    while i < len(pattern):
        if pattern[i] == "\\":
            i += 1
        elif pattern[i] == "[":
            i = _class_end(pattern, i)
        else:
            depth += {"(": 1, ")": -1}.get(pattern[i], 0)
            yield i, depth
        i += 1


def _class_end(pattern: str, i: int) -> int:
    end = i + 2 if pattern[i + 1 : i + 2] in ("]", "^") else i + 1
    while end < len(pattern) and pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end
