"""Joining shapes to a window: by order where the orders agree, by the k-th of a name where not."""

from mlsys_studio.profilers.events import HostEvent
from mlsys_studio.profilers.shapes import Join, join


def events(names: str, calls: bool, start: int = 0) -> list[HostEvent]:
    return [HostEvent(n, start + i, start + i + 1, 1, call=f"{n}{i}" if calls else None) for i, n in enumerate(names)]  # type: ignore[arg-type]


def joined(window: str, shaped: str, edges=(100,)):
    out, how = join(events(window, False), events(shaped, True), lambda e: "p", lambda e: "p", edges)
    return [e.call for e in out], how


def test_equal_orders_join_exactly():
    assert joined("abab", "abab") == (["a0", "b1", "a2", "b3"], Join(4, 0, 0))


def test_other_orders_join_the_kth_of_a_name_and_count_what_is_lost():
    assert joined("bacaa", "abac") == (["b1", "a0", "c3", "a2", None], Join(0, 4, 1))


def test_every_step_of_the_window_starts_anew():
    window = events("ab", False) + events("ab", False, start=10)
    out, how = join(window, events("ab", True), lambda e: "p", lambda e: "p", (5, 20))
    assert [e.call for e in out] == ["a0", "b1", "a0", "b1"] and how.exact == 4
