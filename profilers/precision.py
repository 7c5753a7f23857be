"""What a faster dtype would save a run: the gains of the operators it makes faster, less the losses of the others.

One autocast covers the whole forward, so what it makes slower is paid out of what it makes faster. Pure arithmetic;
`retyped` measures the ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .cost import Call

MATTERS = 0.05  # of the time of all operators asked for: a loss worth a note, or untried work that forbids a promise


@dataclass(frozen=True, slots=True)
class Sample:
    """One operator to be tried. `forward`: autocast casts its operands there, and their gradients in backward."""

    call: Call
    forward: bool


Retype = Callable[[Sequence[Sample], str], Mapping[Sample, float]]  # (samples, dtype) -> time there over time here


def net_savings(spent: Mapping[Sample, int], ratios: Mapping[Sample, float]) -> dict[Sample, float]:
    """{operator: the share of its time that the other dtype saves}, scaled so that losses are taken off.

    `spent` in ns. Nothing is saved where much was not tried: autocast casts that too, and it may lose.
    """
    if _untried(spent, ratios) > MATTERS * sum(spent.values()):
        return {}
    gained = sum(spent[s] * (1 - ratio) for s, ratio in ratios.items() if ratio < 1)
    lost = sum(spent[s] * (ratio - 1) for s, ratio in ratios.items() if ratio > 1)
    kept = max(0.0, 1 - lost / gained) if gained else 0.0
    return {s: kept * (1 - ratio) for s, ratio in ratios.items() if ratio < 1}


def reasons(dtype: str, spent: Mapping[Sample, int], ratios: Mapping[Sample, float], steps: int) -> list[str]:
    """Why less is promised than the dtype's best rate suggests: a sentence for each large loss, one for what was not tried."""
    worth = MATTERS * sum(spent.values())
    lost = {s: spent[s] * (ratio - 1) for s, ratio in ratios.items() if ratio > 1}
    said = [
        f"{dtype} would cost {s.call.name} {ns / steps / 1e6:.2f} ms a step more here ({ratios[s]:.1f} times its time): "
        "taken off what other operators would gain"
        for s, ns in sorted(lost.items(), key=lambda kv: -kv[1])
        if ns > worth
    ]
    if _untried(spent, ratios) > worth:
        names = ", ".join(dict.fromkeys(s.call.name for s in spent if s not in ratios))
        said.append(f"{names} cannot be tried in {dtype} alone, so no gain from it is promised")
    return said


def _untried(spent: Mapping[Sample, int], ratios: Mapping[Sample, float]) -> int:
    return sum(ns for s, ns in spent.items() if s not in ratios)
