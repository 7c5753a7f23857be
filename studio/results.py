"""What the verbs of the main job return: a Profile with its comparison, a trial, or a sentence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from shlex import quote
from typing import TYPE_CHECKING, Any

from ..profilers.profile import Profile, Trial
from ..profilers.views.columns import plain, wrap

if TYPE_CHECKING:
    from ..profilers.regression import Verdict

WIDTH = 80  # columns, as every text of ours
TO_PROVE = """\
To prove a change, type before and after it:
  mlsys profile {script} --out before.json
  mlsys profile {script} --compare before.json"""


class Sentence(str):
    """A notebook shows it without quotes."""

    __slots__ = ()
    __repr__ = str.__str__


@dataclass(frozen=True, slots=True)
class Profiled:
    """A Profile; with a baseline also what changed, and exit code 1 on a regression; of a script, what to type next."""

    profile: Profile
    baseline: Profile | None = None
    verdict: Verdict | None = None
    script: str | None = None  # its path, as typed

    @property
    def exit_code(self) -> int:
        return int(self.verdict is not None and bool(self.verdict.slower))

    def to_json(self) -> str:
        return self.profile.to_json()

    def __str__(self) -> str:
        parts = [str(self.profile)]
        if self.baseline is not None:
            parts += [str(self.baseline.diff(self.profile)), "\n".join(wrap(str(self.verdict), WIDTH))]
        elif self.script is not None and self.profile.findings:
            parts.append(TO_PROVE.format(script=quote(plain(self.script))))
        return "\n\n".join(parts)

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
        """Which finding, the verdict on it, the remedy, then why."""
        from ..profilers.views.text import loss_differs, trial_numbers

        t = self.trial
        lines = [self.title, trial_numbers(t), t.remedy, t.reason]
        if t.loss_difference is not None:
            lines.append(loss_differs(t.loss_difference))
        if t.kept:
            lines.append(f"applied to your objects in this notebook; `%mlsys fix {self.number} --undo` takes it back")
        return lines

    def __str__(self) -> str:
        title, *rest = self.lines()
        return "\n".join([*wrap(title, WIDTH), *(line for said in rest for line in wrap(said, WIDTH, "  "))])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Mapping[str, str]:
        from ..profilers.views.html import prose, view
        from ..profilers.views.markup import name, tag

        t, (_, _, remedy, *why) = self.trial, self.lines()
        numbers = {"predicted": t.predicted, f"measured, {t.low:.2f} to {t.high:.2f}": t.measured}
        tiles = [(f"{ratio:.2f}×", label) for label, ratio in numbers.items() if ratio is not None]
        tiles.append(("kept", "it is in place now") if t.kept else ("not kept", "everything is as before"))
        page = view(
            tag("h2", self.title),
            tag("p", name(remedy, 200), class_="soft"),
            tag("div", *(tag("div", tag("b", value), tag("span", label)) for value, label in tiles), class_="numbers"),
            *(tag("p", prose(line)) for line in why),
        )
        return {"text/plain": str(self), "text/html": page}
