"""What if: a calculator's answer under sliders. Moving one computes it anew; a setting that cannot be says why.

Needs ipywidgets, and a kernel to compute in. The answer is script-free HTML, so a saved notebook still shows the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..profilers.errors import UsageError
from ..profilers.views.markup import tag
from ..profilers.views.sheet import Shown, sheet_html
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


def what_if(face: Face, compute: Callable[..., Shown], settings: Mapping[str, Any], sliders: Sequence[Slider]) -> Any:
    """A widget: `compute(**settings)`, with one slider for each of some settings."""
    if face != "magic":
        raise UsageError("sliders need a notebook; leave out --sliders, or type the same line there after %mlsys")
    try:
        import ipywidgets
    except ImportError:
        raise UsageError("sliders need ipywidgets; type `%pip install ipywidgets`, then run this again") from None

    answer = ipywidgets.HTML()
    controls = {
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

    def refresh(_: object = None) -> None:
        chosen = {name: control.value for name, control in controls.items()}
        try:
            answer.value = sheet_html(compute(**{**settings, **chosen}).sheet())
        except UsageError as error:
            answer.value = tag("p", f"Not possible: {error}")

    for control in controls.values():
        control.observe(refresh, names="value")
    refresh()
    return ipywidgets.VBox([*controls.values(), answer])
