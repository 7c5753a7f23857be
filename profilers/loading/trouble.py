"""What went wrong in a user's loader, in one sentence with what to do: the dataset's own errors, and its workers' deaths."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from pathlib import Path

from ..errors import UsageError
from .samples import read_records

_DIED = re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly|DataLoader worker \(pid (\d+)\)(.*)")
_PLACE = re.compile(r'File "([^"]+)", line (\d+)')
_ITEM = re.compile(r"mlsys: item (.+)")
_INIT = "mlsys: in worker_init_fn"
_OURS = ("/torch/utils/data/", "/torchdata/", "/profilers/loading/")


def explained(error: Exception, folder: Path | None = None, exits: Mapping[int, int] | None = None) -> UsageError:
    """The sentence. `folder` has what the workers wrote until then, if they did; `exits`: their exit codes by process."""
    said, kind = str(error), type(error).__name__
    files = folder.glob("*.jsonl") if folder is not None else ()
    records = [record for path in files for record in read_records(path)]
    done = sum("spent" in record for record in records)
    after = f" after {done} batches" if done else ""
    if isinstance(error, UsageError):
        return error
    if (refused := next((record["refused"] for record in records if "refused" in record), None)) is not None:
        return UsageError(f"a worker cannot send what collate_fn returns ({refused}): return tensors, arrays or plain values, or use num_workers=0")  # fmt: skip
    if "can't pickle" in said.lower() or "cannot pickle" in said or kind == "PicklingError" or "Can't get local object" in said or "Can't get attribute" in said:  # fmt: skip
        return UsageError(
            f"the dataset cannot be sent to a worker: {_line(said)}; keep it at the top of a module and open files in __getitem__, or use multiprocessing_context='fork'"
        )
    if (died := _DIED.search(said)) is not None:
        pid = (died[1] or died[2]).strip()
        return UsageError(
            f"loader worker {pid} died{after}{_ended((exits or {}).get(int(pid.partition(',')[0]))) or _signal(died[3] or '')}: look for a crash in C code, or memory (dmesg); num_workers=0 shows the error itself"
        )
    if "timed out" in said:
        return UsageError(
            f"no batch came{after}: {_line(said)}; a worker hangs: try num_workers=0, or multiprocessing_context='spawn'"
        )
    notes = " ".join(getattr(error, "__notes__", ())) + " " + said
    item = _ITEM.search(notes)
    place = [where for where in _PLACE.findall(said) if not any(ours in where[0] for ours in _OURS)]
    where = f" ({Path(place[-1][0]).name}, line {place[-1][1]})" if place else ""
    what = f"item {item[1].split()[0]}" if item else "a batch"
    if _INIT in notes:
        return UsageError(f"worker_init_fn raised {kind}{where}: {_line(said)}; mend it, then measure again")  # fmt: skip
    return UsageError(
        f"the dataset raised {kind} on {what}{after}{where}: {_line(said)}; mend or skip it, then measure again"
    )


def _line(text: str) -> str:
    """The last line: torch puts a worker's whole traceback before its message."""
    lines = [
        line.strip() for line in text.strip().splitlines() if line.strip() and not line.strip().startswith("mlsys: ")
    ]
    return lines[-1][:240] if lines else "it says nothing"


def of_a_worker(error: Exception) -> bool:
    """Torch's news that one has died."""
    return _DIED.match(str(error)) is not None


def _ended(code: int | None) -> str:
    if not code:
        return ""
    return f" by {signal.Signals(-code).name}" if code < 0 else f" with exit code {code}"


def _signal(said: str) -> str:
    found = re.search(r"signal: (\w+)", said) or re.search(r"SIG\w+", said)
    if found is None:
        return ""
    name = found[found.lastindex or 0]
    if name.isdigit():
        name = signal.Signals(int(name)).name
    return f" by {name}" if name != "Killed" else " by SIGKILL"
