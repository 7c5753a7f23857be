"""The ledger's GPU rules on tapes whose account can be worked out by hand. Times in us."""

import random
from dataclasses import replace

import pytest
from tapes import CEILINGS, GPU, US, Tape, mm

from mlsys_studio.profilers.accounting import account
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.events import DeviceEvent, HostEvent


def cells(tape: Tape, **window) -> dict[str, int]:
    """{cause: us}, zero cells left out."""
    ledger = account(tape.capture(**window), GPU).ledger
    assert sum(e.nanoseconds for e in ledger.entries) == ledger.wall_ns
    return {c: ns // US for c, ns in ledger.by_cause().items()}


def test_a_matmul_is_useful_ceiling_launch_and_the_rest_inefficiency():
    tape = Tape(1000)
    tape.kernel(0, 1000, launched=-10, call=mm(500, 500, 800))  # 0.4 GFLOP: 400 us at peak, 500 at the ceiling
    assert cells(tape) == {"useful": 400, "ceiling": 100, "inefficiency": 498, "launch": 2}


def test_mfu_is_the_useful_share():
    tape = Tape(1000)
    tape.kernel(0, 1000, launched=-10, call=mm(500, 500, 800))
    ledger = account(tape.capture(), GPU).ledger
    assert ledger.mfu == pytest.approx(2 * 500 * 500 * 800 / 1e12 / 1000e-6)


def test_a_kernel_without_a_formula_is_uncounted():
    tape = Tape(100)
    tape.device.append(tape_kernel := _triton(0, 100))
    assert cells(tape) == {"uncounted": 100}
    ledger = account(tape.capture(), GPU).ledger
    assert ledger.entries[0].evidence[0].what == tape_kernel.name


def test_a_kernel_whose_operator_only_dispatches_is_uncounted_not_launch():
    tape = Tape(100)
    owner = tape.op(
        "aten::linear", -20, -10, Call("aten::linear", ((8, 8), (8, 8), None), ("float32", "float32", ""), (None,) * 3)
    )
    tape.runtime("cudaLaunchKernel", -18, -16, correlation=1000 + owner)
    tape.device.append(DeviceEvent("gemm", 0, 100 * US, 7, "compute", owner, 1000 + owner))
    assert cells(tape) == {"uncounted": 100}


def _triton(at: int, to: int):
    return DeviceEvent("triton_my_kernel", at * US, to * US, 7, "compute")


def test_waiting_for_data_is_a_data_stall():
    tape = Tape(1000, marks=[(0, "data"), (600, "forward")])
    tape.kernel(620, 1000, launched=610, call=mm(100, 100, 100))
    got = cells(tape)
    assert got["data stall"] == 600
    assert got["python"] == 10  # 600 to 610: the loop's thread between operators
    assert got["launch"] >= 10  # 610 to 620: from the operator to its kernel


def test_the_queue_the_profiler_drained_is_its_own_price_as_far_as_the_window_is_longer():
    tape = Tape(1000, marks=[(0, "data"), (200, "forward")], clean_wall=900)
    tape.kernel(210, 1000, launched=205, call=mm(100, 100, 100))
    got = cells(tape)
    assert got["measurement"] == 100 and got["data stall"] == 100


def test_a_loop_that_always_waits_for_data_keeps_its_stall():
    tape = Tape(1000, marks=[(0, "data"), (200, "forward")], clean_wall=1000)
    tape.kernel(210, 1000, launched=205, call=mm(100, 100, 100))
    assert cells(tape)["data stall"] == 200


def test_events_hidden_behind_a_busy_device_are_no_price():
    priced = replace(GPU, ceilings=replace(CEILINGS, event_ns=1000.0))
    tape = Tape(1000, marks=[(0, "forward")], clean_wall=1000, clean_phases={"forward": 10})
    tape.kernel(0, 1000, launched=-10, call=mm(100, 100, 100))
    for t in range(10, 500, 10):
        tape.op("aten::view", t, t + 2)
    assert account(tape.capture(), priced).ledger.nanoseconds("measurement") == 0


def test_an_event_without_length_or_owner_does_no_harm():
    tape = Tape(100)
    tape.host.append(HostEvent("Activity Buffer Request", 0, 50 * US, 1, -1, 0))
    tape.device.append(DeviceEvent("empty", 50 * US, 50 * US, 7, "compute"))
    tape.device.append(DeviceEvent("triton", 0, 100 * US, 7, "compute"))
    assert cells(tape) == {"uncounted": 100}


def test_bfloat16_is_the_reference_where_float16_is_no_faster():
    tape = Tape(1000)
    tape.kernel(0, 1000, launched=-10, call=mm(500, 500, 800))
    both = replace(GPU, peak_flops={"float32": 1e12, "bfloat16": 8e12, "float16": 8e12},
                   ceilings=replace(CEILINGS, matmul={"float32": 0.8e12, "bfloat16": 6.0e12, "float16": 6.1e12}))  # fmt: skip
    assert account(tape.capture(), both).ledger.basis.dtype == "bfloat16"


def test_a_sleep_behind_a_busy_device_costs_nothing():
    tape = Tape(1000)
    tape.kernel(0, 500, launched=-20, call=mm(100, 100, 100))
    tape.kernel(500, 1000, launched=-10, call=mm(100, 100, 100))  # queued long before: the host slept 0 to 1000
    assert set(cells(tape)) == {"useful", "ceiling", "memory", "inefficiency", "launch"} - {"memory"}


def test_item_drains_a_deep_queue():
    tape = Tape(1000)
    tape.kernel(0, 400, launched=-300, call=mm(100, 100, 100))  # ran ahead by 297 us
    tape.op("aten::_local_scalar_dense", 10, 400)
    tape.runtime("cudaStreamSynchronize", 11, 399)
    tape.kernel(460, 1000, launched=450, call=mm(100, 100, 100))
    got = cells(tape)
    assert got["sync"] == 60  # 400 to 460: the host was only late because it had waited
    assert "python" not in got


def test_a_sync_never_claims_more_than_the_run_ahead_it_destroyed():
    tape = Tape(1000)
    tape.kernel(0, 400, launched=-23, call=mm(100, 100, 100))  # launched by -20: 20 us ahead
    tape.runtime("cudaStreamSynchronize", 11, 400)
    tape.kernel(510, 1000, launched=500, call=mm(100, 100, 100))
    got = cells(tape)
    assert got["sync"] == 20 and got["python"] == 80


def test_a_host_that_cannot_keep_up_is_launch_and_python():
    tape = Tape(1000)
    for t in range(0, 1000, 100):  # a 10 us kernel every 100 us: operator 4 us, Python the rest
        tape.kernel(t + 10, t + 20, launched=t, call=mm(8, 8, 8))
    got = cells(tape)
    assert got["python"] == 800  # from each kernel's end to the next operator
    assert got["launch"] >= 100


def test_copies_under_compute_are_free_and_alone_they_are_exposed():
    tape = Tape(1000, marks=[(0, "other")])
    tape.kernel(0, 400, launched=-10, call=mm(100, 100, 100))
    tape.kernel(100, 300, launched=-5, name="Memcpy HtoD (Pinned -> Device)", stream=8)
    tape.kernel(400, 700, launched=-4, name="Memcpy HtoD (Pinned -> Device)", stream=8)
    tape.kernel(700, 1000, launched=-3, call=mm(100, 100, 100))
    assert cells(tape)["copy"] == 300
    ledger = account(tape.capture(), GPU).ledger
    assert ledger.by_phase()["h2d"] == 300 * US


def test_only_communication_that_nothing_hides_is_charged():
    tape = Tape(1000)
    tape.kernel(0, 600, launched=-10, call=mm(100, 100, 100))
    tape.kernel(500, 900, launched=-5, name="ncclDevKernel_AllReduce_Sum_bf16_RING", stream=20)
    tape.kernel(900, 1000, launched=-4, call=mm(100, 100, 100))
    assert cells(tape)["comm"] == 300


def test_concurrent_kernels_share_the_time():
    tape = Tape(100)
    tape.kernel(0, 100, launched=-20, call=mm(100, 100, 100), stream=7)
    tape.kernel(0, 100, launched=-10, call=mm(100, 100, 100), stream=8)
    rows = account(tape.capture(), GPU).operators
    assert [(r.calls, r.nanoseconds) for r in rows] == [(2, 100 * US)]


def test_a_stream_that_waits_for_another_is_a_dependency():
    tape = Tape(1000)
    tape.kernel(0, 500, launched=-10, call=mm(100, 100, 100), stream=7)
    tape.kernel(550, 1000, launched=-5, call=mm(100, 100, 100), stream=8)
    assert cells(tape)["dependency"] == 50


def test_idle_no_host_event_explains_is_unattributed():
    tape = Tape(100)
    tape.marks = []
    assert cells(tape) in ({"unattributed": 100}, {"python": 100})


def random_tape(seed: int) -> Tape:
    rng = random.Random(seed)
    tape = Tape(2000)
    tape.marks = [(0, "other")]
    t = 0
    while t < 1900:
        phase = rng.choice(["data", "forward", "backward", "optimizer", "logging", "checkpoint"])
        tape.marks.append((t, phase))
        t += rng.randint(5, 60)
        begin = t + rng.randint(5, 50)
        size = rng.randint(1, 200)
        tape.kernel(begin, begin + rng.randint(1, 150), launched=t, call=mm(size, size, size) if rng.random() < 0.8 else None,
                    stream=rng.choice([7, 8]), name=rng.choice(["gemm", "gemm", "gemm", "Memcpy DtoH", "ncclDevKernel_x"]))  # fmt: skip
        t += 6
        if rng.random() < 0.2:
            tape.runtime("cudaStreamSynchronize", t, t + 10)
            t += 12
    tape.edges = (500, 1000, 2000)
    return tape


@pytest.mark.parametrize("seed", range(40))
def test_every_account_adds_up_and_no_cell_is_negative(seed):
    ledger = account(random_tape(seed).capture(), GPU).ledger
    assert sum(e.nanoseconds for e in ledger.entries) == ledger.wall_ns == 2000 * US
    assert all(e.nanoseconds > 0 for e in ledger.entries)
    assert ledger.mfu == pytest.approx(ledger.nanoseconds("useful") / ledger.wall_ns)


@pytest.mark.parametrize("seed", range(20))
def test_the_order_events_are_reported_in_does_not_matter(seed):
    tape = random_tape(seed)
    expected = account(tape.capture(), GPU).ledger
    random.Random(seed).shuffle(tape.host)
    random.Random(seed + 1).shuffle(tape.device)
    got = account(tape.capture(), GPU).ledger
    assert {(e.phase, e.cause): e.nanoseconds for e in got.entries} == {
        (e.phase, e.cause): e.nanoseconds for e in expected.entries
    }


@pytest.mark.parametrize("seed", range(20))
def test_busy_and_idle_of_two_halves_add_up_to_the_whole(seed):
    """Busy time is additive at any cut; causes of one gap may change where the cut falls inside it."""
    tape = random_tape(seed)
    busy = ("useful", "recompute", "precision", "ceiling", "memory", "inefficiency", "uncounted", "copy", "comm")
    parts = [account(tape.capture(a, b), GPU).ledger for a, b in ((0, 1000), (1000, 2000))]
    whole = account(tape.capture(), GPU).ledger
    assert sum(p.nanoseconds("copy", "comm") for p in parts) == whole.nanoseconds("copy", "comm")
    assert sum(p.wall_ns for p in parts) == whole.wall_ns
    assert all(p.nanoseconds(*busy) <= p.wall_ns for p in parts)
