"""Running a cell again: what is refused, that it stops on the step, and that nothing of it stays.

Witness of "nothing stays": a deep copy of the whole notebook made before, compared value by value and object by object.
"""

from __future__ import annotations

import collections
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from cells import LOOP, SETUP, Notebook
from torch import nn

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.step import StepClock
from mlsys_studio.studio.advisor import refusal as refusals
from mlsys_studio.studio.advisor.reach import Reach
from mlsys_studio.studio.advisor.refusal import refusal
from mlsys_studio.studio.advisor.remedies import REMEDIES
from mlsys_studio.studio.advisor.replay import run_steps
from mlsys_studio.studio.advisor.restore import restored

AUTOCAST = REMEDIES["autocast"]


@pytest.fixture
def notebook(one_thread) -> Notebook:
    return Notebook(SETUP)


def refused(notebook: Notebook, source: str, remedy=AUTOCAST) -> str:
    return refusal(notebook.cell(source).source if "%" not in source else source, notebook.subjects(), remedy)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('open("log.txt", "w").write("x")', "opens files for writing in line 7"),
        ('open("log.txt", mode="ab")', "opens files for writing"),
        ("open(p, m)", "opens files for writing"),
        ('Path("x").open("w")', "opens files for writing"),
        ('gzip.open("x.gz", "wt")', "opens files for writing"),
        ("torch.save(model.state_dict(), 'm.pt')", "saves files"),
        ("np.save('x', a)", "saves files"),
        ("model.save_pretrained('m')", "saves files"),
        ("plt.savefig('x.png')", "saves files"),
        ("df.to_csv('x.csv')", "writes files"),
        ("requests.post(url)", "sends data"),
        ("subprocess.run(['ls'])", "runs programs"),
        ("run_program(['ls'])", "runs programs"),
        ("os.system('ls')", "runs programs"),
        ("os.remove('x')", "deletes files"),
        ("drop('x')", "deletes files"),
        ("shutil.rmtree('x')", "deletes files"),
        ("input()", "asks for input"),
        ("writer.add_scalar('loss', loss)", "logs to a tracker"),
        ("wandb.log({'loss': loss})", "logs to a tracker"),
        ("keep_it()", "a function the cell calls saves files"),
    ],
)
def test_a_cell_that_leaves_something_behind_is_refused(notebook, line, says):
    notebook.run(
        "import os, subprocess, shutil, gzip, requests_ as requests\nfrom subprocess import run as run_program\n"
        "from os import remove as drop\nfrom pathlib import Path".replace(", requests_ as requests", "")
    )
    notebook.run("def keep_it():\n    torch.save(model, 'm.pt')")
    said = refused(notebook, LOOP + "    " + line)
    assert says in said and "would do so again" in said


@pytest.mark.parametrize(
    "line",
    [
        'open("data.bin")',
        'open("data.bin", "rb").read()',
        'open("data.bin", mode="r")',
        'Path("data.bin").open()',
        'gzip.open("x.gz", "rt")',
        "losses.remove(1)",
        "engine.run()",
        "queue.put(1)",
        "torch.log(loss)",
        "def save(): pass",
        "print(loss.item())",
    ],
)
def test_a_cell_that_only_reads_is_not(notebook, line):
    assert refused(notebook, LOOP + "    " + line) == ""


@pytest.mark.parametrize(
    ("head", "handler", "line"),
    [
        ("for x, y in loader:", "except:\n        pass", 0),
        ("for step, (x, y) in enumerate(loader):", "except:\n        pass", 0),
        ("for x, y in list(loader):", "except:\n        pass", 5),
        ("for x, y in list(loader):", "except BaseException:\n        losses = 0", 5),
        ("for x, y in list(loader):", "except (ValueError, BaseException):\n        losses = 0", 5),
        ("for x, y in list(loader):", "except:\n        raise", 0),
        ("for x, y in list(loader):", "except:\n        break", 0),
        ("for x, y in list(loader):", "except Exception:\n        pass", 0),
        ("while True:", "except:\n        pass", 5),
    ],
)
def test_a_loop_that_nothing_could_end_is_refused(notebook, head, handler, line):
    said = refused(
        notebook, f"{head}\n    try:\n        optimizer.zero_grad()\n        optimizer.step()\n    {handler}"
    )
    assert (f"line {line} catches everything" in said and "`except Exception:`" in said) if line else said == ""


@pytest.mark.parametrize("line", ["%time 1", "!ls", "?"])
def test_magics_are_refused(notebook, line):
    assert "not plain Python" in refused(notebook, LOOP + line + "\n%x")


@pytest.mark.parametrize(
    ("before", "cell"),
    [
        ("batches = iter(loader)", "for x, y in batches: model(x)"),
        ("batches = (b for b in loader)", "next(batches)"),
        ("import itertools\nbatches = itertools.cycle(loader)", "next(batches)"),
        ("batches = iter(loader)\ndef fetch(): return next(batches)", "fetch()"),
    ],
)
def test_an_iterator_that_was_consumed_is_refused(notebook, before, cell):
    notebook.run(before)
    assert "`batches` is an iterator" in refused(notebook, cell)


def test_an_iterator_made_in_the_cell_starts_afresh(notebook):
    cell = "batches = iter(loader)\nfor _ in range(3): next(batches)"
    notebook.run(cell)
    assert refused(notebook, cell) == ""


def test_an_open_file_is_refused(notebook, tmp_path):
    (tmp_path / "x").write_text("x")
    notebook.names["path"] = tmp_path / "x"
    notebook.run("file = open(path)")
    assert "`file` is an open file" in refused(notebook, "file.read()")


@pytest.mark.parametrize(
    ("line", "remedy", "kind"),
    [
        ("model = nn.Linear(16, 4)", "autocast", "model"),
        ("optimizer = torch.optim.AdamW(model.parameters())", "fused-optimizer", "optimizer"),
        ("loader = DataLoader(data)", "workers", "loader"),
    ],
)
def test_what_the_remedy_changes_must_not_be_made_in_the_cell(notebook, line, remedy, kind):
    said = refused(notebook, line + LOOP, REMEDIES[remedy])
    assert f"`{kind}` is made inside the cell" in said and "earlier cell" in said
    others = {"autocast", "fused-optimizer", "workers"} - {remedy}
    assert all(refused(notebook, line + LOOP, REMEDIES[other]) == "" for other in others)


def test_a_local_of_the_same_name_is_another_name(notebook):
    assert refused(notebook, "def f():\n    model = 1\n" + LOOP) == ""
    assert refused(notebook, "[model for model in range(3)]\n" + LOOP) == ""


def test_a_model_that_does_not_fit_twice_is_refused(notebook, monkeypatch):
    parameters = notebook.names["model"].parameters()
    need = sum(p.numel() for p in parameters) * 4
    monkeypatch.setattr(refusals, "available_memory", lambda: refusals.RESERVE + need // 2)
    assert "do not fit in memory twice" in refused(notebook, LOOP)


def test_a_trainer_runs_its_own_loop(notebook):
    Trainer = type("Trainer", (), {"__module__": "transformers.trainer"})
    notebook.names["trainer"] = Trainer()
    assert "inside transformers's Trainer" in refused(notebook, "trainer.train()")


@pytest.mark.parametrize(("ranks", "says"), [(2, "one of several ranks"), (1, "")])
def test_one_rank_of_many_cannot_run_alone(notebook, monkeypatch, ranks, says):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: ranks)
    said = refused(notebook, LOOP)
    assert says in said and bool(said) == bool(says)


def test_names_are_followed_through_functions_and_classes():
    book = Notebook(
        "losses, seen, other = [], [], []\n"
        "def note(x):\n    return [losses.append(x) for _ in range(1)]\n"
        "class Loop:\n    def go(self):\n        note(1); seen.append(1)\n"
        "loop = Loop()"
    )
    reach = Reach.of("loop.go()", book.names)
    assert reach.names == {"loop", "note", "losses", "seen", "range"} & book.names.keys()
    assert len(reach.trees) == 3


# -- put back ----------------------------------------------------------------------------------------------------------


def copies(notebook: Notebook) -> dict:
    """Values of everything, detached from the objects."""
    model, optimizer = notebook.names["model"], notebook.names["optimizer"]
    state = optimizer.state_dict()
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "groups": repr([{k: v for k, v in g.items() if k != "params"} for g in state["param_groups"]]),
        "state": {(i, k): torch.as_tensor(v).clone() for i, s in state["state"].items() for k, v in s.items()},
        "random": [random.getstate(), torch.get_rng_state(), notebook.names["loader"].generator.get_state()],
        "numpy": np.random.get_state()[1].tolist(),
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def identities(notebook: Notebook) -> list:
    model, optimizer = notebook.names["model"], notebook.names["optimizer"]
    return [
        {name: id(value) for name, value in notebook.names.items()},
        [id(t) for t in [*model.parameters(), *model.buffers()]],
        [id(p.grad) for p in model.parameters()],
        [id(g) for g in optimizer.param_groups],
        {id(p): {k: id(v) for k, v in s.items()} for p, s in optimizer.state.items()},
    ]


WILD = (
    LOOP
    + """
import random, numpy
model.eval()
new_name = 1
lr = optimizer.param_groups[0]["lr"] = 7.0
random.random(); numpy.random.rand(3); torch.rand(3)
del data
END
"""
)


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("ending", ["", "1 / 0", "raise KeyboardInterrupt"])
def test_everything_is_put_back(notebook, trained, ending):
    if trained:
        notebook.run(LOOP)
    else:
        assert not notebook.names["optimizer"].state
    cell = notebook.cell(WILD.replace("END", ending))
    before, who = copies(notebook), identities(notebook)
    notebook.names.pop("__builtins__")
    who[0].pop("__builtins__")
    try:
        with restored(notebook.subjects(), Reach.of(cell.source, notebook.names)):
            cell.run()
            assert not same(copies(notebook), before)
    except (ZeroDivisionError, KeyboardInterrupt):
        assert ending
    assert same(copies(notebook), before)
    assert identities(notebook) == who


def test_gradients_zeroed_in_place_come_back(notebook):
    notebook.run("x, y = next(iter(loader))\nF.cross_entropy(model(x), y).backward()")
    before = copies(notebook)
    cell = notebook.cell("optimizer.zero_grad(set_to_none=False)")
    with restored(notebook.subjects(), Reach.of(cell.source, notebook.names)):
        cell.run()
    assert same(copies(notebook), before)


AROUND = """
import collections, numpy as np, random
scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [
    torch.optim.lr_scheduler.LinearLR(optimizer), torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)], [3])
scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
average = torch.optim.swa_utils.AveragedModel(model)
losses, history, seen, last = [0.5], {"loss": [1.0], "step": 3}, {1}, collections.deque([1, 2], maxlen=2)
counts = collections.Counter(a=1)
curve, total = np.zeros(4), torch.zeros(())
noise, dice = np.random.default_rng(3), random.Random(4)
class Meter:
    def __init__(self): self.sum, self.all = 0.0, []
    def update(self, x): self.sum += x; self.all.append(x)
meter = Meter()
def note(x):
    losses.append(x); history["loss"].append(x); history["step"] += 1; seen.add(x); last.append(x)
    counts["a"] += 1; meter.update(x); curve[0] += x; total.add_(x)
    noise.random(); dice.random()
"""

BUSY = """
for x, y in loader:
    optimizer.zero_grad()
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    scaler.unscale_(optimizer)
    scaler.step(optimizer); scaler.update(); scheduler.step(); average.update_parameters(model)
    note(1.5)
"""


def around(names: dict) -> list:
    return [
        {k: repr(v) for k, v in names["scheduler"].state_dict().items()},
        names["optimizer"].param_groups[0]["lr"],
        repr(names["scaler"].state_dict()),
        dict(names["scaler"]._per_optimizer_states),
        {k: v.tolist() for k, v in names["average"].state_dict().items()},
        list(names["losses"]),
        {k: list(v) if isinstance(v, list) else v for k, v in names["history"].items()},
        set(names["seen"]),
        list(names["last"]),
        dict(names["counts"]),
        {k: list(v) if isinstance(v, list) else v for k, v in vars(names["meter"]).items()},
        names["curve"].tolist(),
        names["total"].item(),
        names["noise"].bit_generator.state,
        names["dice"].getstate(),
    ]


def test_schedulers_scalers_averages_and_metrics_are_put_back(notebook):
    notebook.run(AROUND)
    notebook.run(BUSY)  # a second epoch begins from a used state
    before, cell = around(notebook.names), notebook.cell(BUSY)
    run = run_steps(cell, notebook.subjects(), warm=2, steps=5)
    assert len(run.walls) == 5
    assert around(notebook.names) == before
    notebook.run(BUSY)  # and the loop goes on: unscale_ was not left half done
    after = around(notebook.names)
    assert all(a != b for i, (a, b) in enumerate(zip(before, after, strict=True)) if i not in (3, 7, 8))
    assert notebook.names["last"].maxlen == 2


def test_an_lbfgs_history_is_put_back(notebook):
    notebook.run("optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2, history_size=3)")
    cell = notebook.cell(
        "for x, y in loader:\n"
        "    def closure():\n        optimizer.zero_grad()\n        loss = F.cross_entropy(model(x), y)\n"
        "        loss.backward()\n        return loss\n"
        "    optimizer.step(closure)\n"
    )
    cell.run()
    state = notebook.names["optimizer"].state[notebook.names["optimizer"]._params[0]]
    before = repr(state)
    run_steps(cell, notebook.subjects(), warm=1, steps=4)
    assert repr(notebook.names["optimizer"].state[notebook.names["optimizer"]._params[0]]) == before


def test_a_second_model_is_put_back_too(notebook):
    notebook.run("critic = nn.Linear(16, 1)\nsecond = torch.optim.SGD(critic.parameters(), lr=1.0)")
    critic = notebook.names.pop("critic")  # reached by no name, only by the clock
    before = critic.weight.detach().clone()
    notebook.names["step"] = lambda x: (critic(x).sum().backward(), notebook.names["second"].step())
    cell = notebook.cell(LOOP + "    step(x)\n")
    run_steps(cell, notebook.subjects(others=(critic, notebook.names["second"])), warm=1, steps=4)
    assert torch.equal(critic.weight, before)


def test_other_things_are_left_alone(notebook):
    import threading

    notebook.run("import threading\nlock = threading.Lock()\nthread = threading.current_thread()")
    big = notebook.names["big"] = torch.zeros(1 << 25)  # 128 MiB: input, not copied
    cell = notebook.cell("with lock: thread.mark = 1\nbig[0] = 1")
    with restored(notebook.subjects(), Reach.of(cell.source, notebook.names)):
        cell.run()
    assert threading.current_thread().mark == 1 and big[0] == 1
    del threading.current_thread().mark


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(5),
        torch.zeros(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
        torch.zeros(0, 3),
    ],
    ids=["expanded", "meta", "sparse", "nested", "empty"],
)
def test_odd_tensors_do_not_stop_it(notebook, tensor):
    notebook.names["odd"] = tensor
    cell = notebook.cell("odd")
    with restored(notebook.subjects(), Reach.of(cell.source, notebook.names)):
        cell.run()


# -- run -----------------------------------------------------------------------------------------------------------------


def test_a_run_ends_on_the_step_and_is_silent(notebook, capsys):
    ran = []
    notebook.names["ran"] = ran.append
    cell = notebook.cell(
        LOOP.replace("for x", "for i in range(9):\n  for x").replace("\n    ", "\n      ")
        + "      ran(1); print('x')\n"
    )
    run = run_steps(cell, notebook.subjects(), warm=3, steps=7)
    assert len(ran) == 9  # the tenth step ended in optimizer.step(), before the loop's last line
    assert len(run.walls) == 7 and len(run.losses) == 10
    assert capsys.readouterr() == ("", "")


def test_the_losses_are_the_loops_own(notebook):
    own = []
    notebook.names["note"] = own.append
    cell = notebook.cell(LOOP.replace("loss.backward()", "note(loss.item()); loss.backward()"))
    run = run_steps(cell, notebook.subjects(), warm=3, steps=5)
    assert run.losses == own
    again = run_steps(cell, notebook.subjects(), warm=3, steps=5)
    assert again.losses == run.losses  # from the same weights, over the same batches


@pytest.mark.parametrize("net", ["except Exception:", "except (ValueError, RuntimeError):", "finally:"])
def test_enough_is_no_exception_of_the_users(notebook, net):
    caught = []
    notebook.names["caught"] = caught
    body = LOOP.replace("    optimizer.step()", f"    try:\n        optimizer.step()\n    {net}\n        pass")
    run = run_steps(notebook.cell(body), notebook.subjects(), warm=3, steps=4)
    assert len(run.walls) == 4 and not caught


def test_a_cell_that_catches_everything_still_ends(notebook):
    body = LOOP.replace("    optimizer.step()", "    try:\n        optimizer.step()\n    except:\n        pass")
    assert len(run_steps(notebook.cell(body), notebook.subjects(), warm=3, steps=4).walls) == 4


def test_a_bare_except_in_the_loop_does_not_keep_it_running(notebook):
    """Witness: a count in the cell. One more step swallows the end; the next batch is not fetched."""
    body = """
for x, y in loader:
    try:
        begins()
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    except:
        pass
"""
    begun = []
    notebook.names["begins"] = lambda: begun.append(1)
    run = run_steps(notebook.cell(body), notebook.subjects(), warm=3, steps=4)
    assert len(run.walls) == 4 and len(begun) == 7


def test_a_loop_that_ends_by_itself_is_used_if_it_is_long_enough(notebook):
    run = run_steps(notebook.cell(LOOP), notebook.subjects(), warm=3, steps=40)
    assert len(run.walls) == 20 - 3
    notebook.run("five = list(loader)[:5]")
    short = LOOP.replace("in loader", "in five")
    with pytest.raises(UsageError, match="ended after 5 steps and a trial needs 6"):
        run_steps(notebook.cell(short), notebook.subjects(), warm=3, steps=40)


def test_batches_fetched_ahead_are_no_steps(notebook):
    """Twenty batches without a backward look like inference; the profile knew better."""
    ran = []
    notebook.names["ran"] = ran.append
    cell = notebook.cell(LOOP.replace("in loader", "in list(loader)") + "    ran(1)\n")
    subjects = replace(notebook.subjects(), unit="optimizer step (AdamW)")
    assert len(run_steps(cell, subjects, warm=3, steps=4).walls) == 4
    assert len(ran) in (6, 7)


def test_a_raising_cell_leaves_no_clock_behind(notebook):
    with pytest.raises(ZeroDivisionError):
        run_steps(notebook.cell(LOOP + "    1 / 0\n"), notebook.subjects(), 3, 5)
    with StepClock():
        pass
    assert "backward" in torch.autograd.backward.__qualname__ and not notebook.names["optimizer"].state


def test_workers_of_a_run_end_with_it(notebook):
    import multiprocessing

    others = set(multiprocessing.active_children())  # such as those of a loader that an earlier test's notebook keeps
    notebook.run("loader = DataLoader(data, batch_size=8, num_workers=1)")
    run_steps(notebook.cell(LOOP), notebook.subjects(), warm=2, steps=4)
    assert set(multiprocessing.active_children()) <= others


def test_modules_keep_their_python_counters(notebook):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls, self.kinds = nn.Linear(16, 4), 0, collections.Counter()

        def forward(self, x):
            self.calls += 1
            self.kinds["x"] += 1
            return self.inner(x)

    model = notebook.names["model"] = Counting()
    notebook.run("optimizer = torch.optim.SGD(model.parameters())")
    run_steps(notebook.cell(LOOP), notebook.subjects(), warm=2, steps=4)
    assert model.calls == 0 and not model.kinds
