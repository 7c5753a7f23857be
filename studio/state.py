"""State documents: what a panel may know of this kernel, small, versioned, and read without disturbing it.

The panel evaluates one expression on a thread of its own while the user's code runs, so everything here only reads: it
imports no torch, prints nothing, and looks only at modules that somebody else has loaded. The first look starts the
sampler, keeps IPython's callbacks off the panel's thread (`quiet`), and numbers an exception (`diagnosed`); there is no
other side effect. A document is a dict; `Document` makes IPython send it as JSON instead of its repr.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..profilers.errors import UsageError
from ..profilers.sampling.host import tree, usage
from ..profilers.sampling.places import ring_of
from ..profilers.sampling.records import GPU, HOST, STEP
from ..profilers.sampling.ring import Lane, Ring, RingError
from ..profilers.sampling.watching import watching
from .diagnosed import newest
from .quiet import hush

if TYPE_CHECKING:
    from .session import Session

PROTOCOL = 1  # of the documents: the panel refuses another, and says which side to upgrade
MIME = "application/vnd.mlsys.state+json"
MOST_ROWS = 600  # of history in one reply, of one GPU; fewer of many
MORE_STEPS = 60  # for a reader that has some: each row takes its time from the loop that made it
LONGEST = 2_000  # characters of one text


@dataclass(frozen=True, slots=True, repr=False)
class Document:
    """Sent as JSON by IPython, and only so: the repr of a dict would cost as much again."""

    content: dict[str, Any]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        return {MIME: self.content}


def read(document: str, **options: Any) -> Document:
    """The document of that name. A fault of ours is a sentence in it: the panel stays alive, and the kernel alone."""
    if document not in DOCUMENTS:
        raise UsageError(f"there is no state document {document!r}, but {', '.join(DOCUMENTS)}")
    hush()
    head = {"protocol": PROTOCOL, "version": _version(), "document": document, "pid": os.getpid()}
    try:
        return Document({**head, "state": "live", **DOCUMENTS[document](**options)})
    except (UsageError, RingError, OSError) as error:
        says = _text(error)
    except Exception as error:  # noqa: BLE001
        says = f"{document} failed, please report it ({type(error).__name__}: {_text(error)})"
    return Document({**head, "state": "failed", "sentence": says})


def now(reader: str, hertz: float = 2.0, since: int = 0, step: int = 0) -> dict[str, Any]:
    """What the machine does: the samples and steps after the sequence numbers the panel already has."""
    ring = watching.ring(reader, hertz)
    if ring is None:
        return {"starting": True}
    session = _session()
    most = max(60, MOST_ROWS // max(1, ring.gpus))
    return {
        "clock": time.monotonic(),
        "ring": ring.path.stem,
        "host": str(ring.facts.get("host", "")),
        "driver": str(ring.facts.get("driver", "")),
        "gpus": ring.facts.get("gpus", []),
        "fields": {"host": HOST, "gpu": GPU, "step": STEP},
        "samples": _rows(ring, ring.samples, since, most),
        "steps": _rows(ring, ring.steps, step, MORE_STEPS if step else MOST_ROWS),
        "flops": None if session is None else _flops(session),
        "findings": None if session is None else _revision(session),
        "trouble": None if (trouble := newest()) is None else trouble.number,
    }


def findings() -> dict[str, Any]:
    """The last profile of this notebook: its ledger by cause, and its findings."""
    session = _session()
    if session is None:
        return {"profile": None}
    profile = session.profile
    ledger, steps = profile.ledger, profile.steps
    applied = {kept.number: kept.title for kept in session.applied}
    return {
        "profile": {
            "revision": _revision(session),
            "title": _text(profile.title),
            "created": profile.created,
            "unit": steps.unit,
            "steps": steps.count,
            "median": steps.median,
            "mfu": ledger and ledger.mfu,
            "device": ledger and ledger.basis.device,
            "causes": [] if ledger is None else [
                {"cause": cause, "ns": ns / ledger.steps, "share": ns / ledger.wall_ns}
                for cause, ns in ledger.by_cause().items()
            ],
            "findings": [
                {
                    "number": number,
                    "title": _text(found.title),
                    "evidence": _text(found.evidence),
                    "advice": _text(found.advice),
                    "predicted": found.predicted,
                    "remedy": found.remedy,
                    "applied": applied.get(number) == found.title,
                    "trials": [
                        {"measured": t.measured, "low": t.low, "high": t.high, "kept": t.kept, "reason": _text(t.reason)}
                        for t in profile.trials if t.finding == found.key
                    ],
                }
                for number, found in enumerate(profile.findings, start=1)
            ],
            "notes": [_text(note) for note in profile.notes],
        }
    }  # fmt: skip


def diagnosis() -> dict[str, Any]:
    """What went wrong last: an exception nobody has explained yet, or what a diagnosis found, as `to_json` has it."""
    trouble = newest()
    if trouble is None:
        return {"error": None, "found": None}
    if not isinstance(trouble.what, BaseException):
        return {"error": None, "found": _short_texts(json.loads(trouble.what.to_json()))}
    error = trouble.what
    return {"error": {"type": type(error).__name__, "text": _text(error), "line": _line(error)}, "found": None}


def kernels(ids: list[str]) -> dict[str, Any]:
    """Of the Jupyter kernels of these ids, those that run on this machine: their process, memory, and GPU memory.

    A kernel is found by the connection file on its command line; its GPU memory is known where it has a sampler.
    """
    wanted, found = set(ids[:200]), {}
    for process in _processes():
        name = _connection(process)
        if name in wanted:
            each = [u for p in tree(process) if (u := usage(p)) is not None]
            found[name] = {"pid": process, "memory": sum(u.resident for u in each), "gpu": _gpu_memory(process)}
    return {"kernels": found}


DOCUMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "now": now,
    "findings": findings,
    "diagnosis": diagnosis,
    "kernels": kernels,
}


# -- samples -----------------------------------------------------------------------------------------------------------


def _rows(ring: Ring, lane: Lane, since: int, most: int) -> list[list[float | None]]:
    """[sequence, value, …] a record, in six digits; None where not measured. Of a ring made anew, all."""
    since = since if since <= ring.newest(lane) else 0
    return [[n, *map(_short, values)] for n, values in ring.read(lane, since, most)]


def _short(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return round(value, 3) if abs(value) < 1e6 else float(round(value))


# -- the last profile --------------------------------------------------------------------------------------------------


def _session() -> Session | None:
    """Of this notebook, if anything was profiled: whoever did has loaded the module."""
    module = sys.modules.get(f"{__package__}.session")
    return getattr(module, "_last", None)


def _revision(session: Session) -> str:
    """Another one whenever the document would be another."""
    return f"{session.profile.created} {id(session.profile):x} {len(session.profile.trials)} {len(session.applied)}"


def _flops(session: Session) -> dict[str, Any] | None:
    """FLOP of a step as the last profile counted them, for a loop of the same parts, and the peak they are set against."""
    profile = session.profile
    ledger = profile.ledger
    if ledger is None or not ledger.basis.peak_flops or profile.loop is None:
        return None
    clock = getattr(sys.modules.get(f"{__name__.split('.')[0]}.profilers.step"), "StepClock", None)
    met = getattr(getattr(clock, "_active", None), "met", None)
    if met is None or (met.model, met.parameters, met.batch_size) != (
        profile.loop.model,
        profile.loop.parameters,
        profile.loop.batch_size,
    ):
        return None
    return {"step": ledger.flops / ledger.steps, "peak": ledger.basis.peak_flops}


# -- the last exception ------------------------------------------------------------------------------------------------


def _line(error: BaseException) -> int | None:
    """Of the user's cell: the first frame that IPython compiled."""
    trace = error.__traceback__
    while trace is not None:
        if "ipykernel_" in trace.tb_frame.f_code.co_filename or trace.tb_frame.f_code.co_filename.startswith(
            "<ipython"
        ):
            return trace.tb_lineno
        trace = trace.tb_next
    return None


# -- the other kernels -------------------------------------------------------------------------------------------------


def _processes() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())


def _connection(process: int) -> str:
    """The id in `-f …/kernel-ID.json`; "" of any other process."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    files = (os.path.basename(word.decode(errors="replace")) for word in words)
    return next((f[7:-5] for f in files if f.startswith("kernel-") and f.endswith(".json")), "")


def _gpu_memory(process: int) -> float | None:
    try:
        ring = Ring.open(ring_of(process))
    except (OSError, RingError, UsageError):
        return None
    with contextlib.closing(ring):
        newest = ring.read(ring.samples, ring.newest(ring.samples) - 1)
        at = [len(HOST) + i * len(GPU) + GPU.index("memory_kernel") for i in range(ring.gpus)]
        held = [newest[-1][1][i] for i in at] if newest else []
    return sum(held) if held and all(map(math.isfinite, held)) else None


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception:  # noqa: BLE001  an exception of the user's own making
        return "(it cannot be shown)"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _short_texts(value: Any) -> Any:
    """Every text of a JSON value no longer than fits."""
    if isinstance(value, dict):
        return {key: _short_texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_short_texts(each) for each in value]
    return _text(value) if isinstance(value, str) else value


def _version() -> str:
    return sys.modules[__name__.split(".")[0]].__version__
