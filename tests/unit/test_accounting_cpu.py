"""The ledger's CPU rules on tapes whose account can be worked out by hand, and its identities on random ones. Times in us."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from loops import mlp, train
from tapes import CEILINGS, CPU, US, Tape, mm
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from mlsys_studio.profilers.accounting import account
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.recording import Recording


def cells(tape: Tape, device=CPU, **window) -> dict[tuple[str, str], int]:
    """{(phase, cause): us}, zero cells left out."""
    ledger = account(tape.capture(device="cpu", **window), device).ledger
    return {(e.phase, e.cause): e.nanoseconds // US for e in ledger.entries if e.nanoseconds >= US}


def test_a_matmul_on_a_cpu_has_no_ceiling_entry_its_peak_is_measured():
    tape = Tape(1000, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 1000, mm(400, 500, 500))  # 0.2 GFLOP at 0.8 TFLOP/s: 250 us
    assert cells(tape) == {("forward", "useful"): 250, ("forward", "launch"): 2, ("forward", "inefficiency"): 748}


def test_nested_operators_keep_their_self_time():
    tape = Tape(100, marks=[(0, "forward")])
    tape.op(
        "aten::linear",
        0,
        100,
        Call("aten::linear", ((8, 8), (8, 8), None), ("float32", "float32", ""), (None, None, None)),
    )
    tape.op("aten::t", 10, 20, Call("aten::t", ((8, 8),), ("float32",), (None,)))
    assert cells(tape) == {("forward", "launch"): 100}


@pytest.mark.parametrize(("phase", "cause"), [("data", "data stall"), ("checkpoint", "io"), ("logging", "io")])
def test_phases_charged_whole_include_their_operators(phase, cause):
    tape = Tape(100, marks=[(0, phase)])
    tape.op("aten::mm", 10, 90, mm(100, 100, 100))
    assert cells(tape) == {(phase, cause): 100}


def test_outside_operators_is_python_and_in_backward_the_engine():
    tape = Tape(100, marks=[(0, "forward"), (50, "backward")])
    assert cells(tape) == {("forward", "python"): 50, ("backward", "launch"): 50}


def test_off_the_cpu_leaves_python_for_unattributed():
    tape = Tape(100, marks=[(0, "other")], off_cpu=[(20, 90)])
    assert cells(tape) == {("other", "python"): 30, ("other", "unattributed"): 70}


def test_waiting_in_a_collective_is_communication_and_not_unattributed():
    tape = Tape(100, marks=[(0, "other")], off_cpu=[(20, 90)], spans={"comm": [(20, 85)]})
    assert cells(tape) == {("other", "python"): 30, ("other", "comm"): 70}


def test_python_beside_a_pending_collective_is_python():
    tape = Tape(100, marks=[(0, "other")], off_cpu=[(20, 30)], spans={"comm": [(10, 90)]})
    assert cells(tape) == {("other", "python"): 90, ("other", "comm"): 10}


def test_the_engine_waiting_for_a_collective_is_communication():
    tape = Tape(100, marks=[(0, "backward")], off_cpu=[(20, 90)], spans={"comm": [(10, 90)]})
    tape.op("c10d::allreduce_", 0, 10)
    assert cells(tape) == {("backward", "launch"): 20, ("backward", "comm"): 80}


def test_garbage_collection_and_compilation():
    tape = Tape(100, marks=[(0, "forward")], spans={"gc": [(10, 30)], "compile": [(40, 90)]})
    tape.op("aten::mm", 50, 60, mm(2, 2, 2))  # an operator the compiler runs
    assert cells(tape) == {("forward", "gc"): 20, ("forward", "compile"): 50, ("forward", "python"): 30}


def test_an_operator_in_backward_under_grad_mode_is_recomputed():
    tape = Tape(1000, marks=[(0, "backward")])
    tape.op("aten::mm", 0, 500, mm(400, 500, 500), sequence=7)
    tape.op("aten::mm", 500, 1000, mm(400, 500, 500))
    got = cells(tape)
    assert got["backward", "recompute"] == 250 and got["backward", "useful"] == 250


def test_a_backward_that_is_differentiated_again_is_no_recomputation():
    """With create_graph its operators run under grad mode; a checkpoint's, in the backward after it, do too."""
    tape = Tape(1000, marks=[(0, "backward")], spans={"create_graph": [(0, 500)]})
    tape.op("aten::mm", 0, 500, mm(400, 500, 500), sequence=7)
    tape.op("aten::mm", 500, 1000, mm(400, 500, 500), sequence=8)
    got = cells(tape)
    assert got["backward", "recompute"] == 250 and got["backward", "useful"] == 250


def test_an_event_too_short_for_its_flops_did_not_run_them():
    tape = Tape(1000, marks=[(0, "backward")])
    tape.op("aten::mm", 0, 1000, mm(4000, 5000, 500), sequence=7)  # 20 GFLOP would take 25,000 us
    assert ("backward", "recompute") not in cells(tape)


def test_a_faster_dtype_becomes_the_reference_only_where_it_is_measured_faster():
    tape = Tape(1000, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 1000, mm(400, 500, 500))
    quick = replace(CPU, ceilings=replace(CEILINGS, matmul={"float32": 0.8e12, "bfloat16": 1.6e12}))
    slow = replace(CPU, ceilings=replace(CEILINGS, matmul={"float32": 0.8e12, "bfloat16": 0.9e12, "float16": 1e9}))
    got = cells(tape, quick)
    assert got["forward", "useful"] == 125 and got["forward", "precision"] == 125
    assert ("forward", "precision") not in cells(tape, slow)


def test_a_beaten_ceiling_is_raised_and_said():
    tape = Tape(200, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 200, mm(400, 500, 500))  # 1 TFLOP/s where 0.8 was measured
    ledger = account(tape.capture(device="cpu"), CPU).ledger
    assert ledger.mfu == pytest.approx(1.0, abs=0.01)
    assert any("raised to 1000 GFLOP/s" in note for note in ledger.notes)


def test_measurement_is_bounded_by_its_price_and_the_rest_is_said():
    priced = replace(CPU, ceilings=replace(CEILINGS, event_ns=1000.0))
    tape = Tape(100, marks=[(0, "forward")], clean_wall=40, clean_phases={"forward": 40})
    for t in range(0, 50, 10):
        tape.op("aten::mm", t, t + 2, mm(2, 2, 2))
    got = cells(tape, priced)
    assert got["forward", "measurement"] == 15  # 5 events x 1 us x 3, of an excess of 60
    accounted = account(tape.capture(device="cpu"), priced)
    assert accounted.disturbed == (100 - 40 - 15) * US
    assert any("disturbed by 0.04 ms" in note or "disturbed by 0.05 ms" in note for note in accounted.ledger.notes)


def test_a_device_nobody_calibrated_still_gives_a_time_only_ledger():
    tape = Tape(100, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 100, mm(100, 100, 100))
    bare = replace(CPU, ceilings=None)
    ledger = account(tape.capture(device="cpu"), bare).ledger
    assert ledger.by_cause() == {"operators": 100 * US} and ledger.mfu is None


def random_tape(seed: int) -> Tape:
    rng = random.Random(seed)
    tape = Tape(3000, marks=[(0, "other")], edges=(1000, 2000, 3000))
    tape.spans = {"gc": [(500, 520)], "compile": [(700, 800)], "comm": [(1500, 1600)]}
    t = 0
    while t < 2800:
        if rng.random() < 0.3:
            tape.marks.append((t, rng.choice(["data", "forward", "backward", "optimizer", "logging", "other"])))
        length = rng.randint(2, 120)
        size = rng.randint(1, 300)
        tape.op("aten::mm", t, t + length, mm(size, size, size), sequence=rng.choice([-1, 3]))
        if length > 20:
            tape.op("aten::weird", t + 3, t + 9)
        t += length + rng.randint(0, 30)
    for _ in range(3):
        a = rng.randint(0, 2900)
        tape.off_cpu.append((a, a + 20))
    return tape


@pytest.mark.parametrize("seed", range(40))
def test_random_accounts_add_up(seed):
    ledger = account(random_tape(seed).capture(device="cpu"), CPU).ledger
    assert sum(e.nanoseconds for e in ledger.entries) == ledger.wall_ns == 3000 * US
    assert all(e.nanoseconds > 0 for e in ledger.entries)
    assert ledger.hfu == pytest.approx(ledger.nanoseconds("useful", "recompute") / ledger.wall_ns)


@pytest.mark.parametrize("seed", range(20))
def test_splitting_a_window_at_step_edges_adds_up(seed):
    tape = random_tape(seed)
    tape.off_cpu = []  # whole phases' CPU clocks are read at marks, not at edges
    whole = account(tape.capture(device="cpu"), CPU).ledger
    parts = [account(tape.capture(a, b, device="cpu"), CPU).ledger for a, b in ((0, 1000), (1000, 2000), (2000, 3000))]
    for cause in ("data stall", "io", "gc", "compile", "comm", "uncounted"):
        assert sum(p.nanoseconds(cause) for p in parts) == whole.nanoseconds(cause), cause
    assert sum(p.wall_ns for p in parts) == whole.wall_ns


# -- real loops ----------------------------------------------------------------------------------------------------------


class Rows(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, i):
        g = torch.Generator().manual_seed(i)
        return torch.randn(64, generator=g), i % 4


def test_flops_of_a_real_window_are_those_of_the_closed_form():
    """Two linear layers: 2 MAC each way, no input gradient for the first. Witness: arithmetic."""
    b, n, h, c = 16, 64, 128, 4
    model = nn.Sequential(nn.Linear(n, h), nn.ReLU(), nn.Linear(h, c))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recording(progress=lambda _: None) as recording:
        for _ in range(3):
            for x, y in DataLoader(Rows(), batch_size=b):
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
    ledger = recording.profile.ledger
    per_step = 2 * b * (n * h + h * c) + 2 * b * (n * h) + 2 * b * (h * c) * 2
    flops = {r.name for r in recording.profile.operators if r.flops}
    assert flops == {"aten::addmm", "aten::mm"}
    counted = sum(r.flops for r in recording.profile.operators if r.flops)
    skipped = [r for r in recording.profile.operators if r.name in flops and not r.flops]
    assert counted == per_step * ledger.steps or skipped  # an operator faster than any ceiling counts as not run


def test_recomputation_is_found_and_is_forward_work_done_again():
    """Witness: with every block checkpointed, recomputed FLOPs equal the blocks' forward FLOPs."""

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh()) for _ in range(3)
            )
            self.head = nn.Linear(256, 4)

        def forward(self, x):
            x = x.repeat(1, 4)
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return self.head(x)

    model = Again()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Recording(progress=lambda _: None) as recording:
        for _ in range(6):
            for x, y in DataLoader(Rows(), batch_size=40):
                F.cross_entropy(model(x), y).backward()
                optimizer.step()
    ledger = recording.profile.ledger
    assert ledger.hfu > ledger.mfu
    executed = 3 * 2 * 2 * 40 * 256 * 256  # forward FLOPs of the blocks, a step
    forward = sum(r.flops for r in recording.profile.operators if r.flops and r.phase == "forward") / ledger.steps
    assert forward == pytest.approx(executed + 2 * 40 * 256 * 4)


def test_real_ledgers_add_up_to_their_windows():
    with Recording(progress=lambda _: None) as recording:
        train(mlp(256), batches=60)
    profile = recording.profile
    assert sum(e.nanoseconds for e in profile.ledger.entries) == profile.ledger.wall_ns
    assert sum(profile.steps.window) == profile.ledger.wall_ns
    assert profile.ledger.nanoseconds("uncounted") == 0


def test_an_integer_operator_needs_no_peak_to_be_counted():
    tape = Tape(100, marks=[(0, "forward")])
    tape.op("aten::add_", 0, 100, Call("aten::add_", ((), (), None), ("int64", "int64", ""), (None, None, 1)))
    assert set(cells(tape)) == {("forward", "launch"), ("forward", "inefficiency")}


@pytest.mark.parametrize(("threads", "said"), [(1, "1 thread "), (2, "2 threads ")])
def test_the_peak_of_a_cpu_names_the_threads_it_was_measured_on(threads: int, said: str):
    tape = Tape(1000, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 1000, mm(400, 500, 500))
    device = replace(CPU, ceilings=replace(CEILINGS, threads=threads))
    assert account(tape.capture(device="cpu"), device).ledger.basis.peak_source == f"measured on {said}of this machine"
