"""What users get wrong or cannot help: one clear sentence, nothing left behind, what was measured kept."""

from __future__ import annotations

import functools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from loops import loader, mlp
from profiled import profiled, quick, whole  # noqa: F401  quick is a fixture
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlsys_studio
from mlsys_studio.profilers import recorder
from mlsys_studio.profilers.profile import Profile

pytestmark = pytest.mark.usefixtures("quick")


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def train(model: nn.Module, steps: int = 80, each=lambda i: None, optimizer=None) -> int:
    optimizer = optimizer or torch.optim.SGD(model.parameters())
    for i in range(steps):
        F.cross_entropy(model(torch.randn(4, 16)), torch.randint(0, 4, (4,))).backward()
        optimizer.step()
        each(i)
    return steps


def shown(found: Profile | None) -> Profile:
    """It displays in every form, whatever is in it."""
    assert found is not None
    assert found.text() and found.html() and Profile.from_json(found.to_json()) == found
    return found


def test_a_block_without_a_step():
    with profiled() as run:
        sum(range(1000))
    found = shown(run.profile)
    assert found.ledger is None and found.steps.median == 0 and not found.findings
    (note,) = found.notes
    assert note.startswith("no training step was seen") and "put the loop itself inside" in note


def test_a_loader_without_a_batch():
    model = net()
    optimizer = torch.optim.SGD(model.parameters())
    with profiled(model) as run:
        for (x,) in DataLoader(TensorDataset(torch.zeros(0, 16))):
            model(x).sum().backward()
            optimizer.step()
    assert "no training step was seen" in shown(run.profile).notes[0]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("after", [0, 2, 6, 30, 79])
def test_a_block_that_raises_keeps_its_steps(error, after):
    model = net()

    def each(i):
        if i == after:
            raise error("theirs")

    with pytest.raises(error, match="theirs"), profiled(model) as run:
        train(model, each=each)
    found = shown(run.profile)
    assert any(f"ended early with {error.__name__}" in note for note in found.notes)
    roles = (*found.steps.warmup, *found.steps.clean, *found.steps.window)
    assert 1 <= len(roles) <= after + 1
    if after == 79:
        assert found.ledger is not None


@pytest.mark.parametrize("steps", range(1, 24, 2))
def test_a_loop_that_ends_early(steps):
    model = net()
    with profiled(model) as run:
        train(model, steps)
    found = shown(run.profile)
    assert len(found.steps.warmup) + len(found.steps.clean) + len(found.steps.window) <= steps
    assert found.steps.median > 0
    assert found.ledger is not None or any(note.startswith("no ledger: ") for note in found.notes)


@pytest.mark.parametrize(
    ("steps", "says", "profiled_steps"),
    [
        (8, "no ledger: the loop ended after 8 steps, before any was profiled; run it for 25 or more", 0),
        (9, "the loop was too short for a window: the ledger is of one step", 1),
        (10, "the loop was too short for a window: the ledger is of one step", 1),
        (11, "the loop ended inside the window: 1 of 5 steps", 1),
        (13, "the loop ended inside the window: 3 of 5 steps", 3),
        (15, "", 5),
    ],
)
def test_a_window_cut_short_is_said_so(steps, says, profiled_steps, monkeypatch):
    """3 warm-up, 5 clean, 1 with shapes, 1 to settle, 5 in the window. 25: clean steps may have been up to 15."""
    short = functools.partial(recorder.Schedule, warm_most=3, clean_ns=0, disturbed=1e9)
    monkeypatch.setattr(recorder, "Schedule", short)
    model = net()
    with profiled(model) as run:
        train(model, steps)
    found = shown(run.profile)
    assert (found.ledger.steps if found.ledger else 0) == profiled_steps
    notes = [*found.notes, *(found.ledger.notes if found.ledger else ())]
    assert sum(says in note for note in notes) == 1 if says else not found.notes
    if found.ledger:
        assert sum(e.nanoseconds for e in found.ledger.entries) == found.ledger.wall_ns


def test_one_training_after_another():
    """Folds of a cross-validation: each has a model and an optimizer of its own."""
    with profiled() as run:
        for _ in range(3):
            train(net(), 90)
    found = whole(run.profile, 270, {"forward", "backward", "optimizer"})
    assert len(found.steps.clean) > 5


def test_a_model_on_two_devices():
    model = net()
    model.extra = nn.Parameter(torch.zeros(2, device="meta"))
    optimizer = torch.optim.SGD(model.parameters())
    with profiled(model) as run:
        for _ in range(80):
            model(torch.randn(4, 16)).sum().backward()
            optimizer.step()
    found = shown(run.profile)
    assert found.ledger is None and len(found.steps.clean) > 5
    assert any("several devices (cpu, meta)" in note for note in found.notes)


def test_operators_with_odd_arguments():
    model = net()
    sparse = nn.Embedding(10, 16, sparse=True)
    nested = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)])

    def each(_):
        torch.mm(torch.zeros(0, 3), torch.zeros(3, 5))
        torch.cat([torch.zeros(0), torch.zeros(2, 0).flatten()])
        torch.full((3,), float("nan")).sum() / 0
        (nested * 2).to_padded_tensor(0.0)
        torch.sparse.mm(torch.eye(4).to_sparse(), torch.ones(4, 2))
        torch.empty(3, device="meta") + 1
        sparse(torch.tensor([1])).sum().backward()
        torch.tensor(1).item()
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        torch.fft.rfft(torch.ones(8)).abs()
        torch.empty_strided((0, 3), (1, 1))

    with profiled(model) as run:
        train(model, each=each)
    whole(run.profile, 80, {"forward", "backward", "optimizer"})


def test_a_loss_that_is_not_a_number():
    model = net()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    with profiled(model) as run:
        train(model)
    whole(run.profile, 80, {"forward", "backward", "optimizer"})


def test_another_profiler_inside_the_loop():
    model = net()
    with profiled(model) as run, torch.profiler.profile() as theirs:
        train(model)
    found = shown(run.profile)
    assert found.ledger is None and len(found.steps.clean) > 5
    assert any("another torch profiler is running" in note for note in found.notes)
    assert len(theirs.events()) > 0


def test_another_profiler_that_starts_inside_our_window():
    model = net()
    raised = []

    def each(i):
        try:
            with torch.profiler.profile():
                torch.ones(1)
        except RuntimeError as error:
            raised.append(error)

    with profiled(model) as run:
        train(model, each=each)
    shown(run.profile)


def test_a_profile_inside_a_profile():
    model = net()
    with profiled(model) as outer:
        with pytest.raises(mlsys_studio.UsageError, match="already running"), mlsys_studio.profile():
            pass
        train(model)
    whole(outer.profile, 80, {"forward", "backward", "optimizer"})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "fast"}, 'use "full" or "light"'),
        ({"steps": 0}, "a whole number from 1 to 1000"),
        ({"steps": "5"}, "steps='5'.*a whole number from 1 to 1000"),
    ],
)
def test_options_are_refused_before_anything_runs(options, says):
    with pytest.raises(mlsys_studio.UsageError, match=says):
        mlsys_studio.profile(**options)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_of_either_kind(context):
    model = net()
    optimizer = torch.optim.SGD(model.parameters())
    loader = DataLoader(
        TensorDataset(torch.randn(200, 16)), batch_size=4, num_workers=1, multiprocessing_context=context
    )
    with profiled(model) as run:
        for (x,) in loader:
            model(x).sum().backward()
            optimizer.step()
    found = shown(run.profile)
    assert found.loop is not None and found.loop.workers == 1
    assert len(found.steps.clean) > 5


def test_a_process_forked_inside_the_loop_is_left_alone():
    model = net()

    def each(i):
        if i == 40:
            child = os.fork()
            if not child:
                try:
                    nn.Linear(2, 2)(torch.ones(2)).sum().backward()
                finally:
                    os._exit(0)
            assert os.waitpid(child, 0)[1] == 0

    with profiled(model) as run:
        train(model, each=each)
    shown(run.profile)


# -- without torch -----------------------------------------------------------------------------------------------------


@pytest.fixture
def without_torch(tmp_path):
    """The command, in a Python that finds no torch; nor do the processes it starts."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['torch'] = sys.modules['triton'] = None\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}

    def mlsys(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mlsys_studio.studio.command", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)

    return mlsys


def test_without_torch_help_works(without_torch):
    done = without_torch("--help")
    assert done.returncode == 0 and "profile" in done.stdout
    assert without_torch("profile", "--help").returncode == 0


def test_without_torch_the_doctor_says_so(without_torch):
    done = without_torch("doctor")
    assert done.returncode == 1 and "FAIL" in done.stdout and "torch" in done.stdout
    assert "Traceback" not in done.stderr


def test_without_torch_profile_says_how_to_install_it(without_torch, tmp_path):
    script = tmp_path / "s.py"
    script.write_text("raise SystemExit('never run')")
    done = without_torch("profile", str(script))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.strip().splitlines() == [
        "mlsys: profiling needs torch, which is not installed: pip install 'mlsys-studio[torch]'"
    ]


def test_without_torch_a_saved_profile_can_be_read(without_torch, tmp_path):
    with profiled() as run:
        pass
    saved = tmp_path / "p.json"
    saved.write_text(shown(run.profile).to_json())
    done = without_torch("report", str(tmp_path / "p.html"), "--saved", str(saved))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "p.html").read_text().startswith("<!doctype html>")


def test_a_decorated_function(capsys):
    @mlsys_studio.profile
    def run(model, steps):
        "Its own words."
        return train(model, steps)

    assert run.profile is None and run.__doc__ == "Its own words."
    assert run(net(), 70) == 70
    assert whole(run.profile, 70, {"forward", "backward"}).title.endswith("run")


def test_a_decorated_coroutine():
    import asyncio

    @mlsys_studio.profile(mode="light", title="mine")
    async def run(model):
        await asyncio.sleep(0)
        return train(model, 20)

    assert asyncio.run(run(net())) == 20
    assert shown(run.profile).title == "mine" and run.profile.steps.clean


def test_a_generator_cannot_be_decorated():
    def steps():
        yield 1

    with pytest.raises(mlsys_studio.UsageError, match="around that loop"):
        mlsys_studio.profile(steps)


def test_async_code_in_a_block():
    import asyncio

    async def cell():
        with mlsys_studio.profile() as run:
            for _ in range(8):
                train(model, 10, optimizer=optimizer)
                await asyncio.sleep(0)
        return run.profile

    model = net()
    optimizer = torch.optim.SGD(model.parameters())
    whole(asyncio.run(cell()), 80, {"forward", "backward"})


def test_disabled_is_a_no_op(monkeypatch):
    monkeypatch.setenv("MLSYS_DISABLE", "1")
    before = torch.save
    with mlsys_studio.profile() as run:
        assert torch.save is before
    assert run.profile is None


def test_a_finished_profile_keeps_no_model():
    import gc
    import weakref

    model = net()
    with profiled(model) as run:
        train(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert run.profile is not None and gone() is None


def test_the_users_own_profiler_with_a_schedule_works_and_ours_makes_way():
    """It starts in the middle of our window."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    seen = []
    schedule = torch.profiler.schedule(wait=19, warmup=1, active=2, repeat=1)
    prepare = torch.autograd.profiler.profile.__dict__["_prepare_trace"]
    with (
        mlsys_studio.profile() as run,
        torch.profiler.profile(schedule=schedule, on_trace_ready=lambda p: seen.append(p.events())) as theirs,
    ):
        for x, y in loader(40):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            theirs.step()
    assert seen and any(e.name == "aten::addmm" for e in seen[0])
    assert run.profile is not None and len(run.profile.steps.clean) > 0
    assert torch.autograd.profiler.profile.__dict__["_prepare_trace"] is prepare


def test_a_strangers_broken_module_and_a_batch_of_ones_own_making():
    class Broken(nn.Module):
        def parameters(self, recurse=True):
            raise RuntimeError("not mine to give")

    class Batch(list):
        def __getitem__(self, index):
            raise TypeError("no slices")

    stranger = Broken()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    data = [(torch.randn(16), 0)] * 160
    batches = torch.utils.data.DataLoader(data, batch_size=4, collate_fn=Batch)
    with mlsys_studio.profile() as run:
        for batch in batches:
            x = torch.stack([row[0] for row in batch])
            F.cross_entropy(model(x), torch.zeros(4, dtype=torch.long)).backward()
            optimizer.step()
    assert run.profile is not None and run.profile.ledger is not None and stranger is not None


def test_a_root_called_inside_a_checkpoint_is_recomputed_not_forward():
    from torch.utils.checkpoint import checkpoint

    model = mlp(256)
    optimizer = torch.optim.SGD(model.parameters())
    with mlsys_studio.profile() as run:
        for x, y in loader(60):
            F.cross_entropy(checkpoint(model, x, use_reentrant=False), y).backward()
            optimizer.step()
    ledger = run.profile.ledger
    assert ledger.nanoseconds("recompute") > 0
    forward = sum(r.flops for r in run.profile.operators if r.flops and r.phase == "forward")
    assert forward == ledger.steps * 2 * 8 * (16 * 256 + 256 * 4)


def test_an_optimizer_inside_backward_is_profiled_from_outside_it():
    model = mlp(256)
    optimizers = {p: torch.optim.SGD([p]) for p in model.parameters()}
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
    with mlsys_studio.profile() as run:
        for x, y in loader(60):
            F.cross_entropy(model(x), y).backward()
    ledger = run.profile.ledger
    assert ledger is not None and ledger.flops > 0


def test_a_refused_profile_inside_a_profile_leaves_torchs_profiler_as_it_was():
    prepare = torch.autograd.profiler.profile.__dict__["_prepare_trace"]
    with mlsys_studio.profile(), pytest.raises(mlsys_studio.UsageError), mlsys_studio.profile():
        pass
    assert torch.autograd.profiler.profile.__dict__["_prepare_trace"] is prepare
