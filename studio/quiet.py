"""A look at a kernel must not end the plot its user is drawing.

IPython runs the callbacks of `pre_execute` and `post_execute` around every request, an empty silent one on a subshell
too. One of them is matplotlib's: it shows and closes all open figures, also those that a cell on the main thread is
still drawing. So the callbacks are left out on threads that only ever look; all others have them as before.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any

_EVENTS = ("pre_execute", "post_execute")
_looking: set[str] = set()  # names of subshell threads; they carry a UUID, and so are never another's


def hush() -> None:
    """This thread only looks, unless it is the main one. Cheap enough for every look."""
    thread = threading.current_thread()
    if thread is threading.main_thread() or thread.name in _looking:
        return
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return
    _looking.add(thread.name)
    events = shell.events
    if not isinstance(events.trigger, _Trigger):
        events.trigger = _Trigger(events.trigger)


class _Trigger(functools.partial):
    """IPython's own `trigger`, but for threads that look."""

    __slots__ = ()

    def __call__(self, event: str, *args: Any, **kwargs: Any) -> Any:
        if event in _EVENTS and threading.current_thread().name in _looking:
            return None
        return super().__call__(event, *args, **kwargs)
