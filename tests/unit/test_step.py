"""The step clock on loops that know nothing of it. Witnesses: the loop's own counters and stopwatches."""

import builtins
import contextlib
import copy
import gc
import io
import logging
import pickle
import threading
import time
import weakref
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from loops import loader, mlp, train
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.loop import facts
from mlsys_studio.profilers.shapes import shapes_of
from mlsys_studio.profilers.step import StepClock


def seconds(clock: StepClock, phase: str) -> float:
    return sum(s.phases.get(phase, 0) for s in clock.steps) / 1e9


def patched_places() -> list:
    return [
        _BaseDataLoaderIter.__dict__["__next__"],
        DataLoader.__dict__["__iter__"],
        torch.autograd._engine_run_backward,
        torch.autograd.graph._engine_run_backward,
        torch.save,
        torch.jit.script,
        nn.Module.__dict__["state_dict"],
        nn.Module.__dict__["__getstate__"],
        torch.optim.Optimizer.__dict__["state_dict"],
        torch.amp.GradScaler.__dict__["step"],
        builtins.print,
        logging.Logger.__dict__["callHandlers"],
        list(gc.callbacks),
        dict(_global_optimizer_pre_hooks),
        dict(_global_optimizer_post_hooks),
    ]


def test_one_step_an_optimizer_step_with_every_phase():
    with StepClock() as clock:
        train(mlp(), batches=12)
    assert clock.count == 12
    assert clock.boundary.unit == "optimizer step (AdamW)"
    assert set(clock.steps[-1].phases) >= {"data", "forward", "backward", "optimizer", "other"}


def test_phases_of_a_step_add_up_to_its_wall_time():
    with StepClock() as clock:
        train(mlp(), batches=12)
    for step in clock.steps:
        assert sum(step.phases.values()) == step.wall


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_everything_is_put_back_by_identity(ending):
    before = patched_places()
    model = mlp()

    def stop():
        if ending:
            raise ending

    try:
        with StepClock() as clock:
            train(model, between=stop)
    except (ValueError, KeyboardInterrupt) as error:
        assert type(error) is ending
    after = patched_places()
    assert all(a is b for a, b in zip(before, after, strict=True) if not isinstance(a, (list, dict)))
    assert [a for a in after if isinstance(a, (list, dict))] == [b for b in before if isinstance(b, (list, dict))]
    assert all(not m._forward_pre_hooks and not m._forward_hooks for m in model.modules())
    assert clock.count == (0 if ending else 20)


def test_a_patch_somebody_put_on_top_of_ours_is_left_alone():
    original = builtins.print
    try:
        with StepClock():
            ours = builtins.print
            builtins.print = theirs = lambda *a, **k: ours(*a, **k)
        assert builtins.print is theirs
        builtins.print(end="")  # through our wrapper, which is asleep
    finally:
        builtins.print = original


def test_nested_clocks_are_refused_and_the_outer_one_goes_on():
    with StepClock() as clock:
        with pytest.raises(UsageError, match="already running"), StepClock():
            pass
        train(mlp(), batches=5)
    assert clock.count == 5


def test_gradient_accumulation_is_one_step():
    with StepClock() as clock:
        train(mlp(), batches=20, every=4)
    assert clock.count == 5


def test_a_round_of_two_optimizers_is_one_step():
    a, b = mlp(), mlp()
    first, second = torch.optim.SGD(a.parameters()), torch.optim.Adam(b.parameters())
    with StepClock() as clock:
        for x, y in loader(10):
            for model, optimizer in ((a, first), (b, second)):
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    assert clock.count == 10
    assert all(sum(step.phases.values()) == step.wall for step in clock.steps)  # of the joined first round too
    assert clock.boundary.unit == "optimizer step (Adam)"
    assert {id(m) for m in clock.called()} == {id(a), id(b)}


def test_a_closure_runs_forward_and_backward_inside_the_optimizer():
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    with StepClock() as clock:
        for x, y in loader(6):

            def closure(x=x, y=y):
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                return loss

            optimizer.step(closure)
    assert clock.count == 6
    last = clock.steps[-1].phases
    assert last["forward"] > 0 and last["backward"] > 0 and last["optimizer"] > 0


def test_a_skipped_step_of_a_grad_scaler_is_a_step():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    overflows = {3, 4}
    with StepClock() as clock:
        for i, (x, y) in enumerate(loader(8)):
            loss = F.cross_entropy(model(x), y) * (float("inf") if i in overflows else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    assert clock.count == 8
    assert {i for i, s in enumerate(clock.steps) if s.skipped} == overflows


def test_an_optimizer_whose_step_raised_does_not_swallow_the_rest():
    model = mlp()

    class Moody(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            Moody.calls += 1
            if Moody.calls == 3:
                raise RuntimeError("no")
            return super().step(closure)

    optimizer = Moody(model.parameters())
    with StepClock() as clock:
        for x, y in loader(8):
            F.cross_entropy(model(x), y).backward()
            try:
                optimizer.step()
            except RuntimeError:
                continue
    assert clock.count == 7
    assert clock.steps[-1].phases["backward"] > 0 and "data" in clock.steps[-1].phases


def test_inference_steps_are_batches():
    model = mlp()
    with StepClock() as clock, torch.no_grad():
        for x, _ in loader(12):
            model(x)
    assert clock.boundary.unit.startswith("batch")
    assert clock.count >= 8
    assert "forward" in clock.steps[-1].phases


def test_inference_without_a_loader_counts_forward_calls():
    model = mlp()
    with StepClock() as clock, torch.no_grad():
        for _ in range(12):
            model(torch.randn(2, 16))
    assert clock.boundary.unit.startswith("outermost forward")
    assert clock.count >= 8


def test_a_loop_too_short_to_know_its_unit_still_has_steps():
    model = mlp()
    with StepClock() as clock, torch.no_grad():
        for x, _ in loader(3):
            model(x)
    assert clock.count >= 2


def test_no_step_at_all():
    with StepClock() as clock:
        sum(range(1000))
    assert clock.count == 0 and clock.boundary.unit == ""


def test_a_model_made_inside_the_block_is_found():
    def whole_program():
        model = mlp()
        train(model, batches=6)
        return model

    with StepClock() as clock:
        model = whole_program()
    assert any(m is model for m in clock.called())
    assert clock.steps[-1].phases["forward"] > 0


def test_a_module_that_is_never_called_itself_is_looked_into():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def training_step(self, x, y):
            return F.cross_entropy(self.inner(x), y)

    wrapper = Wrapper()
    optimizer = torch.optim.SGD(wrapper.parameters())
    with StepClock() as clock:
        for x, y in loader(8):
            wrapper.training_step(x, y).backward()
            optimizer.step()
    assert any(m is wrapper.inner for m in clock.called())
    assert clock.steps[-1].phases["forward"] > 0


def test_a_half_made_module_somewhere_alive_does_no_harm():
    class Forgetful(nn.Module):
        def __init__(self):
            pass  # the classic: no super().__init__()

    alive = Forgetful()
    with StepClock() as clock:
        train(mlp(), batches=3)
    assert clock.count == 3 and alive is not None


def test_recomputation_counts_as_backward():
    torch.manual_seed(0)
    slept = []

    class Slow(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(16, 4)

        def forward(self, x):
            time.sleep(0.005)
            slept.append(1)
            return self.inner(x)

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.slow = Slow()

        def forward(self, x):
            return checkpoint(self.slow, x, use_reentrant=False)

    with StepClock() as clock:
        train(Again(), batches=6)
    assert len(slept) == 12
    steps = list(clock.steps)[1:]  # one sleep in each, not two in one of them
    assert all(step.phases["forward"] >= 5e6 and step.phases["backward"] >= 5e6 for step in steps)
    assert min(step.phases["forward"] for step in steps) < 10e6  # the shortest: a sleep may last longer


def test_a_sleep_in_the_dataset_is_data_and_in_no_other_phase():
    slept = []

    class Sleepy(Dataset):
        def __len__(self):
            return 48

        def __getitem__(self, i):
            began = time.perf_counter()
            time.sleep(0.002)
            slept.append(time.perf_counter() - began)
            return torch.randn(16), 0

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    with StepClock() as clock:
        for x, y in DataLoader(Sleepy(), batch_size=4):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    data = seconds(clock, "data")
    assert sum(slept) <= data <= sum(slept) + 0.5 * sum(slept)


def test_printing_logging_and_saving_have_their_phases(tmp_path, capsys):
    model = mlp()

    def between():
        print("x")
        logging.getLogger("loop").warning("y")
        torch.save(model.state_dict(), tmp_path / "m.pt")

    with StepClock() as clock:
        train(model, batches=5, between=between)
    assert seconds(clock, "logging") > 0 and seconds(clock, "checkpoint") > 0
    assert capsys.readouterr().out == "x\n" * 5


def test_all_of_torch_save_is_checkpoint(tmp_path):
    """Onto a slow disk. Witness: how long the disk slept."""

    class SlowDisk(io.BytesIO):
        slept = 0

        def write(self, data):
            began = time.perf_counter_ns()
            time.sleep(0.002)
            SlowDisk.slept += time.perf_counter_ns() - began
            return super().write(data)

    tensor = torch.zeros(4)
    with StepClock() as clock:
        train(mlp(), batches=5, between=lambda: torch.save(tensor, SlowDisk()))
    assert SlowDisk.slept >= 5 * 2e6
    assert SlowDisk.slept <= seconds(clock, "checkpoint") * 1e9


def test_a_model_inside_a_dataset_is_not_the_forward():
    embedder = mlp()

    class Embedded(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, i):
            with torch.no_grad():
                return embedder(torch.randn(16)), 0

    head = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(head.parameters())
    with StepClock() as clock:
        for x, y in DataLoader(Embedded(), batch_size=2):
            F.cross_entropy(head(x), y).backward()
            optimizer.step()
    assert list(clock.called()) == [head]


def test_other_threads_are_not_this_loop():
    def elsewhere():
        train(mlp(), batches=10)

    with StepClock() as clock:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        train(mlp(), batches=5)
    assert clock.count == 5


@pytest.mark.parametrize("how", ["wrapper", "in place"])
def test_compiled_models(how):
    """With the `eager` backend dynamo captures the graph and no compiler runs."""
    torch._dynamo.reset()
    model = mlp()
    if how == "wrapper":
        target = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
        target = model
    with StepClock() as clock:
        train(target, batches=10)
    assert clock.count == 10
    assert ("compiled in place" in clock.forward_by_difference) is (how == "in place")
    assert clock.steps[-1].phases["forward"] > 0
    assert torch._dynamo.utils.counters["graph_break"] == {}


def test_compile_time_is_a_span():
    torch._dynamo.reset()
    model = torch.compile(mlp(), backend="eager")
    with StepClock() as clock:
        train(model, batches=4)
    assert sum(b - a for a, b in clock.spans["compile"]) > 0


def test_workers_do_not_disturb_the_clock():
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    with StepClock() as clock:
        for x, y in loader(10, num_workers=1):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert clock.count == 10


def test_nothing_is_recorded_unless_asked_for():
    with StepClock() as clock:
        train(mlp(), batches=10)
    assert clock.marks == [] and clock.batches == []
    assert clock.spans["gc"] == [] == clock.spans["create_graph"]


def test_shapes_of_nested_batches():
    batch = {"x": torch.zeros(2, 3), "more": [torch.zeros(4), (torch.zeros(1, 1), "text")]}
    assert shapes_of(batch) == ((2, 3), ((4,), ((1, 1), ())))


def test_a_model_is_saved_copied_and_scripted_as_the_user_made_it(tmp_path):
    model = mlp()
    made = {}

    def between():
        torch.save(model, tmp_path / "whole.pt")
        made["copy"] = copy.deepcopy(model)
        made["script"] = torch.jit.script(model)

    with StepClock() as clock:
        train(model, batches=4, between=between)
    assert clock.count == 4 and clock.steps[-1].phases["forward"] > 0
    saved = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert not saved._forward_hooks and not saved._forward_pre_hooks
    replica, buffer = Replica(), io.BytesIO()
    with StepClock():
        torch.save(replica, buffer)
    assert b"mlsys_studio" not in buffer.getvalue()
    x = torch.randn(2, 16)
    assert torch.equal(saved(x), made["copy"](x))  # both of before the last step


def test_a_scripted_model_is_left_alone():
    scripted = torch.jit.script(mlp())
    with StepClock() as clock:
        train(scripted, batches=6)
    assert clock.count == 6


# -- the loop's objects are the user's ---------------------------------------------------------------------------------


def test_models_and_optimizers_of_finished_trials_are_freed_and_their_steps_counted():
    """A hyper-parameter search. Witnesses: Python's own weak references, and the loop's counter."""
    gone: list[weakref.ref] = []
    taken = 0
    with StepClock() as clock:
        for trial in range(50):
            model = mlp(8 + trial % 3)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1**trial)
            batches = loader(3)
            gone += [weakref.ref(model), weakref.ref(optimizer), weakref.ref(batches)]
            for x, y in batches:
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                taken += 1
            del model, optimizer, batches
        gc.collect()
        alive = [ref() for ref in gone if ref() is not None]
    assert clock.count == taken == 150
    assert alive == []
    assert all(step.phases["forward"] > 0 for i, step in enumerate(clock.steps) if i % 3)  # found at its first step


def test_a_trial_inside_a_function_needs_no_collector():
    """Reference counts free a model at once; a cycle of ours would keep its memory until the collector runs."""
    gone = []

    def trial():
        model = mlp()
        gone.append(weakref.ref(model))
        train(model, batches=3)

    gc.collect()
    gc.disable()
    try:
        with StepClock() as clock:
            for _ in range(5):
                trial()
                assert gone[-1]() is None
    finally:
        gc.enable()
    assert clock.count == 15


@pytest.mark.parametrize("critic_steps", [1, 2, 5])
def test_a_gan_counts_its_generators_steps(critic_steps):
    generator, critic = nn.Linear(16, 16), mlp()
    d, g = torch.optim.Adam(critic.parameters()), torch.optim.Adam(generator.parameters())
    updates = 0
    with StepClock() as clock:
        for i, (x, _) in enumerate(loader(8 * critic_steps), 1):
            d.zero_grad()
            (critic(generator(x).detach()) - critic(x)).mean().backward()
            d.step()
            if i % critic_steps == 0:
                g.zero_grad()
                critic(generator(x)).mean().backward()
                g.step()
                updates += 1
    assert clock.count == updates == 8
    assert all(sum(step.phases.values()) == step.wall for step in clock.steps)
    assert clock.boundary.unit == "optimizer step (Adam)"


@pytest.mark.parametrize("source", ["loader", "own"])
def test_an_interrupted_forward_is_left_behind(source):
    """Torch runs `always_call` hooks for an Exception only. The loop catches it and goes on."""

    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = mlp(), 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt
            return self.inner(x)

    model = Interrupted()
    optimizer = torch.optim.SGD(model.parameters())
    batches = loader(10) if source == "loader" else [(torch.randn(8, 16), torch.randint(0, 4, (8,)))] * 10
    with StepClock() as clock:
        for x, y in batches:
            try:
                loss = F.cross_entropy(model(x), y)
            except KeyboardInterrupt:
                continue
            loss.backward()
            optimizer.step()
            time.sleep(0.01)  # between steps: nobody's forward
    assert clock.count == 9
    for step in list(clock.steps)[3:]:
        assert step.phases["other"] >= 10e6 and step.phases["forward"] < 10e6


class Replica(nn.Module):
    """Pickles itself by a state of its own, as DistributedDataParallel does."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(16, 4)

    def forward(self, x):
        return self.inner(x)

    def __getstate__(self):
        return dict(self.__dict__)


@pytest.mark.parametrize("make", [mlp, Replica])
def test_a_model_pickled_in_the_block_works_and_reports_to_nobody(make):
    model, made = make(), []

    def between():
        made.append(pickle.loads(pickle.dumps(model)))
        made.append(copy.deepcopy(model))
        made.append(copy.copy(model))

    with StepClock() as clock:
        train(model, batches=3, between=between)
        events = clock._tape.drain()
        for copied in made:
            copied(torch.randn(2, 16))
        assert events and not clock._tape.drain()
        assert list(clock.called()) == [model]
    for copied in made:
        assert torch.equal(copied(torch.ones(1, 16)).isfinite(), torch.ones(1, 4, dtype=torch.bool))
        if make is mlp:
            assert not copied._forward_hooks and not copied._forward_pre_hooks
            assert not copied._forward_hooks_always_called


def test_a_users_own_hooks_are_copied_with_the_model():
    model, seen = mlp(), []
    model.register_forward_hook(lambda *_: seen.append(1))
    with StepClock():
        model(torch.randn(2, 16))
        copied = copy.deepcopy(model)
    copied(torch.randn(2, 16))
    assert len(seen) == 2 and len(copied._forward_hooks) == 1


def test_an_encoder_layer_keeps_its_fast_path(monkeypatch):
    """Witness: torch's own operator for it."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x, calls = torch.randn(2, 3, 16), []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a: calls.append(1) or fast(*a))
    with StepClock(), torch.no_grad():
        layer(x)
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()(x)
    assert len(calls) == 3


def test_parameters_of_no_module_are_not_a_compiled_model():
    weight = nn.Parameter(torch.randn(4, 16))
    optimizer = torch.optim.SGD([weight])
    with StepClock() as clock:
        for x, y in loader(8):
            F.cross_entropy(F.linear(x, weight), y).backward()
            optimizer.step()
    assert clock.count == 8
    assert "no module" in clock.forward_by_difference
    assert clock.steps[-1].phases["forward"] > 0  # by difference
    found = facts(clock, None)
    assert not found.compiled and found.model is None and found.optimizer == "SGD"


def test_a_model_compiled_in_place_is_known_by_name():
    torch._dynamo.reset()
    model = mlp()
    model.compile(backend="eager")
    with StepClock() as clock:
        train(model, batches=6)
    found = facts(clock, None)
    assert found.compiled and found.model == "Sequential"
    assert found.parameters == 16 * 32 + 32 + 32 * 4 + 4


def test_a_gradient_of_a_gradient_is_a_span_while_recording():
    """Which ones: those called with create_graph, by the loop's own stopwatch."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    walls = []
    with StepClock() as clock:
        for i, (x, _) in enumerate(loader(6)):
            if i == 3:
                clock.record()
            x.requires_grad_()
            began = time.time_ns()
            (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
            walls.append((began, time.time_ns()))
            slope.square().sum().backward()
            optimizer.step()
    spans = clock.spans["create_graph"]
    assert len(spans) == 3
    assert all(a <= began <= ended <= b for (began, ended), (a, b) in zip(spans, walls[3:], strict=True))


def test_what_recording_met_outlives_the_loops_objects():
    def loop(clock):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters())
        for i, (x, y) in enumerate(loader(6)):
            if i == 4:
                clock.record()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        return weakref.ref(model), weakref.ref(optimizer)

    with StepClock() as clock:
        gone = loop(clock)
    gc.collect()
    assert [each() for each in gone] == [None, None] and not clock.optimizers
    found = facts(clock, None)
    assert clock.optimizer_bytes == 4 * (16 * 32 + 32 + 32 * 4 + 4)
    assert (found.model, found.optimizer, found.loader) == ("Sequential", "SGD", "TensorDataset")


def test_a_hooked_model_inside_a_compiled_function_is_traced_as_if_it_had_no_hook():
    torch._dynamo.reset()
    model, graphs = mlp(), []

    def backend(graph, _):
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    def make():
        return torch.compile(lambda x, y: F.cross_entropy(model(x), y), backend=backend, fullgraph=True)

    plain = make()
    x, y = next(iter(loader(1)))
    plain(x, y)
    optimizer = torch.optim.SGD(model.parameters())
    with StepClock() as clock:
        torch._dynamo.reset()
        loss = make()
        for x, y in loader(6):
            loss(x, y).backward()
            optimizer.step()
    assert clock.count == 6
    assert len(graphs) == 2 and graphs[0] == graphs[1]


# -- once nobody asks for each step ----------------------------------------------------------------------------------


def plain(_):
    model = mlp()
    train(model, batches=60)


def another_optimizer_joins(_):
    a, b = mlp(), mlp()
    first, second = torch.optim.SGD(a.parameters()), torch.optim.Adam(b.parameters())
    for i, (x, y) in enumerate(loader(60)):
        F.cross_entropy(a(x), y).backward()
        first.step()
        if i >= 30:
            F.cross_entropy(b(x), y).backward()
            second.step()


def another_training_follows(_):
    for _ in range(3):
        train(mlp(), batches=25)
        gc.collect()


def overflows_late(_):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    for i, (x, y) in enumerate(loader(60)):
        loss = F.cross_entropy(model(x), y) * (float("inf") if i in (20, 40, 41) else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update(1.0)
        optimizer.zero_grad()


def raises_late(_):
    """Its class calls the superclass's `step`, so that every hook is called twice; and it raises now and then."""

    class Moody(torch.optim.SGD):
        calls = 0

        def step(self, closure=None):
            Moody.calls += 1
            if Moody.calls in (5, 30, 31):
                raise RuntimeError("no")
            return super().step(closure)

    model = mlp()
    optimizer = Moody(model.parameters())
    for x, y in loader(60):
        F.cross_entropy(model(x), y).backward()
        with contextlib.suppress(RuntimeError):
            optimizer.step()


def validates(_):
    model = mlp()
    for _ in range(4):
        train(model, batches=15)
        with torch.no_grad():
            for x, _y in loader(10):
                model(x)


@pytest.mark.parametrize(
    ("program", "taken"),
    [
        (plain, 60),
        (another_optimizer_joins, None),
        (another_training_follows, 75),
        (overflows_late, 60),
        (raises_late, 57),
        (validates, 60),
    ],
)
def test_a_clock_that_nobody_asks_finds_the_same_steps(program, taken):
    """Against one that closes every step as it ends; and the loop's own count of its optimizer's steps."""
    asked, found = [], []
    for on_step in (lambda clock: asked.append(clock.count), None):
        torch.manual_seed(0)
        with StepClock(on_step) as clock:
            program(None)
        found.append((clock.count, clock.boundary.unit, [step.skipped for step in clock.steps]))
        assert all(sum(step.phases.values()) == step.wall for step in clock.steps)
        assert clock.boundary.optimizer_steps == clock.count or taken is None or program is overflows_late
    assert found[0] == found[1] and len(asked) >= found[0][0]
    assert taken is None or found[0][0] == taken
    new_models = 2 * (program is another_training_follows)  # found at their optimizers' first steps
    whole = [set(step.phases) >= {"data", "forward", "backward"} for step in list(clock.steps)[5:]]
    assert whole.count(False) <= new_models


def test_a_clock_at_rest_wakes_when_the_steps_turn_out_to_be_others():
    heard = []

    def hears(clock):
        heard.append((clock.count, clock.boundary.changes))
        clock.rest()

    a, b = mlp(), mlp()
    first, second = torch.optim.SGD(a.parameters()), torch.optim.Adam(b.parameters())
    with StepClock(hears) as clock:
        for i, (x, y) in enumerate(loader(120)):
            F.cross_entropy(a(x), y).backward()
            first.step()
            if i >= 60 and i % 4 == 0:  # it steps less often: a step is one of its
                F.cross_entropy(b(x), y).backward()
                second.step()
    assert clock.boundary.unit == "optimizer step (Adam)"
    assert heard[0] == (1, 0) and len(heard) == 2 and heard[1][1] > 0


def test_a_long_loop_keeps_its_last_steps_and_counts_them_all(monkeypatch):
    monkeypatch.setattr("mlsys_studio.profilers.tape.KEPT", 100)
    with StepClock() as clock:
        train(mlp(), batches=80)
    assert clock.count == 80
    assert 5 <= len(clock.steps) < 80
    assert all(sum(step.phases.values()) == step.wall for step in clock.steps)
    last = list(clock.steps)[-5:]
    assert all(a.end == b.start for a, b in pairwise(last))
