"""What the verbs of the main job return: a Profile with its comparison, and a trial with its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..profilers.profile import Profile, Trial


@dataclass(frozen=True, slots=True)
class Profiled:
    """A Profile; with a baseline also what changed, and exit code 1 on a regression."""

    profile: Profile
    baseline: Profile | None = None
    bound: float = 0.05

    @property
    def exit_code(self) -> int:
        return 0 if self.baseline is None else int(bool(self.profile.regression(self.baseline, self.bound).slower))

    def to_json(self) -> str:
        return self.profile.to_json()

    def __str__(self) -> str:
        parts = [str(self.profile)]
        if self.baseline is not None:
            parts += [str(self.baseline.diff(self.profile)), str(self.profile.regression(self.baseline, self.bound))]
        return "\n\n".join(parts)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:
        bundle = dict(self.profile._repr_mimebundle_(include, exclude))
        return bundle | {"text/plain": str(self)}


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a remedy brought: predicted and measured, kept or not."""

    trial: Trial
    title: str
    undone: bool = False

    def to_json(self) -> str:
        import json
        from dataclasses import asdict

        return json.dumps(asdict(self.trial), indent=1)

    def __str__(self) -> str:
        t = self.trial
        predicted = "no prediction" if t.predicted is None else f"predicted {t.predicted:.2f}x"
        lines = [
            self.title,
            f"  {t.remedy}",
            f"  {predicted}, measured {t.measured:.2f}x ({t.low:.2f} to {t.high:.2f}): {'kept' if t.kept else 'not kept'}",
            f"  {t.reason}",
        ]
        if t.loss_difference is not None:
            lines.append(f"  the mean loss of the same steps differs by {t.loss_difference:.2%}")
        if t.kept:
            lines.append("  applied to your objects in this notebook; `%mlsys fix N --undo` takes it back")
        return "\n".join(lines)
