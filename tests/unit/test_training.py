"""What runs cost, against what their papers printed."""

import pytest

from mlsys_studio.profilers.calculators.conventions import six_n
from mlsys_studio.profilers.calculators.training import (
    co2_tonnes,
    energy_mwh,
    optimal_params,
    optimal_tokens,
    petaflop_days,
    run,
)
from mlsys_studio.profilers.errors import UsageError


@pytest.mark.parametrize(
    "hours, mwh, tonnes",
    [(82_432, 36, 14), (135_168, 59, 23), (530_432, 233, 90), (1_022_362, 449, 173)],
)
def test_llamas_energy_and_carbon(hours, mwh, tonnes):
    """Touvron et al. 2023, arXiv:2302.13971, Table 15: 400 W, a PUE of 1.1, 0.385 kg a kWh."""
    assert energy_mwh(hours, 400, 1.1) == pytest.approx(mwh, rel=0.015)
    assert co2_tonnes(energy_mwh(hours, 400, 1.1), 0.385) == pytest.approx(tonnes, rel=0.03)


def test_gpt3_took_3640_petaflop_days():
    """Brown et al. 2020, arXiv:2005.14165, Table D.1."""
    assert petaflop_days(six_n(174.6e9) * 300e9) == pytest.approx(3640, rel=0.001)


def test_megatrons_estimate_of_days():
    """Narayanan et al. 2021, arXiv:2104.04473, eq. 4 and section 5: a trillion parameters, 450 B tokens, 3072 A100."""
    trillion = run(six_n(1e12, recompute="full") * 450e9, devices=3072, flops_per_second=163e12)
    assert trillion.days == pytest.approx(84, rel=0.01)


def test_a_run_is_its_parts():
    found = run(
        8.64e19,
        devices=4,
        flops_per_second=250e12,
        tokens=2e6,
        power_w=500,
        pue=1.2,
        kg_per_kwh=0.4,
        price_per_device_hour=2,
    )
    assert (found.days, found.device_hours, found.petaflop_days) == pytest.approx((1, 96, 1))
    assert (found.energy_mwh, found.co2_tonnes) == pytest.approx((0.0576, 0.02304))
    assert (found.cost, found.cost_per_million_tokens) == pytest.approx((192, 96))


def test_what_is_not_given_is_not_said():
    found = run(1e20, devices=4, flops_per_second=1e14)
    assert found.energy_mwh is found.co2_tonnes is found.cost is None
    assert "CO2e" not in str(found)


def test_chinchilla_is_near_its_own_optimum():
    """Hoffmann et al. 2022, arXiv:2203.15556, Table 3: 67 B parameters, 1.5 T tokens, 5.76e23 FLOP."""
    assert optimal_params(5.76e23) == pytest.approx(67e9, rel=0.06)
    assert optimal_tokens(67e9) == pytest.approx(1.5e12, rel=0.12)


@pytest.mark.parametrize(
    "given, said",
    [
        ({"power_w": 400}, "pue"),
        ({"kg_per_kwh": 0.4}, "power_w"),
        ({"power_w": 400, "pue": 0.9}, "PUE of 0.9"),
        ({"price_per_device_hour": -1}, "above 0"),
    ],
)
def test_half_an_input_is_one_sentence(given, said):
    with pytest.raises(UsageError, match=said):
        run(1e20, devices=4, flops_per_second=1e14, **given)
