"""Sliders compute the answer anew, and say why a setting cannot be."""

from dataclasses import dataclass

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.views.sheet import Figures, Row, Sheet, Shown
from mlsys_studio.studio.sliders import Slider, doublings, what_if

pytest.importorskip("ipywidgets")


@dataclass(frozen=True)
class Area(Shown):
    width: int
    height: int

    def sheet(self) -> Sheet:
        return Sheet("area", "", (Figures("", (Row("area", f"{self.width * self.height} m2"),)),))


def area(width: int, height: int) -> Area:
    if width > 8:
        raise UsageError("wider than <8>")
    return Area(width, height)


def test_moving_a_slider_computes_anew():
    box = what_if("magic", area, {"width": 2, "height": 5}, [Slider("width", "width, m", doublings(1, 16, 2))])
    slider, answer = box.children
    assert "10 m2" in answer.value
    slider.value = 8
    assert "40 m2" in answer.value
    slider.value = 16
    assert "wider than &lt;8&gt;" in answer.value
    slider.value = 1
    assert "5 m2" in answer.value


def test_doublings_hold_where_one_starts():
    assert doublings(1, 16, 6) == (1, 2, 4, 6, 8, 16)
    assert doublings(128, 1000, 128) == (128, 256, 512)


def test_a_shell_is_told_where_sliders_are():
    with pytest.raises(UsageError, match="sliders need a notebook"):
        what_if("command", area, {"width": 2, "height": 5}, [])
