"""From a measured loop to the causes of its waiting: each with what a step would gain without it.

Causes are charged the largest first, each after those before it are gone, by the formula of `model.py`: so a share is what
removing the cause would give back, work that hides behind a slower stage is charged nothing, and the shares add up to at
most the whole step. Where two hide behind each other, so that neither is worth removing alone, both are charged, each the
mean of what it gains first and what it gains second. Times of a worker stand beside them and are never added to a share.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ..neighbours import CpuTime
from ..views.units import bandwidth, duration, number, percent, size
from .clocks import NOTHING
from .consumer import Turn
from .model import HELD, RECEIVE, Handing, Parts, Pipeline
from .samples import COLLATE, Worker, mean_parts, slow_worker

NAMED = 0.05  # of a step: a smaller loss is no cause worth naming
SMALL_FILE = 64 << 10  # bytes: below it the price of a file is opening it, not reading it
MOST = 8
TIE = 0.85
CONTENTION = "CPU contention"
FILES = "files"  # the stage of opening small ones
KINDS = {  # of what a blocked worker waited for: the cause's name, and what to do
    "storage": ("storage", "cache the data set on a faster disk or in memory, or pack it: %mlsys io PATH"),
    "network": ("network", "fetch once and keep a local copy, or more workers: they wait side by side"),
    "sleep": ("sleep", "the data set sleeps: look for time.sleep, retries and rate limits"),
    "lock": ("lock", "the data set waits for a lock that another thread or process holds"),
    "child process": ("child process", "the data set waits for a process it has started"),
    "gil": ("GIL", "a C call in another thread of the worker holds the GIL: release it there, or use a process"),
    "feeder": ("transfer", "the worker's own pickling holds the GIL: return tensors, not objects, and smaller batches"),
    "library threads": ("library threads", "the work is done by a library's threads: give them a core, or use fewer workers"),
    "blocked": ("blocked", "off the CPU for storage, network, a lock or a sleep; which of them was not measured"),
    "unknown": ("blocked", "off the CPU in a system call of no known kind"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """`share` of a step's wall time, `gain` in ns; `stage` where in the loader, "" where it has none."""

    name: str
    stage: str
    share: float
    gain: float
    evidence: str
    advice: str


@dataclass(frozen=True, slots=True)
class Loop:
    """The measured loop, means a step in ns. `epoch`: batches of one, None where unknown."""

    turns: tuple[Turn, ...]
    first_excess: float  # ns by which the first batch of each epoch is later than others
    epoch: int | None
    cpu: CpuTime | None
    has_step: bool
    bare: float | None = None  # ns a turn without clocks, epochs' starts aside
    handing: Handing | None = None  # without workers: what one of them would make of a batch
    copy_excess: float = 0.0  # ns a step that the copy to the device takes longer than from pinned memory

    @property
    def wait(self) -> float:
        return max(0.0, statistics.fmean(turn.wait.wall for turn in self.turns) - self.watched + self.turn)

    @property
    def watched(self) -> float:
        return statistics.fmean(turn.wait.wall + turn.work.wall for turn in self.turns)

    @property
    def turn(self) -> float:
        """As long as a bare one: clocks only lengthen it, and so does what else this machine does."""
        return self.watched if self.bare is None else min(self.bare, self.watched)

    @property
    def wall(self) -> float:
        """With the epoch's first batch spread over its steps."""
        return self.turn + self.start

    @property
    def start(self) -> float:
        return self.first_excess / self.epoch if self.epoch else 0.0

    def place(self, name: str) -> float:
        return statistics.fmean(turn.places.get(name, NOTHING).wall for turn in self.turns)

    def place_cpu(self, name: str) -> float:
        return statistics.fmean(turn.places.get(name, NOTHING).cpu for turn in self.turns)


Removal = Callable[[Pipeline], Pipeline]


@dataclass(frozen=True, slots=True, eq=False)
class Suspect:
    name: str
    stage: str
    remove: Removal
    evidence: str
    advice: str


def pipeline(loop: Loop, workers: Sequence[Worker], count: int, cores: float, in_order: bool) -> Pipeline:
    """The formula's numbers from what was measured."""
    turns = loop.turns
    fetch = tuple(with_files(w.parts, _file_cpu(w)) for w in workers)
    received = with_files_held(_received(turns, workers), workers, fetch) if count else {}
    checkpoint, logging = loop.place("checkpoint"), loop.place("logging")
    queued = statistics.fmean(t.work.queued or 0 for t in turns) if loop.has_step else 0.0
    work = statistics.fmean(t.work.wall for t in turns) if loop.has_step else 0.0
    rest = max(0.0, work - queued - checkpoint - logging - loop.copy_excess)
    parts = {
        ("step", "work"): rest,
        ("step", "queued"): queued,
        ("checkpoint", "io"): checkpoint,
        ("logging", "io"): logging,
        **received,
        ("copy", "unpinned"): loop.copy_excess,
    }
    cpu = statistics.fmean(w.process_cpu for w in workers) if workers else 0.0
    cpu += statistics.fmean(t.work.cpu + t.wait.cpu for t in turns) if count else 0.0
    feed = statistics.fmean(w.feed.work for w in workers) if workers and count else 0.0
    others = loop.cpu.others * loop.wall if loop.cpu is not None else 0.0
    watched = Pipeline(
        count, {k: ns for k, ns in parts.items() if ns}, fetch, feed, cpu, cores, in_order, others, loop.handing
    )
    return watched.paced(loop.turn)


def _received(turns: Sequence[Turn], workers: Sequence[Worker]) -> dict[tuple[str, str], float]:
    """Receiving and unpickling, in the loop. A thread of the worker answers it, and it waits for what delays that thread:

    the GIL, held by somebody in C or by a stage that computes in Python (HELD), or a core.
    """
    answer, queued = statistics.fmean(t.answer for t in turns), statistics.fmean(t.wait.queued or 0 for t in turns)
    found: dict[tuple[str, str], float] = defaultdict(float, {(RECEIVE, "queued"): queued})
    for each in workers:
        for (stage, why), share in each.delays.items():
            if why != "none":
                key = (stage, HELD) if why == "cpu" else (RECEIVE, why)
                found[key] += answer * share / len(workers)
    rest = statistics.fmean(t.receive + t.unpickle for t in turns) - sum(found.values())
    return found | {(RECEIVE, "transfer"): max(0.0, rest)}


def with_files_held(received: Parts, workers: Sequence[Worker], fetch: Sequence[Parts]) -> dict[tuple[str, str], float]:
    """What stages hold up, FILES' part of it where opening files is a part of what the stage computes."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for (stage, how), ns in received.items():
        whole, left = (sum(p.get((stage, "cpu"), 0.0) for p in of) for of in ((w.parts for w in workers), fetch))
        share = 1 - left / whole if how == HELD and whole else 0.0
        found[stage, how] += ns * (1 - share)
        if share:
            found[FILES, HELD] += ns * share
    return found


def charge(loop: Loop, workers: Sequence[Worker], at: Pipeline) -> tuple[Cause, ...]:
    """The causes that are worth naming, the largest first; none of a loop that does not wait."""
    wall, modelled = loop.wall, max(at.step(), 1.0)
    scale = min(1.0, (wall - loop.start) / modelled)
    found = list(_first_batch(loop))
    left = list(suspects(loop, workers, at))
    slow = slow_worker(workers) if at.in_order and at.workers else None
    if slow is not None:  # before the others: what makes it slow is in all of them
        said = _slow(slow, workers, at)
        evened = _evened(at, slow, workers)
        gain = (at.step() - evened.step()) * scale
        if gain >= NAMED * wall:
            found.append(Cause(said.name, said.stage, gain / wall, gain, said.evidence, said.advice))
            at = evened
    worth = NAMED * wall / scale
    while left and len(found) < MOST:
        best = _best(left, at)
        gains = {best: at.step() - best.remove(at).step()}
        if gains[best] < worth:
            gains = _together(left, at)
        if not gains or min(gains.values()) < worth:
            break
        for suspect, gain in gains.items():
            found.append(Cause(suspect.name, suspect.stage, gain * scale / wall, gain * scale, suspect.evidence, suspect.advice))  # fmt: skip
            at = suspect.remove(at)
            left.remove(suspect)
    return tuple(sorted(_joined(found), key=lambda c: -c.gain))


def _best(left: Sequence[Suspect], at: Pipeline) -> Suspect:
    """Whose removal gains most. Without work there is no queueing either, so work seems as guilty as what it queues behind:

    where the work would have fitted in, the queueing is the cause.
    """
    gains = {s: at.step() - s.remove(at).step() for s in left}
    best = max(left, key=lambda s: gains[s])
    queueing = next((s for s in left if s.name == CONTENTION), None)
    return queueing if queueing is not None and gains[queueing] >= TIE * gains[best] else best


def _together(left: Sequence[Suspect], at: Pipeline) -> dict[Suspect, float]:
    """The two that gain most together, each with the mean of its gains as the first and as the second to go."""

    def gains(a: Suspect, b: Suspect) -> dict[Suspect, float]:
        whole, without_a, without_b = at.step(), a.remove(at).step(), b.remove(at).step()
        neither = b.remove(a.remove(at)).step()
        return {a: (whole - without_a + without_b - neither) / 2, b: (whole - without_b + without_a - neither) / 2}

    return max((gains(a, b) for a, b in combinations(left, 2)), key=lambda g: sum(g.values()), default={})


def _joined(found: Sequence[Cause]) -> Iterator[Cause]:
    """Causes of one name, such as storage in two stages, as one."""
    for name in dict.fromkeys(cause.name for cause in found):
        same = [cause for cause in found if cause.name == name]
        stages = ", ".join(dict.fromkeys(c.stage for c in same if c.stage))
        yield replace(same[0], stage=stages, share=sum(c.share for c in same), gain=sum(c.gain for c in same))


# -- who is suspected ----------------------------------------------------------------------------------------------------


def suspects(loop: Loop, workers: Sequence[Worker], at: Pipeline) -> Iterator[Suspect]:
    parts, steps = mean_parts(workers) if workers else {}, loop.wall
    yield _contention(loop, at)
    for stage in ("checkpoint", "logging"):
        advice = "save every N steps, or torch.distributed.checkpoint.async_save" if stage == "checkpoint" else "log every N steps"  # fmt: skip
        evidence = f"{duration(loop.place(stage))} of a step of {duration(steps)}"
        yield Suspect(stage, "step", _without_loop(stage, loop.place_cpu(stage)), evidence, advice)
    if at.workers:
        yield _transfer(loop, workers)
    if loop.copy_excess:
        yield Suspect("unpinned copy", "host to device", _without_loop("copy"), f"{duration(loop.copy_excess)} a step more than from pinned memory", "DataLoader(..., pin_memory=True) and .to(device, non_blocking=True)")  # fmt: skip
    small = _small_files(workers)
    if small is not None:
        yield small
    for kind, (name, advice) in KINDS.items():
        stages = {stage: ns for (stage, how), ns in parts.items() if how == kind}
        if stages:
            where = max(stages, key=lambda s: stages[s])
            yield Suspect(name, where, _without(kind), _blocked_evidence(kind, sum(stages.values()), workers), advice)
    mean = with_files(parts, statistics.fmean(_file_cpu(w) for w in workers)) if workers else {}
    for stage in dict.fromkeys(stage for stage, how in mean if how == "cpu" and stage != FILES):
        evidence = (
            f"{duration(mean[stage, 'cpu'])} of CPU a batch{', small files aside' if (FILES, 'cpu') in mean else ''}"
        )
        yield Suspect(f"CPU: {stage}", stage, _without("cpu", "queued", HELD, stage=stage, cpu=True), evidence, _CPU_ADVICE.get(stage, _ANY_CPU))  # fmt: skip


_ANY_CPU = (
    "do it once and keep the result, do it on whole batches, or on the device; or more workers while cores are free"
)
_CPU_ADVICE = {COLLATE: "return tensors of one shape, or stack whole batches: torch.stack is one copy"}


def _without(*hows: str, stage: str | None = None, cpu: bool = False) -> Removal:
    return lambda at: at.without(*hows, stage=stage, cpu=cpu)


def _without_loop(stage: str, cpu: float = 0.0) -> Removal:
    return lambda at: replace(at, loop={k: ns for k, ns in at.loop.items() if k[0] != stage}).spared(cpu)


def _contention(loop: Loop, at: Pipeline) -> Suspect:
    queued = sum(ns for parts in at.fetch for (_, how), ns in parts.items() if how == "queued") / max(1, len(at.fetch))
    in_loop = sum(ns for (_, how), ns in at.loop.items() if how == "queued")
    others = 0.0 if loop.cpu is None else loop.cpu.others
    evidence = f"a batch waits {duration(queued)} for a core in a worker and {duration(in_loop)} in the loop"
    if others > 0.1 * at.cores:
        evidence += f"; other processes use {others:.1f} of {number(at.cores)} cores"
        advice = "end what runs beside, or give this job cores of its own (taskset, cgroup, --cpus-per-task)"
    else:
        evidence += f"; no other process does: {at.workers} workers and the loop share {number(at.cores)} cores"
        advice = "fewer workers or threads than cores, or more cores"
    return Suspect(CONTENTION, "all", _without("queued"), evidence, advice)


def _transfer(loop: Loop, workers: Sequence[Worker]) -> Suspect:
    receive = statistics.fmean(t.receive for t in loop.turns)
    unpickle = statistics.fmean(t.unpickle for t in loop.turns)
    large = max((w.feed.bytes for w in workers), default=0.0)
    evidence = f"receiving {duration(receive)} and unpickling {duration(unpickle)} in the loop; {size(int(large))} through the pipe a batch"  # fmt: skip

    cpu = statistics.fmean(t.receiving_cpu for t in loop.turns) + statistics.fmean(w.feed.work for w in workers)

    def remove(at: Pipeline) -> Pipeline:
        loop = {k: ns for k, ns in at.loop.items() if k != (RECEIVE, "transfer")}
        return replace(at.without("feeder"), loop=loop, feed=0.0).spared(cpu)

    return Suspect("transfer", "worker to loop", remove, evidence, "return tensors (shared memory) instead of arrays, bytes or objects (pickled into a pipe)")  # fmt: skip


def _small_files(workers: Sequence[Worker]) -> Suspect | None:
    """Files so small that opening them is the price of reading them."""
    priced = [w for w in workers if _file_cpu(w)]
    if not priced:
        return None
    opens, mean = statistics.fmean(w.opens for w in priced), statistics.fmean(w.file_size or 0 for w in priced)
    price = duration(statistics.fmean(w.file_cpu or 0 for w in priced))
    evidence = f"{number(round(opens))} files of {size(int(mean))} a batch, {price} of CPU to open and read one"
    removal = _without("cpu", "queued", HELD, stage=FILES, cpu=True)
    return Suspect("small files", "files", removal, evidence, "pack them into shards: %mlsys io PATH --pack DIR")


def _file_cpu(worker: Worker) -> float:
    """ns a batch of opening, reading and closing files that are small; 0 where they are large, or not priced."""
    return worker.opens * (worker.file_cpu or 0) if (worker.file_size or SMALL_FILE) < SMALL_FILE else 0.0


def with_files(parts: Parts, total: float) -> dict[tuple[str, str], float]:
    """So much CPU time of the stages that read, and the queueing that came with it, in a stage of its own: FILES."""
    left = dict(parts)
    for stage, how in sorted(parts, key=lambda k: -parts[k]):
        if how == "cpu" and stage != COLLATE and total > 0:
            taken = min(total, left[stage, how])
            share = taken / left[stage, how]
            for each in ("cpu", "queued"):
                moved = left.get((stage, each), 0.0) * share
                if moved:
                    left[stage, each] -= moved
                    left[FILES, each] = left.get((FILES, each), 0.0) + moved
            total -= taken
    return left


def _blocked_evidence(kind: str, ns: float, workers: Sequence[Worker]) -> str:
    said = f"{duration(ns)} of a batch"
    read = [w.bytes_read for w in workers if w.bytes_read is not None]
    if kind in ("storage", "blocked") and read:
        device = statistics.fmean(w.from_device or 0 for w in workers)
        faults = statistics.fmean(w.major_faults or 0 for w in workers)
        said += f"; {size(int(statistics.fmean(read)))} read ({bandwidth(statistics.fmean(read) / max(ns, 1) * 1e9)} while it waits)"
        said += f", {size(int(device))} of it from a device" if device >= 1 else ", none from a local device"
        said += f", {number(faults)} major faults" if faults else ""
    return said


def _slow(slow: Worker, workers: Sequence[Worker], at: Pipeline) -> Suspect:
    others = [w for w in workers if w is not slow]
    usual = statistics.median(w.wall for w in others)
    more = {k: ns - statistics.fmean(w.parts.get(k, 0.0) for w in others) for k, ns in slow.parts.items()}
    (stage, how), ns = max(more.items(), key=lambda item: item[1])
    evidence = f"worker {slow.number} takes {duration(slow.wall)} a batch, the others {duration(usual)}; {duration(ns)} more in {stage} ({how})"  # fmt: skip
    return Suspect("slow worker", f"worker {slow.number}", lambda at: at, evidence, "share out its samples evenly; in_order=False where the order of batches does not matter")  # fmt: skip


def _evened(at: Pipeline, slow: Worker, workers: Sequence[Worker]) -> Pipeline:
    usual = mean_parts([w for w in workers if w is not slow])
    fetch = (usual if w is slow else parts for w, parts in zip(workers, at.fetch, strict=True))
    return replace(at, fetch=tuple(fetch))


def _first_batch(loop: Loop) -> Iterator[Cause]:
    share = loop.start / max(loop.wall, 1)
    if share >= NAMED:
        evidence = f"{duration(loop.first_excess)} more than another batch, each epoch of {loop.epoch} batches"
        yield Cause("first batch", "start", share, loop.start, evidence, "persistent_workers=True; make worker_init_fn and the data set's first access cheap")  # fmt: skip


def stall_share(loop: Loop) -> float:
    return (loop.wait + loop.start) / max(loop.wall, 1.0)


def healthy(loop: Loop, causes: Sequence[Cause]) -> str:
    """The verdict in a sentence."""
    waited = percent(stall_share(loop))
    if causes:
        first = causes[0]
        return f"{first.name} costs {percent(first.share)} of a step; the loop waits {waited} of it for data"
    if not loop.has_step:
        return "no stage stands out"
    return f"healthy: the loop waits {waited} of a step for data, and no cause is worth {percent(NAMED)}"
