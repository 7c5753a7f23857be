"""On a real GPU: one profile of a loop whose facts are known. `make gpu` runs these and the truth test."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytestmark = pytest.mark.gpu

WIDTH, ROWS, LAYERS = 4096, 4096, 4


def build(dtype: torch.dtype = torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))).to("cuda", dtype)
    return model, torch.optim.SGD(model.parameters(), lr=1e-6), torch.randn(ROWS, WIDTH, device="cuda", dtype=dtype)


def profiled(steps: int = 40, dtype: torch.dtype = torch.float32, between=lambda loss: None):
    from mlsys_studio.profilers.recording import Recording

    model, optimizer, x = build(dtype)
    with Recording() as recording:
        for _ in range(steps):
            loss = F.mse_loss(model(x), x)
            loss.backward()
            between(loss)
            optimizer.step()
            optimizer.zero_grad()
    assert recording.profile is not None and recording.profile.ledger is not None, recording.profile
    return recording.profile


def test_a_ledger_adds_up_and_its_flops_are_the_closed_form():
    profile = profiled(dtype=torch.bfloat16)
    ledger = profile.ledger
    assert sum(e.nanoseconds for e in ledger.entries) == ledger.wall_ns
    product = 2 * ROWS * WIDTH * WIDTH
    assert ledger.flops == ledger.steps * product * (3 * LAYERS - 1)  # the first layer has no input gradient
    assert 0.2 < ledger.mfu < 1


def test_a_known_device_has_its_published_peak():
    basis = profiled(dtype=torch.bfloat16).ledger.basis
    assert basis.dtype == "bfloat16"
    if "H200" in torch.cuda.get_device_name() or "H100" in torch.cuda.get_device_name():
        assert basis.peak_flops == pytest.approx(989.4e12, rel=0.01)


def test_float32_matmuls_are_a_precision_finding():
    profile = profiled()
    assert profile.ledger.basis.dtype_used == "float32"
    assert profile.ledger.nanoseconds("precision") > 0.3 * profile.ledger.wall_ns


def test_a_sleep_behind_a_busy_device_is_no_loss_and_a_longer_one_is():
    busy = profiled()
    step = busy.steps.median / 1e9
    hidden = profiled(between=lambda loss: time.sleep(0.3 * step))
    shown = profiled(between=lambda loss: time.sleep(2 * step))
    assert hidden.steps.median < 1.1 * busy.steps.median
    assert shown.steps.median > 1.5 * busy.steps.median
    idle = ("python", "unattributed", "launch")
    assert hidden.ledger.nanoseconds(*idle) < 0.1 * hidden.ledger.wall_ns < shown.ledger.nanoseconds(*idle)


def test_the_clock_never_synchronises():
    from mlsys_studio.profilers.step import StepClock

    model, optimizer, x = build()
    model(x)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with StepClock() as clock:
            for _ in range(5):
                F.mse_loss(model(x), x).backward()
                optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert clock.count == 5
