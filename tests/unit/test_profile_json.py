"""A profile survives its JSON; a text that is not a profile is refused in one sentence, whatever it holds."""

from __future__ import annotations

import getpass
import json
import random
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlsys_studio.profilers.allocations import CATEGORIES, Block, Instant, MemoryUse
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.ledger import Evidence
from mlsys_studio.profilers.profile import Finding, OperatorRow, Profile, StepTimes
from mlsys_studio.profilers.profile_json import MOST_BYTES, thinned
from mlsys_studio.profilers.stacks import SourceLine

from .profiles import MS, anything, empty, hostile, light, typical


@pytest.mark.parametrize("make", [typical, light, empty])
def test_round_trip(make):
    profile = make()
    assert Profile.from_json(profile.to_json()) == profile


def test_what_was_cut_to_fit_stays_as_it_is():
    text = hostile().to_json()
    assert Profile.from_json(text).to_json() == text


@pytest.mark.parametrize("seed", range(60))
def test_random_profiles_round_trip(seed: int):
    profile = anything(random.Random(seed))
    text = profile.to_json()
    again = Profile.from_json(text)
    assert again == profile
    assert again.to_json() == text
    assert text.isascii() and len(text) <= MOST_BYTES


def test_whole_numbers_stay_whole_beyond_what_a_float_holds():
    exact = 2**60 + 1
    profile = replace(empty(), steps=replace(empty().steps, total_ns=exact))
    assert Profile.from_json(profile.to_json()).steps.total_ns == exact


def test_not_a_number_travels():
    finding = Finding("k", "t", "e", float("nan"), 1, None, "a")
    (again,) = Profile.from_json(replace(empty(), findings=(finding,)).to_json()).findings
    assert again.predicted != again.predicted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "not json",
        '"\\ud800"',
        "NaN",
        "1e999",
        "[" * 100_000,
        '{"format": "mlsys.profile"}',
        '{"format": "mlsys.profile", "schema": 1}',
        '{"format": "mlsys.profile", "schema": 3}',
        '{"format": "mlsys.profile", "schema": true}',
        '{"format": "mlsys.diff", "schema": 1}',
        "9" * 5000,
        " " * 3_000_000,
    ],
)
def test_garbage_is_a_usage_error_of_one_sentence(text: str):
    with pytest.raises(UsageError) as error:
        Profile.from_json(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def _paths(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(deeper for key, item in items for deeper in _paths(item, (*path, key)))]


def _changed(data: Any, path: tuple[Any, ...], dice: random.Random) -> Any:
    """One place replaced, removed or renamed."""
    copy = json.loads(json.dumps(data))
    if not path:
        return dice.choice(([], 1, "x", None, {}))
    place = copy
    for key in path[:-1]:
        place = place[key]
    if dice.random() < 0.3:
        del place[path[-1]]
    elif isinstance(place, dict) and dice.random() < 0.2:
        place["</script>"] = place.pop(path[-1])
    else:
        place[path[-1]] = dice.choice(
            (None, True, -1, 0.5, 10**40, 1e308, "x", "NaN", [], {}, [1], {"a": 1}, "\x00", [[]])
        )
    return copy


def test_fuzzed_json_is_read_or_refused_and_what_is_read_can_be_shown():
    """Witness: whatever gets through is a profile of the right types, as displaying and comparing it shows."""
    data = json.loads(typical().to_json())
    paths, dice, read = _paths(data), random.Random(3), 0
    for _ in range(1000):
        try:
            profile = Profile.from_json(json.dumps(_changed(data, dice.choice(paths), dice)))
        except UsageError:
            continue
        read += 1
        profile.text(), profile.html(), profile.diff(typical()).text(), typical().diff(profile).html()
    assert read > 10


def test_cut_or_damaged_bytes_are_refused_or_read():
    text, dice = typical().to_json(), random.Random(4)
    for _ in range(500):
        at = dice.randrange(len(text))
        damaged = dice.choice((text[:at], text[:at] + chr(dice.randrange(0x250)) + text[at + 1 :], text[at:]))
        try:
            Profile.from_json(damaged).text()
        except UsageError:
            continue


@pytest.mark.parametrize("field", ["title", "steps", "ledger", "environment", "schema", "notes"])
def test_a_missing_field_is_named(field: str):
    data = json.loads(typical().to_json())
    del data[field]
    with pytest.raises(UsageError, match=field):
        Profile.from_json(json.dumps(data))


def test_a_ledger_that_does_not_add_up_is_refused():
    data = json.loads(typical().to_json())
    data["ledger"]["entries"][0]["nanoseconds"] += 1
    with pytest.raises(UsageError, match="add up"):
        Profile.from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (MemoryUse("cpu", 1, (), ()), "no timeline"),
        (MemoryUse("cpu", 1, (Instant(0, "", (1, 2)),), ()), "categories"),
        (MemoryUse("cpu", 1, (Instant(0, "", (-1,) * len(CATEGORIES)),), ()), "negative"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(use: MemoryUse, says: str):
    with pytest.raises(UsageError, match=says):
        Profile.from_json(replace(typical(), memory_use=use).to_json())


def test_another_schema_says_what_to_do():
    data = json.loads(typical().to_json()) | {"schema": 99}
    with pytest.raises(UsageError, match=r"99.*profile again"):
        Profile.from_json(json.dumps(data))


def _huge(letter: str) -> Profile:
    base = typical()
    assert base.ledger
    long = letter * 1000
    rows = tuple(
        OperatorRow(f"{long}{i}", "forward", long, "float32", 1, i, None, None, "launch", None) for i in range(3000)
    )
    entries = tuple(replace(e, evidence=tuple(Evidence(long, 9, 1) for _ in range(40))) for e in base.ledger.entries)
    walls = tuple(random.Random(1).sample(range(10**9, 2 * 10**9), 60_001))
    return Profile(
        long,
        base.created,
        StepTimes(
            long,
            walls,
            walls,
            walls,
            {"forward": 5, **{long + str(i): 5 for i in range(500)}},
            excluded={long + str(i): walls for i in range(9)},
        ),
        replace(base.ledger, entries=entries, notes=(long,) * 900),
        rows,
        base.memory,
        base.findings * 500,
        base.trials * 500,
        {f"{i}{long}": long for i in range(900)},
        (long,) * 900,
        lines=tuple(SourceLine(long, i, long, long, 1, {long + str(k): 5 for k in range(60)}) for i in range(900)),
        memory_use=MemoryUse(
            long,
            10**6,
            tuple(Instant(i, long, (1, 2, 3, 4, i % 7777)) for i in range(10**4)),
            (Block(long, long, long, long, 5),) * 900,
        ),
    )


@pytest.mark.parametrize("letter", ["x", "名", "\x00", "🧪"])
def test_one_megabyte_always(letter: str):
    profile = _huge(letter)
    text = profile.to_json()
    again = Profile.from_json(text)
    assert len(text.encode()) <= 1_000_000
    assert again.to_json() == text
    assert again.steps.median == profile.steps.median
    assert again.operators[0].nanoseconds == 2999
    assert again.memory_use and again.memory_use.peak.bytes == (1, 2, 3, 4, 7776)
    left_out = re.search(r"left out.*?(\d+) operators", again.notes[-1])
    assert left_out and int(left_out[1]) == 3000 - len(again.operators)


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 1000, 1001])
def test_thinned_steps_keep_their_median_order_and_extremes(count: int):
    walls = tuple(random.Random(count).sample(range(10**6), count))
    kept = thinned(walls, 100)
    places = [walls.index(wall) for wall in kept]
    assert len(kept) <= 100 and places == sorted(places)
    assert sorted(kept)[len(kept) // 2] == sorted(walls)[count // 2]
    assert (min(kept), max(kept)) == (min(walls), max(walls))


def test_redaction_leaves_no_name_and_all_numbers():
    me, here = socket.gethostname(), str(Path.home() / "secret" / "train.py")
    said = f"{here}:12 on {me}, '/data/my set/a.bin', C:\\Users\\ann\\x, file:///srv/x, --out=/scratch/q, gpu7 as ann"
    base = typical()
    assert base.ledger
    entries = tuple(replace(e, evidence=(Evidence(said, 5, 1),)) for e in base.ledger.entries)
    profile = replace(
        base,
        title=said,
        lines=(SourceLine(here, 7, "f", f"open({here!r})", 1, {"forward": 5}),),
        notes=(said, "12.5 tokens/s, 3 ms/step, and/or; ratio 3/4"),
        ledger=replace(base.ledger, entries=entries, notes=(said,)),
        findings=tuple(replace(f, title=said, evidence=said, advice=said) for f in base.findings),
        environment={**base.environment, "user": "ann", "path": "/usr/bin:/home/ann/bin", "login": getpass.getuser()},
    )
    clean = profile.redacted()
    text = clean.to_json()
    for secret in ("gpu7", "corp.example", "ann", "secret", "train.py", "my set", "scratch", "/srv", "/usr", here, me):
        assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", text), secret
    assert clean.notes[1] == profile.notes[1]
    assert clean.lines[0].phases == {"forward": 5} and clean.lines[0].line == 7
    assert clean.steps == profile.steps and clean.ledger and clean.ledger.by_cause() == base.ledger.by_cause()
    assert Profile.from_json(text) == clean


def test_a_user_called_copy_does_not_rename_the_ledgers_causes():
    profile = replace(typical(), environment={"user": "launch", "host": "forward"})
    clean = profile.redacted()
    assert clean.ledger and profile.ledger and clean.ledger.by_cause() == profile.ledger.by_cause()
    assert clean.steps.phases == profile.steps.phases
    assert clean.environment == {"user": "<user>", "host": "<host>"}


def test_median_is_of_clean_steps_then_of_what_there_is():
    times = StepTimes("s", (9 * MS,), (3, 1, 2), (7,), {})
    assert (times.median, replace(times, clean=()).median, replace(times, clean=(), window=()).median) == (2, 7, 9 * MS)
    assert empty().steps.median == 0
