"""Loops in the shapes people write them, profiled without a change. Witness: each counts its own steps."""

from __future__ import annotations

import weakref

import pytest
import torch
import torch.nn.functional as F
from profiled import profiled, quick, whole  # noqa: F401  quick is a fixture
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mlsys_studio.profilers.step import StepClock

pytestmark = pytest.mark.usefixtures("quick")

STEPS = 90


def net(out: int = 4) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, out))


def batches(count: int = STEPS) -> DataLoader:
    return DataLoader(TensorDataset(torch.randn(4 * count, 16), torch.randint(0, 4, (4 * count,))), batch_size=4)


def counted(run_loop, *modules, steps=STEPS, unit="optimizer step", **more):
    """Profile `run_loop`; count its steps once more with the clock alone."""
    with StepClock() as clock:
        run_loop()
    assert clock.count == steps
    with profiled(*modules) as run:
        run_loop()
    found = whole(run.profile, steps, **more)
    assert found.steps.unit.startswith(unit)
    return found


def test_a_gan():
    generator, critic = net(16), net(1)
    one, two = torch.optim.Adam(critic.parameters()), torch.optim.Adam(generator.parameters())

    def loop():
        for x, _ in batches(STEPS):
            one.zero_grad()
            (critic(x).mean() - critic(generator(x).detach()).mean()).backward()
            one.step()
            two.zero_grad()
            critic(generator(x)).mean().backward()
            two.step()

    counted(loop, generator, critic)


def test_a_wgan_with_gradient_penalty():
    """Five critic updates a step. Witness: nothing is checkpointed, so nothing is recomputed; FLOPs in closed form."""
    generator, critic = nn.Linear(16, 16), net(1)
    one, two = torch.optim.Adam(critic.parameters()), torch.optim.Adam(generator.parameters())
    done = []

    def loop():
        done.clear()
        for i, (x, _) in enumerate(batches(5 * STEPS), 1):
            one.zero_grad()
            x.requires_grad_()
            score = critic(x).sum()
            (slope,) = torch.autograd.grad(score, x, create_graph=True)
            (score + (slope.norm(dim=1) - 1).square().sum()).backward()
            one.step()
            if i % 5 == 0:
                two.zero_grad()
                critic(generator(x.detach())).mean().backward()
                two.step()
                done.append(i)

    found = counted(loop, generator, critic)
    assert len(done) == STEPS
    ledger = found.ledger
    assert ledger is not None and ledger.nanoseconds("recompute") == 0
    assert not any(f.key == "recompute" for f in found.findings)
    forward = 5 * 2 * 4 * (16 * 32 + 32) + 2 * 4 * (16 * 16 + 16 * 32 + 32)
    in_forward = sum(r.flops for r in found.operators if r.phase == "forward" and r.flops and "mm" in r.name)
    assert in_forward == forward * ledger.steps


def test_trials_of_a_search():
    """Models of one width, each with an optimizer of its own. They are freed, and what was met is still told."""
    gone = []

    def trial():
        model = net()
        optimizer = torch.optim.SGD(model.parameters())
        gone.append(weakref.ref(model))
        for x, y in batches(30):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    def loop():
        for _ in range(6):
            trial()
            assert gone[-1]() is None

    found = counted(loop, steps=180)
    assert found.loop is not None
    assert (found.loop.model, found.loop.optimizer, found.loop.loader) == ("Sequential", "SGD", "TensorDataset")
    assert found.loop.parameters == 16 * 32 + 32 + 32 * 4 + 4


def test_accumulation():
    model = net()
    optimizer = torch.optim.SGD(model.parameters())

    def loop():
        for i, (x, y) in enumerate(batches(3 * STEPS), 1):
            (F.cross_entropy(model(x), y) / 3).backward()
            if i % 3 == 0:
                optimizer.step()
                optimizer.zero_grad()

    found = counted(loop, model)
    assert found.loop is not None and not found.loop.autocast


def test_mixed_precision_with_a_scaler():
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)

    def loop():
        for x, y in batches():
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    found = counted(loop, model)
    assert found.loop is not None and found.loop.autocast


def test_lbfgs():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def loop():
        for x, y in batches():

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)

    counted(loop, model)


def test_inference():
    model = net().eval()

    def loop():
        with torch.inference_mode():
            for x, _ in batches():
                model(x)

    found = counted(loop, model, steps=STEPS, unit="batch", phases={"data", "forward"})
    assert found.loop is not None and found.loop.optimizer is None


def test_a_generator_of_batches():
    model = net()
    optimizer = torch.optim.SGD(model.parameters())

    def endless():
        while True:
            yield torch.randn(4, 16), torch.randint(0, 4, (4,))

    def loop():
        source = endless()
        for _ in range(STEPS):
            x, y = next(source)
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    found = counted(loop, model, phases={"forward", "backward", "optimizer", "other"})
    assert found.loop is not None and found.loop.loader is None


def test_a_class_that_makes_everything_itself():
    class Training:
        def __init__(self):
            self.model, self.done = net(), 0
            self.optimizer = torch.optim.AdamW(self.model.parameters())

        def step(self, x, y):
            self.optimizer.zero_grad()
            F.cross_entropy(self.model(x), y).backward()
            self.optimizer.step()
            self.done += 1

        def run(self):
            for x, y in batches():
                self.step(x, y)
            return self.done

    assert [Training().run()] == [STEPS]
    found = counted(lambda: Training().run())
    loop = found.loop
    assert loop is not None and (loop.model, loop.optimizer) == ("Sequential", "AdamW")
    assert (loop.loader, loop.workers, loop.batch_size) == ("TensorDataset", 0, 4)  # although it is gone by now


@pytest.mark.parametrize("mode", ["full", "light"])
@pytest.mark.parametrize("first", ["list of batches", "validation"])
def test_what_comes_before_the_training_is_not_the_loop(first, mode):
    """Sixty batches without an optimizer look like inference, and fill a window."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters())
    with profiled(model, mode=mode) as run:
        source = list(batches(60))
        if first == "validation":
            with torch.no_grad():
                for x, _ in batches(60):
                    model(x)
        for x, y in source:
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    found = run.profile
    assert found is not None and found.steps.unit == "optimizer step (SGD)"
    assert len(found.steps.clean) + len(found.steps.window) <= 60
    assert set(found.steps.phases) >= {"forward", "backward", "optimizer"}
    if mode == "full":
        whole(found, 60, {"forward", "backward", "optimizer"}, before=True)


@pytest.mark.parametrize("how", ["wrapper", "in place"])
def test_compiled(how):
    torch._dynamo.reset()
    model = net()
    optimizer = torch.optim.SGD(model.parameters())
    if how == "in place":
        model.compile(backend="eager")
    target = model if how == "in place" else torch.compile(model, backend="eager")

    def loop():
        for x, y in batches():
            optimizer.zero_grad()
            F.cross_entropy(target(x), y).backward()
            optimizer.step()

    found = counted(loop, model)
    assert found.loop is not None and found.loop.compiled
    assert torch._dynamo.utils.counters["graph_break"] == {}


def test_a_frozen_teacher_is_not_the_model():
    teacher, student = net(), nn.Sequential(nn.Linear(16, 4))
    optimizer = torch.optim.SGD(student.parameters())

    def loop():
        for x, _ in batches():
            with torch.no_grad():
                target = teacher(x).softmax(-1)
            F.cross_entropy(student(x), target).backward()
            optimizer.step()

    found = counted(loop, teacher, student)
    assert found.loop is not None and found.loop.parameters == 16 * 4 + 4
