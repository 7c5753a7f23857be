"""Where a path lies: the filesystem's kind with its known traps, its space and inodes. Linux's /proc/self/mountinfo.

Format of mountinfo: proc_pid_mountinfo(5). The last mount whose point is above the path is the one that counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")  # blanks in names
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "glusterfs", "beegfs", "gpfs", "9p", "afs", "wekafs")
TRAPS = {  # by kind: what surprises people who train from it
    "overlay": "a container's layers: the first write to a file copies all of it; mount data as a volume",
    "tmpfs": "it is memory: what lies here is taken from what the training may use, and lost at a restart",
    "ramfs": "it is memory without a limit: it can take all of it",
    "nfs": "every open and stat asks the server: thousands of small files wait for the network, not for bytes",
    "cifs": "every open asks the server, and file locks are slow: copy the data to a local disk",
    "lustre": "opening asks one metadata server for all jobs: few large files, striped over many targets",
    "ceph": "metadata of one folder is kept by one server: few large files, no folders of millions",
    "9p": "each call crosses a virtual machine's border: copy the data inside",
    "virtiofs": "each call crosses a virtual machine's border unless it is mapped (DAX): few large files",
    "fuse": "each call goes through a program in user space and is often an HTTP request: few large files, a local cache",
    "squashfs": "read-only and compressed: each read decompresses a block of up to 1 MiB, so random reads are dear",
}


@dataclass(frozen=True, slots=True)
class Filesystem:
    """Bytes; `trap` is "" where none is known. inodes: None where the filesystem does not count them."""

    kind: str
    source: str
    mount: str
    read_only: bool
    size: int
    free: int
    inodes_free: int | None

    @property
    def network(self) -> bool:
        return self.kind in NETWORK or self.kind.startswith("fuse.")

    @property
    def trap(self) -> str:
        family = "fuse" if self.kind.startswith("fuse") else "nfs" if self.kind == "nfs4" else self.kind
        return TRAPS.get("cifs" if family == "smb3" else family, "")

    @classmethod
    def of(cls, path: Path) -> Self:
        """The kind is "unknown" where the system does not tell, as without /proc."""
        disk = os.statvfs(path)
        try:
            mounts = parse(MOUNTS.read_text())
        except OSError:
            mounts = ()
        found = above(path.resolve(), mounts)
        kind, source, mount, read_only = found or ("unknown", "", "", False)
        return cls(kind, source, mount, read_only, disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize,
                   disk.f_favail if disk.f_files else None)  # fmt: skip


Mount = tuple[str, str, str, bool]  # kind, source, mount point, read only


def parse(text: str) -> tuple[Mount, ...]:
    """Lines that make no sense are left out."""
    found = []
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        here, there = left.split(), right.split()
        if dash and len(here) >= 6 and len(there) >= 2:
            found.append((there[0], _plain(there[1]), _plain(here[4]), "ro" in here[5].split(",")))
    return tuple(found)


def above(path: Path, mounts: Sequence[Mount]) -> Mount | None:
    """The innermost mount; of two on one point the later, which hides the other."""
    holding = [m for m in mounts if path == Path(m[2]) or Path(m[2]) in path.parents]
    return max(enumerate(holding), key=lambda each: (len(Path(each[1][2]).parts), each[0]))[1] if holding else None


def _plain(text: str) -> str:
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
