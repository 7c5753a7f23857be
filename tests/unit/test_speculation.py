"""Speculative decoding. Witnesses: the paper's Table 1, and drafts taken by lot."""

from __future__ import annotations

import random

import pytest

from mlsys_studio.profilers.calculators.speculation import (
    best_drafts,
    expected_tokens,
    speculative_operations,
    speculative_speedup,
)
from mlsys_studio.profilers.errors import UsageError


@pytest.mark.parametrize(
    ("acceptance", "drafts", "operations", "speed"),
    [  # Leviathan et al. 2023, arXiv:2211.17192, Table 1, where drafts cost nothing
        (0.6, 2, 1.53, 1.96),
        (0.7, 3, 1.58, 2.53),
        (0.8, 2, 1.23, 2.44),
        (0.8, 5, 1.63, 3.69),
        (0.9, 2, 1.11, 2.71),
        (0.9, 10, 1.60, 6.86),
    ],
)
def test_the_papers_table(acceptance: float, drafts: int, operations: float, speed: float):
    assert speculative_speedup(acceptance, drafts, 0) == pytest.approx(speed, abs=0.005)
    assert speculative_operations(acceptance, drafts, 0) == pytest.approx(operations, abs=0.006)


def test_tokens_a_pass_as_they_fall():
    """Drafts are taken until one is not; the pass adds one of its own."""
    draw, passes = random.Random(0), 200_000
    taken = 0
    for _ in range(passes):
        accepted = 0
        while accepted < 5 and draw.random() < 0.7:
            accepted += 1
        taken += accepted + 1
    assert expected_tokens(0.7, 5) == pytest.approx(taken / passes, rel=0.005)


def test_ends():
    assert expected_tokens(0, 4) == 1 and expected_tokens(1, 4) == 5
    assert expected_tokens(1 - 1e-9, 4) == pytest.approx(5)


@pytest.mark.parametrize("cost", [0.01, 0.1, 0.5])
def test_corollary_3_9(cost: float):
    """Some γ is faster exactly where α > c, and then at least (1 + α) / (1 + c) so."""
    assert best_drafts(cost, cost) == 0
    for acceptance in (cost + 0.05, 0.9):
        best = best_drafts(acceptance, cost)
        assert speculative_speedup(acceptance, best, cost) >= (1 + acceptance) / (1 + cost) > 1


@pytest.mark.parametrize("mistake", [(1.5, 4, 0.1), (-0.1, 4, 0.1), (0.5, 0, 0.1), (0.5, 4, -1)])
def test_mistakes_are_one_sentence(mistake: tuple):
    with pytest.raises(UsageError):
        speculative_speedup(*mistake)
