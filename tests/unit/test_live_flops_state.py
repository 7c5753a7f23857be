"""Counting leaves everything as it was: the model, its gradients and hooks, the generators, torch's switches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mlsys_studio.profilers.calculators.live import flops
from mlsys_studio.profilers.errors import UsageError


class Busy(nn.Module):
    """A forward that writes wherever a forward can, and draws from every generator."""

    def __init__(self, ends: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm, self.first, self.rnn = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.LSTM(4, 4)
        self.last = nn.Linear(4, 4)
        self.last.weight = self.first.weight
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.calls, self.seen, self.cache = 0, [torch.ones(2)], {"x": 1}
        self.plain = torch.ones(4, requires_grad=True)
        self.ends = ends

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.steps += 1
        self.seen.append(x)
        self.cache.clear()
        self.new = x
        self.register_buffer("late", x)
        self.first.extra = "written by a parent"
        torch.manual_seed(7)
        x = x + random.random() * np.random.rand() * torch.rand(4) * self.plain
        x = nn.functional.dropout(self.norm(x), 0.5)
        return self.ends(self.last(self.rnn(self.first(x))[0]))


ENDS = {
    "well": lambda x: x,
    "in an error of its own": lambda x: 1 / 0,
    "in a refusal": lambda x: x * x.sum().item(),
    "without a backward": lambda x: x.detach(),
}


def digest(model: nn.Module) -> dict[str, Any]:
    """Every attribute of every module by identity, every tensor by its values too."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        found[path] = (type(module), module.training, id(module))
        for name, value in vars(module).items():
            inside = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else {}
            for key, item in {None: value, **inside}.items():
                values = (
                    (item.detach().clone().tolist(), item._version, id(item.grad)) if isinstance(item, Tensor) else None
                )
                found[f"{path} {name} {key}"] = (id(item), type(item), values)
    return found


def generators() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def switches() -> tuple[Any, ...]:
    sdp = torch.backends.cuda
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
        torch.backends.mkldnn.enabled,
        (sdp.flash_sdp_enabled(), sdp.math_sdp_enabled(), sdp.mem_efficient_sdp_enabled()),
        nn.Module.__call__,
        torch.utils._python_dispatch._get_current_dispatch_mode(),
        torch.get_default_dtype(),
    )


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("how", ENDS)
def test_everything_is_as_it_was(how: str, mode: str):
    model = getattr(Busy(ENDS[how]), mode)()
    for parameter in [*model.parameters(), model.plain]:
        parameter.grad = torch.ones_like(parameter)
    ran: list[str] = []
    model.first.register_forward_hook(lambda *_: ran.append("hook"))
    model.first.weight.register_hook(lambda grad: ran.append("gradient hook"))
    x = torch.ones(3, 2, 4)[:, 0].requires_grad_()
    before = digest(model), generators(), switches(), [*model.state_dict()], x.detach().tolist()
    if how == "well":
        assert flops(model, x).forward > 0
    else:
        with pytest.raises((UsageError, ZeroDivisionError)):
            flops(model, x)
    assert (digest(model), generators(), switches(), [*model.state_dict()], x.detach().tolist()) == before
    assert x.grad is None
    assert ran == ["hook"]  # the model's own hooks are a part of it; its gradients got nothing


def test_the_model_still_trains_as_its_twin_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    twin = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    twin.load_state_dict(model.state_dict())
    flops(model, (3, 4))
    losses = []
    for each in (model, twin):
        torch.manual_seed(1)
        optimizer = torch.optim.Adam(each.parameters())
        for _ in range(3):
            optimizer.zero_grad()
            loss = each(torch.ones(3, 4).normal_()).square().sum()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("gradient", [None, torch.ones(4, 4)])
def test_a_weight_outside_the_model_keeps_its_gradient(gradient: Tensor | None):
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = gradient

    class Closes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ weight

    assert flops(Closes(), (3, 4)).backward == 2 * 3 * 4 * 4
    assert weight.grad is gradient
    assert gradient is None or gradient.tolist() == [[1.0] * 4] * 4


def test_a_model_larger_than_any_memory():
    with torch.device("meta"):
        model = nn.Sequential(*(nn.Linear(2**20, 2**20, bias=False) for _ in range(4)))
    count = flops(model, (2**10, 2**20))
    assert count.forward == 4 * 2 * 2**10 * 2**40
    assert all(parameter.is_meta for parameter in model.parameters())


def test_counts_in_several_threads_leave_torchs_switches_as_they_were():
    """Witness: torch itself, asked before and after."""
    from concurrent.futures import ThreadPoolExecutor

    def switches():
        return torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()

    before = switches()
    models = [torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(20)]) for _ in range(12)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda model: flops(model, (4, 8)).forward, models))
    assert found == [20 * 2 * 4 * 8 * 8] * 12
    assert switches() == before
