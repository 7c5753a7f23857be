"""The schedule: every step has one role, an interrupt anywhere leaves nothing on, and another's profiler goes first."""

from __future__ import annotations

import functools
import gc
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from loops import mlp, train
from profiled import profiled, quick  # noqa: F401  quick is a fixture

from mlsys_studio.profilers import kineto, loop, recorder
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.step import StepClock

pytestmark = pytest.mark.usefixtures("quick")


def notes(found: Profile | None) -> str:
    assert found is not None
    return "\n".join([*found.notes, *(found.ledger.notes if found.ledger else ())])


# -- roles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_every_step_is_in_exactly_one_group(seed, monkeypatch):
    """Witness: the loop's own count. Windows are taken again and again, profiles end anywhere, extras come or not."""
    dice = random.Random(seed)
    plan = functools.partial(recorder.Schedule, clean_ns=dice.choice((0, 10**7)), disturbed=dice.choice((-1.0, 1e9)))
    monkeypatch.setattr(recorder, "Schedule", plan)
    steps = dice.choice((1, 2, 8, 9, 11, 20, 30, 47, 60, 200))
    options = {"stacks": dice.random() < 0.5, "memory": dice.random() < 0.5}
    if dice.random() < 0.2:
        options = {"mode": "light"}
    with profiled(**options) as run:
        train(mlp(), steps)
    assert run.profile is not None
    times = run.profile.steps
    assert times.count == steps
    assert times.dropped == 0 or len(times.clean) > 64
    assert all(times.excluded.values())
    if plan.keywords["disturbed"] < 0 and steps >= 47 and "mode" not in options:
        assert len(times.excluded["profiled, taken again"]) == 2 * 5  # three tries, none of them calm
    if run.profile.ledger:
        assert len(times.window) == run.profile.ledger.steps


def test_no_step_is_lost_where_one_training_follows_another():
    with profiled() as run:
        train(mlp(), 3)
        train(mlp(), 40)
        with torch.no_grad():
            mlp()(torch.zeros(1, 16))
        train(mlp(), 40)
    assert run.profile is not None and run.profile.steps.count == 83


@pytest.mark.parametrize("asked", [1, 5, 20])
@pytest.mark.parametrize("steps", range(1, 60))
def test_a_plan_for_a_short_loop_fits_it_and_wastes_none(steps, asked):
    """Witness: the sum of the steps of each kind; from five steps on there is a window."""
    whole = recorder.Schedule(window=asked)
    plan = whole.within(steps)
    if steps < 5 or steps >= 12 + 15 + 2 + asked:
        assert plan == whole
        return
    most = plan.warm_most + plan.clean_most + 2 + plan.window
    assert most <= steps and most >= min(steps, 3 + 15 + 2 + plan.window) - 1  # an odd step may be over
    assert (
        plan.window == asked or plan.window >= (steps - 5) // 2
    )  # half of what is not overhead, or all that was asked
    assert 1 <= plan.warm == plan.warm_most <= 3 and 1 <= plan.clean <= plan.clean_most and 1 <= plan.window <= asked


@pytest.mark.parametrize(("batches", "every", "profiled_steps"), [(5, 1, 1), (10, 1, 3), (14, 1, 5), (40, 4, 3)])
def test_a_pass_over_a_short_loader_gets_its_ledger(batches, every, profiled_steps, monkeypatch):
    """The fast steps of these loops would be clean ones for as long as there are any: a quarter of a second of them."""
    slow = functools.partial(recorder.Schedule, clean_ns=250_000_000)
    monkeypatch.setattr(recorder, "Schedule", slow)
    with profiled() as run:
        train(mlp(), batches, every)
    found = run.profile
    assert found is not None and found.ledger is not None, notes(found)
    assert found.ledger.steps == profiled_steps and found.steps.count == batches // every
    assert ("a pass over the loader is" in notes(found)) == (profiled_steps < 5)


@pytest.mark.parametrize("steps", [1, 5, 9, 13])
def test_the_number_of_steps_that_is_advised_is_enough(steps, monkeypatch):
    """Witness: the loop itself, with as many steps as the note asked for; no step of it ever settles."""
    slow = functools.partial(recorder.Schedule, clean_ns=10**12)
    monkeypatch.setattr(recorder, "Schedule", slow)
    monkeypatch.setattr(recorder, "compilations", iter(range(10**6)).__next__)
    monkeypatch.setattr(loop, "length", lambda _: None)  # else the plan fits the loop, and there is a ledger
    with profiled(stacks=True, memory=True) as run:
        train(mlp(), steps)
    advised = re.search(r"no ledger.*run it for (\d+) or more", notes(run.profile))
    assert advised
    with profiled(stacks=True, memory=True) as run:
        train(mlp(), int(advised[1]))
    assert run.profile is not None and run.profile.ledger is not None, notes(run.profile)
    assert run.profile.ledger.steps == 5
    more = re.search(r"no stacks: the loop ended before its steps; run it for (\d+) or more", notes(run.profile))
    if more:
        with profiled(stacks=True, memory=True) as run:
            train(mlp(), int(more[1]))
    assert run.profile is not None and run.profile.lines and run.profile.memory_use, notes(run.profile)


def test_a_capture_knows_the_size_of_an_optimizer_that_is_gone():
    """Witness: the layers' sizes. `train` makes its optimizer itself, and it dies with the call, before the capture."""
    follows = recorder.Recorder()
    with StepClock(follows) as clock:
        train(mlp(width=32), 60)
    gc.collect()
    assert not clock.optimizers
    found = follows.capture()
    assert found is not None and found.optimizer_bytes == 4 * (16 * 32 + 32 + 32 * 4 + 4)


# -- interrupts --------------------------------------------------------------------------------------------------------

OURS = {kineto.__file__, recorder.__file__}
Line = tuple[str, int]


class Interrupt:
    """Notes the lines of `OURS` that run, and raises KeyboardInterrupt before the first run of `at`."""

    def __init__(self, at: Line | None = None) -> None:
        self.at, self.seen = at, dict[Line, None]()

    def __call__(self, frame, event, _):
        if frame.f_code.co_filename not in OURS:
            return None
        line = (frame.f_code.co_filename, frame.f_lineno)
        if event == "line":
            self.seen.setdefault(line)
            if line == self.at:
                raise KeyboardInterrupt
        return self

    def __enter__(self):
        sys.settrace(self)
        return self

    def __exit__(self, *_):
        sys.settrace(None)


def short(monkeypatch: pytest.MonkeyPatch, disturbed: float = 1e9) -> None:
    plan = functools.partial(recorder.Schedule, warm=1, warm_most=1, clean=1, clean_ns=0, window=2, disturbed=disturbed)
    monkeypatch.setattr(recorder, "Schedule", lambda window: plan())


def once(swallows: bool, memory: bool, at: Line | None = None) -> tuple[list[Line], Profile | None]:
    """One short profile, interrupted at a line; `swallows`: the user's loop catches it and goes on."""
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters())
    run = None
    with Interrupt(at) as interrupt:
        try:
            with profiled(model, memory=memory) as run:
                for _ in range(12):
                    try:
                        model(torch.ones(2, 16)).sum().backward()
                        optimizer.step()
                    except KeyboardInterrupt:
                        if not swallows:
                            raise
        except KeyboardInterrupt:
            assert at is not None
    return list(interrupt.seen), run and run.profile


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_an_interrupt_at_any_line_of_ours_leaves_no_profiler_on(every, monkeypatch, capfd):
    """`profiled` looks for hooks and for a profiler left on. Both for a loop that ends by it and one that goes on."""
    short(monkeypatch)
    lines, whole = once(False, memory=True)
    assert whole is not None and whole.ledger and whole.memory_use and len(lines) > 150
    for number, at in enumerate(lines[::every]):
        once(bool(number % 2), memory=True, at=at)
    with torch.profiler.profile() as theirs:
        torch.ones(3).sum()
    assert any(e.key == "aten::sum" for e in theirs.key_averages())
    print("still here", file=sys.stderr, flush=True)
    assert "still here" in capfd.readouterr().err


def test_steps_stay_apart_after_an_interrupt_that_the_loop_swallows(monkeypatch):
    """A step that was profiled in part is no clean one."""
    short(monkeypatch)
    begin = next(line for line in once(False, memory=False)[0] if is_line(line, "self.start = clock.record()"))
    _, found = once(True, memory=False, at=begin)
    assert found is not None and found.ledger is None
    assert "the capture was interrupted" in notes(found)


def is_line(line: Line, text: str) -> bool:
    return Path(line[0]).read_text().splitlines()[line[1] - 1].strip() == text


# -- the user's own profiler -------------------------------------------------------------------------------------------


def test_a_profiler_that_warms_up_around_the_block_goes_first():
    """Witness: the user's own profiler, which must still see what it would have seen."""
    schedule = torch.profiler.schedule(wait=0, warmup=60, active=2, repeat=1)
    theirs = torch.profiler.profile(schedule=schedule)
    model = mlp()
    with theirs:
        with profiled(model) as run:
            train(model, 40, between=theirs.step)
        for _ in range(25):
            train(model, 1)
            theirs.step()
    found = run.profile
    assert found is not None and found.ledger is None and found.steps.count == 40
    assert "another torch profiler is warming up" in notes(found)
    assert any("AdamW" in e.key for e in theirs.key_averages())


def test_profilers_of_the_past_are_in_nobodys_way():
    with torch.profiler.profile() as done:
        torch.ones(2).sum()
    never = torch.profiler.profile(schedule=torch.profiler.schedule(wait=1, warmup=1, active=1))
    with profiled() as run:
        train(mlp(), 50)
    assert run.profile is not None and run.profile.ledger is not None, notes(run.profile)
    assert done and never


def test_the_users_profiler_may_start_while_an_extra_runs():
    model, seen = mlp(), []

    def between() -> None:
        if sys.gettrace() is not None and not seen:  # our line tracer: an extra is under way
            with torch.profiler.profile() as theirs:
                torch.ones(2).sum()
            seen.append(theirs)

    with profiled(model, stacks=True) as run:
        train(model, 80, between=between)
    assert seen and any(e.key == "aten::sum" for e in seen[0].key_averages())
    assert run.profile is not None and run.profile.ledger is not None and not run.profile.lines
    assert run.profile.steps.count == 80 and sys.gettrace() is None
