"""Objects of the user's that we met: known by identity, held weakly, so that being watched keeps nothing in memory.

By identity, because a stranger's module may compare or hash as it likes; and an identity is given back the moment its
object dies, because Python hands the same number to the next one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Living(Generic[T]):
    """Iterates over those still alive, in the order they were met. `gone(id)` is called as one dies."""

    def __init__(self, gone: Callable[[int], object] | None = None) -> None:
        self.ids: dict[int, weakref.ref[T]] = {}
        self._gone = gone

    def add(self, thing: T) -> bool:
        """Whether it was new."""
        who = id(thing)
        if who in self.ids:
            return False

        def gone(_: object) -> None:
            self.ids.pop(who, None)
            if self._gone is not None:
                self._gone(who)

        self.ids[who] = weakref.ref(thing, gone)
        return True

    def __contains__(self, thing: T) -> bool:
        return id(thing) in self.ids

    def __iter__(self) -> Iterator[T]:
        return iter([thing for known in list(self.ids.values()) if (thing := known()) is not None])
