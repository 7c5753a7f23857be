"""What an extra step takes is told before it is recorded: right within a factor of two, and refused where too much."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from loops import mlp, train
from profiled import profiled, quick  # noqa: F401  quick is a fixture
from torch import nn

from mlsys_studio.profilers import forecast, kineto, stacks

pytestmark = pytest.mark.usefixtures("quick")


def convolutions() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(32, 96), nn.Linear(32, 4), nn.LayerNorm(32)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).view(4, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(4, 16, 32))[
            :, 0
        ]


LOOPS = {
    "mlp": (lambda: mlp(), (8, 16), {}),
    "convolutions": (convolutions, (4, 3, 12, 12), {}),
    "attention": (Attention, (4, 16, 32), {}),
    "foreach": (convolutions, (4, 3, 12, 12), {"foreach": True}),
    "fused": (lambda: mlp(), (8, 16), {"fused": True}),
}


def loop(kind: str, steps: int = 90, python: int = 0) -> None:
    make, shape, options = LOOPS[kind]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), **options)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(shape)).sum().backward()
        for _ in range(python):
            pass
        optimizer.step()


@pytest.mark.parametrize("kind", LOOPS)
@pytest.mark.parametrize("python", [0, 20_000])
def test_the_forecast_is_within_a_factor_of_two(kind, python, monkeypatch, capfd):
    """Witness: the events that the recorded steps really had. A busy Python loop has lines and no operators."""
    takes, tracers = [], []
    finish, stop = kineto.Take.finish, stacks.LineTracer.stop

    def finished(take, clock):
        result = finish(take, clock)
        takes.append(take.count)
        return result

    def stopped(tracer):
        tracers.append(tracer.count)
        stop(tracer)

    monkeypatch.setattr(kineto.Take, "finish", finished)
    monkeypatch.setattr(stacks.LineTracer, "stop", stopped)
    with profiled(stacks=True, memory=True) as run:
        loop(kind, python=python)
    assert run.profile is not None and run.profile.lines and run.profile.memory_use
    said = capfd.readouterr().err
    told = {what: int(n.replace(",", "")) for what, n in re.findall(r"(stacks|memory): .*?([\d,]+) events", said)}
    real = {"stacks": takes[-2] + tracers[1], "memory": takes[-1]}
    for what, events in real.items():
        assert events / 2 <= told[what] <= events * 2, (what, told, real)
    assert real["stacks"] > python


def test_a_step_too_large_is_refused_and_all_else_is_kept(monkeypatch):
    monkeypatch.setattr(forecast, "free_memory", lambda: 500_000)
    with profiled(stacks=True, memory=True) as run:
        train(mlp(), 90)
    found = run.profile
    assert found is not None and found.ledger is not None and found.ledger.steps == 5
    assert not found.lines and found.memory_use is None and found.steps.count == 90
    refused = [note for note in found.ledger.notes if note.startswith("no ")]
    assert [note.partition(":")[0] for note in refused] == ["no stacks", "no memory timeline"]
    for note, option in zip(refused, ("--stacks", "--memory"), strict=True):
        assert "10% of the 488 KiB free" in note and f"profile without {option}" in note and "\n" not in note


def test_free_memory_is_the_machines_or_the_control_groups(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert forecast.free_memory(tmp_path) == 4000 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cgroup.controllers").write_text("memory\n")
    (tmp_path / "proc" / "self").mkdir()
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("700\n")
    assert forecast.free_memory(tmp_path) == 4000 * 1024
    (group / "memory.max").write_text("1000\n")
    assert forecast.free_memory(tmp_path) == 300


@pytest.mark.parametrize("option", ["stacks", "memory"])
def test_light_mode_records_nothing(option):
    from mlsys_studio.profilers.errors import UsageError

    with pytest.raises(UsageError, match='mode="light" records no step'), profiled(mode="light", **{option: True}):
        pytest.fail("the block ran")
