"""What this notebook profiled last: the profile, the cell, and weak references to the loop's objects, for `fix`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from ..profilers.errors import UsageError
from ..profilers.profile import Profile
from ..profilers.step import StepClock
from .advisor.findings import per_step, step_ns, workers_for
from .advisor.remedies import Subjects, Undo
from .registry import Code


@dataclass(slots=True)
class Session:
    """`applied` maps a finding's key to the function that undoes its remedy."""

    profile: Profile
    code: Code
    namespace: dict[str, Any]
    model: weakref.ref | None
    optimizer: weakref.ref | None
    loader: weakref.ref | None
    applied: dict[str, Undo] = field(default_factory=dict)

    @classmethod
    def of(cls, profile: Profile, code: Code, namespace: dict[str, Any], clock: StepClock) -> Session:
        """Weak references: a finished profile must not keep a model in memory."""
        parts = (clock.called(), list(clock.optimizers.values()), clock.loaders())
        model, optimizer, loader = (weakref.ref(part[0]) if part else None for part in parts)
        return cls(profile, code, namespace, model, optimizer, loader)

    def subjects(self) -> Subjects:
        """The live objects, where they still live."""
        ledger, loop = self.profile.ledger, self.profile.loop
        if ledger is None or loop is None:
            raise UsageError("the last profile has no ledger, so there is nothing to fix: profile a longer loop")
        stall = per_step(ledger, "data stall")
        model, optimizer, loader = (
            part() if part is not None else None for part in (self.model, self.optimizer, self.loader)
        )
        return Subjects(
            self.namespace,
            model,
            optimizer,
            loader,
            loop,
            ledger.basis.dtype,
            workers_for(stall, step_ns(ledger) - stall, loop.cores),
        )


_last: Session | None = None


def remember(session: Session) -> None:
    global _last
    _last = session


def last() -> Session:
    if _last is None:
        raise UsageError("nothing was profiled yet: put `%%mlsys profile` above the cell with your loop and run it")
    return _last
