"""Stacks: each operator at the user's line that launched it, backward ones at the line of their forward."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from loops import mlp, train
from profiled import profiled, quick  # noqa: F401  quick is a fixture
from torch.utils.checkpoint import checkpoint

from mlsys_studio.profilers import stacks
from mlsys_studio.profilers.events import Events, HostEvent
from mlsys_studio.profilers.phases import Mark
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.stacks import LineTracer, SourceLine, by_line, is_users, shown, skipped

pytestmark = pytest.mark.usefixtures("quick")

MODEL = """\
import torch

class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x  # squared

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x + torch.mm(torch.ones(300, 300), torch.ones(300, 300)).mean()  # own backward

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn(400, 400) / 20)

    def forward(self, x):
        x = x @ self.w  # small
        for _ in range(8):
            x = x @ self.w  # large
        x = self.inner(x)
        return Square.apply(x).sum()

    def inner(self, x):
        return x.sigmoid()  # inner
"""


def module(folder: Path, source: str = MODEL) -> ModuleType:
    file = folder / "users_model.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location("users_model", file)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def run_steps(net: torch.nn.Module, steps: int = 90, forward=None) -> Profile:
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    with profiled(net, stacks=True) as run:
        for _ in range(steps):
            optimizer.zero_grad()
            (forward or net)(torch.ones(64, 400)).backward()
            optimizer.step()
    assert run.profile is not None and run.profile.lines, run.profile and run.profile.notes
    return run.profile


def at(found: Profile, comment: str) -> SourceLine:
    (line,) = [line for line in found.lines if line.text.endswith(f"# {comment}")]
    return line


def test_every_line_has_its_operators_and_their_backward(tmp_path):
    """Witness: eight matmuls of one size on a line against one on another, in either pass."""
    found = run_steps(module(tmp_path).Net())
    large, small = at(found, "large"), at(found, "small")
    assert large.where.endswith(f"users_model.py:{MODEL.splitlines().index('            x = x @ self.w  # large') + 1}")
    assert large.function == "Net.forward"
    for phase in ("forward", "backward"):
        assert large.phases[phase] > 3 * small.phases[phase]
    assert set(at(found, "inner").phases) == {"forward", "backward"}
    assert set(at(found, "squared").phases) == {"forward"}  # its backward is Python of the user's own
    assert set(at(found, "own backward").phases) == {"backward"}
    assert found.lines[0] == large or found.lines[1] == large
    assert sys.gettrace() is None and sys._getframe().f_trace is None


@pytest.mark.gpu
def test_on_cuda_a_line_has_the_time_of_its_kernels(tmp_path):
    """Backward runs on a thread of autograd's own, where no line of the user's is; it goes to the forward's line."""
    net = module(tmp_path, MODEL.replace("torch.ones(300, 300)", "torch.ones(300, 300, device='cuda')")).Net().cuda()
    found = run_steps(net, forward=lambda x: net(x.cuda().repeat(40, 1)))
    large, small = at(found, "large"), at(found, "small")
    for phase in ("forward", "backward"):
        assert large.phases[phase] > 3 * small.phases[phase]


def test_recomputed_operators_stay_at_their_line(tmp_path):
    net = module(tmp_path).Net()
    plain = at(run_steps(net), "inner").calls
    again = at(run_steps(net, forward=lambda x: checkpoint(net, x, use_reentrant=False)), "inner")
    assert again.calls > plain and "backward" in again.phases


def test_times_add_up_to_the_operators_of_the_step():
    """By hand, in ns: forward lines 1 and 2, a node of line 1's operator, one of the engine's own."""
    tracer = LineTracer()
    tracer.places = {("m.py", 1, "f"): 0, ("m.py", 2, "f"): 1, ("t.py", 9, "train"): 2}
    for t, line in ((0, 0), (100, 1), (200, 2)):
        tracer.times.append(t)
        tracer.which.append(line)
    node = stacks.NODE
    host = [
        HostEvent("aten::empty", 0, 1, 1),
        HostEvent("aten::mm", 10, 60, 1, sequence=5),
        HostEvent("aten::resolve", 20, 30, 1),  # inside
        HostEvent("aten::relu", 110, 120, 1, sequence=6),
        HostEvent(f"{node}: MmBackward0", 210, 260, 1, sequence=5),
        HostEvent("aten::mm", 220, 250, 1),
        HostEvent(f"{node}: AccumulateGrad", 270, 280, 1),
        HostEvent("aten::elsewhere", 20, 90, 2),  # another thread's
    ]
    host.sort(key=lambda h: (h.start, -h.end))
    marks = [Mark(0, 0, "forward"), Mark(205, 0, "backward")]
    found = by_line(tracer, Events(host, [], []), marks, (0, 300), cuda=False)
    assert {(line.line, *line.phases.items()) for line in found} == {
        (1, ("forward", 1 + 50), ("backward", 50)),
        (2, ("forward", 10)),
        (9, ("backward", 10)),
    }


def test_whose_files():
    nobodys = (torch.nn.functional.__file__, stacks.__file__, pathlib.__file__)
    assert not any(is_users(file, skipped()) for file in nobodys)
    assert not is_users("<string>", skipped()) and not is_users("/tmp/torchinductor_me/ab/c.py", skipped())
    assert is_users(pytest.__file__, skipped()) and is_users("/home/me/train.py", skipped())
    assert is_users("<ipython-input-3-1f>", skipped()) and is_users("/tmp/ipykernel_7/12.py", skipped())
    assert shown("/tmp/ipykernel_7/12.py") == shown("<ipython-input-3-1f>") == "cell"
    assert shown("/x/lib/python3.11/site-packages/transformers/a.py") == "transformers/a.py"
    assert shown(str(Path.cwd() / "train.py")) == "train.py"


def test_a_cell_is_named_by_its_line():
    """The `%%mlsys` line is the cell's first."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    assert shell.extension_manager is not None
    shell.extension_manager.load_extension("mlsys_studio")
    shell.user_ns |= {"torch": torch, "net": mlp(), "opt": torch.optim.SGD(mlp().parameters())}
    cell = "--stacks --into found\nopt = torch.optim.SGD(net.parameters())\nfor _ in range(80):\n    loss = net(torch.ones(4, 16)).sum()\n    loss.backward()\n    opt.step()"
    line, _, body = cell.partition("\n")
    shell.run_cell_magic("mlsys", f"profile {line}", body)
    found = shell.user_ns["found"]
    assert {"cell line 4", "cell line 6"} <= {line.where for line in found.lines}
    assert "loss = net(torch.ones(4, 16)).sum()" in found.text() and "cell line 4" in found.html()


def test_a_step_that_runs_far_more_lines_than_the_one_before_is_not_kept():
    seen = []

    def between() -> None:
        if sys.gettrace() is not None:
            seen.append(sys.gettrace().__self__)
            for _ in range(100_000 if seen[-1] is not seen[0] else 1):
                pass

    with profiled(stacks=True) as run:
        train(mlp(), 90, between=between)
    assert run.profile is not None and run.profile.ledger is not None and not run.profile.lines
    assert any("no stacks: the recorded step ran over 4 times" in note for note in run.profile.ledger.notes)
    assert len(seen[-1].times) <= 4 * seen[0].count


def test_under_a_debugger_there_are_no_stacks_but_all_else():
    def theirs(*_):
        return None

    sys.settrace(theirs)
    try:
        with profiled(stacks=True) as run:
            train(mlp(), 80)
        assert sys.gettrace() is theirs
    finally:
        sys.settrace(None)
    assert run.profile is not None and run.profile.ledger is not None and not run.profile.lines
    assert any("no stacks: a debugger" in note for note in run.profile.ledger.notes)


def test_without_being_asked_nothing_is_traced(monkeypatch):
    monkeypatch.setattr(sys, "settrace", lambda *_: pytest.fail("traced"))
    with profiled() as run:
        train(mlp(), 60)
    assert run.profile is not None and run.profile.lines == () and run.profile.memory_use is None
    assert set(run.profile.steps.excluded) <= {
        "shapes recorded",
        "settling after the profiler",
        "profiled, taken again",
    }
