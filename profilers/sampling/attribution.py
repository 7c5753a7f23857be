"""Whose GPU memory is it? The driver names processes by ids that may not be ours to read.

Inside a container the driver can report the host's process ids, among which ours is another number: a match by number
would then be chance, and another's memory be shown as this kernel's. So a number counts only where it must mean the same
to the driver and to us: in the host's own process namespace. In a container that was given the host's /proc, the line
NSpid there says which of the host's processes has our number, and the control group that it is not that of a neighbour.
Anywhere else: unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..pseudo_files import text

FIRST_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO: the inode of the host's process namespace, in every Linux


def ours(
    reported: Iterable[int], processes: Iterable[int], *, on_host: bool, root: Path = Path("/")
) -> frozenset[int] | None:
    """Which of the ids the driver `reported` are of our `processes`; None where that cannot be known."""
    reported, mine = frozenset(reported), frozenset(processes)
    if on_host:
        return reported & mine
    groups = {_group(one, root) for one in mine}
    return frozenset(n for n in reported if _inside(n, root) in mine and _group(n, root) in groups) or None


def in_first_namespace(root: Path = Path("/")) -> bool:
    try:
        return (root / "proc/self/ns/pid").stat().st_ino == FIRST_NAMESPACE
    except OSError:
        return False


def _inside(number: int, root: Path) -> int | None:
    """The id that a process of the host has in its own namespace; None of one that we do not see from outside."""
    for line in text(root / f"proc/{number}/status").splitlines():
        if line.startswith("NSpid:"):
            outer, *inner = map(int, line.split()[1:])
            return inner[-1] if outer == number and inner else None
    return None


def _group(number: int, root: Path) -> str:
    return text(root / f"proc/{number}/cgroup")
