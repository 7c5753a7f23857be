"""The exclusive phases against a witness that replays every mark."""

import threading
import time

import pytest

from mlsys_studio.profilers.phases import Phases


def started() -> Phases:
    phases = Phases()
    phases.owner, phases.last = threading.get_ident(), time.time_ns()
    return phases


def test_sums_are_what_the_marks_say():
    phases = started()
    phases.recording = True
    begin = phases.last
    for phase in ["data", "other", "forward", "logging", "forward", "other", "backward", "other"]:
        end = phases.switch(phase)
    replayed: dict[str, int] = {"other": phases.marks[0].time - begin}
    for a, b in zip(phases.marks, phases.marks[1:], strict=False):
        replayed[a.phase] = replayed.get(a.phase, 0) + b.time - a.time
    assert replayed == dict(phases.sums)
    assert sum(phases.sums.values()) == end - begin


def test_an_exception_switches_back():
    phases = started()

    def fails():
        assert phases.current == "checkpoint"
        raise ValueError

    with pytest.raises(ValueError):
        phases.within("checkpoint", fails)()
    assert phases.current == "other" and phases.sums["checkpoint"] > 0


def test_recursion_is_one_stay_in_the_phase():
    phases = started()
    phases.recording = True

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


def test_taken_sums_are_an_ordinary_dict_and_begin_again():
    phases = started()
    phases.switch("data")
    phases.switch("other")
    taken = phases.take()
    assert set(taken) == {"other", "data"} and not phases.sums
    with pytest.raises(KeyError):
        taken["forward"]
