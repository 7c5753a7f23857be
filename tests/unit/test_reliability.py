"""Checkpoints, goodput and spares against runs that fail at random, and against published interruptions."""

import math
import random

import pytest

from mlsys_studio.profilers.calculators.reliability import available, daly, goodput, reliability, spares, young
from mlsys_studio.profilers.errors import UsageError

HOUR = 3600.0


def simulated(mtbf: float, write: float, restart: float, interval: float, segments: int = 20_000) -> float:
    """Share of the time that is kept: segments of training and a checkpoint, begun again after each failure."""
    dice = random.Random(7)
    clock = 0.0
    for _ in range(segments):
        while (until := dice.expovariate(1 / mtbf)) < interval + write:
            clock += until
            while (broken := dice.expovariate(1 / mtbf)) < restart:  # it may fail again while it restarts
                clock += broken
            clock += restart
        clock += interval + write
    return segments * interval / clock


@pytest.mark.parametrize(
    "mtbf, write, restart, interval",
    [(3 * HOUR, 60, 600, 1200), (HOUR, 120, 300, 900), (24 * HOUR, 30, 900, 2 * HOUR), (1000, 100, 200, 400)],
)
def test_goodput_is_what_a_simulation_keeps(mtbf, write, restart, interval):
    assert goodput(mtbf, write, restart, interval) == pytest.approx(simulated(mtbf, write, restart, interval), rel=0.02)


@pytest.mark.parametrize("mtbf, write", [(3 * HOUR, 60), (HOUR, 120), (24 * HOUR, 300), (1000, 100)])
def test_dalys_interval_is_the_best_one(mtbf, write):
    """Witness: the top of the goodput's curve, by ternary search."""
    low, high = 1.0, 3 * mtbf
    for _ in range(200):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if goodput(mtbf, write, 300, left) < goodput(mtbf, write, 300, right):
            low = left
        else:
            high = right
    assert daly(mtbf, write) == pytest.approx(low, rel=0.001)
    assert goodput(mtbf, write, 300, daly(mtbf, write)) >= goodput(mtbf, write, 300, young(mtbf, write))


def test_young_is_what_daly_tends_to():
    assert young(3 * HOUR, 60) == pytest.approx(math.sqrt(2 * 60 * 3 * HOUR))
    assert daly(1e9, 1) == pytest.approx(young(1e9, 1), rel=1e-3)
    assert daly(100, 200) == 100  # a checkpoint of twice the MTBF


def test_llama_3_405b():
    """Llama 3 (arXiv:2407.21783), 3.3.4: 419 unexpected interruptions in 54 days on 16,384 GPUs, over 90 % effective."""
    between = 54 * 24 * HOUR / 419
    run = reliability(16_384, device_mtbf=between * 16_384, write=30, restart=10 * 60)
    assert run.mtbf == pytest.approx(3.09 * HOUR, rel=0.01)
    assert run.device_mtbf / (365.25 * 24 * HOUR) == pytest.approx(5.8, rel=0.01)  # years a GPU
    assert run.goodput > 0.85


def test_twice_the_devices_fail_twice_as_often_and_never_train_better():
    small, large = (reliability(n, device_mtbf=5e4 * HOUR, write=60, restart=600) for n in (1024, 2048))
    assert large.mtbf == pytest.approx(small.mtbf / 2) and large.goodput < small.goodput


@pytest.mark.parametrize("needed, up, confidence", [(8, 0.99, 0.99), (100, 0.995, 0.999), (2048, 0.998, 0.99)])
def test_spares_are_just_enough(needed, up, confidence):
    """Witness: exact binomial sums in whole numbers of combinations."""

    def enough(extra: int) -> float:
        n = needed + extra
        return sum(math.comb(n, down) * (1 - up) ** down * up ** (n - down) for down in range(extra + 1))

    found = spares(needed, up, confidence)
    assert enough(found) >= confidence and (found == 0 or enough(found - 1) < confidence)


def test_spares_by_lot():
    dice = random.Random(3)
    needed, up = 50, 0.98
    units = needed + spares(needed, up, 0.99)
    fine = sum(sum(dice.random() < up for _ in range(units)) >= needed for _ in range(4000)) / 4000
    assert fine >= 0.985


def test_many_units_are_no_long_search():
    """Witness: the normal approximation of the binomial, 2.33 standard deviations above the mean."""
    needed, up = 100_000, 0.9
    units = needed + spares(needed, up, 0.99)
    assert units * up - 2.33 * math.sqrt(units * up * (1 - up)) == pytest.approx(needed, rel=1e-3)


def test_what_is_always_up_needs_no_spare():
    assert spares(1000, 1.0) == 0
    assert available(100 * HOUR, HOUR) == pytest.approx(100 / 101)


def test_it_shows_itself_in_eighty_columns():
    text = str(reliability(16_384, device_mtbf=50_000 * HOUR, write=30, restart=600))
    assert "Daly 2006" in text and "Young 1974" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: young(0, 60), "mtbf must be a number above 0"),
        (lambda: goodput(HOUR, -1, 0, 60), "write and restart"),
        (lambda: spares(8, 1.5), r"availability in \(0, 1\]"),
        (lambda: reliability(0, device_mtbf=1e6, write=1, restart=1), "devices must be a whole number"),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(UsageError, match=said):
        call()
