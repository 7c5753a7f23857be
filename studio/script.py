"""A script to profile: run as `python script.py arguments` would, in this process."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..profilers.errors import UsageError


@dataclass(frozen=True, slots=True)
class Script:
    path: Path
    arguments: Sequence[str]

    @classmethod
    def at(cls, path: Path, arguments: Sequence[str]) -> Self:
        if not path.is_file():
            raise UsageError(f"no script {str(path)!r} here; type for example `mlsys profile train.py -- --epochs 1`")
        return cls(path, arguments)

    @property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def run(self, *, display: bool = True) -> None:
        """As `__main__`, its folder first on the path. Raises what it raises; `sys.exit()` with 0 or None is its end."""
        argv, path = sys.argv, list(sys.path)
        sys.argv = [str(self.path), *self.arguments]
        sys.path.insert(0, str(self.path.resolve().parent))
        try:
            runpy.run_path(str(self.path), run_name="__main__")
        except SystemExit as end:
            if end.code not in (None, 0):
                raise
        finally:
            sys.argv, sys.path[:] = argv, path

    def show_error(self, error: Exception) -> None:
        """The traceback Python would have shown: it begins in the script."""
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != str(self.path):
            trace = trace.tb_next
        traceback.print_exception(type(error), error, trace)
