"""Findings on ledgers written by hand; predictions are compared with arithmetic done in the test, not with the code."""

from dataclasses import replace

import pytest
from profiles import MS

from mlsys_studio.profilers.ledger import Basis, Entry, Ledger
from mlsys_studio.profilers.loop import Loop
from mlsys_studio.profilers.profile import Memory, OperatorRow, Profile, StepTimes
from mlsys_studio.studio.advisor.findings import RULES, Fetching, by_hand, findings
from mlsys_studio.studio.advisor.remedies import REMEDIES

STEPS = 4


def profile(cells: dict[tuple[str, str], float], dtype="bfloat16", used="float32", operators=(), memory=None, **loop):
    """`cells` in ms a step."""
    whole = {cell: int(ms * MS * STEPS) for cell, ms in cells.items()}
    wall = sum(whole.values())
    entries = tuple(Entry(phase, cause, ns, ns / wall) for (phase, cause), ns in whole.items())
    ledger = Ledger(wall, STEPS, entries, Basis("by hand", dtype, used, 1e12, "by hand"), 0)
    times = StepTimes("step", (), (wall // STEPS,) * 5, (wall // STEPS,) * STEPS, {})
    return Profile("by hand", "", times, ledger, tuple(operators), memory, loop=Loop(**loop))


def only(cells, **options):
    found = findings(profile(cells, **options))
    assert len(found) == 1, [f.key for f in found]
    return found[0]


WORK = {("forward", "useful"): 40.0, ("backward", "useful"): 40.0}


def test_a_stall_is_hidden_behind_the_step_where_cores_are_free():
    # 20 ms of stall beside 80 ms of work: one worker hides all of it
    found = only(WORK | {("data", "data stall"): 20}, loader="Files", workers=0, cores=8, threads=1)
    assert found.key == "data-stall" and found.remedy == "workers"
    assert found.predicted == pytest.approx(100 / 80)
    assert found.saves_ns == pytest.approx(20 * MS)
    assert "num_workers=1" in found.advice


def test_a_stall_longer_than_the_step_takes_as_many_workers():
    # 240 ms of stall beside 80: three workers deliver one batch every 80 ms
    found = only(WORK | {("data", "data stall"): 240}, loader="Files", workers=0, cores=8, threads=1)
    assert "num_workers=3" in found.advice
    assert found.predicted == pytest.approx(320 / 80)


def test_workers_share_the_cores_with_the_model():
    # two cores, both computing for 80 ms, and 80 ms of fetching: (80*2 + 80) / 2 = 120 at best, of 160
    found = only(WORK | {("data", "data stall"): 80}, loader="Files", workers=0, cores=2, threads=2, fetch_on_cpu=1.0)
    assert found.predicted == pytest.approx(160 / 120)
    assert "share these cores" in found.advice


def test_waiting_takes_no_core():
    # the same, but the fetch sleeps: (80*2 + 0) / 2 = 80
    found = only(WORK | {("data", "data stall"): 80}, loader="Files", workers=0, cores=2, threads=2, fetch_on_cpu=0.0)
    assert found.predicted == pytest.approx(160 / 80)


def test_on_a_gpu_the_model_takes_no_core():
    found = only(WORK | {("data", "data stall"): 80}, loader="Files", workers=0, cores=1, threads=8, device="cuda")
    assert found.predicted == pytest.approx(160 / 80)


def test_workers_that_do_not_keep_up_get_colleagues():
    # one worker, 80 ms of work and 80 of stall: it fetches a batch in 160, so two deliver one every 80
    found = only(WORK | {("data", "data stall"): 80}, loader="Files", workers=1, cores=8, threads=1)
    assert "num_workers=2" in found.advice and "1 worker does not keep up" in found.evidence
    assert found.predicted == pytest.approx(160 / 80)


@pytest.mark.parametrize(
    "loop",
    [
        dict(workers=None),  # no torch DataLoader
        dict(workers=0, iterable=True),  # workers would read everything twice
        dict(workers=0, cores=1, threads=1, fetch_on_cpu=1.0),  # one core has no room
    ],
)
def test_where_workers_do_not_help_the_work_has_to_go(loop):
    found = only(WORK | {("data", "data stall"): 20}, loader="Files", **({"cores": 8} | loop))
    assert found.remedy is None and found.advice.startswith("at most: move the work out")
    assert found.predicted == pytest.approx(100 / 80)


def test_workers_are_never_more_than_cores():
    ledger = profile(WORK | {("data", "data stall"): 4000}).ledger
    assert ledger is not None
    assert Fetching.of(ledger, Loop(workers=0, cores=4)).workers == 4


def test_precision_saves_its_cells():
    found = only(WORK | {("forward", "precision"): 60, ("backward", "precision"): 100})
    assert found.key == "precision" and found.remedy == "autocast"
    assert found.predicted == pytest.approx(240 / 80)
    assert "bfloat16" in found.title and "float32" in found.evidence


def test_tf32_is_a_switch():
    found = only(WORK | {("forward", "precision"): 20}, dtype="tf32", device="cuda")
    assert found.remedy == "tf32" and "set_float32_matmul_precision" in found.advice


@pytest.mark.parametrize("kind", ["for-loop", "foreach"])
def test_an_optimizer_bound_by_dispatch_is_fused(kind):
    cells = WORK | {("optimizer", "launch"): 15, ("optimizer", "python"): 5, ("optimizer", "memory"): 10}
    found = only(cells, optimizer="AdamW", optimizer_kind=kind)
    assert found.key == "optimizer" and found.remedy == "fused-optimizer"
    assert found.predicted == pytest.approx(110 / 90)


@pytest.mark.parametrize("loop", [dict(optimizer="AdamW", optimizer_kind="fused"), dict(optimizer="LBFGS")])
def test_an_optimizer_without_a_fused_kernel_is_left_alone(loop):
    assert findings(profile(WORK | {("optimizer", "launch"): 15}, **loop)) == ()


def test_launches_of_forward_and_backward():
    found = only(WORK | {("forward", "launch"): 10, ("backward", "launch"): 10}, batch_size=8)
    assert found.key == "launch" and found.remedy == "compile" and "than 8" in found.advice
    assert found.predicted == pytest.approx(100 / 80)
    assert not findings(profile(WORK | {("forward", "launch"): 20}, compiled=True))


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        (("checkpoint", "io"), "checkpoint"),
        (("logging", "io"), "logging"),
        (("forward", "sync"), "sync"),
        (("other", "gc"), "gc"),
        (("other", "unattributed"), "waiting"),
        (("other", "python"), "python"),
        (("backward", "recompute"), "recompute"),
        (("h2d", "copy"), "copy"),
        (("backward", "comm"), "comm"),
    ],
)
def test_each_cause_has_its_finding(cell, key):
    found = only(WORK | {cell: 20.0})
    assert found.key == key
    assert found.predicted == pytest.approx(100 / 80)
    assert "20.0 of 100.0 ms a step (20.0 %)" in found.evidence


def test_memory_bound_operators():
    rows = [
        OperatorRow("aten::gelu", "forward", "", "float32", 1, 25 * MS * STEPS, 0, 1, "memory", None),
        OperatorRow("aten::mm", "forward", "", "float32", 1, 25 * MS * STEPS, 7, 1, "memory", None),
    ]
    found = only({("forward", "useful"): 75.0, ("forward", "memory"): 25.0}, operators=rows)
    assert found.key == "memory" and found.evidence.endswith("gelu")
    assert found.predicted == pytest.approx(100 / 75)


def test_recomputation_stays_where_memory_is_short():
    cells = WORK | {("backward", "recompute"): 20.0}
    assert not findings(profile(cells, memory=Memory(1, device_peak=60, device_total=100)))
    assert findings(profile(cells, memory=Memory(1, device_peak=40, device_total=100)))


def test_only_unpinned_copies_to_a_gpu_can_be_pinned():
    cells = WORK | {("h2d", "copy"): 20.0}
    assert only(cells, device="cuda", pin_memory=False).remedy == "pin"
    assert only(cells, device="cuda", pin_memory=True).remedy is None


@pytest.mark.parametrize(("stall", "found"), [(2.9, False), (3.1, True)])
def test_below_three_percent_nobody_is_bothered(stall, found):
    cells = {("forward", "useful"): 100 - stall, ("logging", "io"): stall}
    assert bool(findings(profile(cells))) is found


def test_the_profilers_own_time_is_not_the_steps():
    found = only(WORK | {("logging", "io"): 20, ("forward", "measurement"): 100})
    assert found.predicted == pytest.approx(100 / 80)


def test_evidence_repeats_the_ledgers_own_numbers():
    """Witness: the printed table, read back. 20 of 100 + 25 ms are 16 %, and the prediction leaves the 25 out."""
    found = profile(WORK | {("logging", "io"): 20, ("forward", "measurement"): 25})
    found = replace(found, findings=findings(found))
    table, _, rest = found.text().partition("a profiled step")
    (row,) = [line.split() for line in table.splitlines() if line.startswith("io ")]
    (whole,) = [line.split() for line in found.text().splitlines() if line.startswith("a profiled step")]
    assert f"{row[-2]} of {whole[-2]} ms a step ({row[-1]} %)" in found.findings[0].evidence
    assert (row[-1], found.findings[0].predicted) == ("16.0", pytest.approx(100 / 80))
    said = " ".join(rest.split())
    assert "of the 4 profiled steps, 125 ms each on average (25.0 ms of it the profiler's own" in said
    assert "the headline is the median of the 5 clean ones, 125 ms" in said


def test_the_largest_saving_comes_first():
    cells = WORK | {("logging", "io"): 10, ("other", "gc"): 30, ("checkpoint", "io"): 20}
    assert [f.key for f in findings(profile(cells))] == ["gc", "checkpoint", "logging"]


def test_a_profile_without_a_ledger_has_no_findings():
    without = profile(WORK)
    assert findings(replace(without, ledger=None)) == ()


def test_all_of_it_lost_is_still_a_number():
    found = only({("data", "data stall"): 100.0}, workers=None)
    assert found.predicted == pytest.approx(100)


def test_every_remedy_a_rule_names_exists():
    cells = dict.fromkeys([("forward", "precision"), ("forward", "launch"), ("other", "gc"), ("h2d", "copy"), ("data", "data stall"), ("optimizer", "launch")], 10.0)  # fmt: skip
    found = findings(profile(cells, device="cuda", workers=0, cores=8, pin_memory=False, optimizer="Adam", optimizer_kind="foreach"))  # fmt: skip
    named = {f.remedy for f in found if f.remedy}
    assert named == {"autocast", "compile", "gc-freeze", "pin", "workers", "fused-optimizer"}
    assert named <= REMEDIES.keys()
    assert len(RULES) == len(set(RULES))


# -- a disturbed window --------------------------------------------------------------------------------------------------


def disturbed(cells: dict[tuple[str, str], float], clean: float, device="cpu", **phases: float):
    """The same profile, its clean steps having taken `clean` ms each, and so much of it in each phase."""
    whole = profile(cells, device=device)
    medians = {phase: int(ms * MS) for phase, ms in phases.items()}
    own = sum(ms for (_, cause), ms in cells.items() if cause != "measurement")
    steps = replace(whole.steps, clean=(int(clean * MS),) * 7, phases=medians)
    return replace(whole, steps=steps, disturbed_ns=int((own - clean) * MS))


def doubts(found) -> dict[str, str]:
    """{key: what is said to be doubtful}"""
    return {f.key: f.evidence.partition("; doubtful: ")[2] for f in found}


def test_what_a_neighbour_may_have_taken_is_doubtful():
    # 100 ms a profiled step, of which 5 are the profiler's, and 85 a clean one: 10 were taken from outside
    cells = WORK | {("logging", "io"): 9.0, ("other", "gc"): 6.0, ("forward", "measurement"): 5.0}
    said = doubts(findings(disturbed(cells, clean=85)))
    assert said["logging"] == (
        "beyond the profiler's price, profiled steps were 10.00 ms longer there than clean ones, which may be all of it"
    )
    assert said["gc"].endswith("all of it")
    assert doubts(findings(disturbed(cells, clean=90)))["logging"].endswith("most of it")  # 5 of 9
    assert not any(doubts(findings(disturbed(cells, clean=95))).values())
    assert not any(doubts(findings(replace(disturbed(cells, clean=85), disturbed_ns=0))).values())


def test_doubt_stays_in_the_phases_that_were_longer():
    # 20 ms too long, all of it in backward: fetching and logging took as long in clean steps
    cells = WORK | {("data", "data stall"): 20.0, ("logging", "io"): 10.0, ("backward", "launch"): 30.0}
    phases = dict(data=20.0, logging=10.0, forward=40.0, backward=50.0)
    said = doubts(findings(disturbed(cells, clean=120, **phases)))
    assert said["launch"].startswith("beyond the profiler's price, profiled steps were 20.00 ms longer there")
    assert said["data-stall"] == said["logging"] == ""
    # A device's phases are not the host's: there it may be anywhere.
    assert all(doubts(findings(disturbed(cells, clean=120, device="cuda", **phases))).values())


def test_what_follows_from_flops_and_a_peak_is_never_doubtful():
    assert doubts(findings(disturbed(WORK | {("forward", "precision"): 20.0}, clean=50))) == {"precision": ""}


def test_what_comes_every_few_steps_is_no_disturbance():
    # a fetch of 100 ms every fifth step: 20 in the mean, none in the median
    whole = disturbed(WORK | {("data", "data stall"): 20.0}, clean=80, data=0.0, forward=40.0, backward=40.0)
    bursts = replace(whole, steps=replace(whole.steps, clean=(*(80 * MS,) * 4, 180 * MS) * 5))
    assert doubts(findings(bursts)) == {"data-stall": ""}
    assert doubts(findings(whole))["data-stall"].endswith("all of it")


def test_a_thread_off_the_cpu_is_a_finding_only_where_it_was_so_in_clean_steps_too():
    cells = WORK | {("other", "unattributed"): 20.0}
    assert findings(disturbed(cells, clean=80)) == ()  # a neighbour had the CPU
    (found,) = findings(disturbed(cells, clean=98))  # a sleep: all but 2 ms of it are in clean steps
    assert found.key == "waiting" and found.predicted == pytest.approx(100 / 82)


def test_without_clean_steps_nothing_is_known_of_a_disturbance():
    whole = profile(WORK | {("logging", "io"): 20.0})
    (found,) = findings(replace(whole, steps=replace(whole.steps, clean=())))
    assert "doubtful" not in found.evidence


def test_where_nothing_can_be_run_again_advice_stays_and_remedies_go():
    found = findings(profile(WORK | {("other", "gc"): 20.0}))
    assert found[0].remedy == "gc-freeze"
    assert [(f.remedy, f.advice) for f in by_hand(found)] == [(None, found[0].advice)]
