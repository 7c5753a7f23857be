"""The text view: no line is too wide, nothing moves the cursor, and the printed percentages add up to 100.0."""

from __future__ import annotations

import random
import re
import unicodedata
from decimal import Decimal

import pytest

from mlsys_studio.profilers.ledger import CAUSES, Ledger
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.views.columns import columns, crop, pad, plain, wrap
from mlsys_studio.profilers.views.text import account, bar
from mlsys_studio.profilers.views.units import (
    bandwidth,
    duration,
    flop,
    gb,
    grown,
    ms,
    number,
    percent,
    places,
    rate,
    ratio,
    signed,
    size,
    three,
)

from .profiles import HOSTILE, MS, anything, empty, hostile, ledger, light, typical

wcwidth = pytest.importorskip("wcwidth")  # witness: another table of widths


def printed_shares(lines: list[str]) -> dict[str, Decimal]:
    """{cause: %} read back off the page."""
    return {cause: Decimal(line.split()[-1]) for line in lines if (cause := line[:14].rstrip()) in CAUSES}


@pytest.mark.parametrize("width", [40, 41, 59, 60, 80, 133])
@pytest.mark.parametrize("make", [typical, light, empty, hostile])
def test_no_line_is_wider_than_asked_and_none_holds_a_control_character(make, width: int):
    for line in make().text(width).split("\n"):
        assert columns(line) <= width
        assert 0 <= wcwidth.wcswidth(line) <= width, ascii(line)
        assert not any(unicodedata.category(c) in {"Cc", "Cf", "Cs"} for c in line)
        line.encode("utf-8")


def test_narrower_than_forty_is_forty():
    assert typical().text(3) == typical().text(40)


@pytest.mark.parametrize("seed", range(60))
def test_printed_percentages_add_up_to_exactly_one_hundred(seed: int):
    profile = anything(random.Random(seed))
    text = profile.text(random.Random(seed).choice((40, 80, 100)))
    if profile.ledger:
        shares = printed_shares(text.split("\n"))
        assert sum(shares.values()) == Decimal("100.0")
        assert set(shares) == set(profile.ledger.by_cause())


def test_shares_are_near_what_they_stand_for():
    profile = typical()
    assert profile.ledger
    shares = printed_shares(profile.text().split("\n"))
    for cause, ns in profile.ledger.by_cause().items():
        assert abs(float(shares[cause]) - ns / profile.ledger.wall_ns * 100) < 0.1


@pytest.mark.parametrize("seed", range(60))
def test_text_html_picture_and_headline_print_the_same_shares(seed: int):
    profile = anything(random.Random(seed), every=("x",))
    shares = {cause: str(share) for cause, share in printed_shares(profile.text().split("\n")).items()}
    html = profile.html()
    table = html.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in table if row]
    assert {" ".join(row[: -2 - row_cells(profile)]): row[-1] for row in rows} == shares
    for cause, share in shares.items():
        assert f", {share} %</title>" in html and f"{cause} {share} %" in html
    if profile.ledger and profile.ledger.basis.peak_flops and profile.steps.median:
        assert f"MFU {shares.get('useful', '0.0')} %" in profile.text()


def row_cells(profile: Profile) -> int:
    assert profile.ledger
    return len(profile.ledger.by_phase())


def test_phase_rows_add_up_to_their_cause():
    account_of = ledger(
        {("forward", "launch"): 333, ("backward", "launch"): 333, ("other", "launch"): 1, ("data", "data stall"): 334}
    )
    lines = account(account_of, 80)
    launch = lines.index(next(line for line in lines if line.startswith("launch")))
    rows = [Decimal(line.split()[-1]) for line in lines[launch : launch + 4]]
    assert rows[0] == sum(rows[1:])


def test_the_headline_names_peak_dtype_and_convention():
    text = " ".join(typical().text().split())
    for said in (
        "69.0 ms a step",
        "14.5 steps/s",
        "MFU 19.2 %",
        "HFU 21.7 %",  # the rows useful and recompute: 19.2 and 2.5
        "195 GFLOP/s float32, measured on this machine",
        "Convention ledger",
    ):
        assert said in text


def test_excluded_steps_are_shown():
    text = typical().text()
    assert "3 warm-up, excluded: 1.21 s; 640 ms of it compiling" in text
    assert "24 clean" in text and "5 profiled" in text


def test_findings_say_what_to_type_and_trials_what_came_of_it():
    text = typical().text()
    assert "%mlsys fix 1" in text and "%mlsys fix 2" not in text
    assert "1.58x predicted, 26.0 ms a step" in text
    assert "predicted 1.58x, measured 1.51x (1.44 to 1.57), kept" in text


def test_no_step_is_said():
    assert "no step was measured" in empty().text()


def test_light_mode_shows_phases_and_claims_no_causes():
    text = light().text()
    assert "light mode" in text and "data" in text and "MFU" not in text and "data stall" not in text


def test_unknown_peak_is_said():
    account_of = typical().ledger
    assert account_of
    basis = type(account_of.basis)("Toaster 3000", "float32", "float32", None, "")
    profile = type(typical())("t", "c", typical().steps, Ledger(account_of.wall_ns, 5, account_of.entries, basis, 0))
    assert "No MFU: the peak of Toaster 3000 is not known" in " ".join(profile.text().split())


@pytest.mark.parametrize("seed", range(200))
def test_bars_stay_inside_and_begin_where_the_last_one_ended(seed: int):
    dice = random.Random(seed)
    parts = [dice.randrange(1, 10**9) for _ in range(dice.randrange(1, 21))]
    width, began = dice.randrange(5, 90), 0
    for part in parts:
        drawn = bar(began, part, sum(parts), width)
        assert drawn.strip() and len(drawn) <= width
        assert len(drawn) - len(drawn.lstrip()) <= began * width / sum(parts)
        began += part


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("width", [1, 2, 7, 40])
def test_crop_pad_and_wrap_keep_their_width(text: str, width: int):
    assert columns(crop(text, width)) <= width
    assert columns(pad(text, width)) == width
    assert all(columns(line) <= width for line in wrap(text, width))
    assert wcwidth.wcswidth(plain(text)) >= 0


def test_short_text_is_left_alone():
    assert crop("aten::mm", 8) == "aten::mm"
    assert crop("aten::mm_", 8) == "aten::m…"
    assert crop("名前", 3) == "名…"


@pytest.mark.parametrize(
    ("said", "is_"),
    [
        (duration(0), "0 ns"),
        (duration(999), "999 ns"),
        (duration(999_600), "1.00 ms"),
        (duration(71.34 * MS), "71.3 ms"),
        (duration(-71.34 * MS), "-71.3 ms"),
        (duration(12_345 * MS), "12.3 s"),
        (duration(3 * 60e9 + 5e9), "3 min 5 s"),
        (duration(-130 * 60e9), "-2 h 10 min"),
        (duration(54 * 86400e9 + 7 * 3600e9), "54 d 7 h"),
        (duration(1e9 * 86400e9), "1000000000 d"),
        (size(0), "0 B"),
        (size(2**30), "1.00 GiB"),
        (flop(0), "0 FLOP"),
        (flop(999), "999 FLOP"),
        (flop(999_600), "1.00 MFLOP"),
        (flop(8_178_368_512), "8.18 GFLOP"),
        (flop(3.8e25), "38.0 YFLOP"),
        (rate(989.4e12), "989 TFLOP/s"),
        (rate(2.25e15), "2.25 PFLOP/s"),
        (gb(28e9), "28.0 GB"),
        (bandwidth(3.35e12), "3.35 TB/s"),
        (three(0.01234), "0.0123"),
        (three(1234.0), "1230"),
        (number(8.0), "8"),
        (ratio(None), ""),
        (ratio(1.8), "1.80x"),
    ],
)
def test_units(said: str, is_: str):
    assert said == is_


def test_one_number_of_decimals_serves_a_column():
    assert [places(ns) for ns in (0, 500_000, 71 * MS, 12_000 * MS)] == [2, 4, 2, 0]


def test_a_change_of_nothing_has_no_minus():
    assert [ms(-1, 2), duration(-0.3), percent(-0.0001), grown(0.9999), grown(1.025)] == [
        "0.00",
        "0 ns",
        "0.0 %",
        "+0.0%",
        "+2.5%",
    ]
    assert [signed(ns, 2) for ns in (-1, 0, 1, -20_000)] == ["+0.00", "+0.00", "+0.00", "-0.02"]
