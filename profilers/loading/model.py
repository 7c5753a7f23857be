"""A loader and a loop as one formula: how long a step takes when stages run beside each other. ns a step.

    no workers      loop + fetch
    n workers       max(loop, slowest worker's batch / n, CPU time of all / cores)

`loop` is what the loop's own thread does by itself: the step, and receiving and unpickling the batch. In order, every
n-th batch is the slowest worker's; out of order, rates add up. Source: the bottleneck law of closed queueing networks
(Denning & Buzen 1978), as DS-Analyzer (Mohan et al., VLDB 2021) uses it: min of the stages' rates, never above the cores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Parts = Mapping[tuple[str, str], float]
RECEIVE = "receive"
OF_THE_STEP = ("step", "checkpoint", "logging", "copy")  # stages of the loop that no worker has a part in
LEAST_OWN = 0.2  # of a watched fetch, what at least is its own: clocks cost no more than four times what they time
HELD = "held"  # how: the loop waits for an answer of a worker whose stage holds the GIL


@dataclass(frozen=True, slots=True)
class Handing:
    """What a batch costs once a worker fetches it, ns: the loop that receives it, its worker, and the cores in all."""

    loop: float
    fetch: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a step costs each stage, ns. `fetch` has one entry a worker, or the loop's own where there is none."""

    workers: int
    loop: Parts  # of the loop's thread: ("step", "work"), ("step", "queued"), ("receive", "transfer"), ("__getitem__", "held") …
    fetch: tuple[Parts, ...]  # by worker, a batch
    feed: float  # a batch, of a worker's feeder thread
    cpu: float  # a step, of all processes of this loader and loop
    cores: float
    in_order: bool = True
    others: float = 0.0  # CPU time that other processes take meanwhile, a step
    handing: Handing | None = None  # None: workers do it already, or it is not known

    def step(self) -> float:
        loop, walls = sum(self.loop.values()), [sum(parts.values()) for parts in self.fetch]
        if not self.workers:
            return loop + sum(walls)
        rates = [max(wall, self.feed) for wall in walls] or [0.0]
        pool = max(rates) / self.workers if self.in_order else 1 / max(sum(1 / max(r, 1e-9) for r in rates), 1e-12)
        return max(loop, pool, self.cpu / self.cores)

    def without(self, *hows: str, stage: str | None = None, cpu: bool = False) -> Pipeline:
        """As if nothing of these kinds happened, in one stage or in all; `cpu`: its CPU time is spared."""

        def kept(parts: Parts) -> dict[tuple[str, str], float]:
            return {k: ns for k, ns in parts.items() if not (k[1] in hows and stage in (None, k[0]))}

        fetch = tuple(kept(parts) for parts in self.fetch)
        loop = kept(self.loop)
        found = replace(self, loop=loop, fetch=fetch)
        return found.spared(_cpu(self.fetch) - _cpu(fetch)) if cpu else found

    def spared(self, ns: float) -> Pipeline:
        """As if so much less CPU time were wanted: the queues for it are shorter everywhere, in proportion."""
        left = max(0.0, self.cpu - ns)
        shorter = (left + self.others) / max(self.cpu + self.others, 1.0)

        def queued(parts: Parts) -> dict[tuple[str, str], float]:
            return {k: t * shorter if k[1] == "queued" else t for k, t in parts.items()}

        return replace(self, loop=queued(self.loop), fetch=tuple(map(queued, self.fetch)), cpu=left)

    def with_workers(self, workers: int) -> Pipeline:
        """The same work shared by n workers; by 0, done in the loop, where nothing needs to be received."""
        mean = _means(self.fetch)
        loop = {k: ns for k, ns in self.loop.items() if workers or (k[0] != RECEIVE and k[1] != HELD)}
        found = replace(self, workers=workers, fetch=(mean,) * max(1, workers), loop=loop)
        if not workers or self.workers or self.handing is None:
            return found
        here = sum(mean.values())
        loop[RECEIVE, "transfer"] = self.handing.loop
        fetch = {key: ns * self.handing.fetch / max(here, 1.0) for key, ns in mean.items()}
        cpu = max(0.0, self.cpu - _cpu(self.fetch)) + self.handing.cpu
        return replace(found, fetch=(fetch,) * workers, cpu=cpu)

    def paced(self, ns: float) -> Pipeline:
        """As fast as the bare loop was, `ns` a step: what is beyond it was the clocks' price, in fetches, around them, and in
        waiting for a core, which the watching threads want too.

        Where the model is as fast already, or the step alone is slower than that, there is nothing to take out.
        """
        low, high = LEAST_OWN, 1.0
        if self.step() <= ns or self._fetching(low).step() > ns:
            return self
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (low, middle) if self._fetching(middle).step() > ns else (middle, high)
        return self._fetching(low)

    def _fetching(self, share: float) -> Pipeline:
        """As if a fetch, its handing over and the queues for a core took this share of their time."""
        fetch = tuple({key: ns * share for key, ns in parts.items()} for parts in self.fetch)
        loop = {k: ns if k[0] in OF_THE_STEP and k[1] != "queued" else ns * share for k, ns in self.loop.items()}
        return replace(self, fetch=fetch, loop=loop, feed=self.feed * share, cpu=self.cpu * share)


def _cpu(fetch: tuple[Parts, ...]) -> float:
    """A batch's, mean over workers."""
    return sum(ns for parts in fetch for (_, how), ns in parts.items() if how == "cpu") / max(1, len(fetch))


def _means(fetch: tuple[Parts, ...]) -> dict[tuple[str, str], float]:
    keys = dict.fromkeys(key for parts in fetch for key in parts)
    return {key: sum(parts.get(key, 0.0) for parts in fetch) / len(fetch) for key in keys}
