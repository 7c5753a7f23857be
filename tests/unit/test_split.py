"""The roofline split of one operator, against rooflines worked out by hand."""

import random

from mlsys_studio.profilers.split import Rates, bound, split

# 1 TFLOP/s reference, 0.5 in the dtype in use, of which 0.4 is reached; 100 GB/s; 1 us to dispatch
RATES = Rates(reference=1e12, peak=0.5e12, ceiling=0.4e12, bandwidth=100e9, dispatch_ns=1000)


def test_a_compute_bound_operator_by_hand():
    parts = split(100_000, flops=20_000_000, nbytes=100, rates=RATES, again=False)
    assert parts == {
        "useful": 20_000,
        "precision": 20_000,
        "ceiling": 10_000,
        "memory": 0,
        "launch": 1000,
        "inefficiency": 49_000,
    }


def test_a_memory_bound_operator_by_hand():
    parts = split(100_000, flops=0, nbytes=5_000_000, rates=RATES, again=False)
    assert parts == {
        "useful": 0,
        "precision": 0,
        "ceiling": 0,
        "memory": 50_000,
        "launch": 1000,
        "inefficiency": 49_000,
    }


def test_a_tiny_operator_is_launch():
    assert split(8_000, flops=0, nbytes=16, rates=RATES, again=False)["launch"] == 8_000
    assert bound(0, 16, RATES) == "launch"


def test_recomputation_takes_the_place_of_useful():
    parts = split(100_000, flops=20_000_000, nbytes=100, rates=RATES, again=True)
    assert parts["recompute"] == 20_000 and "useful" not in parts


def test_parts_always_add_up_and_are_never_negative():
    rng = random.Random(0)
    for _ in range(500):
        spent, flops, nbytes = rng.randint(0, 10**6), rng.randint(0, 10**9), rng.randint(0, 10**9)
        parts = split(spent, flops, nbytes, RATES, rng.random() < 0.5)
        assert sum(parts.values()) == spent and min(parts.values()) >= 0


def test_bounds():
    assert bound(20_000_000, 100, RATES) == "compute"
    assert bound(0, 5_000_000, RATES) == "memory"
