"""The exclusive phases against a witness that replays every mark."""

import threading
import time

import pytest

from mlsys_studio.profilers.phases import LONG, Phases, spent


def started() -> Phases:
    phases = Phases()
    phases.owner = threading.get_ident()
    phases.cut(time.time_ns())
    return phases


def so_far(phases: Phases) -> dict[str, int]:
    return spent(phases.notes, phases.notes[-1][0])


def test_sums_are_what_the_marks_say():
    phases = started()
    phases.record(True)
    begin = phases.notes[0][0]
    for phase in ["data", "other", "forward", "logging", "forward", "other", "backward", "other"]:
        end = phases.switch(phase)
    replayed: dict[str, int] = {"other": phases.marks[0].time - begin}
    for a, b in zip(phases.marks, phases.marks[1:], strict=False):
        replayed[a.phase] = replayed.get(a.phase, 0) + b.time - a.time
    sums = so_far(phases)
    assert replayed == {phase: ns for phase, ns in sums.items() if ns}
    assert sum(sums.values()) == end - begin


def test_an_exception_switches_back():
    phases = started()

    def fails():
        assert phases.current == "checkpoint"
        raise ValueError

    with pytest.raises(ValueError):
        phases.within("checkpoint", fails)()
    assert phases.current == "other" and so_far(phases)["checkpoint"] > 0


def test_recursion_is_one_stay_in_the_phase():
    phases = started()
    phases.record(True)

    def recursive(n):
        return wrapped(n - 1) if n else "done"

    wrapped = phases.within("checkpoint", recursive)
    assert wrapped(5) == "done"
    assert [m.phase for m in phases.marks] == ["checkpoint", "other"]


def test_other_threads_and_an_ended_clock_pass_through():
    phases = started()
    wrapped = phases.within("logging", lambda: phases.current)
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(wrapped()))
    thread.start()
    thread.join()
    phases.owner = 0
    assert [*seen, wrapped()] == ["other", "other"]


def test_the_cpu_clock_is_read_only_while_recording():
    phases = started()
    phases.switch("data")
    assert phases.marks == []


def test_a_cut_begins_again_in_the_same_phase():
    phases = started()
    phases.switch("data")
    t = phases.switch("other")
    done = phases.cut(t)
    phases.switch("data")
    end = phases.switch("forward")
    assert set(spent(done, t)) == {"other", "data"} and done[-1] == (t, "other")
    assert set(so_far(phases)) == {"other", "data", "forward"} and sum(so_far(phases).values()) == end - t


def test_a_million_notes_within_a_step_are_kept_short_and_lose_no_time():
    """Witness: the same switches, added up one by one."""
    phases = started()
    expected: dict[str, int] = {}
    t, phase = phases.notes[0]
    for n in range(5 * LONG):
        following = ("data", "logging", "other")[n % 3]
        until = phases.switch(following)
        expected[phase] = expected.get(phase, 0) + until - t
        t, phase = until, following
    assert len(phases.notes) <= LONG + 1
    assert {phase: ns for phase, ns in so_far(phases).items() if ns} == {p: ns for p, ns in expected.items() if ns}
