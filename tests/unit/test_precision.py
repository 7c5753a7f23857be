"""What a faster dtype saves: by ratios made up here, and on tapes whose gain is known in advance. Times in us."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from profiles import typical
from tapes import CEILINGS, CPU, US, Tape, mm

from mlsys_studio.profilers.accounting import account
from mlsys_studio.profilers.cost import Call
from mlsys_studio.profilers.loop import Loop
from mlsys_studio.profilers.precision import Sample, net_savings, reasons
from mlsys_studio.studio.advisor.findings import precision

A, B, C = (Sample(mm(n, n, n), forward=False) for n in (1, 2, 3))


def test_what_some_lose_is_taken_off_what_the_others_gain():
    """A gains 60 of 100, B loses 15 of 10, C nothing: 45 of 60 remain."""
    saved = net_savings({A: 100, B: 10, C: 5}, {A: 0.4, B: 2.5, C: 1.0})
    assert saved == {A: pytest.approx(0.45)}


def test_a_loss_as_large_as_the_gain_leaves_nothing():
    assert set(net_savings({A: 100, B: 10}, {A: 0.4, B: 7.0}).values()) == {0.0}


def test_nobody_is_promised_anything_where_much_was_not_tried():
    spent = {A: 100, B: 10}
    assert net_savings(spent, {A: 0.4}) == {}
    (said,) = reasons("bfloat16", spent, {A: 0.4}, 1)
    assert "aten::mm cannot be tried" in said
    assert net_savings({A: 100, B: 1}, {A: 0.4}) == {A: pytest.approx(0.6)}


def test_a_large_loss_is_said_with_its_milliseconds():
    (said,) = reasons("bfloat16", {A: 40_000_000, B: 4_000_000}, {A: 0.2, B: 4.0}, steps=2)
    assert "6.00 ms a step more" in said and "4.0 times" in said


@pytest.mark.parametrize("seed", range(50))
def test_savings_add_up_to_the_net_and_never_below_zero(seed: int):
    rng = random.Random(seed)
    samples = [Sample(mm(n, n, n), forward=False) for n in range(1, 9)]
    spent = {s: rng.randint(1, 1000) for s in samples}
    ratios = {s: rng.uniform(0.1, 3) for s in samples}
    saved = net_savings(spent, ratios)
    net = sum(spent[s] * (1 - ratios[s]) for s in samples)
    assert sum(spent[s] * share for s, share in saved.items()) == pytest.approx(max(0.0, net), abs=1e-6)
    assert all(0 <= share < 1 for share in saved.values())


# -- on tapes: a device whose large matmuls are four times as fast in bfloat16 -------------------------------------------

AMX = replace(CPU, ceilings=replace(CEILINGS, matmul={"float32": 0.8e12, "bfloat16": 3.2e12}))
LARGE, SMALL = mm(400, 500, 500), mm(40, 50, 50)  # 250 us at 0.8 TFLOP/s, and 0.25 us
ATTENTION = Call("aten::_scaled_dot_product_flash_attention_for_cpu", ((1, 1, 500, 200),) * 3, ("float32",) * 3,
                 (None, None, None, 0.0, False, None, None))  # fmt: skip


def told(ratios: Mapping[Call, float]):
    """A retype that knows: unmentioned operators cannot be tried."""
    asked: list[Sample] = []

    def retype(samples: Sequence[Sample], dtype: str) -> Mapping[Sample, float]:
        assert dtype == "bfloat16"
        asked.extend(samples)
        return {s: ratios[s.call] for s in samples if s.call in ratios}

    return retype, asked


def ledger(tape: Tape, ratios: Mapping[Call, float]):
    retype, asked = told(ratios)
    return account(tape.capture(device="cpu"), AMX, retype).ledger, asked


def two_matmuls() -> Tape:
    tape = Tape(1100, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 1000, LARGE)
    tape.op("aten::mm", 1000, 1100, SMALL)
    return tape


def test_an_operator_that_gains_nothing_is_promised_nothing_whatever_the_device_reaches():
    found, asked = ledger(two_matmuls(), {LARGE: 1.0, SMALL: 1.0})
    assert {s.call for s in asked} == {LARGE, SMALL} and all(s.forward for s in asked)
    assert found.basis.dtype == "bfloat16" and found.nanoseconds("precision") == 0
    assert found.nanoseconds("useful") + found.nanoseconds("ceiling") == pytest.approx(250.25 * US, abs=2)
    assert sum(e.nanoseconds for e in found.entries) == found.wall_ns


def test_an_operator_is_promised_what_it_was_measured_to_gain():
    """LARGE would take 300 of 1000, SMALL 100 of 100."""
    found, _ = ledger(two_matmuls(), {LARGE: 0.3, SMALL: 1.0})
    assert found.nanoseconds("precision") == 700 * US
    assert [e.what for e in next(e for e in found.entries if e.cause == "precision").evidence] == [
        "aten::mm [400x500, 500x500]"
    ]


def test_attention_that_loses_what_matmuls_gain_leaves_no_finding():
    """The AMX machine: matmuls save 700 us, attention's 200 would become 900."""
    tape = Tape(1200, marks=[(0, "forward")])
    tape.op("aten::mm", 0, 1000, LARGE)
    tape.op(ATTENTION.name, 1000, 1200, ATTENTION)
    found, _ = ledger(tape, {LARGE: 0.3, ATTENTION: 4.5})
    assert found.nanoseconds("precision") == 0
    assert any("0.70 ms a step more" in note for note in found.notes)
    better, _ = ledger(tape, {LARGE: 0.3, ATTENTION: 2.0})
    assert better.nanoseconds("precision") == pytest.approx(500 * US, abs=2)


def test_the_findings_prediction_is_that_of_the_operators():
    """1,100 us of which 700 are saved; and no finding where nothing is."""
    found, _ = ledger(two_matmuls(), {LARGE: 0.3, SMALL: 1.0})
    finding = precision(typical(), found, Loop(device="cpu"))
    assert finding and finding.predicted == pytest.approx(1100 / 400, rel=1e-3)
    found, _ = ledger(two_matmuls(), {LARGE: 1.0, SMALL: 1.0})
    assert precision(typical(), found, Loop(device="cpu")) is None


def test_an_operator_too_large_for_the_memory_is_not_tried():
    small = replace(AMX, memory=1 << 20)
    retype, asked = told({LARGE: 0.3, SMALL: 1.0})
    found = account(two_matmuls().capture(device="cpu"), small, retype).ledger
    assert [s.call for s in asked] == [SMALL] and found.nanoseconds("precision") == 0


def test_a_recomputed_operator_pays_for_its_casts_as_the_forward_does():
    tape = Tape(2000, marks=[(0, "backward")])
    tape.op("aten::mm", 0, 1000, LARGE, sequence=7)
    tape.op("aten::mm", 1000, 2000, LARGE)
    _, asked = ledger(tape, {LARGE: 1.0})
    assert {(s.call, s.forward) for s in asked} == {(LARGE, True), (LARGE, False)}


def test_nothing_is_tried_where_no_other_dtype_is_faster():
    def never(samples: Sequence[Sample], dtype: str) -> Mapping[Sample, float]:
        raise AssertionError("asked")

    found = account(two_matmuls().capture(device="cpu"), CPU, never).ledger
    assert found.nanoseconds("precision") == 0
