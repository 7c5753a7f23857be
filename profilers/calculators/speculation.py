"""Speculative decoding: a small model drafts, the large one checks all drafts in one pass (arXiv:2211.17192).

α  chance that a draft is accepted       γ  drafts a pass       c  seconds of a draft over those of a pass
"""

from __future__ import annotations

from ..errors import UsageError
from .amounts import whole

MOST_DRAFTS = 64


def expected_tokens(acceptance: float, drafts: int) -> float:
    """Tokens a pass gives, (1 - α^(γ+1)) / (1 - α) (Leviathan et al. 2023, equation 1): from 1 to γ + 1."""
    _checked(acceptance)
    whole("drafts", drafts)
    return drafts + 1.0 if acceptance == 1 else (1 - acceptance ** (drafts + 1)) / (1 - acceptance)


def speculative_speedup(acceptance: float, drafts: int, cost: float) -> float:
    """Over decoding without drafts, (1 - α^(γ+1)) / ((1 - α)(γ c + 1)) (Theorem 3.8).

    It takes a pass over γ + 1 tokens to be as fast as over one, which holds while memory is what limits it.
    """
    return expected_tokens(acceptance, drafts) / (drafts * _cost(cost) + 1)


def speculative_operations(acceptance: float, drafts: int, cost: float) -> float:
    """FLOP over those without drafts, (1 - α)(γ c' + γ + 1) / (1 - α^(γ+1)), c' the ratio of FLOP (Theorem 3.11)."""
    return (drafts * _cost(cost) + drafts + 1) / expected_tokens(acceptance, drafts)


def best_drafts(acceptance: float, cost: float) -> int:
    """The γ with the greatest speed-up, 0 where none is faster (α <= c, Corollary 3.9); at most `MOST_DRAFTS`."""
    _checked(acceptance)
    if acceptance <= _cost(cost):
        return 0
    return max(range(1, MOST_DRAFTS + 1), key=lambda drafts: speculative_speedup(acceptance, drafts, cost))


def _checked(acceptance: float) -> None:
    if isinstance(acceptance, bool) or not isinstance(acceptance, int | float) or not 0 <= acceptance <= 1:
        raise UsageError(f"acceptance is a chance from 0 to 1, and {acceptance!r} is not")


def _cost(cost: float) -> float:
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost < float("inf"):
        raise UsageError(f"cost is a draft's time over a pass's, a number from 0, and {cost!r} is not")
    return cost
