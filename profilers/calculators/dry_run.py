"""One step of a live model on tensors that have no data, and its errors as sentences.

Every counter of such a step (`live` its FLOPs, `live_memory` its bytes) runs it this way and watches in a mode of its own.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import UsageError

if TYPE_CHECKING:
    from torch import nn

_ONE_AT_A_TIME = threading.RLock()  # what is switched off meanwhile is off for the whole process


class Watcher(Protocol):
    """What counts the step."""

    @property
    def phase(self) -> str:
        """ "forward", then "backward": told to it."""
        ...

    @phase.setter
    def phase(self, phase: str) -> None: ...

    @property
    def failed_in(self) -> str:
        """The module in which an operator failed; "" where none did."""
        ...


def step(model: nn.Module, args: Any, kwargs: Any, watcher: Watcher, backward: bool) -> None:
    """Forward, and the backward of every result that wants one; the watcher is told which."""
    import torch

    with torch.set_grad_enabled(backward):
        result = model(*args, **kwargs)
    if not backward:
        return
    wanted = _wanted(result)
    if not wanted:
        raise UsageError(
            f"no result of {type(model).__name__} needs a gradient, so there is no backward to count; "
            "pass backward=False, or check requires_grad of its parameters"
        )
    watcher.phase = "backward"
    torch.autograd.backward(wanted, [torch.ones_like(each) for each in wanted])


def _wanted(result: Any) -> list[Any]:
    """What the backward begins with: the loss, or else every result that needs a gradient."""
    import torch
    from torch.utils._pytree import tree_leaves

    named = result if isinstance(result, Mapping) else getattr(result, "__dict__", {})
    if isinstance(named.get("loss"), torch.Tensor):
        return [named["loss"]]
    leaves = tree_leaves(result)
    if any(each is result for each in leaves) and not isinstance(result, torch.Tensor):
        leaves = tree_leaves(dict(named))  # a dataclass or another object of the user's
    return [each for each in leaves if isinstance(each, torch.Tensor) and each.requires_grad]


@contextmanager
def no_data(model: nn.Module, fakes: Any) -> Iterator[None]:
    """Fake tensors everywhere, layers in parts, compiled code as it is written, and quiet."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from .stand_in import random_state_kept, standing_in

    with ExitStack() as stack:
        stack.enter_context(_ONE_AT_A_TIME)
        stack.enter_context(random_state_kept())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(_layers_in_parts())
        if "torch._dynamo" in sys.modules:  # there may be compiled parts: they run as written
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(_silent("torch._subclasses.fake_tensor"))  # it logs a traceback of what it also raises
        stack.enter_context(FakeTensorMode())
        stack.enter_context(standing_in(model, fakes))
        yield


@contextmanager
def _layers_in_parts() -> Iterator[None]:
    """In evaluation nn.TransformerEncoderLayer has one operator for all of it, and oneDNN one for a recurrent layer."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch._C._set_mkldnn_enabled(before[1])


@contextmanager
def _silent(logger: str) -> Iterator[None]:
    log = logging.getLogger(logger)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def refusals(model: nn.Module, watcher: Watcher) -> Iterator[None]:
    """The errors of tensors without data, each as a sentence."""
    from torch._subclasses import fake_tensor

    def place() -> str:
        return watcher.failed_in or type(model).__name__

    try:
        yield
    except (fake_tensor.DataDependentOutputException, fake_tensor.DynamicOutputShapeException) as error:
        how = "count a forward without that branch"
        if hasattr(model, "set_experts_implementation") and "nonzero" in str(error.func):
            how = 'type model.set_experts_implementation("grouped_mm")'
        elif model.training:
            how = f"try model.eval(), or {how}"
        raise UsageError(
            f"{place()} depends on values and not on shapes alone ({error.func}), so it has no one count; {how}"
        ) from error
    except fake_tensor.UnsupportedOperatorException as error:
        raise UsageError(
            f"{error.func} in {place()} cannot run without data; give it a fake implementation with "
            "torch.library.register_fake"
        ) from error
    except NotImplementedError as error:
        if "CPU" not in str(error):
            raise
        raise UsageError(
            f"{place()} is not implemented on the CPU, which counting pretends to be: {str(error).splitlines()[0]} "
            "Count it with backward=False, or with another implementation"
        ) from error
    except RuntimeError as error:
        if "no fake impl registered" in str(error):
            raise UsageError(
                f"a custom operator in {place()} cannot run without data: {str(error).splitlines()[0][:200]} "
                "Give it one with torch.library.register_fake"
            ) from error
        if not any(word in str(error) for word in ("data pointer", "data_ptr", ".numpy()")):
            raise
        raise UsageError(
            f"{place()} hands memory to numpy or to a kernel that torch does not see; make that part a custom operator "
            "with torch.library.custom_op, or triton_op"
        ) from error
