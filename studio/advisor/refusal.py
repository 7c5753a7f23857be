"""May this cell be run again? One sentence why not, where running it would leave something behind or not be the same."""

from __future__ import annotations

import ast
import contextlib
import io
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from .reach import Reach
from .remedies import Remedy, Subjects
from .restore import bytes_to_copy

RESERVE = 1 << 30  # bytes of host memory a copy must leave free

BY_NAME = {  # functions and methods of whatever object: name -> what they do
    **dict.fromkeys(
        ("save", "savez", "savetxt", "savefig", "save_file", "save_model", "save_pretrained", "save_checkpoint",
         "save_state", "save_to_disk"), "saves files"),
    **dict.fromkeys(("to_csv", "to_parquet", "to_pickle", "to_json", "write_text", "write_bytes"), "writes files"),
    **dict.fromkeys(("unlink", "rmtree"), "deletes files"),
    **dict.fromkeys(("Popen", "check_call", "check_output"), "runs programs"),
    **dict.fromkeys(
        ("add_scalar", "add_scalars", "add_image", "add_histogram", "log_artifact", "log_metric", "log_metrics"),
        "logs to a tracker"),
    "push_to_hub": "uploads",
    "post": "sends data",
    "init_process_group": "starts a process group",
}  # fmt: skip

BY_PATH = {  # functions whose bare name means nothing
    "input": "asks for input",
    "os.system": "runs programs",
    "os.remove": "deletes files",
    "os.rename": "moves files",
    "os.replace": "moves files",
    "shutil.move": "moves files",
    "shutil.copy": "copies files",
    "shutil.copytree": "copies files",
    "subprocess.run": "runs programs",
    "subprocess.call": "runs programs",
    "json.dump": "writes files",
    "pickle.dump": "writes files",
    "joblib.dump": "writes files",
    "requests.put": "sends data",
    "requests.patch": "sends data",
    "requests.delete": "sends data",
    "wandb.init": "logs to a tracker",
    "wandb.log": "logs to a tracker",
    "mlflow.start_run": "logs to a tracker",
}


def refusal(source: str, subjects: Subjects, remedy: Remedy) -> str:
    """Why this cell is not run again with that remedy, or ""."""
    try:
        reach = Reach.of(source, subjects.namespace)
    except SyntaxError:
        return "the cell is not plain Python (it has magics or shell lines): move the loop to a cell of its own"
    return (
        _one_of_many()
        or _side_effect(reach, subjects.namespace)
        or _one_shot(reach, subjects.namespace)
        or _without_end(reach, subjects)
        or _remade(reach, subjects, remedy)
        or _too_large(reach, subjects)
    )


# -- side effects --------------------------------------------------------------------------------------------------------


def _side_effect(reach: Reach, namespace: Mapping[str, Any]) -> str:
    for tree in reach.trees:
        where = "the cell" if tree is reach.trees[0] else "a function the cell calls"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (does := _does(node, namespace)):
                line = f" in line {node.lineno}" if tree is reach.trees[0] else ""
                return f"{where} {does}{line} (`{ast.unparse(node)[:60]}`), and running it again would do so again: move that to another cell"
    return ""


def _does(call: ast.Call, namespace: Mapping[str, Any]) -> str:
    path = _path(call.func, namespace)
    last = path.rpartition(".")[2]
    if last == "open":
        return "" if _reads(call, path) else "opens files for writing"
    return BY_PATH.get(path) or BY_NAME.get(last) or ""


def _path(function: ast.expr, namespace: Mapping[str, Any]) -> str:
    """`os.path.join` for `path.join(...)` after `from os import path`; what is no module or function keeps its spelling."""
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.insert(0, function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ".".join(["", *parts])
    value = namespace.get(function.id)
    if isinstance(value, ModuleType):
        return ".".join([value.__name__, *parts])
    if not parts and callable(value) and isinstance(name := getattr(value, "__qualname__", None), str):
        module = getattr(value, "__module__", None)
        module = "os" if module in ("posix", "nt") else module
        return name if module in (None, "builtins", "io", "_io") else f"{module}.{name}"
    return ".".join([function.id, *parts])


def _reads(call: ast.Call, path: str) -> bool:
    """`open(path)`, `gzip.open(path, "rb")`, `Path(path).open()`."""
    place = 1 if path in ("open", "io.open", "gzip.open", "bz2.open", "lzma.open") else 0
    named = next((k.value for k in call.keywords if k.arg == "mode"), None)
    mode = call.args[place] if len(call.args) > place else named
    if mode is None:
        return True
    return isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not set(mode.value) & set("wax+")


# -- what cannot begin again ---------------------------------------------------------------------------------------------


def _one_shot(reach: Reach, namespace: Mapping[str, Any]) -> str:
    for name in sorted(reach.names - reach.made):
        value = namespace[name]
        if isinstance(value, io.IOBase):
            return f"`{name}` is an open file, which cannot be put back: open it inside the cell"
        if hasattr(type(value), "__next__"):
            return f"`{name}` is an iterator that this cell has already consumed: loop over what makes it (`for batch in loader`), so that it can start afresh"
        if any(c.__name__ == "Trainer" and not c.__module__.startswith("torch") for c in type(value).__mro__):
            library = next(c.__module__ for c in type(value).__mro__ if c.__name__ == "Trainer").partition(".")[0]
            if library in ("transformers", "lightning", "pytorch_lightning", "trl"):
                return f"the loop is inside {library}'s Trainer, which saves and logs by itself: change its arguments by hand"
    return ""


def _without_end(reach: Reach, subjects: Subjects) -> str:
    """A trial ends a loop by an exception (replay.py), which `except:` swallows; then only the next batch can end it."""
    named = set(subjects.names_of(subjects.loader)) if subjects.loader is not None else set()
    for tree in reach.trees:
        loops = [node for node in ast.walk(tree) if isinstance(node, ast.For) and _is_fetched(node.iter, named)]
        ended = {id(node) for loop in loops for node in ast.walk(loop)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and id(node) not in ended and _swallows(node):
                return f"`except` in line {node.lineno} catches everything, so the loop could not be stopped after a few steps: write `except Exception:`"
    return ""


def _is_fetched(source: ast.expr, loaders: set[str]) -> bool:
    """`in loader`, `in enumerate(loader)`; not `in list(loader)`, which has all its batches beforehand."""
    if isinstance(source, ast.Call):
        at_once = isinstance(source.func, ast.Name) and source.func.id in ("list", "tuple", "sorted")
        return not at_once and any(_is_fetched(argument, loaders) for argument in source.args)
    return isinstance(source, ast.Name) and source.id in loaders


def _swallows(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    everything = any(kind is None or (isinstance(kind, ast.Name) and kind.id == "BaseException") for kind in caught)
    return everything and not any(isinstance(n, (ast.Raise, ast.Break, ast.Return)) for n in ast.walk(handler))


def _one_of_many() -> str:
    import torch

    if (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    ):
        return (
            "this process is one of several ranks, and running the cell on one of them alone would wait for the others"
        )
    return ""


def _remade(reach: Reach, subjects: Subjects, remedy: Remedy) -> str:
    """A remedy changes an object; the cell must not make another one in its place."""
    thing = {"model": subjects.model, "optimizer": subjects.optimizer, "loader": subjects.loader}.get(remedy.changes)
    remade = sorted(reach.made.intersection(subjects.names_of(thing))) if thing is not None else []
    if remade:
        return f"`{remade[0]}` is made inside the cell, so a remedy cannot reach it: build the {remedy.changes} in an earlier cell"
    return ""


def _too_large(reach: Reach, subjects: Subjects) -> str:
    need, free = bytes_to_copy(subjects, reach), available_memory()
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
