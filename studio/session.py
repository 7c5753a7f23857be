"""What this notebook profiled last: the profile, the cell, and weak references to the loop's objects, for `fix`."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from ..profilers.errors import UsageError
from ..profilers.loop import models
from ..profilers.profile import Profile, Trial
from ..profilers.views.text import measured_ratio
from .advisor.findings import fetching
from .advisor.remedies import Subjects, Undo
from .registry import Code

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from ..profilers.step import StepClock


@dataclass(frozen=True, slots=True)
class Parts:
    """What a loop was made of, by weak references: a finished profile must not keep a model in memory."""

    models: tuple[weakref.ref, ...]
    optimizers: tuple[weakref.ref, ...]
    loaders: tuple[weakref.ref, ...]

    @classmethod
    def of(cls, clock: StepClock) -> Self:
        groups = (models(clock), clock.optimizers.values(), clock.loaders)
        return cls(*(tuple(weakref.ref(part) for part in group) for group in groups))


@dataclass(frozen=True, slots=True)
class Applied:
    """A remedy that was kept: by the number and title of its finding, the trial it won, and how to take it back."""

    number: int
    title: str
    remedy: str
    trial: Trial
    undo: Undo


@dataclass(slots=True)
class Session:
    """`applied` is in the order of application, and outlives the profile that led to it."""

    profile: Profile
    code: Code
    namespace: dict[str, Any]
    parts: Parts
    applied: list[Applied] = field(default_factory=list)

    def subjects(self) -> Subjects:
        """The live objects, where they still live."""
        ledger, loop = self.profile.ledger, self.profile.loop
        if ledger is None or loop is None:
            raise UsageError("the last profile has no ledger, so there is nothing to fix: profile a longer loop")
        (model, *models), (optimizer, *optimizers), (loader, *_) = (
            [*(part for ref in group if (part := ref()) is not None), None]
            for group in (self.parts.models, self.parts.optimizers, self.parts.loaders)
        )
        stalled = fetching(self.profile, ledger, loop)
        return Subjects(
            namespace=self.namespace,
            model=model,
            optimizer=optimizer,
            loader=None if loader is None else self._named(loader),
            loop=loop,
            dtype=ledger.basis.dtype,
            workers=stalled.workers,
            rest=stalled.rest,
            others=tuple(part for part in (*models, *optimizers) if part is not None),
            unit=self.profile.steps.unit,
        )

    def _named(self, loader: DataLoader) -> DataLoader:
        """The loader, or the one that a remedy has put in its place."""
        loaders = [v for v in self.namespace.values() if type(v) is type(loader) and v.dataset is loader.dataset]
        return loader if not loaders or any(known is loader for known in loaders) else loaders[0]

    def loader_name(self) -> str | None:
        """By which the user may ask for it; None where it has none of the user's own."""
        subjects = self.subjects()
        names = subjects.names_of(subjects.loader) if subjects.loader is not None else []
        return next((name for name in names if not name.startswith("_")), None)

    def kept(self) -> tuple[str, ...]:
        """What is in place by now, without its remark, each with what it brought."""
        return tuple(
            f"{trial.remedy.partition('  # ')[0]}, {measured_ratio(trial.measured, trial.low, trial.high)} in turns"
            for trial in (a.trial for a in self.applied)
        )

    def record(self, trial: Trial) -> None:
        """Into the profile, and so into every name the notebook has for it."""
        old, self.profile = self.profile, replace(self.profile, trials=(*self.profile.trials, trial))
        self.namespace.update({name: self.profile for name, value in self.namespace.items() if value is old})

    def took_back(self, trial: Trial) -> None:
        """Wherever it is recorded: a later profile may be the last one by now."""
        gone = replace(trial, kept=False, reason=f"{trial.reason}; taken back afterwards")

        def without(profile: Profile) -> Profile:
            return replace(profile, trials=tuple(gone if t is trial else t for t in profile.trials))

        recorded = {
            id(p): p
            for p in (self.profile, *self.namespace.values())
            if isinstance(p, Profile) and any(t is trial for t in p.trials)
        }
        amended = {who: without(profile) for who, profile in recorded.items()}
        self.profile = amended.get(id(self.profile), self.profile)
        self.namespace.update({n: amended[id(v)] for n, v in self.namespace.items() if id(v) in amended})


_last: Session | None = None


def remember(session: Session) -> None:
    """From now on the last one. Remedies in place stay in place, and can still be taken back."""
    global _last
    if _last is not None and _last.namespace is session.namespace:
        session.applied = _last.applied
    _last = session


def last() -> Session:
    if _last is None:
        raise UsageError("nothing was profiled yet: put `%%mlsys profile` above the cell with your loop and run it")
    return _last


def waited(loader: Any) -> tuple[int, int] | None:
    """(ns in `next`, ns in all) of a clean step of the loop profiled last, where it was this loader's; else None."""
    if _last is None or not any(ref() is loader for ref in _last.parts.loaders):
        return None
    steps = _last.profile.steps
    return (steps.phases["data"], steps.median) if "data" in steps.phases else None
