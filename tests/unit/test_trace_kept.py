"""What is kept of a trace is the trace; and whatever happens to it, nobody notices but by the time it takes."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgspec")

from tracefiles import DIALECTS, document, story, x

from mlsys_studio.profilers import trace as traces
from mlsys_studio.profilers.trace import Trace
from mlsys_studio.profilers.traces import kept
from mlsys_studio.profilers.traces.kept import read_kept

MESSAGE = {"Collective name": "allreduce", "In msg nelems": 9, "dtype": "Float", "Process Group Ranks": "[0, 1]", "Group size": 2}  # fmt: skip
EVENTS = [*story(), x("kernel", "nccl\u2028<é>", 0, None, 9, 1.5, **MESSAGE), x("new", "y", "a", "b", 0, 1), x("kernel", "far", 0, 1, 4e12, 10**10)]  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLSYS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "WORTH", 0)
    return tmp_path / "cache" / "traces"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read as traces."""
    seen: list[Path] = []
    monkeypatch.setattr(kept, "read", lambda path, progress: seen.append(path) or traces.read(path, progress))
    return seen


def same(one: Trace, other: Trace) -> bool:
    for field in fields(Trace):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, np.ndarray):
            if a.dtype != b.dtype or not np.array_equal(a, b):
                return False
        elif a != b:
            return False
    return True


@pytest.mark.parametrize("name", [*DIALECTS, "far apart", "nothing", "cut off"])
def test_the_second_look_is_the_first(tmp_path, cache, reads, name):
    ours = {"far apart": document(EVENTS), "nothing": b'{"traceEvents": []}', "cut off": document(EVENTS)[:-400]}
    path = tmp_path / "t.json"
    path.write_bytes({**DIALECTS, **ours}[name])
    first, second = read_kept(path), read_kept(path)
    assert same(first, second) and same(second, traces.read(path))
    assert reads == [path]
    assert [p.suffix for p in cache.iterdir()] == [".columns"]


def test_a_file_that_changed_is_read_again(tmp_path, cache, reads):
    path = tmp_path / "t.json"
    path.write_bytes(DIALECTS["today"])
    read_kept(path)
    path.write_bytes(document(EVENTS))
    assert len(read_kept(path)) == len(EVENTS) - 2
    os.utime(path, ns=(1, 1))
    read_kept(path)
    assert len(reads) == 3


def test_every_damage_is_passed_over(tmp_path, cache, reads):
    path = tmp_path / "t.json"
    path.write_bytes(document(EVENTS))
    whole = read_kept(path)
    (place,) = cache.iterdir()
    good = place.read_bytes()
    for i in range(0, len(good), max(1, len(good) // 60)):
        for bad in (good[:i], good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :]):
            place.write_bytes(bad)
            assert same(read_kept(path), whole)
            assert place.read_bytes() == good  # and mended
    assert len(reads) > 100


def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first(tmp_path, cache, monkeypatch):
    paths = [tmp_path / f"{i}.json" for i in range(5)]
    for path in paths:
        path.write_bytes(document(EVENTS))
    read_kept(paths[0])
    (first,) = cache.iterdir()
    size = first.stat().st_size
    monkeypatch.setattr(kept, "MOST", 4 * size + size // 2)
    for i, path in enumerate(paths[1:4]):
        read_kept(path)
        for place in cache.iterdir():
            if place != first:
                os.utime(place, (i, i))
    read_kept(paths[0])  # looked at again: it stays
    read_kept(paths[4])
    assert first.exists() and len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("hinder", ["a file is in the way", "no room"])
def test_without_room_for_it_traces_are_read_all_the_same(tmp_path, cache, hinder, monkeypatch):
    if hinder == "no room":
        monkeypatch.setattr(kept, "MOST", 0)
    else:
        cache.parent.write_text("a file")
    path = tmp_path / "t.json"
    path.write_bytes(DIALECTS["today"])
    assert same(read_kept(path), read_kept(path))
    assert not cache.is_dir() or not list(cache.iterdir())


def test_only_the_user_can_look_at_it_and_small_files_are_not_kept(tmp_path, cache, monkeypatch):
    path = tmp_path / "t.json"
    path.write_bytes(DIALECTS["today"])
    read_kept(path)
    (place,) = cache.iterdir()
    assert (place.stat().st_mode & 0o77, cache.stat().st_mode & 0o77) == (0, 0)
    place.unlink()
    monkeypatch.setattr(kept, "WORTH", 1 << 20)
    read_kept(path)
    assert not list(cache.iterdir())
