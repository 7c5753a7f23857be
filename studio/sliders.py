"""What if: a calculator's answer under sliders. Moving one computes it anew; a setting that cannot be says why.

Sliders need ipywidgets and a kernel. The answer below them needs neither: it is an output like any other, which each move
replaces, so that a notebook that is saved, printed or not trusted still shows the last one as text and HTML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..profilers.errors import UsageError
from ..profilers.views.sheet import Sheet, Shown
from .registry import Face


@dataclass(frozen=True, slots=True)
class Slider:
    """One setting and the values it can take, in order."""

    name: str
    says: str
    values: tuple[Any, ...]


def doublings(low: int, high: int, start: int) -> tuple[int, ...]:
    """low, 2 low, 4 low, … to `high`, with the value one starts from among them."""
    values = {start}
    while low <= high:
        values.add(low)
        low *= 2
    return tuple(sorted(values))


@dataclass(frozen=True, slots=True)
class Impossible(Shown):
    """What is shown where the chosen settings have no answer."""

    why: str

    def sheet(self) -> Sheet:
        return Sheet("Not possible", self.why, ())


class WhatIf:
    """Sliders over their answer, in a notebook. `answer` is that of the settings chosen now."""

    def __init__(self, compute: Callable[..., Shown], settings: Mapping[str, Any], sliders: Sequence[Slider]) -> None:
        import ipywidgets
        from IPython.display import DisplayHandle

        self._compute, self._settings = compute, settings
        self._output: Any = DisplayHandle()
        self.controls = {
            slider.name: ipywidgets.SelectionSlider(
                options=[(f"{value:,}" if isinstance(value, int) else str(value), value) for value in slider.values],
                value=settings[slider.name],
                description=slider.says,
                continuous_update=False,
                style={"description_width": "140px"},
                layout={"width": "480px"},
            )
            for slider in sliders
        }
        for control in self.controls.values():
            control.observe(lambda _: self._output.update(self.answer), names="value")

    @property
    def answer(self) -> Shown:
        chosen = {name: control.value for name, control in self.controls.items()}
        try:
            return self._compute(**{**self._settings, **chosen})
        except UsageError as error:
            return Impossible(str(error))

    def _ipython_display_(self) -> None:
        import ipywidgets
        from IPython.display import display

        box = ipywidgets.VBox([*self.controls.values()])
        names = ", ".join(control.description for control in self.controls.values())
        without_kernel = {"text/plain": f"Sliders ({names}) need a kernel; run this line again to move them."}
        bundle: Any = box._repr_mimebundle_()
        display({**bundle, **without_kernel}, raw=True)
        self._output.display(self.answer)


def what_if(
    face: Face, compute: Callable[..., Shown], settings: Mapping[str, Any], sliders: Sequence[Slider]
) -> WhatIf:
    """`compute(**settings)`, with one slider for each of some settings."""
    if face != "magic":
        raise UsageError("sliders need a notebook; leave out --sliders, or type the same line there after %mlsys")
    try:
        return WhatIf(compute, settings, sliders)
    except ImportError:
        raise UsageError("sliders need ipywidgets; type `%pip install ipywidgets`, then run this again") from None
