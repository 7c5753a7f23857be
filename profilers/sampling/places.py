"""Where a kernel's ring lies: in the user's runtime directory, named after the process and the moment it started.

A process id alone comes back; with its start time it does not. The name also carries the PID namespace, because two
containers may share a folder and not their processes.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import time
from pathlib import Path

from ..errors import UsageError

SUFFIX = ".ring"
ABANDONED = 86_400  # seconds without a sample: what another container left behind


def folder() -> Path:
    """The user's own, made if need be. UsageError where nobody can write, or where it is somebody else's."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(runtime) if runtime and os.access(runtime, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    place = base / f"mlsys-studio-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError as error:
        raise UsageError(f"no folder for live samples can be made in {base} ({error.strerror}); set XDG_RUNTIME_DIR to one you can write") from None  # fmt: skip
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise UsageError(f"{place} is not yours alone, so no live samples go there; remove it")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"{place} cannot be written; set XDG_RUNTIME_DIR to a folder that can")
    return place


def ring_of(process: int) -> Path:
    """The ring of a living process."""
    return folder() / f"{namespace()}-{process}-{started(process)}{SUFFIX}"


def started(process: int, root: Path = Path("/")) -> int:
    """The kernel's clock ticks at its start; 0 where it cannot be known."""
    try:
        text = (root / f"proc/{process}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])  # the name before it may hold blanks and parentheses


def namespace() -> int:
    """Of process ids; 0 where there are none."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def sweep(place: Path) -> None:
    """Remove the rings of processes that are gone, and drafts of rings nobody finished."""
    for file in place.iterdir():
        if file.suffix in (SUFFIX, ".new") and _left_over(file):
            with contextlib.suppress(OSError):
                file.unlink()


def _left_over(file: Path) -> bool:
    words = file.name.split(".")[0].split("-")
    if len(words) != 3 or not all(word.isdigit() for word in words):
        return False
    here, process, began = map(int, words)
    try:
        old = time.time() - file.stat().st_mtime
    except OSError:
        return False
    if here != namespace():
        return old > ABANDONED
    return started(process) != began or (file.suffix == ".new" and old > 60)
