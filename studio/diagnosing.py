"""`%mlsys diagnose` without a log: the notebook's last exception, explained by the user's own objects.

A line is offered as mended only where running it with the change, on tensors of the same shapes that hold nothing (torch's
meta device), succeeds. The traceback that IPython keeps holds every tensor of its frames: afterwards it is let go.
"""

from __future__ import annotations

import gc
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from ..profilers.diagnosis.checks import confirm
from ..profilers.diagnosis.diagnose import diagnose
from ..profilers.diagnosis.diagnosis import Diagnosis, Evidence, Fix
from ..profilers.errors import UsageError
from .probing import Failed, probe
from .stale import stale_state
from .tensors import Told, described, tensors_of
from .verified import mended_line

MOST = 8  # tensors told
_ASYNCHRONOUS = re.compile(r"CUDA error: (?!out of memory|invalid device ordinal|no kernel image)|device-side assert")
_LOST = (
    "A CUDA error is told late, and this kernel's CUDA context is lost: restart the kernel, type this before anything "
    "touches CUDA, and run all cells again; the line that then fails is the right one. (A script: mlsys diagnose --again 'python train.py')"
)


def explain_last(namespace: dict[str, Any], *, rule_files: Sequence[Path] = (), check: bool = False) -> Diagnosis:
    """The last exception of this notebook. Raises `UsageError` where there was none."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None:
        raise UsageError("no cell has failed here since the kernel started; type `%mlsys diagnose FILE` for a log")
    found = explain(error, namespace, rule_files=rule_files)
    if check:
        found = probe(confirm(found), Failed(*own_frame(error), namespace))
    freed = let_go(error)
    note = f"{freed / 2**20:.0f} MiB of GPU memory that the traceback kept were freed" if freed > 2**20 else ""
    return replace(found, notes=(*found.notes, *([note] if note else [])))


def explain(error: BaseException, namespace: Mapping[str, Any], *, rule_files: Sequence[Path] = ()) -> Diagnosis:
    """`diagnose(error)`, with the tensors of the failing line, the argument that is wrong, and what is stale."""
    found = diagnose(error, rule_files=rule_files)
    frame, line = own_frame(error)
    told = list(tensors_of(frame, line))[:MOST] if frame is not None else []
    evidence = [Evidence("this notebook", line, None, None, None, described(each)) for each in told]
    stale = stale_state(error, frame, namespace)
    mended = mended_line(error, frame, line) if frame is not None else None
    fixes = ([Fix("Verified on tensors of these shapes that hold nothing: write", mended)] if mended else []) + list(
        found.fix
    )
    if stale:
        fixes.insert(0, Fix(stale, "restart the kernel and run all cells from the top"))
    if _ASYNCHRONOUS.search(str(error)):
        fixes.insert(0, Fix(_LOST, "%env CUDA_LAUNCH_BLOCKING=1"))
    wrong = wrong_argument(error, told)
    summary = " ".join(part for part in (found.summary, wrong, stale) if part)
    return replace(found, summary=summary, evidence=(*evidence, *found.evidence), fix=tuple(fixes))


def wrong_argument(error: BaseException, told: Sequence[Told]) -> str:
    """Which of the tensors the message speaks of, where it names a size, a device or a dtype only one of them has."""
    said = str(error)
    devices = {each.device for each in told}
    if "same device" in said and len(devices) == 2:
        counts = {device: [each.name for each in told if each.device == device] for device in devices}
        few = min(counts, key=lambda device: len(counts[device]))
        return f"{' and '.join(counts[few])} {'is' if len(counts[few]) == 1 else 'are'} on {few}, the others are not."
    named = [
        each
        for each in told
        if each.shape and ("x".join(map(str, each.shape)) in said or str(list(each.shape)) in said)
    ]
    return f"The message speaks of {' and '.join(dict.fromkeys(each.name for each in named))}." if named else ""


def let_go(error: BaseException) -> int:
    """Clear the frames that the stored traceback keeps alive; how many bytes of GPU memory that freed."""
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    before = torch.cuda.memory_allocated() if cuda and torch else 0
    for each in _chain(error):
        if each.__traceback__ is not None:
            traceback.clear_frames(each.__traceback__)
            each.__traceback__ = None
    for name in ("last_exc", "last_value", "last_traceback", "last_type"):
        if hasattr(sys, name):
            setattr(sys, name, None)
    gc.collect()
    if cuda and torch:
        torch.cuda.empty_cache()
        return before - torch.cuda.memory_allocated()
    return 0


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def own_frame(error: BaseException) -> tuple[FrameType | None, int]:
    """The innermost frame of the user's code, not of a library, and its line."""
    found: tuple[FrameType | None, int] = (None, 0)
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if "site-packages" not in file and "dist-packages" not in file and not file.startswith(("<frozen", sys.prefix)):
            found = frame, line
    return found
