"""One operator's time, split by what explains it: the roofline, from the top down.

Each cause takes what it can prove, or what is left of the operator's time, whichever is less; so the parts are never
negative and always add up. A proof capped by what is left means that a ceiling was beaten.
"""

from __future__ import annotations

from dataclasses import dataclass

TINY = 10  # dispatch floors granted to an operator whose limits lie below one: measured, with 1 a loop of tiny
# operators left 24-30 % of its time in `inefficiency`


@dataclass(frozen=True, slots=True)
class Rates:
    """What this device does with one operator's dtype. FLOP/s and B/s."""

    reference: float  # spec peak of the reference dtype
    peak: float  # spec peak of the dtype in use
    ceiling: float  # measured rate of the dtype in use, <= peak
    bandwidth: float  # measured copy rate at this working set
    dispatch_ns: float


def limits(flops: int, nbytes: int, rates: Rates) -> tuple[float, float]:
    """(compute, memory): the least this operator can take on this device, ns."""
    return 1e9 * flops / rates.ceiling, 1e9 * nbytes / rates.bandwidth


def split(
    spent: int, flops: int, nbytes: int, rates: Rates, again: bool, faster: float | None = None
) -> dict[str, int]:
    """{cause: ns} adding up to `spent` (ns). `again`: the operator runs inside a recomputation.

    `faster`: what the reference dtype saves, ns, where that was measured; else what the two peaks promise. Peak that
    the operator does not reach in the reference dtype either is `ceiling`.
    """
    compute, memory = limits(flops, nbytes, rates)
    at_reference = 1e9 * flops / rates.reference
    if faster is None:
        faster = 1e9 * flops / rates.peak - at_reference
    tiny = max(compute, memory) < rates.dispatch_ns
    claims = (
        ("recompute" if again else "useful", at_reference),
        ("precision", faster),
        ("ceiling", compute - at_reference - faster),
        ("memory", memory - compute),
        ("launch", rates.dispatch_ns * (TINY if tiny else 1)),
    )
    parts, left = {}, spent
    for cause, claim in claims:
        parts[cause] = taken = min(left, max(0, int(claim)))
        left -= taken
    parts["inefficiency"] = left
    return parts


def bound(flops: int, nbytes: int, rates: Rates) -> str:
    """What limits the operator: "compute", "memory", or "launch" where both limits lie below the dispatch floor."""
    compute, memory = limits(flops, nbytes, rates)
    if max(compute, memory) < rates.dispatch_ns:
        return "launch"
    return "compute" if compute >= memory else "memory"
