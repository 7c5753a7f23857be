"""What the ranks of one run tell about each other: waiting, skew of the steps, imbalance, rates of collectives, who sent what.

Also of one rank alone, as far as that goes: its own messages, and bandwidths that are lower bounds.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..calculators.links import Link
from ..views.sheet import Figures, Grid, Part, Row
from ..views.units import bandwidth, duration, percent, size
from .communication import link_of
from .explaining import Explained
from .waits import Rate, Skew, Straggler, Waited, Waits

MOST = 32  # ranks in a table; the JSON has them all
MOST_RATES = 12
MATRIX = 8  # ranks that fit beside each other


@dataclass(frozen=True, slots=True)
class Together:
    """`stragglers`, `rates` and `sent` the largest first; `skew` by step; `waited` in the order of the files."""

    stragglers: tuple[Straggler, ...]
    skew: tuple[Skew, ...]
    waited: tuple[Waited, ...]
    rates: tuple[Rate, ...]
    sent: tuple[tuple[int, int, int], ...]  # (from, to, bytes)
    unsized: int  # collectives of which no trace says the bytes
    imbalance: float | None  # most compute of a rank over the mean, less 1; None of one rank
    busiest: str
    link: Link | None

    def fields(self) -> dict[str, Any]:
        """For JSON; us, bytes and B/s."""
        stragglers = [
            {"rank": s.rank, "path": s.path, "waited_for_us": s.waited_ns / 1000, "collectives": s.collectives,
             "of_collectives": s.of, "mostly": s.mostly}
            for s in self.stragglers
        ]  # fmt: skip
        communication = {
            "link": None if self.link is None else {"name": self.link.name, "bandwidth": self.link.bandwidth},
            "collectives": [
                {"name": r.name, "ranks": r.ranks, "bytes": r.bytes, "runs": r.runs, "time_us": r.seconds * 1e6,
                 "bus_bandwidth": r.bus_bandwidth}
                for r in self.rates
            ],
            "without_bytes": self.unsized,
            "sent": [{"from": a, "to": b, "bytes": n} for a, b, n in self.sent],
        }  # fmt: skip
        return {
            "stragglers": stragglers,
            "steps_skew": [{"step": s.step, "waited_us": s.waited_ns / 1000, "for_rank": s.rank, "path": s.path, "share": s.share} for s in self.skew],
            "waited": [{"rank": w.rank, "path": w.path, "waited_us": w.nanoseconds / 1000, "of_us": w.of / 1000} for w in self.waited],
            "compute_imbalance": self.imbalance,
            "communication": communication,
        }  # fmt: skip

    def parts(self) -> list[Part]:
        tables = (
            (self.stragglers, _stragglers),
            (self.skew, _skew),
            (self.imbalance is not None, _balance),
            (self.rates, _rates),
            (self.sent, _sent),
        )
        return [part(self) for wanted, part in tables if wanted]

    def notes(self) -> list[str]:
        if not self.unsized:
            return []
        why = "newer versions of torch write them for NCCL, and for gloo with record_shapes=True"
        return [f"{self.unsized:,} collectives without their bytes: {why}"]


def together(traces: Sequence[Explained], waits: Waits, link: str | None) -> Together:
    """link: between the ranks, by name; None for the one of such devices in one node."""
    several = len(traces) > 1
    sent: Counter[tuple[int, int]] = Counter()
    for t in traces:
        for other, count in t.sent.items():
            sent[-1 if t.rank is None else t.rank, other] += count
    mean = statistics.fmean(t.compute_ns for t in traces) if traces else 0
    busiest = max(traces, key=lambda t: t.compute_ns, default=None)
    devices = list(dict.fromkeys(t.device for t in traces))
    return Together(
        tuple(waits.stragglers()),
        tuple(waits.skew()),
        tuple(waits.waited()) if several else (),
        tuple(waits.rates()),
        tuple(sorted(((a, b, n) for (a, b), n in sent.items()), key=lambda row: (-row[2], row))),
        sum(t.unsized for t in traces),
        busiest.compute_ns / mean - 1 if several and mean and busiest else None,
        _called(busiest.rank, busiest.path) if busiest else "",
        link_of(devices if len(devices) == 1 else [], link),
    )


# -- on a page -----------------------------------------------------------------------------------------------------------


def _called(rank: int | None, path: str) -> str:
    return f"rank {rank}" if rank is not None else Path(path).name


def _stragglers(t: Together) -> Grid:
    rows = [
        (_called(s.rank, s.path), s.mostly, duration(s.waited_ns), f"{s.collectives} of {s.of}")
        for s in t.stragglers[:MOST]
    ]
    heads = ("last to arrive", "mostly in", "mean wait", "collectives")
    return Grid("Who made the others wait", heads, tuple(rows), left=2)


def _skew(t: Together) -> Grid:
    """The worst steps, in their order."""
    shown = sorted(sorted(t.skew, key=lambda s: -s.waited_ns)[:MOST_RATES], key=lambda s: s.step)
    rows = [(_called(s.rank, s.path), str(s.step), duration(s.waited_ns), percent(s.share)) for s in shown]
    title = (
        "Skew of the steps"
        if len(shown) == len(t.skew)
        else f"Skew of the steps, the worst {len(shown)} of {len(t.skew)}"
    )
    return Grid(title, ("mostly for", "step", "mean wait", "of it"), tuple(rows))


def _balance(t: Together) -> Figures:
    assert t.imbalance is not None
    rows = [Row("compute", percent(t.imbalance), f"{t.busiest} computes so much longer than the mean of the ranks")]
    most = max(t.waited, key=lambda w: w.nanoseconds)
    if most.of:
        said = f"{_called(most.rank, most.path)}: {percent(most.nanoseconds / most.of)} of its time in collectives"
        rows.append(Row("longest wait", duration(most.nanoseconds), said))
    return Figures("Imbalance", tuple(rows))


def _rates(t: Together) -> Grid:
    rows = []
    for r in t.rates[:MOST_RATES]:
        rate = "" if r.bus_bandwidth is None else bandwidth(r.bus_bandwidth)
        share = percent(r.bus_bandwidth / t.link.bandwidth) if r.bus_bandwidth is not None and t.link else ""
        rows.append((r.name, str(r.ranks or ""), size(r.bytes) if r.bytes else "", f"{r.runs:,}", duration(1e9 * r.seconds), rate, share))  # fmt: skip
    against = f" against {t.link.name}, {bandwidth(t.link.bandwidth)}" if t.link else ""
    lower = "" if t.waited else ", waiting included"
    heads = ("collective", "ranks", "bytes", "runs", "time", "bus", "of link")
    return Grid(f"Collectives{against}{lower}", heads, tuple(rows))


def _sent(t: Together) -> Grid:
    """A matrix where it fits, else the largest pairs."""
    ranks = sorted({rank for a, b, _ in t.sent for rank in (a, b)})
    by_pair = {(a, b): n for a, b, n in t.sent}
    if len(ranks) > MATRIX:
        rows = [(_called(a if a >= 0 else None, "?"), f"rank {b}", size(n)) for a, b, n in t.sent[:MOST]]
        return Grid("Who sent most to whom, by rings", ("from", "to", "bytes"), tuple(rows), left=2)
    table = [
        (f"rank {a}" if a >= 0 else "?", *(size(by_pair[a, b]) if (a, b) in by_pair else "·" for b in ranks if b >= 0))
        for a in ranks
        if any((a, b) in by_pair for b in ranks)
    ]
    return Grid("Who sent how much to whom, by rings", ("from", *(f"to {b}" for b in ranks if b >= 0)), tuple(table))
