"""The best layout of a model over a cluster: every layout that can be, its predicted step, ranked by MFU.

    plan("llama-3-405b", cluster("H100-SXM5", 16_384, inter="RoCE-400"), global_batch=2048, sequence=8192)

Predictions rest on specs, a link table, and one efficiency a device: what its best published matmul reached, and flash
attention as much slower as published. They leave out what a real run also loses (clocks under load, stragglers, launches,
uneven experts), so they are a best case, and rank better than they tell seconds: Megatron's A100 runs come out within 15 %,
Llama 3's three on H100 a fifth too fast, all by the same factor (`tests/benchmarks/planner.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UsageError
from ..views.sheet import Bars, Figures, Grid, Row, Sheet, Shown
from ..views.units import bandwidth, counted, duration, percent, rate
from .amounts import whole
from .architecture import Transformer
from .cluster import Cluster, Rates, rates
from .compute import training_flops
from .dtypes import dtype_name
from .layer_time import SOFTWARE, Software
from .layout import Layout
from .layouts import Candidate, Reason, Refusal, degrees, described, fastest, frugal, refusal, settings
from .memory import HEADROOM, estimate
from .models import model as read
from .pipelines import check
from .reliability import Failures, Reliability
from .scaling import Doubling, doubling
from .step_time import StepTime, cuts, step_time

BEST = 10
_READING = (
    "schedule: 1f1b x8 is interleaved 1F1B, 8 parts of the model on each stage; ZB-H1 a zero-bubble one; rerun: what is "
    "recomputed; batch: sequences of a micro-batch x micro-batches of a rank; GB: of a device, beside "
    f"{percent(HEADROOM)} headroom"
)
# tests/benchmarks/results/planner.txt: Megatron-LM's tables on A100 (0.87 to 1.06), Llama 3's three runs on H100 (0.81 to 0.84)
_TRUST = (
    "published runs reached 0.87 to 1.06 of the speed predicted for them on A100 (Megatron-LM) and 0.81 to 0.84 on H100 (Llama "
    "3; an efficiency of 0.64 meets all three within 2 %): stragglers, clocks under load, launches and uneven experts are not "
    "modelled, so trust the order more than the seconds"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """One layout with its settings and what is predicted of it."""

    candidate: Candidate
    step: StepTime
    memory: float  # bytes a device
    mfu: float
    tokens_per_second: float

    @property
    def layout(self) -> Layout:
        return self.candidate.layout


@dataclass(frozen=True, slots=True)
class Rejected:
    """How many divisions of the devices were refused for one reason, and one of them in words."""

    reason: Reason
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Plan(Shown):
    """`best` are the fastest divisions of the devices, fastest first, each with its own best settings."""

    model: str
    basis: str
    assumed: tuple[str, ...]  # of rates and software, with sources
    best: tuple[Choice, ...]
    rejected: tuple[Rejected, ...]
    divisions: int  # ways to divide the devices
    settings: int  # whose step was predicted
    why: tuple[str, ...]
    twice: Doubling  # the devices, for the winner
    failures: Reliability | None = None  # where it was said how often a device fails

    @property
    def winner(self) -> Choice:
        return self.best[0]

    def sheet(self) -> Sheet:
        winner = self.winner
        heads = ("layout", "schedule", "rerun", "ZeRO", "batch", "step", "MFU", "GB")
        rows = tuple(_row(each) for each in self.best)
        parts = _parts(winner.step)
        bars = tuple((name, f"{percent(s / winner.step.total)}", (s,)) for name, s in parts)
        refused = tuple(Row(f"{each.count:,}", each.reason, each.example) for each in self.rejected)
        possible = self.divisions - sum(each.count for each in self.rejected)
        found = (
            f"Best of {counted(possible, 'way')} to divide the devices that fit, in {counted(self.settings, 'setting')}"
        )
        return Sheet(
            f"Plan for {self.model}",
            self.basis,
            (
                Grid(found, heads, rows, 3),
                Bars("Where the best one's step goes", ("share",), bars),
                Figures("Twice the devices would bring the best one at most", self.twice.rows()),
                *((Figures("A long run, in which devices fail", self._failures()),) if self.failures else ()),
                *((Figures("Refused: how many, why, and one of them", refused),) if refused else ()),
            ),
            (*self.why, _READING, *self.assumed, _TRUST),
        )

    def _failures(self) -> tuple[Row, ...]:
        assert self.failures is not None
        kept = self.winner.mfu * self.failures.goodput
        return (*self.failures.rows(), Row("MFU over the run", percent(kept), "the best layout's, times goodput"))

    def to_json(self) -> str:
        """Seconds, bytes, shares."""
        return json.dumps({"format": "mlsys-studio plan", "schema": 1, **asdict(self)}, allow_nan=False)


def plan(
    model: Any,
    cluster: Cluster,
    *,
    global_batch: int,
    sequence: int,
    dtype: str = "bfloat16",
    efficiency: float | None = None,
    software: str = "current",
    best: int = BEST,
    failures: Failures | None = None,
) -> Plan:
    """The `best` layouts to train `model` with `global_batch` sequences of `sequence` tokens a step.

    `model` is whatever `transformer` takes. `efficiency`: the share of the device's dense peak and bandwidth that is
    reached, by default what its best published matmul reached. `software`: "current", or "megatron21" for a run of
    that time. `failures` of devices: how often to checkpoint, and what goodput is left. A UsageError where nothing
    fits, with the least that would.
    """
    whole("best", best)
    if not isinstance(failures, Failures | None):
        raise UsageError(f"failures are Failures(device_mtbf, write, restart) in seconds, and {failures!r} is none")
    search = _search(model, cluster, global_batch, sequence, dtype, efficiency, software)
    choices: list[Choice] = []
    refused: list[Refusal] = []
    for layout in degrees(search.model, cluster):
        why_not = search.refused(layout)
        if why_not is None:
            choices.append(search.fastest(layout))
        else:
            refused.append(why_not)
    if not choices:
        raise UsageError(_nothing(refused))
    ranked = sorted(choices, key=lambda choice: choice.step.total)
    quickest = ranked[0].step
    return Plan(
        model=search.model.name,
        basis=search.basis(),
        assumed=search.assumed(),
        best=tuple(ranked[:best]),
        rejected=_summary(refused),
        divisions=len(choices) + len(refused),
        settings=search.predicted,
        why=_why(ranked, cluster),
        twice=doubling(quickest.computing, quickest.total),
        failures=None if failures is None else failures.of(cluster.devices, cluster.per_node),
    )


def predict(
    model: Any,
    cluster: Cluster,
    candidate: Candidate,
    *,
    sequence: int,
    dtype: str = "bfloat16",
    efficiency: float | None = None,
    software: str = "current",
) -> Choice:
    """One layout with settings of your own; a UsageError says why it cannot be, or by how much it does not fit."""
    batch = candidate.micro_batch * candidate.micro_batches * candidate.layout.dp
    search = _search(model, cluster, batch, sequence, dtype, efficiency, software)
    check(candidate.layout.schedule, candidate.layout.pp, candidate.micro_batches, candidate.layout.chunks)
    why_not = search.impossible(candidate.layout) or search.too_large(candidate)
    if why_not is not None:
        raise UsageError(why_not.sentence)
    return search.choice(candidate)


@dataclass(slots=True)
class _Search:
    model: Transformer
    cluster: Cluster
    global_batch: int
    sequence: int
    dtype: str
    rates: Rates
    software: Software
    predicted: int = 0

    @property
    def usable(self) -> float:
        """Bytes of a device, less the headroom for fragmentation, buffers and the CUDA context."""
        return self.cluster.device.memory * (1 - HEADROOM)

    def impossible(self, layout: Layout) -> Refusal | None:
        return refusal(self.model, self.cluster, layout, global_batch=self.global_batch, sequence=self.sequence)

    def refused(self, layout: Layout) -> Refusal | None:
        return self.impossible(layout) or self.too_large(
            min(frugal(layout, self.global_batch, self.software.sequence_parallel), key=self.bytes)
        )

    def too_large(self, candidate: Candidate) -> Refusal | None:
        needed, has = self.bytes(candidate), self.usable
        if needed <= has:
            return None
        sentence = (
            f"does not fit: it needs {needed / 1e9:.0f} GB a device of {has / 1e9:.0f}, with {_settings(candidate)}"
        )
        return Refusal("memory", f"{described(candidate.layout)} {sentence}", needed)

    def fastest(self, layout: Layout) -> Choice:
        """The best setting of degrees that are not refused."""

        def fits(candidate: Candidate) -> bool:
            return self.bytes(candidate) <= self.usable

        walked = settings(
            self.model,
            layout,
            global_batch=self.global_batch,
            sequence_parallel=self.software.sequence_parallel,
            fits=fits,
        )
        found = fastest(walked, lambda candidate: self.step(candidate).total, fits)
        assert found is not None, "the frugal setting fits, and is among them"
        return self.choice(found)

    def choice(self, candidate: Candidate) -> Choice:
        step = self.step(candidate)
        flops = self.global_batch * training_flops(self.model, sequence=self.sequence).model
        return Choice(
            candidate,
            step,
            self.bytes(candidate),
            mfu=flops / (step.total * self.cluster.devices * self.rates.peak),
            tokens_per_second=self.global_batch * self.sequence / step.total,
        )

    def step(self, candidate: Candidate) -> StepTime:
        self.predicted += 1
        return step_time(
            self.model,
            self.cluster,
            candidate.layout,
            micro_batch=candidate.micro_batch,
            micro_batches=candidate.micro_batches,
            sequence=self.sequence,
            recompute=candidate.recompute,
            rates=self.rates,
            software=self.software,
        )

    def bytes(self, candidate: Candidate) -> float:
        """What the device that needs the most needs, by `memory`; without its headroom."""
        c, layout = candidate, candidate.layout
        return estimate(
            self.model,
            batch=c.micro_batch,
            sequence=self.sequence,
            layout=layout,
            precision=self.software.precision,
            recompute=c.recompute,
            flash=self.software.flash,
            fused=self.software.fused,
            dropout=self.software.dropout,
            micro_batches=c.micro_batches,
            cuts=cuts(self.model, self.sequence, layout.pp * layout.chunks),
        ).total

    def basis(self) -> str:
        c = self.cluster
        links = [c.intra] * (c.per_node > 1) + [c.inter] * (c.nodes > 1)
        where = "one node" if c.nodes == 1 else f"{c.nodes:,} nodes of {c.per_node}"
        ports = " and ".join(f"{link.name} {bandwidth(link.bandwidth)}" for link in links)
        return (
            f"{c.devices:,} {c.device.name} in {where}"
            f"{f', {ports} a device and direction' if links else ''}; a step is {self.global_batch:,} x "
            f"{self.sequence:,} tokens; {self.dtype}, dense peak {rate(self.rates.peak)}"
        )

    def assumed(self) -> tuple[str, ...]:
        """Rates; software and convention; and who says how fast device and links are."""
        r, c = self.rates, self.cluster
        attention = ""
        if self.software.flash and r.attention:
            there, back = map(rate, r.attention)
            attention = f"; flash attention {there} forward, {back} backward"
        links = dict.fromkeys([c.intra] * (c.per_node > 1) + [c.inter] * (c.nodes > 1))
        sources = [
            f"sizes: {self.model.provenance}",
            f"peak: {c.device.peak_source}",
            *(f"{link.name}: {link.source}" for link in links),
        ]
        return (
            f"at {percent(r.efficiency)} of dense peak and memory bandwidth ({r.source}){attention}",
            f"software: {self.software.source}; MFU counts 3 x forward, every product",
            "; ".join(sources),
        )


def _search(
    given: Any, cluster: Cluster, batch: int, sequence: int, dtype: str, efficiency: float | None, software: str
) -> _Search:
    made, dtype = read(given), dtype_name(dtype)
    if not isinstance(cluster, Cluster):
        raise UsageError(f"plan needs a cluster, such as cluster('H100-SXM5-80GB', 8), and {cluster!r} is none")
    whole("global_batch", batch)
    whole("sequence", sequence)
    made.reaches(sequence)
    if made.encoder is not None:
        raise UsageError(f"{made.name} has an encoder and a decoder, and plan lays out one stack; give one of them")
    if not isinstance(software, str) or software not in SOFTWARE:
        raise UsageError(f"software must be one of {', '.join(map(repr, SOFTWARE))}, not {software!r}")
    return _Search(made, cluster, batch, sequence, dtype, rates(cluster.device, dtype, efficiency), SOFTWARE[software])


def _row(choice: Choice) -> tuple[str, ...]:
    candidate, layout = choice.candidate, choice.layout
    return (
        described(layout),
        _schedule(layout),
        "-" if candidate.recompute == "none" else candidate.recompute,
        str(layout.zero),
        f"{candidate.micro_batch}x{candidate.micro_batches}",
        duration(choice.step.total * 1e9),
        percent(choice.mfu),
        f"{choice.memory / 1e9:.0f}",
    )


def _schedule(layout: Layout) -> str:
    if layout.pp == 1:
        return "-"
    return {"interleaved": f"1f1b x{layout.chunks}", "zero-bubble": "ZB-H1"}.get(layout.schedule, layout.schedule)


def _settings(candidate: Candidate) -> str:
    again = "no" if candidate.recompute == "none" else candidate.recompute
    size = counted(candidate.micro_batch, "sequence")
    return f"ZeRO-{candidate.layout.zero}, {size} a micro-batch, {again} recomputation"


def _parts(step: StepTime) -> list[tuple[str, float]]:
    """The step's parts that are there at all, largest first."""
    names = {
        "matmul": "products of matrices",
        "memory": "memory-bound kernels",
        "recompute": "recomputation",
        "tensor": "tensor-parallel messages",
        "context": "context-parallel messages",
        "expert": "expert-parallel messages",
        "imbalance": "uneven stages",
        "bubble": "the pipeline's bubble",
        "pipeline": "messages between stages",
        "data": "gradients and weights",
        "optimizer": "optimizer",
    }
    parts = [(said, getattr(step, name)) for name, said in names.items()]
    return sorted([part for part in parts if part[1] > 0], key=lambda part: -part[1])


def _why(ranked: list[Choice], cluster: Cluster) -> tuple[str, ...]:
    """Three sentences: what the best one does with its time, what it needs, and what the next one loses."""
    winner = ranked[0]
    parts = _parts(winner.step)
    lost = next((part for part in parts if part[0] not in ("products of matrices", "memory-bound kernels")), None)
    first = f"{described(winner.layout)} is fastest: {percent(parts[0][1] / winner.step.total)} of its step are {parts[0][0]}"
    first += f"; its largest loss, {percent(lost[1] / winner.step.total)}, is {lost[0]}." if lost else "."
    has = cluster.device.memory
    second = (
        f"It fits with {winner.memory / 1e9:.0f} of {has / 1e9:.0f} GB a device under {_settings(winner.candidate)}."
    )
    if len(ranked) == 1:
        return first, second, "No other division of the devices is possible."
    other = ranked[1]
    slower = other.step.total / winner.step.total - 1
    mine = dict(parts)
    worst, more = max(
        ((name, seconds - mine.get(name, 0.0)) for name, seconds in _parts(other.step)), key=lambda part: part[1]
    )
    third = f"{described(other.layout)}, the next, is {percent(slower)} slower"
    return first, second, f"{third}, mostly by {duration(more * 1e9)} more of {worst}." if more > 0 else f"{third}."


def _summary(refused: Iterable[Refusal]) -> tuple[Rejected, ...]:
    """By reason, most frequent first."""
    by_reason: dict[Reason, list[Refusal]] = {}
    for each in refused:
        by_reason.setdefault(each.reason, []).append(each)
    rows = [Rejected(reason, len(found), found[0].sentence) for reason, found in by_reason.items()]
    return tuple(sorted(rows, key=lambda row: -row.count))


def _nothing(refused: list[Refusal]) -> str:
    too_large = [each for each in refused if each.reason == "memory"]
    if too_large:
        least = min(too_large, key=lambda each: each.needed)
        return f"no layout fits, even the smallest: {least.sentence}; give more devices, a shorter sequence, or larger ones"
    return f"no layout is possible: {refused[0].sentence}"
