"""Differences add up to the difference of the medians; the verdict is tried on samples drawn here, not on its own formula."""

from __future__ import annotations

import json
import random
import re
import statistics
from dataclasses import replace

import pytest

from mlsys_studio.profilers.allocations import Instant, MemoryUse
from mlsys_studio.profilers.diff import NO_CAUSE, REMAINDER
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.profile import Profile
from mlsys_studio.profilers.regression import lower_end
from mlsys_studio.profilers.views.columns import columns

from .pages import Page
from .profiles import MS, anything, empty, hostile, ledger, light, typical


@pytest.mark.parametrize("seed", range(100))
def test_it_adds_up_exactly_in_every_column(seed: int):
    before, after = anything(random.Random(seed)), anything(random.Random(seed + 1000))
    diff = before.diff(after)
    assert sum(c.before for c in diff.changes) == before.steps.median
    assert sum(c.after for c in diff.changes) == after.steps.median
    difference = after.steps.median - before.steps.median
    assert sum(diff.by_cause().values()) == sum(diff.by_phase().values()) == diff.nanoseconds == difference


def test_cells_are_per_step_and_not_scaled():
    steps = typical().steps
    before = replace(
        typical(), ledger=ledger({("forward", "useful"): 100 * MS, ("data", "data stall"): 50 * MS}, steps=5)
    )
    after = replace(typical(), ledger=ledger({("forward", "useful"): 40 * MS, ("other", "sync"): 4 * MS}, steps=2))
    diff = before.diff(after)
    assert {(c.cause, c.phase): (c.before, c.after) for c in diff.changes[:-1]} == {
        ("useful", "forward"): (20 * MS, 20 * MS),
        ("data stall", "data"): (10 * MS, 0),
        ("sync", "other"): (0, 2 * MS),
    }
    assert diff.changes[-1].cause == REMAINDER
    assert diff.changes[-1].before == steps.median - 30 * MS


def test_without_a_ledger_phases_are_compared():
    diff = light().diff(typical())
    assert {c.cause for c in diff.changes} == {NO_CAUSE, REMAINDER}
    assert diff.nanoseconds == 0


def test_nothing_against_nothing():
    diff = empty().diff(empty())
    assert diff.speedup is None and "no step" in str(diff)
    Page(diff.html())


def test_what_else_differs_is_said():
    other = replace(typical(), environment={**typical().environment, "torch": "2.14.0"})
    assert typical().diff(other).notes == ("torch: 2.13.0 → 2.14.0",)


def test_two_profiles_of_one_cell_are_told_apart_by_their_time():
    again = replace(typical(), created="2026-08-01T12:05:30+00:00")
    diff = typical().diff(again)
    assert (diff.before, diff.after) == tuple(
        f"2026-08-01 {time}  {typical().title}" for time in ("12:00:00", "12:05:30")
    )
    first, second, *_ = diff.text().split("\n")
    assert "12:00:00" in first and "12:05:30" in second
    assert Page(diff.html()).text.count("12:05:30") == 1
    copies = typical().diff(typical())
    assert copies.before != copies.after
    assert typical().diff(empty()).before == typical().title


@pytest.mark.parametrize(("make", "says"), [(typical, "the profiler's price and chance"), (light, "do not add up")])
def test_what_the_last_row_means_is_said(make, says: str):
    diff = make().diff(make())
    for text in (" ".join(diff.text().split()), Page(diff.html()).text):
        assert f"{REMAINDER!r} is what" in text and says in text


def test_nothing_has_no_minus():
    faster = replace(typical(), steps=replace(typical().steps, clean=tuple(c - 3 for c in typical().steps.clean)))
    diff = typical().diff(faster)
    assert not re.search(r"-0\.0+(?!\d)", diff.text() + diff.html())
    assert "+0.0%" in str(of([1e9] * 9).regression(of([1e9 + 9] * 9)))


@pytest.mark.parametrize("width", [40, 59, 60, 80])
def test_views_fit_and_escape(width: int):
    diff = hostile().diff(typical())
    assert all(columns(line) <= width for line in diff.text(width).split("\n"))
    Page(diff.html())


def test_printed_changes_add_up_to_the_printed_total():
    slower = replace(typical(), ledger=ledger({("forward", "useful"): 100 * MS}))
    lines = [line.split("│")[0].rstrip(" █") for line in typical().diff(slower).text().split("\n")]
    rows = [line for line in lines if line[:1].isalpha() and line[-1:].isdigit()]
    changes = [float(line.split()[-1]) for line in rows]
    assert sum(changes[:-1]) == pytest.approx(changes[-1], abs=0.01 * len(changes))


def test_json():
    diff = typical().diff(light())
    data = json.loads(diff.to_json())
    assert (data["format"], data["schema"]) == ("mlsys.diff", 1)
    assert sum(c["after"] - c["before"] for c in data["changes"]) == data["after_ns"] - data["before_ns"]


def of(walls: list[float]) -> Profile:
    return replace(light(), steps=replace(light().steps, clean=tuple(round(wall) for wall in walls)))


def drawn(dice: random.Random, count: int, scale: float = 1.0, noise: float = 0.03, memory: float = 0.0) -> list[float]:
    """Log-normal steps; with `memory`, each is like the one before it (AR(1)); now and then one is three times as long."""
    state, walls = dice.gauss(0, 1), []
    for _ in range(count):
        state = memory * state + (1 - memory**2) ** 0.5 * dice.gauss(0, 1)
        walls.append(70e6 * scale * 2.718281828 ** (noise * state) * (3 if dice.random() < 0.03 else 1))
    return walls


def flagged(trials: int, count: int, shift: float, **how: float) -> float:
    dice = random.Random(11)
    verdicts = (of(drawn(dice, count, shift, **how)).regression(of(drawn(dice, count, **how))) for _ in range(trials))
    return statistics.mean(verdict.slower is True for verdict in verdicts)


@pytest.mark.parametrize("how", [{}, {"noise": 0.1}, {"noise": 0.3}, {"memory": 0.8}, {"noise": 0.3, "memory": 0.8}])
@pytest.mark.parametrize("count", [5, 12, 40])
def test_equal_distributions_are_rarely_flagged(count: int, how: dict[str, float]):
    assert flagged(300, count, 1.0, **how) <= (0.08 if "memory" in how else 0.02)


@pytest.mark.parametrize(("count", "power"), [(8, 0.7), (12, 0.95), (20, 0.99), (40, 0.99)])
def test_ten_percent_is_flagged(count: int, power: float):
    assert flagged(300, count, 1.10) >= power


def test_two_percent_is_real_but_within_the_bound():
    dice = random.Random(5)
    verdict = of(drawn(dice, 200, 1.02, noise=0.01)).regression(of(drawn(dice, 200, noise=0.01)))
    assert verdict.low and verdict.low > 1 and verdict.slower is False and "within the bound" in str(verdict)


def test_the_interval_covers_the_true_ratio():
    """One-sided 99 %: the true ratio is below the lower end in about 1 % of the draws."""
    dice = random.Random(8)
    missed = sum(lower_end(*([round(x) for x in drawn(dice, 20, s)] for s in (1.2, 1.0))) > 1.2 for _ in range(600))
    assert missed <= 18


def test_too_few_steps_cannot_tell():
    verdict = of([1e6] * 4).regression(of([1e6] * 50))
    assert verdict.slower is None and str(verdict).startswith("cannot tell")
    assert empty().regression(empty()).slower is None


def test_identical_steps_are_not_slower_and_twice_as_long_is():
    assert of([1e6] * 9).regression(of([1e6] * 9)).slower is False
    assert of([2e6] * 9).regression(of([1e6] * 9)).slower is True


def test_different_steps_and_bad_bounds_are_refused():
    other = replace(light(), steps=replace(light().steps, unit="forward call"))
    with pytest.raises(UsageError, match="different steps"):
        light().regression(other)
    for bound in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="share"):
            light().regression(light(), bound)


# -- what is claimed -----------------------------------------------------------------------------------------------------


def headline_of(diff) -> str:
    return " ".join(diff.text().partition("─\n")[2].partition("ms per step")[0].split())


def test_a_claim_has_its_bounds_and_they_hold_the_truth():
    """Steps are drawn; the witness is the factor they were drawn with. Bounds are one-sided 99 % each."""
    dice, missed = random.Random(3), 0
    for _ in range(300):
        diff = of(drawn(dice, 40)).diff(of(drawn(dice, 40, 1 / 1.3)))
        missed += not diff.low <= 1.3 <= diff.high
        assert diff.low <= diff.speedup <= diff.high
    assert missed <= 15  # 2 % expected
    assert re.search(r"a step: \d\.\d\dx as fast \(1\.\d\d to 1\.\d\d\)", headline_of(diff))
    assert f"({diff.low:.2f} to {diff.high:.2f})" in Page(diff.html()).text


def test_slower_is_told_the_other_way_round():
    diff = of([1e6] * 9).diff(of([2e6] * 9))
    assert "1.00 ms → 2.00 ms a step: 2.00x as long (2.00 to 2.00)" in headline_of(diff)


def test_equal_runs_are_not_claimed_to_differ():
    dice = random.Random(4)
    claims = [headline_of(of(drawn(dice, 40, noise=0.1)).diff(of(drawn(dice, 40, noise=0.1)))) for _ in range(200)]
    assert sum("no difference beyond the spread" in claim for claim in claims) >= 190  # 196 expected


def test_too_few_steps_have_no_bounds():
    diff = of([2e6] * 4).diff(of([1e6] * 50))
    assert (diff.low, diff.high) == (None, None)
    assert "2.00x as fast, of too few clean steps to say within which bounds" in headline_of(diff)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ((), (), "Nothing was kept by `fix` in between: unless the loop or its objects were changed by hand"),
        ((), ("workers",), "Kept by `fix` in between: workers."),
        (("workers",), ("workers", "pin"), "Kept by `fix` in between: pin."),
        (("workers",), (), "Not in place any more: workers."),
    ],
)
def test_a_claim_says_which_remedy_was_kept(before, after, says):
    diff = replace(typical(), kept=before).diff(replace(typical(), kept=after))
    assert says in headline_of(diff)
    assert says.replace("`", "") in Page(diff.html()).text
    assert replace(typical(), kept=None).diff(replace(typical(), kept=after)).reason == ""  # a script: no `fix` there


def test_memory_is_compared_where_both_have_it():
    def using(total: int) -> Profile:
        instants = (Instant(0, "other", (1, 0, 0, 0, 0)), Instant(5, "forward", (0, 0, 0, 0, total)))
        return replace(typical(), memory_use=MemoryUse("cpu", 9, instants, ()))

    assert "memory at the peak of a step: 1.00 MiB → 2.00 MiB" in using(2**20).diff(using(2**21)).notes
    assert not any("memory at" in note for note in using(2**20).diff(using(2**20)).notes)
    assert not any("memory at" in note for note in typical().diff(using(2**20)).notes)
