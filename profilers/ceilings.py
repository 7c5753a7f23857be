"""What this machine really reaches: matmul rates by dtype, copy bandwidth by working set, the price of a dispatch.

A shared machine halves its rates for seconds at a time, and ceilings taken in such a moment would make every later
profile look better than it was. So all probes take turns over several bouts, the best of each is kept, what was
measured is cached per machine, and measuring again can only raise it (unless asked to forget). Where other programs
took the cores away meanwhile, the next profile measures again by itself.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .hardware import Device

SCHEMA = 1
BOUTS = 6  # spread over the whole measurement, so that a disturbed second or two do not decide
PATIENCE = 0.1  # seconds one call may take
HOPELESS = 0.25  # of the best rate of its dtype: more than any disturbance takes away
CALM = 10.0  # interruptions a second and thread; one busy neighbour on two cores makes 100, and halves every rate
TRIES = 3  # measurements made by themselves on a machine that is never calm

Progress = Callable[[str], None]
Curve = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured rates: FLOP/s, B/s, ns. A dtype the device only emulates is here with its true, low rate."""

    matmul: Mapping[
        str, float
    ]  # {"float32": FLOP/s}: the best of matmul and convolution; "tf32" where the device has it
    copy: Curve  # ((bytes read and written, B/s), ...) by growing working set
    dispatch_ns: float  # the least an operator takes, in the profiler's own events (CUDA: the shortest kernel)
    event_ns: float  # what recording one event costs the measured thread
    event_shaped_ns: float  # the same with shapes recorded
    measured_at: str  # ISO 8601, UTC
    torch: str
    threads: int
    interrupted: float = 0.0  # times a second that another program took a core from a measuring thread
    times: int = 1  # measurements these are the best of
    notes: tuple[str, ...] = ()

    def bandwidth(self, nbytes: float) -> float:
        """B/s for an operator that moves `nbytes`: never rising with size, geometric between measured points.

        A small copy is slow because it is dispatched, not because caches are; so a size has the best rate of any
        size from it on, and the dispatch floor is accounted for by itself.
        """
        sizes = [n for n, _ in self.copy]
        rates = [max(rate for _, rate in self.copy[i:]) for i in range(len(self.copy))]
        i = bisect.bisect_left(sizes, nbytes)
        if i == 0 or i == len(sizes):
            return rates[min(i, len(sizes) - 1)]
        along = math.log(nbytes / sizes[i - 1]) / math.log(sizes[i] / sizes[i - 1])
        return rates[i - 1] * (rates[i] / rates[i - 1]) ** along

    def raise_to(self, matmul: Mapping[str, float] | None = None, copy: Sequence[tuple[int, float]] = ()) -> Ceilings:
        """These, raised where an operator was seen to do better: FLOP/s by dtype, (bytes, B/s) pairs. Never lower."""
        rates = dict(self.matmul)
        for dtype, rate in (matmul or {}).items():
            rates[dtype] = max(rate, rates.get(dtype, 0.0))
        curve = dict(self.copy)
        for nbytes, rate in copy:
            curve[nbytes] = max(rate, self.bandwidth(nbytes))
        return dataclasses.replace(self, matmul=rates, copy=tuple(sorted(curve.items())))

    def best_of(self, other: Ceilings) -> Ceilings:
        """The better of two measurements of one machine, rate by rate."""
        raised = self.raise_to(other.matmul, other.copy)
        return dataclasses.replace(
            raised,
            dispatch_ns=min(self.dispatch_ns, other.dispatch_ns),
            interrupted=min(self.interrupted, other.interrupted),
            times=self.times + other.times,
            notes=self.notes + other.notes,
        )


def measure(
    device: Device,
    *,
    refresh: bool = False,
    again: bool = False,
    seconds: float = 6.0,
    progress: Progress | None = None,
) -> Ceilings:
    """The ceilings of `device`, from this user's cache or measured now, in about `seconds`.

    `again` measures although there are some and keeps the best of both; `refresh` forgets the old ones.
    """
    import torch

    path = _path(device)
    known, notes = (None, ()) if refresh else _read(path)
    if known and not again and (known.interrupted <= CALM or known.times >= TRIES):
        return _warned(known)
    if device.kind == "cuda":
        from .ceilings_cuda import probe
    else:
        from .ceilings_cpu import probe
    began, before = time.perf_counter(), _interruptions()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.kind == "cuda" else []):
        found = probe(seconds, progress or (lambda _: None))  # the random numbers are the user's
    interruptions = (_interruptions() - before) / (time.perf_counter() - began) / torch.get_num_threads()
    fresh = Ceilings(
        **found,
        interrupted=interruptions,
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        notes=notes,
    )
    return _warned(_write(path, fresh if known is None else fresh.best_of(known)))


def cached(device: Device) -> Ceilings | None:
    """What was measured before with this torch and this number of threads; None where nothing was."""
    return _read(_path(device))[0]


def remember(device: Device, seen: Ceilings) -> Ceilings:
    """Raise the cache to `seen` (a run that beat a ceiling); gives the best of both."""
    path = _path(device)
    known, _ = _read(path)
    return _write(path, seen if known is None else seen.best_of(known))


# -- probing, shared by CPU and CUDA -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing to time. `prepare` builds its tensors and returns the call; `amount` is FLOP or bytes a call."""

    name: str
    amount: float
    prepare: Callable[[], Callable[[], object]]


Rates = dict[str, dict[str, list[float]]]  # {family: {probe: a rate for each bout}}


def take_turns(
    families: Mapping[str, Sequence[Probe]],
    budget: float,
    seconds_of: Callable[[Callable[[], object], float], float],
    progress: Progress,
) -> Rates:
    """The amount/s of each probe in each bout, in about `budget` seconds.

    A family lists its probes by growing amount. One call that would take longer than `PATIENCE` at the best rate its
    smaller sisters showed is left out: fp16 on a CPU without such units is a thousand times slower than fp32. Later
    bouts leave out what cannot win any more, and stop by the clock. `seconds_of` (call, slice) is the shortest time
    of one call within the slice.
    """
    rates: Rates = {family: {} for family in families}
    calls: dict[str, Callable[[], object] | None] = {}
    piece = budget / (BOUTS + 1) / max(1, sum(len(probes) for probes in families.values()))
    began = time.perf_counter()  # one share of the budget is for preparing tensors
    for bout in range(BOUTS):
        progress(f"measuring what this device reaches, {bout + 1} of {BOUTS}")
        for family, probes in families.items():
            for probe in probes:
                seen = {name: max(bouts) for name, bouts in rates[family].items()}
                top = max(seen.values(), default=math.inf)
                hopeless = family != "copy" and seen.get(probe.name, top) < HOPELESS * top
                if hopeless or probe.amount / top > PATIENCE:
                    continue
                if bout and time.perf_counter() - began > budget:
                    return rates
                key = f"{family}: {probe.name}"
                if key not in calls:
                    calls[key] = _prepared(probe)
                if call := calls[key]:
                    rates[family].setdefault(probe.name, []).append(probe.amount / seconds_of(call, piece))
    return rates


def summary(rates: Rates) -> dict[str, Any]:
    """matmul and copy of `Ceilings`: the best bout of each probe, and of each dtype the best probe."""
    return {
        "matmul": {d: max(max(seen) for seen in of.values()) for d, of in rates.items() if of and d != "copy"},
        "copy": tuple(sorted((int(nbytes), max(seen)) for nbytes, seen in rates["copy"].items())),
    }


def _interruptions() -> int:
    """How often the system took a core from one of this process's threads; 0 where it does not say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _warned(ceilings: Ceilings) -> Ceilings:
    """With a note where the machine was busy: its ceilings are then too low, and every share of them too high."""
    if ceilings.interrupted <= CALM:
        return ceilings
    note = (
        f"ceilings were measured while other programs took the cores away {ceilings.interrupted:.0f} times a second, "
        "and may be too low: measure again when the machine is calm"
    )
    return dataclasses.replace(ceilings, notes=(*ceilings.notes, note))


def _prepared(probe: Probe) -> Callable[[], object] | None:
    """The call, run once so that its memory is mapped; None where this device cannot run it (an fp8 GPU op, say)."""
    try:
        call = probe.prepare()
        call()
    except (RuntimeError, NotImplementedError, AttributeError, TypeError):
        return None
    return call


def profiled(call: Callable[[], object], name: str, shapes: bool) -> tuple[float, float]:
    """(wall seconds, the shortest usual duration in ns of the event `name`) of `call` under the CPU profiler."""
    from torch.profiler import ProfilerActivity, profile

    from .stderr import without_announcements

    recording = profile(activities=[ProfilerActivity.CPU], record_shapes=shapes)
    with without_announcements():
        recording.__enter__()
    began = time.perf_counter()
    call()
    wall = time.perf_counter() - began
    with without_announcements():
        recording.__exit__(None, None, None)
    result = recording.profiler.kineto_results if recording.profiler else None
    durations = [e.duration_ns() for e in result.events() if e.name() == name] if result else []
    return wall, statistics.median(durations) if durations else 0.0


def event_prices(tiny: Callable[[], object], name: str, count: int) -> dict[str, float]:
    """dispatch_ns, event_ns, event_shaped_ns from `tiny`, which runs the operator `name` `count` times.

    Inside against outside, wall against wall: the median of bouts, since a single one gave 0 (and a negative price).
    """
    tiny()
    floors, plain, shaped = [], [], []
    for _ in range(BOUTS - 1):
        began = time.perf_counter()
        tiny()
        outside = time.perf_counter() - began
        inside, floor = profiled(tiny, name, shapes=False)
        with_shapes, _ = profiled(tiny, name, shapes=True)
        floors.append(floor)
        plain.append(1e9 * (inside - outside) / count)
        shaped.append(1e9 * (with_shapes - outside) / count)
    price = max(0.0, statistics.median(plain))
    return {
        "dispatch_ns": min(floors),
        "event_ns": price,
        "event_shaped_ns": max(price, statistics.median(shaped)),
    }


# -- the cache ---------------------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """MLSYS_CACHE_DIR, or the user's own cache."""
    if given := os.environ.get("MLSYS_CACHE_DIR"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlsys-studio"


def _path(device: Device) -> Path:
    """One file for each device, torch, thread count and instruction set: each of them changes the rates."""
    import torch

    key = f"{device.name}|{torch.__version__}|{torch.get_num_threads()}|{torch.backends.cpu.get_cpu_capability()}"
    name = re.sub(r"[^a-z0-9]+", "-", device.name.lower()).strip("-")[:40]
    return cache_folder() / f"ceilings-{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def _read(path: Path) -> tuple[Ceilings | None, tuple[str, ...]]:
    """What the file holds; None and why, where it is damaged. A missing file is no news."""
    try:
        kept = json.loads(path.read_text())
        if kept["schema"] != SCHEMA:
            return None, (f"{path} is of another version: measured anew",)
        kept = kept["ceilings"]
        copy = tuple((int(nbytes), float(rate)) for nbytes, rate in kept.pop("copy"))
        matmul = {str(dtype): float(rate) for dtype, rate in kept.pop("matmul").items()}
        found = Ceilings(matmul=matmul, copy=copy, **kept)
        if not copy or not all(math.isfinite(r) and r > 0 for r in [*matmul.values(), *(r for _, r in copy)]):
            raise ValueError("a rate is not positive")
        return found, ()
    except (FileNotFoundError, NotADirectoryError):
        return None, ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as damage:
        return None, (f"{path} cannot be read ({type(damage).__name__}: {damage}): measured anew",)


def _write(path: Path, ceilings: Ceilings) -> Ceilings:
    """Replace the file in one move, so that a reader sees the old one or the new; a note where nothing can be kept."""
    kept = {"schema": SCHEMA, "ceilings": {k: v for k, v in dataclasses.asdict(ceilings).items() if k != "notes"}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(kept, file, indent=1)
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            raise
    except OSError as refusal:
        note = f"measured ceilings are not kept: {refusal}; set MLSYS_CACHE_DIR to a folder you can write"
        return dataclasses.replace(ceilings, notes=(*ceilings.notes, note))
    return ceilings
