"""A sheet says the same in both views, fits its width, and lets no name become markup."""

import re
from html import unescape

import pytest

from mlsys_studio.profilers.views.columns import columns
from mlsys_studio.profilers.views.sheet import Bars, Curve, Figures, Grid, Row, Sheet, sheet_html, sheet_text

EVIL = "<script>alert(1)</script>\x1b[2J\u202e"
SHEET = Sheet(
    "a model " + EVIL,
    "bfloat16 on a device whose name is long, " * 5,
    (
        Figures(
            "Parameters", (Row("total", "8.03 B", "as the card says, " * 9), Row("x" * 60, "16.1 GB = 15.0 GiB", EVIL))
        ),
        Grid("Table " + EVIL, ("name", "TFLOP/s", "MFU"), ((EVIL * 3, "45.7", "40.1 %"), ("palm", "1", "2 %"))),
        Bars("Memory", ("weights", "states " + EVIL), (("one", "128 GB", (100.0, 28.0)), (EVIL, "32 GB", (0.0, 32.0)))),
        Curve("Batch", "batch", "tokens/s", ((1, 10.0), (2, 20.0), (64, 80.0)), ("peak", 100.0)),
        Curve("Nothing", "x", "y", ((1, 0.0),)),
    ),
    ("a note " * 40,),
)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_asked(width):
    lines = sheet_text(SHEET, width).splitlines()
    assert max(columns(line) for line in lines) <= width
    assert "\x1b" not in "".join(lines)
    assert "\u202e" not in "".join(lines)


def test_names_cannot_become_markup():
    page = sheet_html(SHEET)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page


def test_both_views_hold_every_figure():
    page, text = unescape(re.sub(r"<[^>]+>", " ", sheet_html(SHEET))), sheet_text(SHEET)
    for figure in ("8.03 B", "16.1 GB = 15.0 GiB", "45.7", "40.1 %", "128 GB", "32 GB"):
        assert figure in page
        assert figure in text


def test_bars_are_as_long_as_their_parts():
    """Witness: the ratio of the sums, 128 to 32, on one scale, to within the half column a mark can be off."""
    long, short = (line for line in sheet_text(SHEET).splitlines() if line.endswith(("128 GB", "32 GB")))
    count = [sum(letter in "█▓" for letter in line) for line in (long, short)]
    assert abs(count[0] / 4 - count[1]) <= 0.5
    widths = [float(w) for w in re.findall(r'width="([\d.]+)%" height="16" fill', sheet_html(SHEET))]
    assert widths == pytest.approx([100 / 1.28, 28 / 1.28, 25.0], abs=0.01)


def test_a_curve_rises_where_its_points_do():
    page = sheet_html(SHEET)
    heights = [float(y) for y in re.findall(r'y2="([\d.]+)" stroke=', page)]
    assert heights == sorted(heights, reverse=True)  # down the page is less
    assert "tokens/s: 10.0 at batch 1, 80.0 at 64; peak 100" in sheet_text(SHEET)


def test_a_curve_may_lie_below_zero():
    """As a loss that is a log-likelihood: both views fall from its first point to its last, and stay in the picture."""
    falling = Sheet("", "", (Curve("Loss", "step", "loss", ((1, 2.0), (2, -1.0), (3, -6.0))),))
    marks = next(line for line in sheet_text(falling).splitlines() if "▁" in line).strip()
    assert marks[0] == "█" and marks == "".join(sorted(marks, reverse=True)) and marks[-1] == "▁"
    heights = [float(y) for pair in re.findall(r'y1="([\d.]+)"[^>]* y2="([\d.]+)"', sheet_html(falling)) for y in pair]
    assert heights == sorted(heights) and heights[0] > 0 and heights[-1] == 140


def test_a_curve_that_is_always_the_same_is_drawn():
    for value in (-3.0, 0.0, 3.0):
        assert "Same" in sheet_text(Sheet("", "", (Curve("Same", "x", "y", ((1, value), (2, value))),)))
        assert "nan" not in sheet_html(Sheet("", "", (Curve("Same", "x", "y", ((1, value), (2, value))),)))


def test_long_words_leave_room_for_the_numbers():
    """On a page a kernel's name is cut short where the table needs it, and whole to hover over; others stay as they were."""
    kernel = "void at::native::vectorized_elementwise_kernel<4, at::native::Add<c10::BFloat16>>(int, char*)"
    page = sheet_html(Sheet("t", "", (Grid("", ("kernel", "by", "ms"), ((kernel, "aten::add", "3"),), left=2),)))
    escaped = kernel.replace("<", "&lt;").replace(">", "&gt;")
    assert f'title="{escaped}"' in page and page.count('"left long"') == 1 and "width:60%" in page
