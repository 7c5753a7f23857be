"""What hooks write on the tape, and what the reader makes of it. Witness: the same visits, added up by recursion."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import pytest

from mlsys_studio.profilers.phases import spent
from mlsys_studio.profilers.reader import LONG, NOT_FORWARD, Reader
from mlsys_studio.profilers.tape import ENTER, KEPT, LEAVE, STEP, TIME, WORKS, Tape

TICK = 1 << 4  # ns: the finest time on a tape
OUTSIDE = 2
BEGAN = 1_700_000_000_000_000_000 & TIME


@dataclass
class Visit:
    """A phase entered at `start` and left at `end` (ticks), with the visits inside it; `closes`: that ends a step."""

    phase: str
    start: int
    end: int = 0
    inner: list[Visit] = field(default_factory=list)
    closes: bool = False

    def events(self) -> list[int]:
        leave = STEP if self.closes else LEAVE[self.phase]
        middle = [event for visit in self.inner for event in visit.events()]
        return [at(self.start) | ENTER[self.phase], *middle, at(self.end) | leave]

    def charge(self, sums: dict[str, int], outside: str) -> None:
        """Exclusive ticks, by the definition: mine, less what lies inside; forward inside some phases is theirs."""
        mine = outside if self.phase == "forward" and outside in NOT_FORWARD else self.phase
        mine = "data" if mine == "iterator" else mine
        own = self.end - self.start - sum(visit.end - visit.start for visit in self.inner)
        sums[mine] = sums.get(mine, 0) + own
        for visit in self.inner:
            visit.charge(sums, mine)


def at(tick: int) -> int:
    return BEGAN + tick * TICK


def visits(rng: random.Random, t: int, depth: int) -> tuple[list[Visit], int]:
    """Well nested; batches are fetched outside of everything, for no model fetches its own."""
    made, anywhere = [], ("forward", "backward", "checkpoint", "logging")
    for _ in range(rng.randrange(4 if depth else 3)):
        t += rng.randrange(1, 5)
        visit = Visit(rng.choice([w for w in WORKS if w in anywhere or depth == OUTSIDE]), t)
        if depth:
            visit.inner, t = visits(rng, t, depth - 1)
        t += rng.randrange(1, 5)
        visit.end = t
        made.append(visit)
    return made, t + rng.randrange(3)


def loop(rng: random.Random, steps: int) -> list[list[Visit]]:
    """Each step some visits, the last of them the optimizer's."""
    made, t = [], 0
    for _ in range(steps):
        inside, t = visits(rng, t, OUTSIDE)
        last = Visit("optimizer", t, closes=True)
        last.inner, t = visits(rng, t, 1)
        last.end = t = t + 1
        made.append([*inside, last])
    return made


def expected(steps: list[list[Visit]]) -> list[dict[str, int]]:
    found, begin = [], 0
    for step in steps:
        sums: dict[str, int] = {}
        for visit in step:
            visit.charge(sums, "other")
        sums["other"] = sums.get("other", 0) + step[-1].end - begin - sum(v.end - v.start for v in step)
        found.append({phase: ticks * TICK for phase, ticks in sums.items() if ticks})
        begin = step[-1].end
    return found


def read(events: list[int]) -> Reader:
    reader = Reader()
    reader.begin(at(0))
    for event in events:
        reader.read(event)
    return reader


def phases_of(reader: Reader) -> list[dict[str, int]]:
    return [{phase: ns for phase, ns in step.phases.items() if ns} for step in reader.steps]


@pytest.mark.parametrize("seed", range(30))
def test_every_nanosecond_belongs_to_the_phase_the_definition_says(seed):
    steps = loop(random.Random(seed), 12)
    reader = read([event for step in steps for visit in step for event in visit.events()])
    assert phases_of(reader) == expected(steps)
    assert reader.current == "other"


def started() -> Tape:
    tape = Tape()
    tape.owner = threading.get_ident()
    return tape


def test_a_tape_that_overflows_loses_whole_steps_only():
    """However many events are lost: what is read are the last steps, none of them cut, but for at most one."""
    steps = loop(random.Random(1), 2500)
    events = [event for step in steps for visit in step for event in visit.events()]
    assert len(events) > 2 * KEPT
    for count in (*range(KEPT, KEPT + 40), len(events)):
        tape = started()
        for event in events[:count]:
            tape.note(event)
        whole = expected(steps[: sum(event & ~TIME == STEP for event in events[:count])])
        found = phases_of(read(tape.drain()))
        assert found == whole[-len(found) :] and found
        assert tape.drain() == []


def test_an_exception_leaves_the_phase():
    tape = started()

    def fails():
        raise ValueError

    with pytest.raises(ValueError):
        tape.within("checkpoint", fails)()
    events = tape.drain()
    assert [event & ~TIME for event in events] == [ENTER["checkpoint"], LEAVE["checkpoint"]]
    assert read(events).current == "other"


def test_an_event_is_its_moment_to_16_ns():
    tape = started()
    before = time.time_ns()
    tape.within("logging", lambda: None)()
    after = time.time_ns()
    entered, left = (event & TIME for event in tape.drain())
    assert before - TICK < entered <= left <= after


def test_recursion_is_one_stay_in_the_phase():
    tape = started()

    def recursive(n):
        return wrapped(n - 1) if n else "done"

    wrapped = tape.within("checkpoint", recursive)
    assert wrapped(5) == "done"
    assert len(tape.drain()) == 2
    assert wrapped(1) == "done" and len(tape.drain()) == 2


def test_other_threads_and_an_ended_clock_pass_through():
    tape = started()
    wrapped = tape.within("logging", lambda: "said")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(wrapped()))
    thread.start()
    thread.join()
    tape.owner = 0
    assert [*seen, wrapped()] == ["said", "said"] and tape.drain() == []


def test_what_was_entered_inside_and_never_left_is_left_with_what_was_around_it():
    """A print inside an optimizer whose step raised, inside a backward."""
    reader = read([at(1) | ENTER["backward"], at(2) | ENTER["optimizer"], at(5) | LEAVE["backward"]])
    assert reader.current == "other"
    assert spent(reader.notes, at(6)) == {"other": 2 * TICK, "backward": TICK, "optimizer": 3 * TICK}
    reader.read(at(7) | LEAVE["optimizer"])  # of what was never entered, or left long ago
    assert reader.current == "other"


def test_a_million_notes_within_a_step_are_kept_short_and_lose_no_time():
    events = [at(n) | (ENTER, LEAVE)[n % 2][("data", "logging")[n // 2 % 2]] for n in range(10 * LONG)]
    reader = read(events)
    assert len(reader.notes) <= LONG + 1
    ticks = 10 * LONG
    each = {"data": ticks // 4 * TICK, "logging": ticks // 4 * TICK, "other": ticks // 2 * TICK}
    assert spent(reader.notes, at(ticks)) == each
