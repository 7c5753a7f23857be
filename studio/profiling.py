"""`profile`: around a block, on a function, or above a cell. It measures (profilers) and says what to change (advisor).

with mlsys_studio.profile() as p:      @mlsys_studio.profile            %%mlsys profile
    train()                            def train(): ...                 for batch in loader: ...
p.profile                              train(); train.profile
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from ..profilers.errors import UsageError
from ..profilers.profile import Profile
from ..profilers.recording import Recording
from .advisor.findings import by_hand, findings
from .session import Parts

F = TypeVar("F", bound=Callable[..., Any])
DISABLE = "MLSYS_DISABLE"


def disabled() -> bool:
    """MLSYS_DISABLE=1 turns every profile into a no-op."""
    return os.environ.get(DISABLE, "") not in ("", "0")


class Profiling:
    """A context manager and decorator. `profile` is the result, None while the block runs or where MLSYS_DISABLE is set."""

    def __init__(
        self, title: str = "", mode: str = "full", steps: int = 5, stacks: bool = False, memory: bool = False
    ) -> None:
        self._options = {"title": title, "mode": mode, "steps": steps, "stacks": stacks, "memory": memory}
        self.profile: Profile | None = None
        self.parts: Parts | None = None  # the loop's objects, for `fix`
        self.began = False  # the block itself: an error is its own from here on
        self._recording: Recording | None = None
        Recording(**self._options)  # refuses bad options before the block runs

    def __enter__(self) -> Self:
        if not disabled():
            recording = Recording(**self._options)
            recording.__enter__()
            self._recording = recording
        self.began = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        recording, self._recording = self._recording, None  # it holds the loop's objects
        if recording is None:
            return
        recording.__exit__(kind, error, trace)
        measured = recording.profile
        self.profile = measured and replace(measured, findings=by_hand(findings(measured)))
        self.parts = recording.clock and Parts.of(recording.clock)

    def __call__(self, function: F) -> F:
        """Profile every call; the last result is the function's attribute `profile`."""
        if not inspect.isroutine(function):
            raise UsageError(
                f"profile measures a function, and this is a {type(function).__name__}: write `with mlsys_studio.profile():` around the loop"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function.__qualname__} is a generator, which runs when somebody loops over it: write `with mlsys_studio.profile():` around that loop"
            )

        @contextlib.contextmanager
        def measured() -> Iterator[None]:
            run = Profiling(**{**self._options, "title": self._options["title"] or function.__qualname__})
            try:
                with run:
                    yield
            finally:
                profiled.profile = run.profile  # type: ignore[attr-defined]

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with measured():
                return function(*args, **kwargs)

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with measured():
                return await function(*args, **kwargs)

        profiled = awaited if inspect.iscoroutinefunction(function) else called
        profiled.profile = None  # type: ignore[attr-defined]
        return profiled  # type: ignore[return-value]


@overload
def profile(function: F, /) -> F: ...
@overload
def profile(
    *, title: str = "", mode: str = "full", steps: int = 5, stacks: bool = False, memory: bool = False
) -> Profiling: ...
def profile(
    function: Any = None,
    /,
    *,
    title: str = "",
    mode: str = "full",
    steps: int = 5,
    stacks: bool = False,
    memory: bool = False,
) -> Any:
    """Profile a block or a function.

    mode: "full" (a ledger from a window of `steps` steps) or "light" (step times and phases only).
    stacks, memory: after the window, two steps each are recorded for the time of your lines and the memory of a step;
    what that takes is forecast first, and refused where it is too much. Full mode only.
    Raises UsageError for options it does not know, where a profile is already running, and without torch.
    """
    run = Profiling(title, mode, steps, stacks, memory)
    return run if function is None else run(function)
