"""Run the user's cell again for a few steps and leave no trace: model, optimizer, random state and names are put back.

The copies live in host memory. What cannot be put back (files, sockets, a half-consumed iterator) is refused before.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...profilers.errors import UsageError
from ..registry import Code
from .remedies import Subjects

if TYPE_CHECKING:
    from ...profilers.step import Step, StepClock

RESERVE = 1 << 30  # bytes of host memory a copy must leave free

WRITES = {  # calls that leave something behind: name -> why the cell is not run again
    "open": "opens files for writing",
    "save": "saves files",
    "save_pretrained": "saves files",
    "save_file": "saves files",
    "savefig": "saves files",
    "to_csv": "writes files",
    "to_parquet": "writes files",
    "write_text": "writes files",
    "write_bytes": "writes files",
    "dump": "writes files",
    "system": "runs programs",
    "run": "runs programs",
    "Popen": "runs programs",
    "check_call": "runs programs",
    "unlink": "deletes files",
    "remove": "may delete files",
    "rmtree": "deletes files",
    "input": "asks for input",
    "post": "sends data",
    "push_to_hub": "uploads",
    "log_artifact": "logs to a tracker",
    "log_metric": "logs to a tracker",
    "init_process_group": "starts a process group",
}


class Enough(BaseException):
    """Raised out of the loop after the wanted number of steps; no `except Exception` of the user's catches it."""


# -- may we? -------------------------------------------------------------------------------------------------------------


def refusal(source: str, subjects: Subjects) -> str:
    """Why this cell is not run again, in one sentence, or ""."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return "the cell is not plain Python (it has magics or shell lines): move the loop to a cell of its own"
    return _side_effect(tree, source) or _one_shot(tree, subjects) or _remade(tree, subjects) or _too_large(subjects)


def _side_effect(tree: ast.AST, source: str) -> str:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        why = WRITES.get(name)
        if why and not (name == "open" and _reads(node)):
            return f"the cell {why} (line {node.lineno}: `{ast.unparse(node)[:60]}`), and running it again would do so again: move that to another cell"
    return ""


def _reads(call: ast.Call) -> bool:
    """`open(path)` or `open(path, "rb")`."""
    mode = call.args[1] if len(call.args) > 1 else next((k.value for k in call.keywords if k.arg == "mode"), None)
    return mode is None or (
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not set(mode.value) & set("wax+")
    )


def _one_shot(tree: ast.AST, subjects: Subjects) -> str:
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for name in sorted(used & subjects.namespace.keys()):
        value = subjects.namespace[name]
        if hasattr(type(value), "__next__") and not isinstance(value, io.IOBase):
            return f"`{name}` is an iterator that this cell has already consumed: loop over what makes it (`for batch in loader`), so that it can start afresh"
    return ""


def _remade(tree: ast.AST, subjects: Subjects) -> str:
    stored = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for thing, kind in ((subjects.model, "model"), (subjects.optimizer, "optimizer"), (subjects.loader, "loader")):
        remade = [name for name in subjects.names_of(thing) if name in stored] if thing is not None else []
        if remade:
            return f"`{remade[0]}` is made inside the cell, so a remedy cannot reach it: build the {kind} in an earlier cell"
    return ""


def _too_large(subjects: Subjects) -> str:
    need = sum(t.numel() * t.element_size() for t in _tensors(subjects))
    free = available_memory()
    if need + RESERVE > free:
        return f"the model and its optimizer do not fit in memory twice: {need / 1e9:.1f} GB to copy, {free / 1e9:.1f} GB free"
    return ""


def available_memory() -> int:
    """Bytes the host could still give, as the kernel estimates it."""
    with contextlib.suppress(OSError), open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def _tensors(subjects: Subjects) -> Iterator[Any]:
    import torch

    if subjects.model is not None:
        yield from subjects.model.parameters()
        yield from subjects.model.buffers()
    if subjects.optimizer is not None:
        for state in subjects.optimizer.state.values():
            yield from (v for v in state.values() if isinstance(v, torch.Tensor))


# -- put back ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def restored(subjects: Subjects) -> Iterator[None]:
    """Whatever the body does to the model, the optimizer, random state and the notebook's names is undone."""
    import torch

    model, optimizer, loader = subjects.model, subjects.optimizer, subjects.loader
    weights = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()} if model is not None else {}
    gradients = (
        [(p, None if p.grad is None else p.grad.detach().clone()) for p in model.parameters()]
        if model is not None
        else []
    )
    training = [(m, m.training) for m in model.modules()] if model is not None else []
    state = copy.deepcopy(optimizer.state_dict()) if optimizer is not None else None
    generator = getattr(loader, "generator", None)
    generator_state = generator.get_state() if generator is not None else None
    names = dict(subjects.namespace)
    randomness = random.getstate()
    numpy = sys.modules.get("numpy")
    numpy_state = numpy.random.get_state() if numpy is not None else None
    torch_state, cuda_states = (
        torch.get_rng_state(),
        torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    )
    try:
        yield
    finally:
        subjects.namespace.clear()
        subjects.namespace.update(names)
        random.setstate(randomness)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
        if cuda_states:
            torch.cuda.set_rng_state_all(cuda_states)
        if generator is not None:
            generator.set_state(generator_state)
        for module, mode in training:
            module.training = mode
        if model is not None:
            with torch.no_grad():
                for key, value in model.state_dict().items():
                    value.copy_(weights[key])
            for parameter, gradient in gradients:
                parameter.grad = gradient
        if optimizer is not None and state is not None:
            optimizer.state.clear()
            optimizer.load_state_dict(state)


# -- run -----------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One bounded run of the cell: its steps after the warm-up, and the losses of the same steps."""

    walls: list[int] = field(default_factory=list)  # ns
    losses: list[float] = field(default_factory=list)


def run_steps(code: Code, subjects: Subjects, warm: int, steps: int) -> Run:
    """Run the cell for `warm` + `steps` steps, silently, everything restored afterwards."""
    from ...profilers.step import StepClock

    walls: list[Step] = []

    def count(clock: StepClock) -> None:
        walls.append(clock.steps[-1])
        if len(walls) >= warm + steps:
            raise Enough

    silent = io.StringIO()
    with (
        restored(subjects),
        _losses() as losses,
        contextlib.redirect_stdout(silent),
        contextlib.redirect_stderr(silent),
        contextlib.suppress(Enough),
        StepClock(count),
    ):
        code.run(display=False)
    if len(walls) < warm + 3:
        raise UsageError(f"the cell ended after {len(walls)} steps; a trial needs {warm + 3}: run the loop for longer")
    return Run([s.wall for s in walls[warm:]], [float(x) for x in losses])


@contextlib.contextmanager
def _losses() -> Iterator[list[Any]]:
    """The tensors `backward()` is called on, detached: the losses of the run, whatever the loop calls them."""
    import torch

    seen: list[Any] = []
    real = torch.autograd.backward

    def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
        first = tensors[0] if isinstance(tensors, (list, tuple)) else tensors
        if isinstance(first, torch.Tensor) and first.numel() == 1:
            seen.append(first.detach().clone())
        return real(tensors, *args, **kwargs)

    torch.autograd.backward = backward
    try:
        yield seen
    finally:
        torch.autograd.backward = real
