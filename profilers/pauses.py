"""What stops a loop now and then, as spans of Unix ns: garbage collections and compilations."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Mapping
from threading import get_ident

from .phases import now
from .tape import Tape


class Pauses:
    """`gc` fills only while the loop is being recorded: a clock may run for weeks. `compile` always does."""

    def __init__(self, tape: Tape, undo: contextlib.ExitStack) -> None:
        self.gc: list[tuple[int, int]] = []
        self.compile: list[tuple[int, int]] = []
        self._tape = tape
        self._undo = undo
        self._collecting_since = 0
        self.knows_compiler = False

    def watch(self) -> None:
        gc.callbacks.append(self._collecting)
        self._undo.callback(gc.callbacks.remove, self._collecting)
        self.watch_compiler()

    def _collecting(self, when: str, _: Mapping[str, int]) -> None:
        if not self._tape.recording or get_ident() != self._tape.owner:
            self._collecting_since = 0
        elif when == "start":
            self._collecting_since = now()
        elif self._collecting_since:
            self.gc.append((self._collecting_since, now()))
            self._collecting_since = 0

    def watch_compiler(self) -> None:
        """Ask dynamo for its compile times, once somebody has imported it (importing it ourselves takes seconds)."""
        if "torch._dynamo.callback" not in sys.modules:
            return
        self.knows_compiler = True
        handler = getattr(sys.modules["torch._dynamo.callback"], "callback_handler", None)
        if handler is None:
            return
        began: list[int] = []

        def start(*_: object) -> None:
            began.append(now())

        def end(*_: object) -> None:
            if began:
                self.compile.append((began.pop(), now()))

        for add, remove, hook in (
            (handler.register_start_callback, handler.remove_start_callback, start),
            (handler.register_end_callback, handler.remove_end_callback, end),
        ):
            add(hook)
            self._undo.callback(_unless_gone, remove, hook)


def _unless_gone(remove: Callable[[Callable], None], hook: Callable) -> None:
    """`torch._dynamo.reset()` forgets the callbacks too."""
    with contextlib.suppress(ValueError):
        remove(hook)
