"""Plain pickles: what Python's own pickle writes of plain values is read back; anything that could act is refused."""

from __future__ import annotations

import os
import pickle
import random

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.traces.plain_pickle import loads

SHARED = {"name": "forward", "line": 3}
PLAIN = [
    {"segments": [{"address": 2**47, "frames": [SHARED, SHARED]}], "none": None, "yes": True, "no": False},
    [(), (1,), (1, 2), (1, 2, 3), tuple(range(9))],
    [0, 255, 256, 65536, -1, 2**31, 2**63, -(2**70), 1.5, -0.0],
    ["", "é" * 300, "\ud800", "x" * 70_000, b"", b"b" * 300],
    {i: [i] for i in range(3000)},
]


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_are_read_as_pickle_reads_them(value, protocol):
    assert loads(pickle.dumps([value, value], protocol)) == [value, value]


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("ruin",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_acts_is_refused_and_does_nothing(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        loads(pickle.dumps({"segments": [Hostile()]}, protocol))
    assert not list(tmp_path.iterdir())


def test_damage_is_a_sentence_whatever_is_damaged():
    """Every truncation, and thousands of flipped bytes: a value or a UsageError, never more than the file brings."""
    whole = pickle.dumps(PLAIN[0])
    rnd = random.Random(1)
    damaged = [whole[:n] for n in range(len(whole))]
    for _ in range(3000):
        copy = bytearray(whole)
        copy[rnd.randrange(len(copy))] = rnd.randrange(256)
        damaged.append(bytes(copy))
    refused = 0
    for data in damaged:
        try:
            loads(data)
        except UsageError:
            refused += 1
    assert refused > len(whole)
