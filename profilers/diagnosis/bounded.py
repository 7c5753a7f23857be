"""A user's pattern, searched for within a bounded time: a hostile one must not hold the diagnosis up.

On the main thread an alarm ends the search (CPython's matcher looks for signals). Elsewhere no search can be ended, so
patterns whose repeated groups repeat again are refused everywhere when they are loaded.
"""

from __future__ import annotations

import re
import signal
import threading
from types import FrameType

PATIENCE = 0.2  # seconds a line

_NESTED = re.compile(r"(?<!\\)[+*}]\??\)(?:[+*]|\{\d*,\d*\})")


class TooSlow(Exception):
    """The pattern took longer than `PATIENCE` on one line."""


def refused(pattern: str) -> str:
    """Why such a pattern is not taken, or an empty text."""
    if _NESTED.search(pattern):
        return f"{pattern[:60]!r} repeats a group that repeats inside, which can take for ever; write it without"
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern[:60]!r} is no regular expression ({error})"
    return ""


def search(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """As `pattern.search(text)`. Raises `TooSlow`."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        return pattern.search(text[:300])

    def late(number: int, frame: FrameType | None) -> None:
        raise TooSlow(pattern.pattern)

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        return pattern.search(text)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
