"""Loss, gradient norm and loss scale as a run prints them, and what their course says.

A value that recovered is no failure: a NaN in one step of fp16, a small spike, a loss scale that backs off.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from .lines import Line

Course = Literal["nan_gradients", "loss_divergence", "loss_spike", "loss_scale_collapse", "exploding_init", "recovered"]

_NUMBER = r"(?:[-+]?(?:nan|inf(?:inity)?)\b|[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?)"
_METRIC = re.compile(
    rf"(?P<key>loss[_ ]?scale|scale|loss|norm|perplexity|ppl|nan iterations)['\"]?\*{{0,2}}\s?"
    rf"(?:(?:[:=|]| is | at step \d+ ?[:=])\s{{0,4}}['\"]?(?:tensor\()?|(?<=\s)(?=[-+]?(?:\d+\.\d|\d+e|nan\b|inf\b)))(?P<value>{_NUMBER})",
    re.IGNORECASE,
)
_OVERFLOW = re.compile(
    r"(?:Attempted loss scale|loss scaler? ?\d? ?reducing|reducing loss scale)\D*([\d.]+)?", re.IGNORECASE
)
_ITERATION = re.compile(r"\b(?:iteration|step|iter)\W{1,4}(\d+)", re.IGNORECASE)
_GAP = re.compile(r"^\W*\d+ (?:more )?lines? (?:omitted|skipped|elided|truncated|removed|not shown)")
_EVALUATION = re.compile(r"\b(?:eval|val|valid|validation|test|dev)\w*[ /_.-]?\w*$", re.IGNORECASE)  # before a metric
_LONGEST_KEY = 24  # letters
LATE = 1000  # steps, after which the loss scale has been found
SPIKE, DIVERGED, EXPLODED = 1.8, 2.0, 50.0  # times the median before, the least before, the median norm before
CALM = 1.3  # times the median before
RAN_AWAY = 1000.0  # times the least before, at the end


@dataclass(frozen=True, slots=True)
class Point:
    value: float
    line: Line


@dataclass(frozen=True, slots=True)
class Finding:
    course: Course
    line: Line
    says: str
    sure: bool


def series(lines: Iterable[Line]) -> dict[str, list[Point]]:
    """{"loss" | "norm" | "scale": points in order}, of training only."""
    found: dict[str, list[Point]] = {"loss": [], "norm": [], "scale": [], "skipped": [], "overflow": [], "at": []}
    for line in lines:
        if "lines " in line.text and _GAP.match(line.text):  # the course before it does not go on after it
            found = {key: [] for key in found}
        if line.text.lstrip().startswith("--"):  # an option with its help
            continue
        if "loss" not in (lower := line.text[:1000].lower()) and "norm" not in lower and "scale" not in lower:
            continue
        if overflow := _OVERFLOW.search(line.text):
            found["overflow"].append(Point(float(overflow[1] or "nan"), line))
            continue
        if at := _ITERATION.search(line.text[:200]):
            found["at"].append(Point(float(at[1]), line))
        seen: set[str] = set()
        for metric in _METRIC.finditer(line.text[:1000]):
            key = metric["key"].lower()
            if _EVALUATION.search(line.text[max(0, metric.start() - _LONGEST_KEY) : metric.start()]):
                continue
            kind = (
                "skipped" if "iterations" in key
                else "scale" if "scale" in key
                else "norm" if "norm" in key
                else "loss"
            )  # fmt: skip
            if kind not in seen:
                seen.add(kind)
                found[kind].append(Point(float(metric["value"].replace(",", "").replace("infinity", "inf")), line))
    return found


def worst_course(lines: Sequence[Line]) -> Finding | None:
    """Of the ranks' courses the first that failed, else one that recovered. Where several ranks print their loss, the
    values of one are never strung to those of another."""
    losses = [line for line in lines if "loss" in line.text and _METRIC.search(line.text[:1000])]
    printing = {(line.source, line.rank) for line in losses if line.rank is not None}
    whose: dict[tuple[str, int | None] | None, list[Line]] = {}
    for line in lines:
        whose.setdefault((line.source, line.rank) if len(printing) > 1 else None, []).append(line)
    found = [finding for its in whose.values() if (finding := course(series(its)))]
    return min(found, key=lambda finding: finding.course == "recovered", default=None)


def course(found: dict[str, list[Point]]) -> Finding | None:
    """The worst that the series show."""
    losses, norms, scales = found["loss"], found["norm"], found["scale"]
    for points, cause, name in ((losses, "loss_divergence", "loss"), (norms, "nan_gradients", "gradient norm")):
        bad = [i for i, point in enumerate(points) if not math.isfinite(point.value)]
        if bad:
            first = bad[0]
            back = len(points) - 1 - bad[-1]
            if back >= 2:
                return Finding(
                    "recovered", points[first].line, f"the {name} was {points[first].value} and came back", False
                )
            known: Course = "loss_divergence" if cause == "loss_divergence" else "nan_gradients"
            return Finding(known, points[first].line, f"the {name} became {points[first].value}", True)
    if any(point.value > 0 for point in found["skipped"]):
        point = next(point for point in found["skipped"] if point.value > 0)
        return Finding("loss_divergence", point.line, "an iteration was NaN", False)
    if len(scales) >= 3 and scales[-1].value <= 1 < scales[0].value and scales[0].value >= 128:
        return Finding(
            "loss_scale_collapse",
            scales[-1].line,
            f"the loss scale fell from {scales[0].value:g} to {scales[-1].value:g}",
            True,
        )
    if collapse := _collapse(found):
        return collapse
    return _spike(losses, norms) or _divergence(losses) or _start(losses)


def _collapse(found: dict[str, list[Point]]) -> Finding | None:
    """Overflow upon overflow long after the start, where backing off is how the scale is found."""
    overflows, steps = found["overflow"], found["at"]
    if len(overflows) < 3 or not steps or steps[0].value < LATE:
        return None
    clean = sum(step.line.number > overflows[-1].line.number for step in steps)
    if clean >= 3 or len(overflows) < 0.25 * len(steps):
        return None
    return Finding(
        "loss_scale_collapse",
        overflows[0].line,
        f"gradients overflowed {len(overflows)} times in {len(steps)} steps",
        True,
    )


def _spike(losses: Sequence[Point], norms: Sequence[Point]) -> Finding | None:
    values = [point.value for point in losses]
    for i in range(3, len(values) - 1):
        before = median(values[max(0, i - 50) : i])
        rising = values[i - 1] > CALM * before  # from a calm course only
        if before <= 0 or rising or values[i] < SPIKE * before or values[i] - before < 0.5:
            continue
        calm = sum(value < CALM * before for value in values[i + 1 :])
        lines = {point.line.number for point in losses[max(0, i - 4) : i + 4]}
        usual = median([point.value for point in norms]) if norms else 0
        quiet = min((point.value for point in norms if point.value > 0), default=0)
        burst = any(
            point.value > EXPLODED * max(quiet, usual / EXPLODED) for point in norms if point.line.number in lines
        )
        says = f"the loss jumped from {before:.3g} to {values[i]:.3g}"
        if calm >= 1 and not burst:
            return Finding("recovered", losses[i].line, f"{says} and came back", False)
        if calm >= 1:
            return Finding(
                "loss_spike", losses[i].line, f"{says} with a burst of the gradient norm, and came back", True
            )
        if len(values) - i >= 3 and values[-1] > DIVERGED * before:
            return Finding("loss_divergence", losses[i].line, f"{says} and stayed there", True)
        return Finding("loss_spike", losses[i].line, says, True)
    return None


def _divergence(losses: Sequence[Point]) -> Finding | None:
    values = [point.value for point in losses]
    if len(values) >= 2 and values[-1] > RAN_AWAY * max(min(values), 1.0):
        at = next(i for i, value in enumerate(values) if value > RAN_AWAY * max(min(values[: i + 1]), 1.0))
        says = f"the loss rose from {min(values):.3g} to {values[-1]:.3g}"
        return Finding("loss_divergence", losses[at].line, says, True)
    if len(values) < 4:
        return None
    low = min(range(len(values)), key=values.__getitem__)
    tail = values[low:]
    rises = sum(b > a for a, b in pairwise(tail))
    if (
        low < len(values) - 2
        and tail[0] > 0
        and tail[-1] > DIVERGED * tail[0]
        and tail[-1] - tail[0] > 0.5
        and rises >= 0.7 * (len(tail) - 1)
    ):
        return Finding(
            "loss_divergence", losses[low + 1].line, f"the loss rose from {tail[0]:.3g} to {tail[-1]:.3g}", True
        )
    return None


def _start(losses: Sequence[Point]) -> Finding | None:
    if losses and losses[0].value > 1e4:
        return Finding("exploding_init", losses[0].line, f"the first loss is {losses[0].value:.3g}", False)
    return None
