"""What the verbs of the main job return: a Profile with its comparison, a trial, or a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..profilers.profile import Profile, Trial

if TYPE_CHECKING:
    from ..profilers.regression import Verdict


class Sentence(str):
    """A notebook shows it without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


@dataclass(frozen=True, slots=True)
class Profiled:
    """A Profile; with a baseline also what changed, and exit code 1 on a regression."""

    profile: Profile
    baseline: Profile | None = None
    verdict: Verdict | None = None

    @property
    def exit_code(self) -> int:
        return int(self.verdict is not None and bool(self.verdict.slower))

    def to_json(self) -> str:
        return self.profile.to_json()

    def __str__(self) -> str:
        parts: list[object] = [self.profile]
        if self.baseline is not None:
            parts += [self.baseline.diff(self.profile), self.verdict]
        return "\n\n".join(map(str, parts))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:
        from ..profilers.views.markup import tag

        page = self.profile.html()
        if self.baseline is not None:
            page += self.baseline.diff(self.profile).html() + tag("p", str(self.verdict))
        return {"text/plain": str(self), "text/html": page}


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a remedy brought: predicted and measured, kept or not."""

    trial: Trial
    title: str
    number: int

    def to_json(self) -> str:
        return json.dumps(asdict(self.trial), indent=1)

    def lines(self) -> list[str]:
        """The verdict first, the remedy next, then why."""
        t = self.trial
        predicted = "no prediction" if t.predicted is None else f"predicted {t.predicted:.2f}x"
        said = "kept" if t.kept else "not kept"
        lines = [
            f"{self.title}: {predicted}, measured {t.measured:.2f}x ({t.low:.2f} to {t.high:.2f}), {said}",
            t.remedy,
            t.reason,
        ]
        if t.loss_difference is not None:
            lines.append(f"the mean loss of the same steps differs by {t.loss_difference:.2%}")
        if t.kept:
            lines.append(f"applied to your objects in this notebook; `%mlsys fix {self.number} --undo` takes it back")
        return lines

    def __str__(self) -> str:
        return "\n  ".join(self.lines())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:
        from ..profilers.views.html import prose, view
        from ..profilers.views.markup import name, tag

        t, (_, remedy, *why) = self.trial, self.lines()
        numbers = {"predicted": t.predicted, f"measured, {t.low:.2f} to {t.high:.2f}": t.measured}
        tiles = [(f"{ratio:.2f}×", label) for label, ratio in numbers.items() if ratio is not None]
        tiles.append(("kept", "it is in place now") if t.kept else ("not kept", "everything is as before"))
        page = view(
            tag("h2", self.title),
            tag("p", name(remedy), class_="soft"),
            tag("div", *(tag("div", tag("b", value), tag("span", label)) for value, label in tiles), class_="numbers"),
            *(tag("p", prose(line)) for line in why),
        )
        return {"text/plain": str(self), "text/html": page}
