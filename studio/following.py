"""A picture of the machine that follows the kernel from cell to cell, for places without the panel.

The button that pauses it is a widget. The picture below needs none: it is an output like any other, which each look
replaces, so that what was seen last stays in the notebook. It pauses by itself where nothing has run for ten minutes,
lest a forgotten picture keep a kernel from being culled, and where a newer one follows.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from ..profilers.errors import UsageError
from .monitoring import Live
from .registry import Face

REST = 600.0  # seconds


class Following(Live):
    """Shown by a notebook; `button` is its ToggleButton, pressed while it follows."""

    _newest: ClassVar[Following | None] = None

    def __init__(self, shell: Any) -> None:
        import ipywidgets

        super().__init__()
        self.button = ipywidgets.ToggleButton(value=True, description="Following", tooltip="Press to pause or go on")
        self.button.observe(lambda change: self.start() if change["new"] else self.stop(), names="value")
        self._shell, self._runs, self._ran = shell, True, time.monotonic()

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle: Any = self.button._repr_mimebundle_()
        display({**bundle, "text/plain": "The button needs a kernel; run this line again to follow."}, raw=True)
        self._display.display(self.look)
        self.start()

    def start(self) -> None:
        before, Following._newest = Following._newest, self
        if before is not None and before is not self:
            before.button.value = False
        self._shell.events.register("pre_run_cell", self._begins)
        self._shell.events.register("post_run_cell", self._ends)
        self._runs, self._ran = True, time.monotonic()
        super().start()

    def stop(self) -> None:
        for event, listener in (("pre_run_cell", self._begins), ("post_run_cell", self._ends)):
            if listener in self._shell.events.callbacks[event]:
                self._shell.events.unregister(event, listener)
        super().stop()

    def _begins(self, *_: object) -> None:
        self._runs = True

    def _ends(self, *_: object) -> None:
        self._runs, self._ran = False, time.monotonic()

    def _refresh(self) -> None:
        super()._refresh()
        if not self._runs and time.monotonic() - self._ran > REST:
            self.button.value = False


def follow(face: Face) -> Following:
    """For the notebook this runs in."""
    if face != "magic":
        raise UsageError("--follow needs a notebook; leave it out, or type the same line there after %mlsys")
    from IPython.core.getipython import get_ipython

    try:
        return Following(get_ipython())
    except ImportError:
        raise UsageError("--follow needs ipywidgets; type `%pip install ipywidgets`, then run this again") from None
