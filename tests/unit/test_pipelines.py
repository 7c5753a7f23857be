"""Pipeline schedules against a simulation that runs each forward, backward and weight gradient in order."""

import itertools

import pytest

from mlsys_studio.profilers.calculators.pipelines import bubble, held, idle
from mlsys_studio.profilers.errors import UsageError

FORWARD, BACKWARD = 3.0, 5.0  # unlike, so that an exchanged term shows


def simulate(orders, after, seconds, frees="B"):
    """(makespan, most micro-batches the first stage holds) of stages that run their tasks in the given order.

    A task is (kind, virtual stage, micro-batch); it starts when its stage is free and the tasks `after` it are done.
    """
    done, free, at = {}, [0.0] * len(orders), [0] * len(orders)
    while any(at[stage] < len(order) for stage, order in enumerate(orders)):
        moved = False
        for stage, order in enumerate(orders):
            while at[stage] < len(order) and all(before in done for before in after(order[at[stage]])):
                task = order[at[stage]]
                free[stage] = max([free[stage], *(done[before] for before in after(task))]) + seconds[task[0]]
                done[task] = free[stage]
                at[stage] += 1
                moved = True
        assert moved, "deadlock"
    holding = itertools.accumulate((kind == "F") - (kind == frees) for kind, _, _ in orders[0])
    return max(free), max(holding)


def dependencies(virtual: int):
    def after(task):
        kind, stage, batch = task
        if kind == "F":
            return [("F", stage - 1, batch)] if stage else []
        if kind == "W":
            return [("B", stage, batch)]
        return [("F", stage, batch), *([("B", stage + 1, batch)] if stage + 1 < virtual else [])]

    return after


def gpipe(p: int, m: int):
    return [[(kind, stage, batch) for kind in "FB" for batch in range(m)] for stage in range(p)]


def alternating(forwards, backwards, warm):
    """Some forwards, then one forward and one backward in turn, then the backwards left."""
    order = forwards[:warm]
    for forward, backward in zip(forwards[warm:], backwards, strict=False):
        order += [forward, backward]
    return order + backwards[len(forwards) - warm :]


def one_f_one_b(p: int, m: int):
    return [
        alternating([("F", s, i) for i in range(m)], [("B", s, i) for i in range(m)], min(m, p - s - 1))
        for s in range(p)
    ]


def interleaved(p: int, m: int, v: int):
    """Megatron's order: groups of p micro-batches pass one chunk after the other."""

    def task(kind: str, stage: int, k: int):
        chunk = k // p % v if kind == "F" else v - 1 - k // p % v
        return kind, chunk * p + stage, k // (p * v) * p + k % p

    return [
        alternating(
            [task("F", s, k) for k in range(m * v)],
            [task("B", s, k) for k in range(m * v)],
            min(m * v, 2 * (p - s - 1) + (v - 1) * p),
        )
        for s in range(p)
    ]


def zero_bubble(p: int, m: int):
    """ZB-H1: stage s begins with p - s forwards, and its weight gradients lag s backwards behind."""
    orders = []
    for s in range(p):
        order = [("F", s, i) for i in range(min(m, p - s))]
        for k in range(m):
            order.append(("B", s, k))
            order += [("W", s, k - s)] if k >= s else []
            order += [("F", s, k + p - s)] if k + p - s < m else []
        orders.append(order + [("W", s, k) for k in range(max(0, m - s), m)])
    return orders


@pytest.mark.parametrize("p, m", [(1, 4), (2, 2), (4, 4), (4, 12), (7, 21)])
def test_gpipe_and_1f1b_leave_the_same_bubble_and_hold_unlike_numbers(p, m):
    seconds = {"F": FORWARD, "B": BACKWARD}
    for schedule, orders in (("gpipe", gpipe(p, m)), ("1f1b", one_f_one_b(p, m))):
        span, most = simulate(orders, dependencies(p), seconds)
        assert span - m * (FORWARD + BACKWARD) == pytest.approx(idle(schedule, p, forward=FORWARD, backward=BACKWARD))
        assert held(schedule, p, m) == most


@pytest.mark.parametrize("p, m, v", [(2, 4, 2), (4, 8, 2), (4, 8, 3), (8, 16, 4)])
def test_interleaving_divides_the_bubble_by_the_chunks(p, m, v):
    seconds = {"F": FORWARD / v, "B": BACKWARD / v}
    span, most = simulate(interleaved(p, m, v), dependencies(p * v), seconds)
    assert span - m * (FORWARD + BACKWARD) == pytest.approx(
        idle("interleaved", p, forward=FORWARD, backward=BACKWARD, chunks=v)
    )
    assert held("interleaved", p, m, v) == pytest.approx(most / v)


@pytest.mark.parametrize("forward, inputs, weight", [(1, 1, 1), (3, 4, 2), (2, 2, 1)])
@pytest.mark.parametrize("p, m", [(2, 8), (3, 7), (4, 12), (8, 8), (8, 24)])
def test_zero_bubble_fills_the_wait_with_weight_gradients(p, m, forward, inputs, weight):
    span, most = simulate(zero_bubble(p, m), dependencies(p), {"F": forward, "B": inputs, "W": weight}, frees="W")
    assert span - m * (forward + inputs + weight) == pytest.approx(
        idle("zero-bubble", p, forward=forward, backward=inputs + weight, weight=weight)
    )
    assert held("zero-bubble", p, m) == most


def test_zero_bubble_waits_a_third_of_1f1b_where_all_three_parts_are_equal():
    """Qi et al. 2023, Table 2 with T_F = T_B = T_W."""
    assert idle("zero-bubble", 8, forward=1, backward=2) == pytest.approx(idle("1f1b", 8, forward=1, backward=2) / 3)


def test_published_bubbles():
    """(p-1)/m and (p-1)/(v m): Narayanan et al. 2021, 2.2; 8 stages, 32 micro-batches, 4 chunks."""
    assert bubble("1f1b", 8, 32) == pytest.approx(7 / 32)
    assert bubble("gpipe", 8, 32) == pytest.approx(7 / 32)
    assert bubble("interleaved", 8, 32, chunks=4) == pytest.approx(7 / 128)
    assert bubble("zero-bubble", 8, 32) == pytest.approx(7 / 96)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved", "zero-bubble"])
def test_more_micro_batches_never_make_the_bubble_larger(schedule):
    shares = [bubble(schedule, 4, m) for m in (4, 8, 16, 32)]
    assert shares == sorted(shares, reverse=True) and bubble(schedule, 1, 4) == 0


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("2f2b", 4, 8), 'schedule must be "gpipe", "1f1b", "interleaved" or "zero-bubble"'),
        (("1f1b", 0, 8), "at least 1"),
        (("interleaved", 4, 6), "give a multiple of 4 instead of 6"),
        (("zero-bubble", 4, 3), "give at least 4 instead of 3"),
    ],
)
def test_what_no_schedule_runs_is_refused(arguments, said):
    with pytest.raises(UsageError, match=said):
        bubble(*arguments)


def test_chunks_need_the_interleaved_schedule():
    with pytest.raises(UsageError, match='2 chunks a stage need schedule="interleaved"'):
        bubble("1f1b", 4, 8, chunks=2)
