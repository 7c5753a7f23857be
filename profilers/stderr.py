"""torch's profiler announces every start and stop on stderr (2.13: lines that begin with "USDT:"), and says there that
it does not know of blocks older than itself when it watches memory; here both stay out.

Kineto writes to file descriptor 2 itself, so Python's sys.stderr cannot filter it, and raising its log level would
hide its real errors too. So the descriptor points to a file for the moment of the call, and all but those lines is
passed on afterwards. Keep what runs inside short: whatever any thread or child writes meanwhile arrives late.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_ANNOUNCEMENT, _OLDER = b"USDT:", b"Memory block of unknown size was allocated before the profiling started"


@contextlib.contextmanager
def without_announcements() -> Iterator[None]:
    """Wrap `profile.__enter__()` and `profile.__exit__()`, each on its own; the work between them only for memory."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        sys.stderr.flush()
    try:
        stderr = os.dup(2)
    except OSError:  # no stderr at all: nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            kept = b"".join(line for line in held if not (line.startswith(_ANNOUNCEMENT) or _OLDER in line))
            while kept:
                kept = kept[os.write(2, kept) :]
