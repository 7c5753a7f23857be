"""The pass over one file, whoever asks for it: this process, another one (`python -m … FILE`), or another machine."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import UsageError
from .explaining import Explained, explain
from .kept import read_kept
from .sources import Progress


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that is no trace, or could not be read, and why: one sentence."""

    path: str
    message: str


def explain_one(path: Path, progress: Progress | None = None) -> Explained | Failure:
    try:
        return explain(read_kept(path, progress))
    except UsageError as error:
        return Failure(str(path), str(error))
    except MemoryError:
        return Failure(str(path), "its events do not fit into memory: record fewer steps, or without stacks")
    except Exception as error:  # noqa: BLE001  a fault of ours must not cost the other files
        return Failure(str(path), f"the account failed, please report it ({type(error).__name__}: {error})")


def encoded(path: str) -> bytes:
    """The same as JSON, for another process."""
    return msgspec.json.encode(explain_one(Path(path)))


if __name__ == "__main__":
    sys.stdout.buffer.write(encoded(sys.argv[1]))
