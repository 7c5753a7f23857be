"""`diagnose`: from a text, an exception, a log or a folder of logs to what failed first."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

from ..errors import UsageError
from .diagnosis import Check, Diagnosis
from .reading import Input, read_path, read_stream, read_text
from .reasoning import diagnose_lines
from .rules import rules

GROUP = "mlsys_studio.diagnosis"  # entry points that name a file of rules
_LONGEST_NAME = 1024


def diagnose(subject: str | Path | BaseException | Iterable[bytes], *, rule_files: Sequence[Path] = ()) -> Diagnosis:
    """What failed first, why, and what to do.

    `subject` is a text (anything with a line break, or that is no file), a log file (also .gz), a folder with one log a
    rank, an exception with its chain, or blocks of bytes. `rule_files` are the user's own, in the form shown in
    `rules.py`. Raises `UsageError` where there is nothing to read.
    """
    known = rules((*(Path(file) for file in rule_files), *_installed()))
    read = _read(subject)
    if not any(line.text.strip() for line in read.lines):
        return _empty(read)
    found = diagnose_lines(read.lines, known)
    return replace(found, notes=(*read.notes, *known.dropped))


def _read(subject: str | Path | BaseException | Iterable[bytes]) -> Input:
    if isinstance(subject, BaseException):
        return read_text("".join(traceback.format_exception(subject)), "the traceback")
    if isinstance(subject, Path):
        return read_path(subject)
    if isinstance(subject, str):
        path = _path(subject)
        return read_path(path) if path else read_text(subject)
    if isinstance(subject, bytes):
        return read_stream([subject])
    if isinstance(subject, Iterable):
        return read_stream(subject)
    raise UsageError(f"diagnose takes a text, a path or an exception, not {type(subject).__name__}")


def _path(text: str) -> Path | None:
    if not text or "\n" in text or "\0" in text or len(text) > _LONGEST_NAME:
        return None
    try:
        return Path(text) if Path(text).exists() else None
    except OSError:
        return None


def _installed() -> tuple[Path, ...]:
    """Files of rules that other distributions bring."""
    return tuple(Path(str(point.load())) for point in entry_points(group=GROUP))


def _empty(read: Input) -> Diagnosis:
    check = Check("squeue -j JOB; ls -l LOGS", "whether the job ever started, and where it wrote")
    return Diagnosis(None, None, 0.0, "Cannot tell: the text is empty.", checks=(check,), notes=tuple(read.notes))
