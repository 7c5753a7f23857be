"""`diagnose`: what failed first, in a log, a folder of logs or this notebook's last exception, without torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..registry import Call, verb

if TYPE_CHECKING:
    from ...profilers.diagnosis.diagnosis import Diagnosis

_BLOCK = 1 << 20  # bytes


@verb
def diagnose(
    log: Annotated[str | None, "a log (also .gz), a folder with one log a rank, or - for standard input"] = None,
    *,
    check: Annotated[bool, "run the confirming checks on this machine: read-only, at most 5 s each"] = False,
    again: Annotated[str | None, "a command to run once more with blocking CUDA launches, for its output"] = None,
    rules: Annotated[list[Path], "files with rules of your own; profilers/diagnosis/rules.py shows their form"] = [],  # noqa: B006 - the parser reads it, nobody writes it
    call: Call,
) -> Diagnosis:
    """Find what failed first and why: the evidence, what followed from it, what to do.

    In a notebook, without a log, it explains the last exception by the tensors at hand. "Cannot tell" is an answer, with
    the checks that would decide.
    """
    from ...profilers.diagnosis.checks import confirm
    from ...profilers.diagnosis.diagnose import diagnose as found_in
    from ...profilers.errors import UsageError
    from ..diagnosed import remember

    if again is not None and log is not None:
        raise UsageError("diagnose takes a log or --again, not both; leave one of them out")
    if (source := _source(log, again)) is not None:
        found = found_in(source, rule_files=rules)
        found = confirm(found) if check else found
    elif call.namespace is not None:
        from ..diagnosing import explain_last

        found = explain_last(call.namespace, rule_files=rules, check=check)
    else:
        raise UsageError("diagnose needs a log; type `mlsys diagnose FILE`, `mlsys diagnose FOLDER`, or - for stdin")
    remember(found)
    return found


def _source(log: str | None, again: str | None) -> Path | Iterator[bytes] | None:
    if again is not None:
        from ..again import output_of

        return output_of(again)
    if log is None:
        return None
    return _stdin() if log == "-" else Path(log)


def _stdin() -> Iterator[bytes]:
    while block := os.read(sys.stdin.fileno(), _BLOCK):
        yield block
