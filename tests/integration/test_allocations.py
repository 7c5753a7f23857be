"""The memory of a step: exact where it is known, in closed form where it is computed, and a planted tensor is found."""

from __future__ import annotations

import gc
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from loops import mlp, train
from profiled import MADE_UP, profiled, quick  # noqa: F401  quick is a fixture
from torch import nn

from mlsys_studio.profilers import ceilings, recorder
from mlsys_studio.profilers.allocations import (
    CATEGORIES,
    Change,
    Instant,
    Known,
    MemoryUse,
    account,
    thinned,
)
from mlsys_studio.profilers.timeline import Labels

pytestmark = pytest.mark.usefixtures("quick")

WIDTH, BATCH, LAYERS = 128, 512, 6
FLOAT = 4
SOAK = 2_400  # profiles


def by_category(instant: Instant) -> dict[str, int]:
    return dict(zip(CATEGORIES, instant.bytes, strict=True))


def measured(each=lambda: None, before=None, steps: int = 80) -> MemoryUse:
    """An MLP of LAYERS linear layers and sigmoids under AdamW; `each` runs between forward and backward."""
    net = nn.Sequential(*(part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.Sigmoid())))
    optimizer = torch.optim.AdamW(net.parameters())
    x = torch.randn(BATCH, WIDTH)
    kept = before() if before else None
    with profiled(net, memory=True) as run:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = net(x).sum()
            planted = each()
            loss.backward()
            del planted, loss
            optimizer.step()
    del kept
    assert run.profile is not None and run.profile.memory_use is not None, run.profile and run.profile.notes
    return run.profile.memory_use


def test_a_networks_memory_is_that_of_its_formula():
    """Witness: arithmetic. A sigmoid keeps its output, a linear layer its input, which is the sigmoid before."""
    use = measured()
    parameters = FLOAT * LAYERS * (WIDTH * WIDTH + WIDTH)
    first, last = by_category(use.timeline[0]), by_category(use.timeline[-1])
    for instant in use.timeline:
        assert by_category(instant)["parameters"] == parameters
        assert by_category(instant)["optimizer state"] == 2 * parameters + 2 * LAYERS * FLOAT  # two moments, a counter
    assert first["gradients"] == last["gradients"] == parameters
    output = FLOAT * BATCH * WIDTH
    # Autograd keeps an output a layer. Highest: the last sigmoid beside its input; in backward, a gradient beside the next.
    peak = max(by_category(i)["activations and temporaries"] for i in use.timeline)
    assert peak == pytest.approx((LAYERS + 1) * output, rel=0.02)
    assert min(by_category(i)["gradients"] for i in use.timeline) == 0  # zero_grad gives them back
    assert last["activations and temporaries"] < 1.1 * FLOAT * WIDTH * WIDTH  # the optimizer's last temporary
    assert use.largest[-1].shapes == f"{BATCH}x{WIDTH}" or use.largest[0].bytes == output


def test_a_tensor_kept_alive_is_named_at_the_peak():
    use = measured(before=lambda: torch.zeros(16 * 2**20))
    assert use.largest[0].bytes == 64 * 2**20 and use.largest[0].category == "other tensors"
    assert use.largest[0].operator == "" and use.largest[0].shapes == str(16 * 2**20)
    others = by_category(use.peak)["other tensors"] - 64 * 2**20 - FLOAT * BATCH * WIDTH  # x
    assert 0 <= others < 2**18  # what other tests have left in this process


def test_a_tensor_made_in_the_step_is_named_with_its_operator():
    use = measured(each=lambda: torch.ones(2**20, 4).add(1))
    largest = use.largest[0]
    assert largest.bytes == FLOAT * 4 * 2**20 and largest.category == "activations and temporaries"
    assert largest.operator in ("aten::ones", "aten::add") and str(largest.phase) == "other"
    assert use.peak.phase in ("other", "backward") and len(use.timeline) <= 500


def test_gradients_that_stay_are_there_all_the_time():
    """Accumulation: no zero_grad in the step, so the gradients never go."""
    net = nn.Linear(WIDTH, WIDTH)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-9)
    with profiled(net, memory=True) as run:
        for _ in range(80):
            net(torch.ones(BATCH, WIDTH)).sum().backward()
            optimizer.step()
    assert run.profile is not None and run.profile.memory_use is not None
    held = {by_category(i)["gradients"] for i in run.profile.memory_use.timeline}
    assert held == {FLOAT * (WIDTH * WIDTH + WIDTH)}


def soak(start: int, count: int) -> int:
    """Profiles `start` to `start + count`, by their numbers of all shapes; how many recorded a step's memory."""
    torch.set_num_threads(1)
    gc.freeze()  # what is imported: walking it again and again would take most of the time
    ceilings.measure, plan, recorded = lambda *_, **__: MADE_UP, recorder.Schedule, 0
    for number in range(start, start + count):
        dice = random.Random(number)
        few = {"warm": 1, "warm_most": 1, "clean": 1, "clean_ns": 0, "window": dice.randint(1, 3)}
        recorder.Schedule = lambda few=few, dice=dice, **_: plan(**few, disturbed=dice.choice((-1.0, 1e9)))
        with profiled(memory=True, stacks=dice.random() < 0.3) as run:
            train(mlp(), dice.randint(10, 40))
        recorded += run.profile is not None and run.profile.memory_use is not None
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, SOAK, SOAK // 4))
def test_soak(start):
    """In a child, so that a crash of the interpreter is seen. One profile in 130 was one: see `kineto`."""
    here = Path(__file__).parent
    code = f"""
import sys
sys.path[:0] = {[str(here), str(here.parent / "unit")]!r}
from test_allocations import soak
print(soak({start}, {SOAK // 4}))
"""
    command = [sys.executable, "-X", "faulthandler", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > SOAK // 4 * 0.5


@pytest.mark.gpu
def test_on_cuda_the_peak_is_the_allocators_own():
    """Witness: the allocator's own maximum over the loop, whose steps are all alike."""
    net = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(4))).cuda()
    optimizer = torch.optim.AdamW(net.parameters())
    kept = torch.zeros(16 * 2**20, device="cuda")
    with profiled(net, memory=True) as run:
        for step in range(90):
            if step == 10:
                torch.cuda.reset_peak_memory_stats()
            optimizer.zero_grad()
            net(torch.ones(2048, 1024, device="cuda")).sum().backward()
            optimizer.step()
        most = torch.cuda.max_memory_allocated()
    assert run.profile is not None and run.profile.memory_use is not None, run.profile and run.profile.notes
    use = run.profile.memory_use
    assert use.device == "cuda" and use.peak.total == pytest.approx(most, rel=0.02)
    assert by_category(use.peak)["parameters"] == FLOAT * 4 * (1024 * 1024 + 1024)
    assert by_category(use.timeline[-1])["gradients"] == FLOAT * 4 * (1024 * 1024 + 1024)
    assert max(block.bytes for block in use.largest) == kept.nbytes


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_the_account_of_a_step_written_by_hand():
    """Bytes by hand. Before: parameters 100 at 1, a gradient 10 at 2, another tensor 7 at 3; 5 left from the step ahead."""
    before = {1: Known("parameters", 100), 2: Known("gradients", 10), 3: Known("other tensors", 7)}
    after = {1: Known("parameters", 100), 5: Known("gradients", 10)}
    seen = [
        Change(1, 4, 5, "aten::lead"),  # the step ahead
        Change(2, 2, 10),  # the gradient is of the step ahead, too
        Change(10, 2, -10),  # zero_grad
        Change(20, 9, 50, "aten::mm", "2x3"),
        Change(30, 5, 3, "aten::gone"),  # at the place where the gradient will be
        Change(31, 5, -3),
        Change(40, 5, 10, "aten::mm"),
        Change(50, 9, -50),
    ]
    phases = Labels([(0, "other"), (15, "forward"), (35, "backward")])
    use = account("cpu", seen, before, after, (5, 60), phases)
    assert [(i.time, i.phase, by_category(i)) for i in use.timeline] == [
        (at, phase, dict(zip(CATEGORIES, (100, 0, 7, gradients, rest), strict=True)))
        for at, phase, gradients, rest in (
            (0, "other", 10, 5),
            (5, "other", 0, 5),
            (15, "forward", 0, 55),
            (25, "forward", 0, 58),
            (26, "forward", 0, 55),
            (35, "backward", 10, 55),
            (45, "backward", 10, 5),
        )
    ]
    assert use.peak.time == 35 and use.peak.total == 172
    assert [(b.operator, b.shapes, b.phase, b.bytes) for b in use.largest] == [
        ("aten::mm", "2x3", "forward", 50),
        ("", "", "", 7),
        ("aten::lead", "", "before", 5),
    ]


def test_what_the_device_counts_beyond_the_known_is_other_tensors():
    before = {1: Known("parameters", 100)}
    use = account("cuda", [], before, before, (0, 10), Labels([]), allocated=512)
    assert by_category(use.timeline[0]) == dict.fromkeys(CATEGORIES, 0) | {"parameters": 100, "other tensors": 412}


def test_thinning_keeps_the_peak_and_the_order():
    points = [Instant(t, "", (t * 7919 % 1000, 0, 0, 0, 0)) for t in range(10_000)]
    kept = list(thinned(points, 10_000, 100))
    assert len(kept) == 100 and kept == sorted(kept, key=lambda i: i.time)
    assert max(i.total for i in kept) == max(i.total for i in points)
