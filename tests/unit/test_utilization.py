"""MFU and HFU both ways, against published runs."""

import pytest

from mlsys_studio.profilers.calculators.conventions import six_n
from mlsys_studio.profilers.calculators.presets import preset
from mlsys_studio.profilers.calculators.utilization import Peak, peak_of, utilization, utilization_of
from mlsys_studio.profilers.errors import UsageError

A100 = Peak(312e12, "bfloat16", "spec")
TPU = Peak(275e12, "bfloat16", "spec")


def test_palm_540b_as_its_paper_counts_it():
    """arXiv:2204.02311, app. B: 6144 chips, 238.3 k tokens/s: 45.7 % without attention, 46.2 % with it."""
    plain = utilization(six_n(540e9), TPU, devices=6144, tokens_per_second=238_300)
    attention = six_n(540e9, layers=118, width=48 * 256, sequence=2048)
    assert plain.mfu == pytest.approx(0.457, abs=0.0005)
    assert utilization(attention, TPU, devices=6144, tokens_per_second=238_300).mfu == pytest.approx(0.462, abs=0.0005)


@pytest.mark.parametrize(
    "name, devices, batch, seconds, mfu, hfu",
    [  # Korthikanti et al. 2022, arXiv:2205.05198, Table 5
        ("megatron-22b", 8, 4, 1.10, 41.5, 43.7),
        ("megatron-175b", 64, 64, 13.75, 51.4, 52.8),
        ("megatron-529.6b", 280, 280, 37.83, 56.0, 57.0),
        ("megatron-1008b", 512, 512, 71.49, 56.3, 57.0),
    ],
)
def test_megatrons_runs_with_selective_recomputation(name, devices, batch, seconds, mfu, hfu):
    found = utilization_of(
        preset(name),
        A100,
        sequence=2048,
        batch=batch,
        devices=devices,
        recompute="selective",
        convention="megatron22",
        iteration_seconds=seconds,
    )
    assert 100 * found.mfu == pytest.approx(mfu, rel=0.005)
    assert 100 * found.hfu == pytest.approx(hfu, rel=0.005)


def test_every_rate_leads_to_the_others():
    first = utilization(6e9, A100, devices=8, hardware_flops_per_token=8e9, mfu=0.4, tokens_per_iteration=1e6)
    for rate in ("tokens_per_second", "iteration_seconds", "flops_per_second", "mfu"):
        again = utilization(
            6e9, A100, devices=8, hardware_flops_per_token=8e9, tokens_per_iteration=1e6, **{rate: getattr(first, rate)}
        )
        for figure in ("mfu", "hfu", "tokens_per_second", "iteration_seconds", "flops_per_second"):
            assert getattr(again, figure) == pytest.approx(getattr(first, figure), rel=1e-12)
    assert first.tokens_per_second == pytest.approx(0.4 * 8 * 312e12 / 6e9)
    assert first.hfu / first.mfu == pytest.approx(8 / 6)


@pytest.mark.parametrize(
    "given, said",
    [  # 8 x 312e12 / 6e9 = 416,000 tokens a second is the end
        ({"tokens_per_second": 500_000}, r"tokens_per_second=500000 is 120.2 % of the peak.*at most 416,000"),
        ({"iteration_seconds": 1, "tokens_per_iteration": 832_000}, "iteration_seconds=1 is 200.0 %.*at least 2.00"),
        ({"flops_per_second": 400e12}, r"\(400 TFLOP/s\) is 128.2 %.*at most 312 TFLOP/s, of one"),
        ({"mfu": 1.2}, "mfu=1.2 is 120.0 %.*at most 1.00"),
        ({"mfu": 0.4, "tokens_per_second": 1}, "exactly one"),
        ({}, "exactly one"),
        ({"iteration_seconds": 1}, "tokens_per_iteration"),
        ({"tokens_per_second": -1}, "tokens_per_second must be a number above 0"),
        ({"tokens_per_second": float("nan")}, "above 0"),
        ({"mfu": 0.4, "hardware_flops_per_token": 1e9}, "cannot do less"),
    ],
)
def test_a_rate_that_cannot_be_names_the_input_and_its_bound(given, said):
    with pytest.raises(UsageError, match=said):
        utilization(6e9, A100, devices=8, **given)


def test_mfu_may_not_be_100_percent_where_a_third_is_recomputed():
    with pytest.raises(UsageError, match=r"at most 0\.75"):
        utilization(6e9, A100, hardware_flops_per_token=8e9, mfu=0.9)


@pytest.mark.parametrize(
    "device, dtype, said",
    [("H101", "bfloat16", "H101"), ("V100-SXM2-32GB", "bf16", "bfloat16"), (None, "bf16", "device")],
)
def test_an_unknown_peak_is_no_number(device, dtype, said):
    with pytest.raises(UsageError, match=said):
        peak_of(device, dtype)


def test_a_peak_by_hand_says_so():
    assert peak_of(None, "bf16", 1e15) == Peak(1e15, "bfloat16", "given by hand")
