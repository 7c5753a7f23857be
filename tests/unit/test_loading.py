"""The doctor's arithmetic on samples made by hand: parts that add up, causes that are what removing them gains."""

from __future__ import annotations

import random
from typing import Any

import pytest

from mlsys_studio.profilers.loading.causes import Loop, charge, pipeline
from mlsys_studio.profilers.loading.clocks import Spent
from mlsys_studio.profilers.loading.consumer import Turn
from mlsys_studio.profilers.loading.model import Handing, Pipeline
from mlsys_studio.profilers.loading.samples import Feed, Worker, slow_worker, worker
from mlsys_studio.profilers.loading.waiting import kind_of, split_delay, split_tick
from mlsys_studio.profilers.loading.what_if import best_workers, cached, estimates, what_if

MS = 1_000_000


def fetched(
    number: int = 0, parts: dict[tuple[str, str], float] | None = None, walls: tuple[int, ...] = (), **more
) -> Worker:
    parts = parts or {("__getitem__", "cpu"): 10.0 * MS}
    wall = int(sum(parts.values()))
    cpu = sum(ns for (_, how), ns in parts.items() if how == "cpu")
    given: dict[str, Any] = dict(process_cpu=cpu, feed=Feed(), bytes_read=None, from_device=None, major_faults=None, opens=0.0,
                 file_cpu=None, file_size=None, samples=4)  # fmt: skip
    walls = walls or (wall,) * 10
    return Worker(number=number, walls=walls, starts=tuple(range(len(walls))), parts=parts, **(given | more))


def looped(wait: float, work: float, **more) -> Loop:
    """ms; the step sleeps, as a host does while its device computes."""
    turn = Turn(Spent(int(wait * MS), 0, 0), Spent(int(work * MS), 0, 0), places=more.pop("places", {}))
    return Loop(turns=(turn,) * 8, first_excess=more.pop("first", 0.0) * MS, epoch=more.pop("epoch", None), cpu=None, has_step=True)  # fmt: skip


def causes_of(loop: Loop, workers: list[Worker], count: int, cores: float = 64):
    return charge(loop, workers, pipeline(loop, workers, count, cores, in_order=True))


# -- parts ---------------------------------------------------------------------------------------------------------------


def record(draw: random.Random) -> dict:
    """A batch as a worker writes it, with clocks that were read one after the other and so disagree a little."""
    cpu, queued, blocked = (draw.randint(0, 10 * MS) for _ in range(3))
    whole, size = cpu + queued + blocked, draw.randint(1, 8)
    stages, left = {}, [whole, cpu, queued]
    for name in ("collate", "__getitem__", "transform A", "transform B")[: draw.randint(1, 4)]:
        part = [draw.randint(0, ns) for ns in left]
        stages[name] = [part[0] + draw.randint(0, 50), part[1], part[2]]
        left = [a - b for a, b in zip(left, part, strict=True)]
    return {
        "number": 0, "began": 0, "spent": [whole, cpu, queued], "process_cpu": cpu, "stages": stages,
        "timed": draw.randint(1, size), "size": size, "waits": [["__getitem__", "storage", draw.randint(0, 5)]],
        "process_at": 0, "delays": [], "read": None, "opens": 0, "feed": {},
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(200))
def test_parts_add_up_to_the_wall_time(seed):
    """Property: whatever was sampled, and whatever the clocks of a stage claim."""
    made = record(random.Random(seed))
    found = worker(0, [made], 0, 1)
    assert found is not None
    assert sum(found.parts.values()) == pytest.approx(found.wall, abs=1)
    assert all(ns >= 0 for ns in found.parts.values())


@pytest.mark.parametrize("seed", range(200))
def test_a_tick_is_split_without_a_rest(seed):
    draw = random.Random(seed)
    blocked, late, busy, feeder, others = (draw.randint(0, 5 * MS) for _ in range(5))
    seen = draw.choice(("storage", "sleep", "lock", "network", "unknown", None))
    parts = split_tick(blocked, late, busy, feeder, others, seen)
    assert sum(parts.values()) in (0, blocked)
    assert all(ns > 0 for ns in parts.values())


@pytest.mark.parametrize(
    ("ticked", "expected"),
    [
        (dict(blocked=2 * MS, late=0, busy=0, feeder=0, others=0, seen="storage"), {"storage": 2 * MS}),
        # late by 20 ms while the watched thread ran for none of it: somebody holds the GIL
        (dict(blocked=22 * MS, late=20 * MS, busy=0, feeder=0, others=0, seen="lock"), {"gil": 22 * MS}),
        (dict(blocked=22 * MS, late=20 * MS, busy=0, feeder=20 * MS, others=0, seen="lock"), {"feeder": 22 * MS}),
        # late by 5 ms because the watched thread computes, as any Python does: no fault of the GIL
        (dict(blocked=1 * MS, late=5 * MS, busy=6 * MS, feeder=0, others=0, seen="storage"), {"storage": 1 * MS}),
        (dict(blocked=2 * MS, late=0, busy=0, feeder=0, others=2 * MS, seen="lock"), {"library threads": 2 * MS}),
        (dict(blocked=2 * MS, late=0, busy=0, feeder=0, others=2 * MS, seen="storage"), {"storage": 2 * MS}),
        (dict(blocked=2 * MS, late=0, busy=0, feeder=0, others=0, seen=None), {}),
    ],
)
def test_what_a_blocked_thread_waits_for(ticked, expected):
    assert split_tick(**ticked) == expected


@pytest.mark.parametrize(
    ("delayed", "expected"),
    [  # a sleep that ends 5 ms late; 0.3 ms of it are its own
        (dict(overshoot=5 * MS, queued=0, busy=7 * MS, running=7 * MS), {"cpu": 4.7 * MS, "none": 0.3 * MS}),
        (dict(overshoot=5 * MS, queued=0, busy=8 * MS, running=2 * MS), {"cpu": 1.175 * MS, "queued": 3.525 * MS, "none": 0.3 * MS}),
        (dict(overshoot=5 * MS, queued=MS, busy=0, running=0), {"gil": 4.7 * MS, "queued": MS, "none": 0.3 * MS}),
        (dict(overshoot=int(0.1 * MS), queued=0, busy=2 * MS, running=2 * MS), {"none": 0.1 * MS}),
        (dict(overshoot=-5, queued=0, busy=0, running=0), {}),
    ],
)  # fmt: skip
def test_why_a_thread_gets_going_late(delayed, expected):
    assert {why: ns for why, ns in split_delay(**delayed).items() if ns} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [  # numbers of asm/unistd_64.h
        ("0 0x5 0x7f4ea4375ee0 0x1 0x55ac60f7af00 0x0 0x0\n", "/data/a", "storage"),
        ("0 0x5 0x7f4ea4375ee0 0x1 0x55ac60f7af00 0x0 0x0\n", "socket:[12]", "network"),
        ("230 0x1 0x1 0x7ffff9475b40 0x0\n", None, "sleep"),
        ("202 0x55ac60eef0e0 0x89 0x0\n", None, "lock"),
        ("257 0xffffff9c 0x7f 0x0\n", None, "storage"),
        ("-1 0x7ffe 0x7f\n", None, "storage"),  # a page fault: blocked in no system call
        ("running\n", None, None),
        ("9999 0x0\n", None, "unknown"),
    ],
)
def test_system_calls_by_kind(text, target, expected):
    assert kind_of(text, "x86_64", target) == expected


def test_a_machine_without_a_table_is_unknown_and_not_guessed():
    assert kind_of("0 0x5 0x7f\n", "riscv64") == "unknown"


# -- causes: what is charged is what removing it gains --------------------------------------------------------------------


def test_without_workers_the_loop_pays_for_all_of_a_fetch():
    """Witness: 6 + 4 ms of fetching and a step of 10 ms; without storage a step takes 14 of 20 ms."""
    made = fetched(parts={("__getitem__", "storage"): 6.0 * MS, ("transform Crop", "cpu"): 4.0 * MS})
    found = causes_of(looped(10, 10), [made], 0)
    assert [(c.name, round(c.share, 3)) for c in found] == [("storage", 0.3), ("CPU: transform Crop", 0.2)]


def test_what_hides_behind_the_step_is_charged_nothing():
    """Two workers of 20 ms a batch give one each 10 ms; the step takes 12."""
    both = [fetched(i, {("__getitem__", "storage"): 20.0 * MS}) for i in range(2)]
    assert causes_of(looped(0.1, 12), both, 2) == ()


def test_the_first_cause_gets_what_its_removal_gains_and_no_more_than_the_stall():
    """Two workers, 30 ms of storage and 10 ms of CPU a batch: 20 ms a step of which the model needs 8.

    Without storage a step takes 8 ms (CPU alone would take 5): the gain is 12 of 20. Then nothing is left to gain.
    """
    both = [fetched(i, {("__getitem__", "storage"): 30.0 * MS, ("__getitem__", "cpu"): 10.0 * MS}) for i in range(2)]
    found = causes_of(looped(12, 8), both, 2)
    assert [(c.name, round(c.share, 6)) for c in found] == [("storage", 0.6)]


@pytest.mark.parametrize("seed", range(100))
def test_shares_are_never_more_than_the_stall_and_what_the_step_does(seed):
    """Property: greedy removal can give back at most all of a step."""
    draw = random.Random(seed)
    count = draw.choice((0, 1, 2, 4))
    hows = ("cpu", "queued", "storage", "gil", "sleep")
    workers = [
        fetched(i, {("__getitem__", how): draw.uniform(0, 20 * MS) for how in hows}) for i in range(max(1, count))
    ]
    work = draw.uniform(1, 30)
    pool = max(w.wall for w in workers) / max(1, count) / MS
    wait = pool if not count else max(0.0, pool - work)
    found = causes_of(looped(wait, work), workers, count, cores=draw.choice((1, 2, 64)))
    assert sum(c.share for c in found) <= 1 + 1e-9
    assert sum(c.share for c in found) <= wait / (wait + work) + 1e-6
    assert all(c.share >= 0.05 for c in found)


def test_queueing_is_contention_where_the_work_itself_would_fit():
    """10 ms of CPU in two workers is 5 a step of 12; queued for 40 more it is 25."""
    both = [fetched(i, {("transform A", "cpu"): 10.0 * MS, ("transform A", "queued"): 40.0 * MS}) for i in range(2)]
    first, *rest = causes_of(looped(13, 12), both, 2)
    assert (first.name, round(first.share, 2)) == ("CPU contention", 0.52)
    assert not rest


def test_work_is_the_cause_where_it_would_not_fit_even_alone():
    both = [fetched(i, {("transform A", "cpu"): 60.0 * MS, ("transform A", "queued"): 10.0 * MS}) for i in range(2)]
    assert causes_of(looped(23, 12), both, 2)[0].name == "CPU: transform A"


def test_two_that_hide_behind_each_other_are_both_named():
    """Two workers of 40 ms of storage are 20 a step; so is a step of 8 with a checkpoint of 12. Without either, still 20."""
    both = [fetched(i, {("__getitem__", "storage"): 40.0 * MS}) for i in range(2)]
    found = causes_of(looped(0, 20, places={"checkpoint": Spent(12 * MS, 0, 0)}), both, 2)
    assert {c.name: round(c.share, 3) for c in found} == {"storage": 0.3, "checkpoint": 0.3}


def test_an_answer_that_waits_for_a_computing_stage_is_that_stages():
    """Two workers compute 10 ms a batch, 5 a step; the loop works 6 ms and waits 14 for an answer, nine tenths held up."""
    both = [fetched(i, {("transform A", "cpu"): 10.0 * MS}, delays={("transform A", "cpu"): 0.9, ("", "none"): 0.1}) for i in range(2)]  # fmt: skip
    turn = Turn(Spent(14 * MS, 0, 0), Spent(6 * MS, 0, 0), unpickle=14 * MS, answer=14 * MS)
    loop = Loop(turns=(turn,) * 8, first_excess=0, epoch=None, cpu=None, has_step=True)
    assert [(c.name, round(c.share, 3)) for c in causes_of(loop, both, 2)] == [("CPU: transform A", 0.63), ("transfer", 0.07)]  # fmt: skip


def test_without_a_transfer_its_cpu_time_is_free_too():
    """30 ms to receive a batch and 30 to send it, all on a core of two: 30 a step; without, 2 ms of the loop's own."""
    sender = fetched(parts={("__getitem__", "cpu"): 0.1 * MS}, feed=Feed(pickle_cpu=10.0 * MS, send_cpu=20.0 * MS), process_cpu=30.1 * MS)  # fmt: skip
    turn = Turn(Spent(30 * MS, 30 * MS, 0), Spent(2 * MS, 0, 0), receive=20 * MS, unpickle=10 * MS, receiving_cpu=30 * MS)  # fmt: skip
    loop = Loop(turns=(turn,) * 8, first_excess=0, epoch=None, cpu=None, has_step=True)
    assert [(c.name, round(c.share, 3)) for c in causes_of(loop, [sender], 1, cores=2)] == [("transfer", 0.938)]


def test_one_slow_worker_is_named_before_what_makes_it_slow():
    """In order, every second batch is the slow one's: 40 / 2 = 20 ms a step, 10 / 2 with two like the other."""
    workers = [fetched(0, {("__getitem__", "sleep"): 40.0 * MS}), fetched(1, {("__getitem__", "sleep"): 10.0 * MS})]
    found = causes_of(looped(14, 6), workers, 2)
    assert [(c.name, round(c.share, 2)) for c in found] == [("slow worker", 0.7)]
    assert "worker 0" in found[0].evidence


def test_noise_between_workers_is_no_slow_worker():
    draw = random.Random(0)
    noisy = [fetched(i, walls=tuple(draw.randint(5 * MS, 40 * MS) for _ in range(8))) for i in range(4)]
    assert slow_worker(noisy) is None


def test_a_first_batch_is_spread_over_its_epoch():
    """100 ms more, each epoch of 20 steps of 5 ms: 5 of 10 ms a step."""
    (cause,) = causes_of(looped(0, 5, first=100, epoch=20), [fetched(parts={("next", "cpu"): 1.0})], 1)
    assert (cause.name, cause.share) == ("first batch", pytest.approx(0.5))


def test_a_checkpoint_in_the_step_is_a_cause():
    (cause,) = causes_of(looped(0, 20, places={"checkpoint": Spent(15 * MS, 0, 0)}), [fetched()], 2)
    assert (cause.name, cause.share) == ("checkpoint", pytest.approx(0.75, abs=0.01))


def test_small_files_are_priced_by_opening_them():
    """1,000 files a batch at 10 µs are 10 of its 12 ms of CPU, in the loop itself: 10 of 16 ms a step."""
    made = fetched(parts={("__getitem__", "cpu"): 12.0 * MS}, opens=1000.0, file_cpu=10_000, file_size=300)
    found = causes_of(looped(12, 4), [made], 0)
    assert (found[0].name, round(found[0].share, 3)) == ("small files", 0.625)
    large = fetched(parts={("__getitem__", "cpu"): 12.0 * MS}, opens=1000.0, file_cpu=10_000, file_size=1 << 20)
    assert causes_of(looped(12, 4), [large], 0)[0].name == "CPU: __getitem__"


# -- what if -------------------------------------------------------------------------------------------------------------


def test_no_setting_beats_the_cores():
    """30 ms of CPU a batch and 2 ms in the loop, on 2 cores: never below 16 ms a step; 32 where the loop does it all."""
    at = Pipeline(1, {("step", "work"): 2.0 * MS}, ({("f", "cpu"): 30.0 * MS},), 0.0, 32.0 * MS, 2)
    predicted = what_if(at)
    assert min(ns for _, ns in predicted.workers) == 16.0 * MS
    assert 0 not in dict(predicted.workers)  # what a worker needed tells what the loop would, but not to 15 %
    assert estimates(at)[0] == 32.0 * MS
    assert best_workers(predicted.workers) == 2


def test_workers_cost_what_one_of_them_was_seen_to_cost():
    """16 ms here, 19 in a worker; with 0.8 to receive, 20.4 ms on cores: on two of them 10.2 a step from two workers on."""
    handing = Handing(loop=0.8 * MS, fetch=19.0 * MS, cpu=20.4 * MS)
    at = Pipeline(0, {}, ({("f", "cpu"): 16.0 * MS},), 0.0, 16.0 * MS, 2, handing=handing)
    assert dict(what_if(at).workers) == pytest.approx(
        {0: 16 * MS, 1: 19 * MS, 2: 10.2 * MS, 3: 10.2 * MS, 4: 10.2 * MS}
    )


def test_workers_that_hand_over_longer_than_a_fetch_takes_are_not_predicted():
    """0.1 ms of fetching is 0.1 a step here; a worker's batch takes the loop 0.4 ms to receive: slower, whatever else."""
    at = Pipeline(0, {}, ({("f", "cpu"): 0.1 * MS},), 0.0, 0.1 * MS, 8, handing=Handing(0.4 * MS, 0.3 * MS, 0.7 * MS))
    assert [at.with_workers(n).step() for n in (0, 1, 4)] == [0.1 * MS, 0.4 * MS, 0.4 * MS]
    predicted = what_if(at)
    assert dict(predicted.workers) == {0: 0.1 * MS}
    assert "slower" in predicted.unpredicted


def test_workers_of_which_none_could_be_tried_are_not_predicted():
    predicted = what_if(Pipeline(0, {}, ({("f", "sleep"): 9.0},), 0.0, 0.0, 8))
    assert (dict(predicted.workers), predicted.unpredicted[:7]) == ({0: 9.0}, "workers")


def test_what_the_clocks_cost_is_taken_out_of_what_they_timed():
    """A step of 4 ms and a fetch that took 6 with clocks; bare, both took 7: 3 of them the fetch's own."""
    at = Pipeline(
        0, {("step", "work"): 4.0 * MS}, ({("f", "cpu"): 4.0 * MS, ("f", "storage"): 2.0 * MS},), 0.0, 6.0 * MS, 2
    )
    paced = at.paced(7.0 * MS)
    assert paced.loop == at.loop
    assert dict(paced.fetch[0]) == pytest.approx({("f", "cpu"): 2 * MS, ("f", "storage"): MS}, rel=1e-6)
    assert at.paced(11.0 * MS) is at  # slower than the model: nothing to take out
    assert at.paced(3.0 * MS) is at  # the step alone is slower than that
    crowded = Pipeline(2, {("step", "work"): 12.0 * MS, ("step", "queued"): 9.0 * MS}, ({},) * 2, 0.0, 0.0, 2)
    assert crowded.paced(17.0 * MS).loop["step", "queued"] == pytest.approx(5 * MS, rel=1e-6)


def test_cached_samples_wait_for_no_storage():
    at = Pipeline(0, {}, ({("f", "cpu"): 10.0, ("f", "storage"): 30.0},), 0.0, 0.0, 4)
    assert [cached(at, share).step() for share in (0.0, 0.5, 1.0)] == [40.0, 25.0, 10.0]


def test_out_of_order_rates_add_up():
    """Workers of 10 and 40 ms: in order 20 ms a step, out of order 1 / (1/10 + 1/40) = 8."""
    fetch = ({("f", "sleep"): 10.0}, {("f", "sleep"): 40.0})
    at = Pipeline(2, {}, fetch, 0.0, 0.0, 8)
    assert at.step() == 20.0
    assert Pipeline(2, {}, fetch, 0.0, 0.0, 8, in_order=False).step() == pytest.approx(8.0)
