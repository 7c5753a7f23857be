"""Causes that only a notebook has: cells run out of order, names shadowed, modules edited after their import."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_MISSING = re.compile(r"name '(\w+)' is not defined")
_DEFINES = r"(?m)^\s*(?:{name}\s*(?::[^=\n]+)?=(?!=)|def {name}\b|class {name}\b|import (?:\S+ as )?{name}\b|from \S+ import .*\b{name}\b)"
_NOT_CALLABLE = re.compile(r"'(\w+)' object is not callable")


def stale_state(error: BaseException, frame: FrameType | None, namespace: Mapping[str, Any]) -> str:
    """One sentence, or an empty text."""
    cells = [str(cell) for cell in namespace.get("In", [])]
    return _out_of_order(error, cells) or _shadowed(error, namespace) or _edited(error)


def _out_of_order(error: BaseException, cells: list[str]) -> str:
    missing = _MISSING.search(str(error)) if isinstance(error, NameError) else None
    if not missing:
        return ""
    pattern = re.compile(_DEFINES.format(name=re.escape(missing[1])))
    where = [number for number, cell in enumerate(cells) if pattern.search(cell)]
    if where:
        return f"{missing[1]} is defined in cell [{where[-1]}], which failed before it, or ran in an earlier kernel."
    return f"No cell that ran in this kernel defines {missing[1]}: run the one that does first."


def _shadowed(error: BaseException, namespace: Mapping[str, Any]) -> str:
    if not _NOT_CALLABLE.search(str(error)):
        return ""
    hidden = [
        name
        for name, value in namespace.items()
        if hasattr(builtins, name)
        and not name.startswith("_")
        and value is not getattr(builtins, name)
        and not callable(value)
    ]
    return f"This notebook has given the name {hidden[0]} to something else; type `del {hidden[0]}`." if hidden else ""


def _edited(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        module = sys.modules.get(name)
        if isinstance(module, ModuleType) and (file := _changed_since_import(module)):
            return f"{file} was edited after this kernel imported it: the traceback shows lines that did not run."
        trace = trace.tb_next
    return ""


def _changed_since_import(module: ModuleType) -> str:
    """The file's name, where it is newer than the bytecode that was imported."""
    file, cached = getattr(module, "__file__", None), getattr(module, "__cached__", None)
    if not file or not cached or "site-packages" in file or not file.endswith(".py"):
        return ""
    try:
        stored = int.from_bytes(Path(cached).read_bytes()[8:12], "little")
        return Path(file).name if int(Path(file).stat().st_mtime) & 0xFFFFFFFF != stored else ""
    except OSError:
        return ""
