"""A loader's double, to be measured in its place: nothing of the user's moves on by being measured.

The double shares the user's dataset where worker processes have a copy of it anyway, and has its own sampler, generator
and iterator. What this process draws from while it reads (the global random states) is put back afterwards. A stream
that can be read once is refused: reading it would take its samples from the training.
"""

from __future__ import annotations

import contextlib
import copy
import io
import random
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

LARGE = 100_000  # entries of a list or dict: larger ones are shared with the double, not copied
PATIENCE = 120  # seconds that a worker may take for a batch


class OneShot(Exception):
    """`what`, such as "a file that is open", would be used up by reading."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def plain_loader(loader: Any) -> DataLoader:
    """The torch DataLoader that is meant. Raises UsageError."""
    from torch.utils.data import DataLoader

    if isinstance(loader, DataLoader):
        return loader
    inner = (getattr(loader, "pipeline", None) or [None])[0]  # webdataset's WebLoader is a pipeline from a DataLoader
    if isinstance(inner, DataLoader):
        return inner
    kind = type(loader).__name__
    if hasattr(loader, "__getitem__") and hasattr(loader, "__len__"):
        raise UsageError(f"{kind} is a dataset, not a loader: give the DataLoader that reads it")
    raise UsageError(f"{kind} is not a torch DataLoader: give the object that your loop runs over")


def shadow(loader: DataLoader, init: Callable[[int], None] | None, notes: list[str]) -> DataLoader:
    """The double, with `init` as its worker_init_fn. Adds to `notes` what could not be kept apart.

    Raises OneShot, and UsageError where its sampler cannot be copied.
    """
    from torch.utils.data import IterableDataset

    if (what := used_up(loader.dataset)) is not None and isinstance(loader.dataset, IterableDataset):
        raise OneShot(what)
    double = copy.copy(loader)
    fresh = _samplers(loader)
    if loader.num_workers == 0:
        fresh["dataset"] = _dataset(loader.dataset, notes)
    else:
        fresh["timeout"] = loader.timeout or PATIENCE
    fresh |= {"worker_init_fn": init, "_iterator": None}
    if "next_iter_state" in vars(loader):  # StatefulDataLoader's, for its next iterator
        fresh["next_iter_state"] = copy.deepcopy(vars(loader)["next_iter_state"])
    vars(double).update(fresh)
    return double


def _samplers(loader: DataLoader) -> dict[str, Any]:
    """Of their own, with their generators where they stand now; the dataset they know stays the user's."""
    names = [name for name in ("sampler", "batch_sampler", "generator") if name in vars(loader)]
    parts = {name: vars(loader)[name] for name in names}
    if (what := used_up([parts.get("sampler"), parts.get("batch_sampler")])) is not None:
        raise UsageError(
            f"the loader's sampler holds {what}, which can be read once: measuring would take its samples; give a sampler that can be iterated again"
        )
    try:
        return copy.deepcopy(parts, {id(loader.dataset): loader.dataset, **_shared(parts)})
    except Exception as error:  # noqa: BLE001 - a user's object may refuse to be copied in any way
        raise UsageError(
            f"the loader's sampler cannot be copied ({type(error).__name__}: {error}), so measuring would move it on; give a copy: data_doctor(DataLoader(dataset, ...))"
        ) from None


def _dataset(dataset: Any, notes: list[str]) -> Any:
    """A copy for reading in this process: what a dataset counts, caches or draws by itself is then the copy's."""
    try:
        return copy.deepcopy(dataset, _shared(dataset))
    except Exception as error:  # noqa: BLE001
        notes.append(
            f"the dataset could not be copied ({type(error).__name__}), so it was read itself: what it counts, caches or draws inside has moved on"
        )
        return dataset


def _shared(thing: Any) -> dict[int, Any]:
    """A memo for deepcopy: tensors, arrays and large collections are read, not written, and stay the same object."""
    memo: dict[int, Any] = {}
    for value in inside(thing):
        large = isinstance(value, (list, dict, set, tuple)) and len(value) > LARGE
        if large or _is_array(value):
            memo[id(value)] = value
    return memo


def _is_array(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("numpy", "torch", "pyarrow") and hasattr(value, "nbytes")


def used_up(thing: Any) -> str | None:
    """What of it can be read only once, in words; None where nothing was found."""
    import types

    for value in inside(thing):
        if isinstance(value, types.GeneratorType):
            return f"the generator {value.__name__}"
        if isinstance(value, io.IOBase) and not isinstance(value, (io.BytesIO, io.StringIO)):
            return "a file that is open"
        if isinstance(value, socket.socket):
            return "a socket"
        if hasattr(type(value), "__next__"):
            return f"the iterator {type(value).__name__}"
    return None


def inside(thing: Any, depth: int = 5) -> Iterator[Any]:
    """The object and what it keeps, a few levels down; of long collections the first entries."""
    seen: set[int] = set()
    level = [thing]
    for _ in range(depth):
        below: list[Any] = []
        for value in level:
            if (
                id(value) in seen
                or isinstance(value, (str, bytes, int, float, type))
                or (callable(value) and not hasattr(value, "__dict__"))
            ):
                continue
            seen.add(id(value))
            yield value
            if isinstance(value, dict):
                below += list(value.values())[:64]
            elif isinstance(value, (list, tuple, set)):
                below += list(value)[:64]
            elif hasattr(value, "__dict__") and not isinstance(value, type(sys)) and not _is_array(value):
                below += list(vars(value).values())
        level = below


@contextlib.contextmanager
def random_states() -> Iterator[None]:
    """The global random states of Python, torch, CUDA and numpy, afterwards as before."""
    import torch

    state, python = torch.get_rng_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    numpy: Any = sys.modules.get("numpy")
    drawn = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
        random.setstate(python)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if numpy is not None:
            numpy.random.set_state(drawn)
