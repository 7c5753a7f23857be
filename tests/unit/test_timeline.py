"""Interval arithmetic against a brute-force witness that asks every single instant."""

import random
from dataclasses import dataclass

import pytest

from mlsys_studio.profilers.timeline import Labels, Spans, cut, gaps, innermost, union


@dataclass
class Event:
    start: int
    end: int


def nested(rng: random.Random, a: int, b: int, depth: int = 4) -> list[Event]:
    """Random properly nested events inside [a, b), outer before inner."""
    out, t = [], a
    while depth and t < b:
        start = rng.randint(t, b)
        end = rng.randint(start, b)
        if end > start:
            out.append(Event(start, end))
            out += nested(rng, start, end, depth - 1)
        t = end + 1
    return out


@pytest.mark.parametrize("seed", range(30))
def test_innermost_asks_every_instant(seed):
    rng = random.Random(seed)
    events = nested(rng, 0, 120)
    t0, t1 = 10, 100
    pieces = innermost(events, t0, t1)
    assert [a for a, _, _ in pieces] == [t0, *(b for _, b, _ in pieces)][: len(pieces)] and pieces[-1][1] == t1
    for a, b, i in pieces:
        for t in range(a, b):
            covering = [k for k, e in enumerate(events) if e.start <= t < e.end]
            assert i == (covering[-1] if covering else -1)


@pytest.mark.parametrize("seed", range(30))
def test_union_and_gaps_ask_every_instant(seed):
    rng = random.Random(seed)
    spans = [(a, a + rng.randint(0, 20)) for a in (rng.randint(0, 100) for _ in range(rng.randint(0, 12)))]
    busy = {t for a, b in spans for t in range(a, b)}
    assert {t for a, b in union(spans) for t in range(a, b)} == busy
    assert {t for a, b in gaps(spans, 20, 80) for t in range(a, b)} == set(range(20, 80)) - busy
    assert all((t in Spans(spans)) == (t in busy) for t in range(-5, 130))


def test_cut_keeps_every_instant_and_cuts_at_every_time():
    pieces = list(cut([(0, 10, 7), (10, 12, 8)], [0, 3, 10, 11, 99]))
    assert pieces == [(0, 3, 7), (3, 10, 7), (10, 11, 8), (11, 12, 8)]


def test_labels_hold_from_their_change_on():
    labels = Labels([(5, "a"), (9, "b")])
    assert [labels.at(t) for t in (4, 5, 8, 9, 100)] == ["other", "a", "a", "b", "b"]
