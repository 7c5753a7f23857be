"""`profile`: around a block, on a function, or above a cell. It measures (profilers) and says what to change (advisor).

with mlsys_studio.profile() as p:      @mlsys_studio.profile            %%mlsys profile
    train()                            def train(): ...                 for batch in loader: ...
p.profile                              train(); train.profile
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from ..profilers.profile import Profile
from ..profilers.recording import Recording
from .advisor.findings import findings

F = TypeVar("F", bound=Callable[..., Any])
DISABLE = "MLSYS_DISABLE"


def disabled() -> bool:
    """MLSYS_DISABLE=1 turns every profile into a no-op."""
    return os.environ.get(DISABLE, "") not in ("", "0")


class Profiling:
    """A context manager and decorator. `profile` is the result, None while the block runs or where MLSYS_DISABLE is set."""

    def __init__(self, title: str = "", mode: str = "full", steps: int = 5) -> None:
        self._options = {"title": title, "mode": mode, "window": steps}
        self.recording: Recording | None = None
        self.profile: Profile | None = None
        Recording(**self._options)  # refuses bad options before the block runs

    def __enter__(self) -> Self:
        if not disabled():
            self.recording = Recording(**self._options)
            self.recording.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.recording is not None:
            self.recording.__exit__(kind, error, trace)
            measured = self.recording.profile
            self.profile = measured and replace(measured, findings=findings(measured))

    def __call__(self, function: F) -> F:
        """Profile every call; the last result is the function's attribute `profile`."""

        @functools.wraps(function)
        def profiled(*args: Any, **kwargs: Any) -> Any:
            run = Profiling(**self._renamed(function.__qualname__))
            try:
                with run:
                    return function(*args, **kwargs)
            finally:
                profiled.profile = run.profile  # type: ignore[attr-defined]

        profiled.profile = None  # type: ignore[attr-defined]
        return profiled  # type: ignore[return-value]

    def _renamed(self, name: str) -> dict[str, Any]:
        options = self._options
        return {"title": options["title"] or name, "mode": options["mode"], "steps": options["window"]}


@overload
def profile(function: F, /) -> F: ...
@overload
def profile(*, title: str = "", mode: str = "full", steps: int = 5) -> Profiling: ...
def profile(function: Any = None, /, *, title: str = "", mode: str = "full", steps: int = 5) -> Any:
    """Profile a block or a function.

    mode: "full" (a ledger from a window of `steps` steps) or "light" (step times and phases only).
    Raises UsageError for options it does not know, where a profile is already running, and without torch.
    """
    run = Profiling(title, mode, steps)
    return run if function is None else run(function)
