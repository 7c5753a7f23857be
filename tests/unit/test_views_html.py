"""The HTML view: well-formed, self-contained, and no text from a profile can become markup."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from mlsys_studio.profilers.ledger import CAUSES
from mlsys_studio.profilers.views.html import profile_html
from mlsys_studio.profilers.views.markup import Markup, tag
from mlsys_studio.profilers.views.palette import COLOURS, ink_on
from mlsys_studio.profilers.views.style import SELECTOR, STYLE
from mlsys_studio.profilers.views.svg import strip, waterfall

from .pages import Page
from .profiles import HOSTILE, MS, anything, empty, hostile, ledger, light, typical


@pytest.mark.parametrize("make", [typical, light, empty, hostile])
def test_only_our_own_elements_attributes_and_nesting(make):
    Page(profile_html(make()))


@pytest.mark.parametrize("seed", range(60))
def test_random_hostile_profiles_stay_text(seed: int):
    profile = anything(random.Random(seed))
    Page(profile.html())
    Page(profile.diff(anything(random.Random(seed + 1))).html())


def test_hostile_text_is_shown_as_it_was_written():
    page = Page(hostile().html())
    assert "</script><img src=x onerror=alert(1)>" in page.text
    assert '"><svg onload="alert(1)">' in page.text


def test_nothing_is_fetched_and_nothing_runs():
    html = typical().html()
    assert not re.search(
        r"(?i)(https?:|//|url\(|@import|<script|<link|<iframe|<img|href=|src=|\son\w+=|javascript:)", html
    )


def test_control_and_direction_characters_do_not_reach_the_page():
    html = hostile().html()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]", html)
    html.encode("utf-8")


def test_the_page_stays_small_whatever_is_in_the_profile():
    assert len(hostile().html()) < 600_000
    assert len(typical().html()) < 60_000


def test_every_style_rule_stays_under_our_class():
    """Witness: the selectors, read back from the style sheet."""
    sheet = re.sub(r"@(media|container) [^{]*\{", "", STYLE)
    selectors = [part.strip() for head in re.findall(r"([^{}]+)\{", sheet) for part in head.split(",")]
    assert len(selectors) > 40
    for selector in selectors:
        assert selector == SELECTOR or selector.startswith(f"{SELECTOR} "), selector
    assert STYLE.count("{") == STYLE.count("}")


@pytest.mark.parametrize("make", [typical, hostile])
def test_pictures_are_xml_with_title_and_description_in_words(make):
    profile = make()
    for picture in (waterfall(profile.ledger), strip(profile.steps)):
        assert picture is not None
        root = ElementTree.fromstring(picture)
        assert [child.tag for child in root][:2] == ["title", "desc"]
        assert root.get("role") == "img" and root[0].text and root[1].text


def test_the_bar_is_whole_and_without_overlap():
    profile = typical()
    assert profile.ledger
    root = ElementTree.fromstring(waterfall(profile.ledger))
    segments = [(float(s.get("x", "")[:-1]), float(s.get("width", "")[:-1])) for s in root.findall("svg")]
    assert len(segments) == len(profile.ledger.by_cause())
    assert sum(width for _, width in segments) == pytest.approx(100, abs=0.02)
    for (x, width), (following, _) in pairwise(segments):
        assert x + width == pytest.approx(following, abs=0.01)


def test_names_stay_in_their_segments_on_narrow_pages():
    """Witness: the width of letters at 11 px, 6 px or more each; 320 px is the narrowest phone."""
    profile = typical()
    assert profile.ledger
    seen = set()
    for segment in ElementTree.fromstring(waterfall(profile.ledger)).findall("svg"):
        width = float(segment.get("width", "")[:-1]) / 100
        for group in segment.findall("g"):
            name = group[0].text or ""
            page = 640 if group.get("class") == "spare" else 320  # spare is left out below 800
            assert 6 * len(name) + 7 < width * page, name
            seen.add(page)
    assert seen == {320, 640}
    assert "(max-width: 800px) { " + SELECTOR + " .spare { display: none }" in STYLE


def test_changes_can_be_read_on_light_and_on_dark():
    """4:1 for bold text, by WCAG's formula."""
    for role in ("slower", "faster", "fail", "warn", "ok"):
        (colour,) = re.findall(rf"\.{role} {{ color: (#[0-9a-f]{{6}})", STYLE)
        for paper in ("#ffffff", "#14171a"):
            assert contrast(colour, paper) >= 4, (role, paper)


def test_the_steps_picture_has_a_bar_a_step_by_role():
    picture = strip(typical().steps)
    assert picture
    roles = [box.get("class") for box in ElementTree.fromstring(picture).findall("rect")]
    assert [roles.count(role) for role in ("warmup beyond", "clean", "window")] == [3, 24, 5]


def test_a_million_steps_are_few_bars():
    steps = typical().steps
    picture = strip(type(steps)("s", (), tuple(range(1, 100_001)), (), {}))
    assert picture and picture.count("<rect") <= 160


def test_table_percentages_add_up():
    cells = {("forward", cause): 10 * MS + i for i, cause in enumerate(CAUSES)}
    profile = type(typical())("t", "c", typical().steps, ledger(cells))
    body = profile.html().split("<tbody>")[1].split("</tbody>")[0]
    tenths = [round(float(row.rsplit("<td>", 1)[1].split("<")[0]) * 10) for row in body.split("</tr>") if row]
    assert len(tenths) == len(CAUSES) and sum(tenths) == 1000


def test_findings_trials_operators_and_notes_are_there():
    text = Page(typical().html()).text
    for said in (
        "1.58×",
        "%mlsys fix 1",
        "loader-workers",
        "1.44 to 1.57",
        "aten::addmm",
        "81.0 %",
        "host peak 1.23 GiB",
        "window disturbed",
    ):
        assert said in text, said
    assert "%mlsys fix 2" not in text


def contrast(one: str, other: str) -> float:
    """WCAG 2's ratio, from its definition of relative luminance."""

    def luminance(hexadecimal: str) -> float:
        parts = [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(
            w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
            for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
        )

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_every_cause_has_its_own_colour_and_readable_ink():
    assert set(COLOURS) == set(CAUSES) and len(set(COLOURS.values())) == len(CAUSES)
    for colour in COLOURS.values():
        assert contrast(colour, ink_on(colour)) >= 4.5, colour


@pytest.mark.parametrize("text", HOSTILE)
def test_tag_escapes_children_and_attributes(text: str):
    Page(tag("p", text, title=text, class_=text))
    assert tag("b", Markup("<i></i>"), None) == "<b><i></i></b>"


def test_mime_bundle():
    bundle = typical()._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"} and bundle["text/plain"] == str(typical())
