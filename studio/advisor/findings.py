"""Findings: a ledger entry that is large, why, and what removing it would gain. One small pure rule a finding.

The evidence is in the ledger's own numbers, the share of a profiled step. A prediction is arithmetic on them and nothing
else: that step less the profiler's cost, over the same without the seconds the rule says a remedy removes. Where those seconds are an upper bound, the advice says "at most"; where they may be those
that something outside the loop took from the profiled steps, the evidence says "doubtful".
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self

from ...profilers.ledger import Ledger
from ...profilers.loop import Loop
from ...profilers.profile import Finding, Profile
from ...profilers.views.units import ms, percent, places

WORTH = 0.03  # of the step: smaller losses are not worth a user's attention
TIMED_IN = {  # the phases whose measured time a finding rests on; those of FLOPs and a peak rest on none, others on all
    "data-stall": ("data",),
    "checkpoint": ("checkpoint",),
    "logging": ("logging",),
    "optimizer": ("optimizer",),
    "launch": ("forward", "backward", "other"),
    "memory": ("forward", "backward"),
    "precision": (),
    "recompute": (),
}
FUSABLE = ("Adam", "AdamW", "SGD", "Adagrad")  # optimizers torch has fused kernels for

Rule = Callable[[Profile, Ledger, Loop], Finding | None]


def findings(profile: Profile) -> tuple[Finding, ...]:
    """Those of `RULES` that apply, largest saving first; none without a ledger."""
    if profile.ledger is None:
        return ()
    found = (rule(profile, profile.ledger, profile.loop or Loop()) for rule in RULES)
    disturbance = Disturbance.of(profile, profile.ledger)
    return tuple(sorted((_doubted(f, disturbance) for f in found if f is not None), key=lambda f: -f.saves_ns))


def by_hand(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same where nothing can be run again by `fix`: a script's, a block's. The advice stays."""
    return tuple(replace(finding, remedy=None) for finding in found)


def asking(found: Iterable[Finding], loader: str) -> tuple[Finding, ...]:
    """The same where the notebook has a name for the loader: a data stall says who knows its cause."""
    hint = f"; `%mlsys data {loader}` says why"
    return tuple(replace(f, evidence=f.evidence + hint) if f.key == "data-stall" else f for f in found)


@dataclass(frozen=True, slots=True)
class Disturbance:
    """ns by which a profiled step was longer than a clean one and the profiler's price: others' work, or chance."""

    step: float
    phases: Mapping[str, float]  # empty where they cannot be compared: on CUDA a ledger's are the device's

    @classmethod
    def of(cls, profile: Profile, ledger: Ledger) -> Self:
        steps, n = profile.steps, ledger.steps
        if not steps.clean:
            return cls(0.0, {})
        # That is beyond the clean median. What comes every few steps is in no median, but in the mean.
        step = max(0.0, min(profile.disturbed_ns, step_ns(ledger) - statistics.fmean(steps.clean)))
        if profile.loop is not None and profile.loop.device != "cpu":
            return cls(step, {})
        own = {p: (ns - ledger.nanoseconds("measurement", phase=p)) / n for p, ns in ledger.by_phase().items()}
        return cls(step, {p: max(0.0, ns - steps.phases[p]) for p, ns in own.items() if p in steps.phases})

    def within(self, phases: Iterable[str]) -> float:
        """What of it may lie in these phases."""
        return min(self.step, sum(self.phases.get(phase, self.step) for phase in phases))


def _doubted(finding: Finding, disturbance: Disturbance) -> Finding:
    ns = disturbance.within(TIMED_IN.get(finding.key, ("all",)))
    if ns < max(1.0, finding.saves_ns / 2):
        return finding
    part = "all" if ns >= finding.saves_ns else "most"
    doubt = f"beyond the profiler's price, profiled steps were {_ms(ns)} longer there than clean ones"
    return replace(finding, evidence=f"{finding.evidence}; doubtful: {doubt}, which may be {part} of it")


def step_ns(ledger: Ledger) -> float:
    """A step of the window, less what the profiler cost."""
    return max(1.0, (ledger.wall_ns - ledger.nanoseconds("measurement")) / ledger.steps)


def per_step(ledger: Ledger, *causes: str, phases: Iterable[str] | None = None) -> float:
    """ns a step of the named causes, in the named phases or in all."""
    if phases is None:
        return ledger.nanoseconds(*causes) / ledger.steps
    return sum(ledger.nanoseconds(*causes, phase=p) for p in phases) / ledger.steps


def _finding(
    ledger: Ledger, saves: float, key: str, title: str, evidence: str, advice: str, remedy: str | None = None
) -> Finding | None:
    step = step_ns(ledger)
    if saves < WORTH * step:
        return None
    return Finding(key, title, evidence, step / max(step - saves, 0.01 * step), int(saves), remedy, advice)


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.2f} ms"


def _share(ns: float, ledger: Ledger) -> str:
    """As the ledger prints it: of its own total, with its decimals."""
    step = ledger.wall_ns / ledger.steps
    return f"{ms(ns, places(step))} of {ms(step, places(step))} ms a step ({percent(ns / step)})"


def _reasons(ledger: Ledger, cause: str, phase: str | None = None, most: int = 3) -> str:
    """The entry's largest evidence, by name."""
    reasons = [
        e for entry in ledger.entries if entry.cause == cause and phase in (None, entry.phase) for e in entry.evidence
    ]
    reasons.sort(key=lambda e: -e.nanoseconds)
    return ", ".join(f"{e.what} ({_ms(e.nanoseconds / ledger.steps)})" for e in reasons[:most])


# -- the host ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetching:
    """A step's data side, ns: what the loop waits for, what it does meanwhile, and what fetching one batch takes."""

    stall: float
    rest: float
    fetch: float
    workers: int  # that would fetch a batch while the rest of a step runs; never more than there are cores

    @classmethod
    def of(cls, ledger: Ledger, loop: Loop, data_phase: float = 0.0) -> Fetching:
        """`data_phase`: the host's own time in it, ns a clean step; on CUDA a part of it hides behind the device."""
        stall = per_step(ledger, "data stall")
        rest = max(1.0, step_ns(ledger) - stall)
        # Workers that do not keep up fetch one batch each while `workers` steps go by.
        fetch = max(stall, data_phase) if not loop.workers else loop.workers * (rest + stall)
        return cls(stall, rest, fetch, max(1, min(loop.cores, math.ceil(fetch / rest))))

    def step_with(self, workers: int, cores: int, threads: int, on_cpu: float) -> float:
        """The step once `workers` fetch beside it: the slowest of compute, fetching, and all CPU work over all cores."""
        cpu_work = self.rest * threads + self.fetch * on_cpu
        return max(self.rest, self.fetch / workers, cpu_work / cores)


def fetching(profile: Profile, ledger: Ledger, loop: Loop) -> Fetching:
    return Fetching.of(ledger, loop, profile.steps.phases.get("data", 0) if loop.device == "cuda" else 0)


def data_stall(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    at = fetching(profile, ledger, loop)
    step = at.rest + at.stall
    on_cpu = 1.0 if loop.fetch_on_cpu is None or loop.workers else loop.fetch_on_cpu
    threads = loop.threads if loop.device == "cpu" else 1
    gain = step - at.step_with(at.workers, loop.cores, threads, on_cpu)
    more = loop.workers is not None and loop.workers < at.workers and not loop.iterable and gain >= WORTH * step
    if loop.workers is None:
        where = "no torch DataLoader was seen"
    elif loop.workers == 0:
        where = f"{loop.loader} is read in the main process (workers 0), {on_cpu:.0%} of it on the CPU"
    else:
        where = "1 worker does not keep up" if loop.workers == 1 else f"{loop.workers} workers do not keep up"
    evidence = f"{_share(at.stall, ledger)} waiting for the next batch; {where}"
    if more:
        advice = f"`DataLoader(..., num_workers={at.workers}, persistent_workers=True)`"
        if loop.device == "cpu" and loop.threads >= loop.cores:
            advice += "; workers and the model share these cores, so part of the work only moves"
    else:
        advice = "at most: move the work out of the loop (tokenise or decode once, keep the result), or cache it"
    return _finding(ledger, gain if more else at.stall, "data-stall", "The model waits for data", evidence, advice,
                    "workers" if more else None)  # fmt: skip


def checkpoints(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "io", phases=["checkpoint"])
    evidence = f"{_share(saves, ledger)} in torch.save and state_dict"
    return _finding(ledger, saves, "checkpoint", "Checkpoints are saved too often, and in the loop", evidence,
                    "at most: save every N steps, or `torch.distributed.checkpoint.async_save(...)`")  # fmt: skip


def logs(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "io", phases=["logging"])
    evidence = f"{_share(saves, ledger)} in print, logging and progress bars"
    return _finding(
        ledger,
        saves,
        "logging",
        "Logging stops the loop",
        evidence,
        "at most: log every N steps: `if step % 50 == 0: ...`",
    )


def synchronisation(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "sync")
    evidence = f"{_share(saves, ledger)} with the device drained: {_reasons(ledger, 'sync')}"
    return _finding(ledger, saves, "sync", "The host waits for the device inside the loop", evidence,
                    "at most: keep losses on the device (`total += loss.detach()`), call `.item()`, `.cpu()` or `print` every N steps")  # fmt: skip


def collection(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "gc")
    return _finding(ledger, saves, "gc", "Python's garbage collector runs inside the step", f"{_share(saves, ledger)} in collections",
                    "`gc.collect(); gc.freeze()` before the loop", "gc-freeze")  # fmt: skip


def sleeping(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    phases = [e.phase for e in ledger.entries if e.cause == "unattributed"]
    # A neighbour takes the thread off the CPU too.
    saves = per_step(ledger, "unattributed") - Disturbance.of(profile, ledger).within(phases)
    evidence = f"{_share(saves, ledger)} with the loop's thread off the CPU and no known call explaining it, in {', '.join(phases)}"
    return _finding(ledger, saves, "waiting", "The loop waits for something we cannot name", evidence,
                    "at most: look for sleeps, locks, network or disk calls in the loop's body")  # fmt: skip


def python(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "python")
    if saves < 0.10 * step_ns(ledger):
        return None
    evidence = f"{_share(saves, ledger)} in Python between operators: {_reasons(ledger, 'python')}"
    return _finding(ledger, saves, "python", "Python between operators", evidence,
                    "at most: move per-step Python out of the loop; a larger batch spreads it over more samples")  # fmt: skip


# -- the device ----------------------------------------------------------------------------------------------------------


def precision(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    basis, saves = ledger.basis, per_step(ledger, "precision")
    if basis.dtype == "tf32":
        remedy, advice = "tf32", '`torch.set_float32_matmul_precision("high")`'
    else:
        remedy, advice = "autocast", f'`with torch.autocast("{loop.device}", torch.{basis.dtype}): loss = ...`'
    tried = "; the same operators were tried in it, casts included" if loop.device == "cpu" else ""
    evidence = (
        f"{_share(saves, ledger)}: matmuls run in {basis.dtype_used}, this device is faster in {basis.dtype}{tried}"
    )
    return _finding(ledger, saves, "precision", f"A faster dtype is at hand: {basis.dtype}", evidence, advice, remedy)


def optimizer(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "launch", "python", phases=["optimizer"])
    fusable = loop.optimizer in FUSABLE and loop.optimizer_kind in ("for-loop", "foreach")
    if not fusable:
        return None
    evidence = f"{_share(saves, ledger)} dispatching {loop.optimizer} parameter by parameter ({loop.optimizer_kind})"
    return _finding(ledger, saves, "optimizer", "The optimizer is bound by dispatch", evidence,
                    f"`torch.optim.{loop.optimizer}(..., fused=True)`", "fused-optimizer")  # fmt: skip


def launches(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "launch", phases=["forward", "backward", "other"])
    if loop.compiled or saves < 0.10 * step_ns(ledger):
        return None
    evidence = f"{_share(saves, ledger)} dispatching operators of forward and backward"
    batch = f", or a larger batch than {loop.batch_size}" if loop.batch_size else ", or a larger batch"
    return _finding(
        ledger,
        saves,
        "launch",
        "The step is bound by dispatch",
        evidence,
        f"at most: `model = torch.compile(model)`{batch}",
        "compile",
    )


def elementwise(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    rows = [r for r in profile.operators if r.bound == "memory" and not r.flops and r.phase in ("forward", "backward")]
    saves = sum(r.nanoseconds for r in rows) / ledger.steps
    if loop.compiled or saves < 0.10 * step_ns(ledger):
        return None
    names = ", ".join(dict.fromkeys(r.name.removeprefix("aten::") for r in rows[:4]))
    evidence = f"{_share(saves, ledger)} in operators bound by memory: {names}"
    return _finding(ledger, saves, "memory", "Elementwise chains move the same bytes again and again", evidence,
                    "at most: `model = torch.compile(model)` fuses them", "compile")  # fmt: skip


def recomputation(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "recompute")
    memory = profile.memory
    if (
        memory is not None
        and memory.device_total
        and memory.device_peak is not None
        and memory.device_peak > 0.5 * memory.device_total
    ):
        return None  # the memory is needed
    return _finding(ledger, saves, "recompute", "Activations are recomputed although there is room", f"{_share(saves, ledger)} at peak, more in all",
                    "turn activation checkpointing off, or checkpoint every second layer")  # fmt: skip


def copies(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "copy")
    pinned = loop.pin_memory is False and loop.device == "cuda"
    evidence = f"{_share(saves, ledger)} copying: {_reasons(ledger, 'copy')}"
    return _finding(ledger, saves, "copy", "Copies between host and device are exposed", evidence,
                    "at most: `DataLoader(..., pin_memory=True)` and `batch.to(device, non_blocking=True)`", "pin" if pinned else None)  # fmt: skip


def communication(profile: Profile, ledger: Ledger, loop: Loop) -> Finding | None:
    saves = per_step(ledger, "comm", "wait for rank")
    evidence = f"{_share(saves, ledger)} in collectives nothing hides: {_reasons(ledger, 'comm')}"
    return _finding(ledger, saves, "comm", "Communication is exposed", evidence,
                    "at most: larger DDP buckets (`bucket_cap_mb`), gradient accumulation under `no_sync()`")  # fmt: skip


RULES: tuple[Rule, ...] = (
    data_stall, checkpoints, logs, synchronisation, collection, sleeping, python, precision, optimizer, launches,
    elementwise, recomputation, copies, communication,
)  # fmt: skip
