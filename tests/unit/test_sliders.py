"""Sliders compute the answer anew, and say why a setting cannot be."""

from dataclasses import dataclass

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.views.sheet import Figures, Row, Sheet, Shown, sheet_html
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


SETTINGS = {"width": 2, "height": 5}
WIDTH = [Slider("width", "width, m", doublings(1, 16, 2))]


def test_moving_a_slider_computes_anew():
    box = what_if("magic", area, SETTINGS, WIDTH)
    slider = box.controls["width"]
    assert "10 m2" in str(box.answer)
    slider.value = 8
    assert "40 m2" in str(box.answer)
    slider.value = 16
    assert "wider than <8>" in str(box.answer) and "wider than &lt;8&gt;" in sheet_html(box.answer.sheet())
    slider.value = 1
    assert "5 m2" in str(box.answer)


@pytest.fixture
def shell(tmp_path):
    InteractiveShell = pytest.importorskip("IPython").core.interactiveshell.InteractiveShell
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance(ipython_dir=str(tmp_path))
    InteractiveShell.clear_instance()


def test_what_is_saved_shows_the_last_answer_without_a_kernel(shell):
    """What the notebook receives: sliders that say what they need, and an answer that each move replaces."""
    from IPython.utils.capture import capture_output

    with capture_output() as captured:
        box = what_if("magic", area, SETTINGS, WIDTH)
        shell.display_formatter.format(box)
        box.controls["width"].value = 4
    sliders, first, moved = captured.outputs
    assert "application/vnd.jupyter.widget-view+json" in sliders.data
    assert sliders.data["text/plain"] == "Sliders (width, m) need a kernel; run this line again to move them."
    assert "10 m2" in first.data["text/html"] and "10 m2" in first.data["text/plain"]
    assert "20 m2" in moved.data["text/html"] and "20 m2" in moved.data["text/plain"]
    assert moved.update and moved.transient == first.transient != {}
    assert not any("widget" in kind for kind in (*first.data, *moved.data))


def test_doublings_hold_where_one_starts():
    assert doublings(1, 16, 6) == (1, 2, 4, 6, 8, 16)
    assert doublings(128, 1000, 128) == (128, 256, 512)


def test_a_shell_is_told_where_sliders_are():
    with pytest.raises(UsageError, match="sliders need a notebook"):
        what_if("command", area, {"width": 2, "height": 5}, [])
