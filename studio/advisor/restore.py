"""Put the user's objects back as they were: the same objects, with the contents they had.

`owned` walks what a cell can reach and stops at what is not the user's: their own classes, torch's modules, optimizers,
schedulers, scalers, loaders and random generators, whatever has a state_dict, and plain containers of these. Of each
it keeps the bindings (attributes, items) and, of tensors and arrays, a copy of the values in host memory.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from .reach import Reach, is_notebooks
from .remedies import Subjects

LARGEST_INPUT = 64 << 20  # bytes: a larger tensor outside models and optimizers is input, and is not copied
LONGEST = 1_000_000  # items: a longer container is input

ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None), range, slice})
MAPPINGS = (dict, OrderedDict, defaultdict, Counter)
CONTAINERS = (*MAPPINGS, list, set, deque, bytearray)
TORCHS_OWN = ("torch.nn.", "torch.optim.", "torch.amp.", "torch.cuda.amp.", "torch.utils.data.")
CODE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)

PutBack = Callable[[], None]


@contextlib.contextmanager
def restored(subjects: Subjects, reach: Reach) -> Iterator[None]:
    """Whatever the body does to what the cell can reach, to random state and to the notebook's names is undone."""
    namespace = subjects.namespace
    names = dict(namespace)
    put_back = [*_randomness(), *(_kept(thing) for thing in owned(subjects, reach))]
    try:
        yield
    finally:
        for name in namespace.keys() - names.keys():
            del namespace[name]
        namespace.update(names)
        for undo in put_back:
            undo()


def bytes_to_copy(subjects: Subjects, reach: Reach) -> int:
    """Host memory that `restored` takes, about."""
    return sum(_size(thing) for thing in owned(subjects, reach))


# -- which objects -------------------------------------------------------------------------------------------------------


def owned(subjects: Subjects, reach: Reach) -> Iterator[Any]:
    """Each once: everything with contents that the cell can change and that we can put back."""
    namespace = subjects.namespace
    roots = [*subjects.parts, *(namespace[name] for name in reach.names)]
    waiting: list[tuple[Any, bool]] = [(root, False) for root in roots]  # (object, part of a model or an optimizer)
    seen: dict[int, Any] = {}  # the object too: an id alone could be given to another one meanwhile
    while waiting:
        thing, part = waiting.pop()
        if type(thing) in ATOMS or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if isinstance(thing, CODE):
            continue
        if _has_values(thing):
            if part or _size(thing) <= LARGEST_INPUT or getattr(thing, "requires_grad", False):
                yield thing
                if (gradient := _gradient(thing)) is not None:
                    waiting.append((gradient, True))
        elif _is_random(thing):
            yield thing
        elif type(thing) in CONTAINERS:
            if len(thing) <= LONGEST or part:
                yield thing
                waiting += [(item, part) for item in _items(thing)]
        elif isinstance(thing, (tuple, frozenset)):
            waiting += [(item, part) for item in thing]
        elif _is_entered(thing, namespace):
            yield thing
            inside = part or _is_trained(thing)
            waiting += [(value, inside) for value in vars(thing).values()]


def _is_entered(thing: Any, namespace: Mapping[str, Any]) -> bool:
    kind = type(thing)
    if not isinstance(getattr(thing, "__dict__", None), dict):
        return False
    if kind.__name__.endswith("DataLoaderIter"):  # processes and queues: they cannot go back
        return False
    bears_state = hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict")
    return bears_state or is_notebooks(kind, namespace) or f"{kind.__module__}.".startswith(TORCHS_OWN)


def _is_trained(thing: Any) -> bool:
    import torch

    return isinstance(thing, (torch.nn.Module, torch.optim.Optimizer))


def _items(container: Any) -> Iterator[Any]:
    if isinstance(container, dict):
        yield from container.values()
    elif not isinstance(container, bytearray):
        yield from container


def _has_values(thing: Any) -> bool:
    """A dense tensor with memory of its own, or a numpy array."""
    import torch

    if isinstance(thing, torch.Tensor):
        plain = thing.layout == torch.strided and thing.device.type != "meta" and not thing.is_nested
        return plain and not thing.is_inference() and all(thing.stride())
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(thing, numpy.ndarray) and thing.flags.writeable


def _is_random(thing: Any) -> bool:
    import torch

    numpy = sys.modules.get("numpy")
    kinds = (torch.Generator, random.Random)
    return isinstance(thing, kinds if numpy is None else (*kinds, numpy.random.Generator, numpy.random.RandomState))


def _gradient(tensor: Any) -> Any:
    return tensor.grad if getattr(tensor, "is_leaf", False) else None


def _size(thing: Any) -> int:
    return thing.nbytes if _has_values(thing) else 0


# -- back as they were -----------------------------------------------------------------------------------------------------


def _kept(thing: Any) -> PutBack:
    """Remember the contents of one object; the function that puts them back, into the very same object."""
    import torch

    if isinstance(thing, torch.Tensor):
        return _tensor(thing)
    if _is_random(thing):
        return _generator(thing)
    if _has_values(thing):
        array = thing.copy()
        return lambda: thing.__setitem__(..., array)
    if isinstance(thing, (list, bytearray)):
        content = thing[:]
        return lambda: thing.__setitem__(slice(None), content)
    items = thing if type(thing) in CONTAINERS else vars(thing)
    fill, content = (items.extend, list(items)) if isinstance(items, deque) else (items.update, items.copy())

    def refill() -> None:
        items.clear()
        fill(content)

    return refill


def _tensor(tensor: Any) -> PutBack:
    import torch

    values = tensor.detach().to("cpu", copy=True)
    gradient = _gradient(tensor)

    def put_back() -> None:
        with torch.no_grad():
            if tensor.shape != values.shape:
                tensor.resize_(values.shape)
            tensor.copy_(values)
        if tensor.is_leaf and tensor.grad is not gradient:
            tensor.grad = gradient

    return put_back


def _generator(generator: Any) -> PutBack:
    if hasattr(generator, "bit_generator"):
        bits = generator.bit_generator
        state = bits.state
        return lambda: setattr(bits, "state", state)
    if hasattr(generator, "getstate"):
        state = generator.getstate()
        return lambda: generator.setstate(state)
    state = generator.get_state()
    return lambda: generator.set_state(state)


def _randomness() -> Iterator[PutBack]:
    """The global generators."""
    import torch

    yield _generator(torch.default_generator)
    if torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(states)
    python = random.getstate()
    yield lambda: random.setstate(python)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state = numpy.random.get_state()
        yield lambda: numpy.random.set_state(state)
