"""Amdahl and Gustafson against a job whose parts are timed one by one."""

import pytest

from mlsys_studio.profilers.calculators.scaling import amdahl, gustafson
from mlsys_studio.profilers.errors import UsageError


@pytest.mark.parametrize("devices", [1, 2, 8, 1024])
def test_a_fixed_job(devices):
    serial, parallel = 3.0, 17.0
    one, many = serial + parallel, serial + parallel / devices
    assert amdahl(serial / one, devices) == pytest.approx(one / many)


@pytest.mark.parametrize("devices", [1, 2, 8, 1024])
def test_a_job_that_grows_with_its_devices(devices):
    serial, parallel = 3.0, 17.0  # of the run on all devices
    alone = serial + parallel * devices
    assert gustafson(serial / (serial + parallel), devices) == pytest.approx(alone / (serial + parallel))


def test_published():
    """Gustafson 1988: a serial share of 0.4 % on 1024 processors scales to about 1020; Amdahl's limit is 1/serial."""
    assert gustafson(0.004, 1024) == pytest.approx(1020, abs=1)
    assert amdahl(0.05, 10**9) == pytest.approx(20, rel=1e-6)


@pytest.mark.parametrize("law", [amdahl, gustafson])
@pytest.mark.parametrize(
    "serial, devices, said", [(1.2, 8, "a share of the time"), (0.1, 0, "at least 1"), (0.1, 2.5, "whole")]
)
def test_bad_input(law, serial, devices, said):
    with pytest.raises(UsageError, match=said):
        law(serial, devices)
