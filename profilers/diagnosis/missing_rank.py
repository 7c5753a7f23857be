"""Which rank the others waited for: a hang is told by those who came, and its cause is with the one who did not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from .hits import Hit
from .lines import Line
from .tracebacks import Kind

_NAMED = re.compile(
    r"while waiting for send/recv from rank (\d+)|\bRank (\d+) exhausted all inputs"
    r"|\b[Rr]anks? ?(?:\(s\))? ?\[?(\d+)\]? (?:failed to (?:pass|reach|join)|(?:has|have) not (?:joined|arrived|reached)|did not (?:join|reach|arrive))"
)
_OF_LAUNCHER = re.compile(r"\s*(?:rank|exitcode|error_file|traceback|time|host) *: ")


def missing_rank(lines: Sequence[Line], kinds: Sequence[Kind], complaints: Sequence[Hit]) -> Line | None:
    """The last line of the rank that a complaint names, or that alone of all ranks ended without an exception; None
    where several did."""
    named = next((found for hit in complaints if (found := _NAMED.search(hit.line.text))), None)
    if named:
        rank = int(next(group for group in named.groups() if group))
    else:
        known = {line.rank for line in lines if line.rank is not None}
        raised = {line.rank for line, kind in zip(lines, kinds, strict=True) if kind == "exception"}
        silent = known - raised - {hit.line.rank for hit in complaints if hit.line.native}
        if len(silent) != 1 or len(known) < 2:
            return None
        rank = silent.pop()
    said = [line for line, kind in zip(lines, kinds, strict=True) if line.rank == rank and kind == "log"]
    before = [line for line in said if not _OF_LAUNCHER.match(line.text)]
    return (before or said or [None])[-1]
