"""The ring: what was put comes out, in order, and nothing that was torn. Witness: the values put, and bytes spoiled by hand."""

from __future__ import annotations

import os
import random
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.ledger import PHASES
from mlsys_studio.profilers.sampling import places, steps
from mlsys_studio.profilers.sampling.records import GPU, HOST, STEP
from mlsys_studio.profilers.sampling.ring import SLOTS, Ring, RingError


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring.create(tmp_path / "1-2-3.ring", 2, {"host": "box", "sampler": 1})


def fill(ring: Ring, count: int) -> None:
    writer = ring.writer(ring.samples)
    width = len(HOST) + 2 * len(GPU)
    for n in range(1, count + 1):
        writer.put((float(n),) * width)


def numbers(ring: Ring, **options: int) -> list[int]:
    found = ring.read(ring.samples, **options)
    assert all(set(values) == {float(n)} for n, values in found)
    return [n for n, _ in found]


def test_a_reader_of_another_process_finds_what_was_put(ring: Ring):
    fill(ring, 5)
    other = Ring.open(ring.path)
    assert other.facts == {"host": "box", "sampler": 1} and other.gpus == 2
    assert numbers(other) == [1, 2, 3, 4, 5]
    assert numbers(other, since=3) == [4, 5]
    assert numbers(other, since=5) == []


def test_it_holds_the_last_records(ring: Ring):
    fill(ring, SLOTS + 10)
    assert numbers(ring) == list(range(11, SLOTS + 11))


def test_many_are_thinned_evenly_and_end_with_the_newest(ring: Ring):
    fill(ring, 1000)
    found = numbers(ring, most=100)
    assert found[-1] == 1000 and len(found) <= 100
    assert {b - a for a, b in pairwise(found)} == {10}


def test_over_the_end_of_the_file_and_on_from_its_beginning(ring: Ring):
    fill(ring, SLOTS + 10)
    assert numbers(ring, since=SLOTS - 5) == list(range(SLOTS - 4, SLOTS + 11))
    assert numbers(ring, since=SLOTS - 5, most=3) == [SLOTS, SLOTS + 5, SLOTS + 10]


def test_of_a_file_cut_off_while_it_is_open_the_rest_is_read(ring: Ring):
    fill(ring, 5)
    os.truncate(ring.path, ring.samples.at(4) + 8)
    assert numbers(ring) == [1, 2, 3]


@pytest.mark.parametrize("byte", [0, 8, 20, -1])
def test_a_torn_record_is_skipped(ring: Ring, byte: int):
    fill(ring, 5)
    at = ring.samples.at(3) + (byte if byte >= 0 else ring.samples.size - 1)
    with open(ring.path, "r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 0x40]))
    assert numbers(ring) == [1, 2, 4, 5]


def test_a_record_of_the_round_before_is_not_taken_for_a_new_one(ring: Ring):
    fill(ring, 3)
    with open(ring.path, "r+b") as file:  # the count is ahead of the records, as between two stores of a writer
        file.seek(ring.samples.count_at)
        file.write((SLOTS + 2).to_bytes(8, "little"))
    assert numbers(ring) == [3]


def test_the_lanes_do_not_touch(ring: Ring):
    fill(ring, SLOTS)
    ring.writer(ring.steps).put(tuple(map(float, range(len(STEP)))))
    assert ring.read(ring.steps) == [(1, tuple(map(float, range(len(STEP)))))]
    assert len(numbers(ring)) == SLOTS
    assert ring.samples.end == ring.steps.start and ring.path.stat().st_size == ring.steps.end


def test_the_file_is_the_users_own_and_has_its_blocks(ring: Ring):
    found = ring.path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_blocks * 512 >= ring.steps.end  # a hole would be a SIGBUS on a full disk
    assert not list(ring.path.parent.glob("*.new"))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda data: b"", "cut off"),
        (lambda data: data[:20_000], "spoiled"),
        (lambda data: b"\0" * len(data), "no ring"),
        (lambda data: data[:8] + b"\x63" + data[9:], "another version"),
        (lambda data: data[:12] + b"\xff\xff" + data[14:], "spoiled"),
        (lambda data: data[:260] + b"?" + data[261:], "spoiled"),
    ],
)
def test_a_spoiled_file_is_one_sentence(ring: Ring, spoil, says: str):
    fill(ring, 2)
    data = ring.path.read_bytes()
    ring.path.write_bytes(spoil(data))
    with pytest.raises(RingError, match=says):
        Ring.open(ring.path)


def test_a_wish_is_heard(ring: Ring):
    before = ring.wished()[0]
    Ring.open(ring.path).wish(7.5)
    assert ring.wished()[1] == 7.5 and ring.wished()[0] >= before


def test_another_file_of_that_name_is_another_ring(ring: Ring):
    assert ring.current()
    Ring.create(ring.path, 0, {})
    assert not ring.current()
    ring.path.unlink()
    assert not ring.current()


# -- steps -------------------------------------------------------------------------------------------------------------


def test_steps_are_published_with_their_phases(ring: Ring):
    steps.attach(ring.writer(ring.steps))
    try:
        steps.log(2.5)
        steps.publish(7, 900, {"data": 100, "backward": 800})
    finally:
        steps.attach(None)
        steps.log(float("nan"))
    ((_, values),) = ring.read(ring.steps)
    found = dict(zip(STEP, values, strict=True))
    assert (found["number"], found["wall"], found["data"], found["backward"]) == (7, 900, 100, 800)
    assert found["forward"] == 0 and found["loss"] == 2.5


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_of_fast_steps_a_fair_sample_is_published(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    """Witness: the loop below, in which each eighth step of 30 ms waits 28 ms for data and the others, of 1 ms, do not."""
    clock = Clock()
    monkeypatch.setattr(steps, "time", clock)
    monkeypatch.setattr(steps, "_chance", random.Random(1))
    steps.attach(ring.writer(ring.steps))
    try:
        for number in range(1, 80_001):
            wall, data = (30e6, 28e6) if number % 8 == 0 else (1e6, 0)
            clock.now += wall / 1e9
            if steps.due(number):
                steps.publish(number, int(wall), {"data": int(data)})
    finally:
        steps.attach(None)
    rows = [dict(zip(STEP, values, strict=True)) for _, values in ring.read(ring.steps)]
    rate = len(rows) / (rows[-1]["time"] - rows[0]["time"])
    assert 0.5 / steps.EVERY < rate < 2 / steps.EVERY
    waited = sum(row["data"] for row in rows) / sum(row["wall"] for row in rows)
    assert waited == pytest.approx(28 / 37, abs=0.03)


def test_slow_steps_are_all_published(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    monkeypatch.setattr(steps, "time", clock)
    steps.attach(ring.writer(ring.steps))
    try:
        published = []
        for number in range(1, 301):
            clock.now += 0.001 if number <= 200 else 1.1  # slow at once, after many fast ones
            if steps.due(number):
                steps.publish(number, 1, {})
                published.append(number)
    finally:
        steps.attach(None)
    assert len(published[:-100]) < 30 and published[-100:] == list(range(201, 301))


def test_the_step_clock_publishes_what_it_keeps(ring: Ring, monkeypatch: pytest.MonkeyPatch):
    """Witness: the steps the clock itself hands out."""
    monkeypatch.setattr(steps, "EVERY", 0.0)
    torch = pytest.importorskip("torch")
    from mlsys_studio.profilers.step import StepClock

    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps.attach(ring.writer(ring.steps))
    try:
        with StepClock() as clock:
            for _ in range(40):
                optimizer.zero_grad()
                model(torch.ones(2, 4)).sum().backward()
                optimizer.step()
            assert clock._settled  # so the last ones are read off the tape alone
    finally:
        steps.attach(None)
    rows = [dict(zip(STEP, values, strict=True)) for _, values in ring.read(ring.steps)]
    assert [row["number"] for row in rows] == list(range(1, 41))
    for row, step in zip(rows, clock.steps, strict=True):
        assert row["wall"] == step.wall
        assert all(row[phase] == step.phases.get(phase, 0) for phase in PHASES)
    assert rows[-1]["backward"] > 0


def test_a_forked_child_publishes_nothing(ring: Ring):
    steps.attach(ring.writer(ring.steps))
    try:
        child = os.fork()
        if not child:
            steps.publish(1, 1, {})
            os._exit(0)
        os.waitpid(child, 0)
        assert steps.writer is not None
    finally:
        steps.attach(None)
    assert ring.read(ring.steps) == []


# -- places ------------------------------------------------------------------------------------------------------------


def test_the_runtime_directory_is_used_and_closed_to_others(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    place = places.folder()
    assert place.parent == tmp_path and stat.S_IMODE(place.stat().st_mode) == 0o700
    assert places.ring_of(os.getpid()).parent == place


def test_a_folder_that_others_may_write_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    places.folder().chmod(0o777)
    with pytest.raises(UsageError, match="not yours alone"):
        places.folder()


def test_a_link_in_its_place_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    places.folder().rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"mlsys-studio-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not yours alone"):
        places.folder()


def test_a_runtime_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(places.tempfile, "gettempdir", lambda: str(blocked))
    with pytest.raises(UsageError, match="set XDG_RUNTIME_DIR"):
        places.folder()


def test_leftovers_go_and_the_living_stay(tmp_path: Path, monkeypatch):
    here, me = places.namespace(), os.getpid()
    alive = tmp_path / f"{here}-{me}-{places.started(me)}.ring"
    reused = tmp_path / f"{here}-{me}-1.ring"
    dead = tmp_path / f"{here}-4194305-77.ring"  # beyond the largest process id
    elsewhere = tmp_path / f"{here + 1}-4194305-77.ring"
    foreign = tmp_path / "notes.ring"
    for file in (alive, reused, dead, elsewhere, foreign):
        file.write_text("")
    places.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {alive, elsewhere, foreign}
    os.utime(elsewhere, (0, 0))
    places.sweep(tmp_path)
    assert not elsewhere.exists()
