"""Measured ceilings: their shape, their cache, their turns. No test looks at how fast this machine is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import random

import pytest

from mlsys_studio.profilers import ceilings as module
from mlsys_studio.profilers.ceilings import Ceilings, Probe, cached, measure, remember, summary, take_turns
from mlsys_studio.profilers.hardware import Device
from mlsys_studio.profilers.stderr import without_announcements

DEVICE = Device("A test CPU, 2 cores", "cpu", 1 << 30)


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_interruptions", lambda: 0)


def some(**changes) -> Ceilings:
    plain = Ceilings(
        {"float32": 2e11},
        ((1 << 14, 1e10), (1 << 20, 2e11), (1 << 27, 4e10)),
        400.0,
        250.0,
        500.0,
        "2026-11-21",
        "2.13",
        2,
    )
    return dataclasses.replace(plain, **changes)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLSYS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch):
    """Measurements that are told, not made: the list is what the next ones will find."""
    from mlsys_studio.profilers import ceilings_cpu

    found: list[Ceilings] = []
    fields = ("matmul", "copy", "dispatch_ns", "event_ns", "event_shaped_ns")

    def probe(seconds, progress):
        told = found.pop(0)
        return {name: getattr(told, name) for name in fields}

    monkeypatch.setattr(ceilings_cpu, "probe", probe)
    return found


# -- the curve ---------------------------------------------------------------------------------------------------------


def curves():
    rng = random.Random(0)
    for _ in range(50):
        sizes = sorted(rng.sample(range(1, 1 << 30), rng.randint(1, 9)))
        yield tuple((size, 10 ** rng.uniform(8, 12)) for size in sizes)


@pytest.mark.parametrize("copy", list(curves()))
def test_bandwidth_never_rises_with_size_and_is_within_what_was_measured(copy):
    ceilings = some(copy=copy)
    rates = [ceilings.bandwidth(n) for n in sorted({1, *(s for s, _ in copy), *(1 << k for k in range(34))})]
    assert all(a >= b * (1 - 1e-12) for a, b in itertools.pairwise(rates))
    assert max(rates) == pytest.approx(max(r for _, r in copy)) and min(rates) == pytest.approx(copy[-1][1])
    assert all(ceilings.bandwidth(size) >= rate * (1 - 1e-12) for size, rate in copy)


def test_bandwidth_between_two_points_is_geometric():
    assert some(copy=((100, 8e9), (10_000, 2e9))).bandwidth(1000) == pytest.approx(4e9)


def test_raising_raises_and_never_lowers():
    old = some()
    new = old.raise_to({"float32": 3e11, "float64": 5e10}, [(1 << 22, 3e11)])
    assert new.matmul == {"float32": 3e11, "float64": 5e10}
    assert new.bandwidth(1 << 22) == new.bandwidth(1 << 14) == 3e11
    assert old.raise_to({"float32": 1.0}, [(1 << 20, 1.0)]).matmul == old.matmul
    for size in (1 << 10, 1 << 18, 1 << 24, 1 << 30):
        assert old.raise_to(copy=[(1 << 24, 1.0)]).bandwidth(size) == pytest.approx(old.bandwidth(size))
    assert old == some()  # nothing was changed in place


# -- the cache ---------------------------------------------------------------------------------------------------------


def test_measured_once_and_then_read(probed):
    probed.append(some())
    first = measure(DEVICE)
    assert measure(DEVICE) == cached(DEVICE) == first and first.matmul == some().matmul


def test_measuring_again_can_only_raise(probed):
    probed += [some(), some(matmul={"float32": 1e11, "bfloat16": 9e11}, dispatch_ns=350.0)]
    measure(DEVICE)
    assert measure(DEVICE, again=True).matmul == {"float32": 2e11, "bfloat16": 9e11}
    known = cached(DEVICE)
    assert known and (known.dispatch_ns, known.times) == (350.0, 2)


def test_refresh_forgets(probed):
    probed += [some(), some(matmul={"float32": 1e11})]
    measure(DEVICE)
    assert measure(DEVICE, refresh=True).matmul == {"float32": 1e11}


def test_a_disturbed_measurement_is_noted_and_repeated_by_itself_but_not_for_ever(
    probed, monkeypatch: pytest.MonkeyPatch
):
    taken = iter(range(0, 10**12, 10**6))
    monkeypatch.setattr(module, "_interruptions", lambda: next(taken))
    probed += [some(), some(), some(), some()]
    found = [measure(DEVICE) for _ in range(5)]
    assert [f.times for f in found] == [1, 2, 3, 3, 3] and len(probed) == 1
    assert all("other programs" in f.notes[-1] for f in found)


def test_what_a_run_saw_is_remembered(probed):
    probed.append(some())
    measure(DEVICE)
    remember(DEVICE, some(matmul={"float32": 2.5e11}))
    known = cached(DEVICE)
    assert known and known.matmul == {"float32": 2.5e11}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"schema": 99, "ceilings": {}}',
        '{"schema": 1, "ceilings": {"copy": []}}',
        '{"schema": 1}',
        "\x00\xff",
    ],
)
def test_a_damaged_cache_is_measured_anew_and_noted(text: str, cache, probed):
    probed += [some(), some()]
    measure(DEVICE)
    (file,) = cache.iterdir()
    file.write_text(text)
    again = measure(DEVICE)
    assert again.matmul == some().matmul and str(file) in again.notes[0]
    assert measure(DEVICE).notes == ()


def test_a_rate_of_zero_or_nan_is_damage(cache, probed):
    probed += [some(), some()]
    measure(DEVICE)
    (file,) = cache.iterdir()
    kept = json.loads(file.read_text())
    for bad in (0, -1, math.nan):
        kept["ceilings"]["matmul"]["float32"] = bad
        file.write_text(json.dumps(kept))
        assert cached(DEVICE) is None


def test_a_cache_that_cannot_be_written_is_noted(monkeypatch: pytest.MonkeyPatch, tmp_path, probed):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLSYS_CACHE_DIR", str(tmp_path / "file" / "below"))
    probed.append(some())
    found = measure(DEVICE)
    assert found.matmul == some().matmul and "MLSYS_CACHE_DIR" in found.notes[0]


def test_no_draft_is_left_behind(cache, probed):
    probed.append(some())
    measure(DEVICE)
    assert [path.suffix for path in cache.iterdir()] == [".json"]


def test_the_cache_knows_device_and_threads(monkeypatch: pytest.MonkeyPatch, probed):
    import torch

    probed.append(some())
    measure(DEVICE)
    assert cached(dataclasses.replace(DEVICE, name="Another CPU")) is None
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert cached(DEVICE) is None


def test_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.delenv("MLSYS_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / "mlsys-studio"


# -- taking turns ------------------------------------------------------------------------------------------------------


def turns(rates: dict[str, float], families: dict[str, dict[str, float]], budget: float = 0.0):
    """Probes whose calls take no time and whose rate is told; (what was found, the order of the calls)."""
    order: list[str] = []

    def prepare(name: str):
        def call() -> str:
            return name

        return lambda: call

    def seconds_of(call, piece: float) -> float:
        order.append(call())
        return amounts[call()] / rates[call()]

    amounts = {name: amount for of in families.values() for name, amount in of.items()}
    probes = {f: [Probe(n, a, prepare(n)) for n, a in of.items()] for f, of in families.items()}
    return take_turns(probes, budget or 60.0, seconds_of, lambda _: None), order


def test_probes_take_turns_over_all_bouts():
    found, order = turns({"a": 1e9, "b": 1e9, "c": 1e9}, {"float32": {"a": 1e3, "b": 1e3}, "copy": {"c": 1e3}})
    assert order == ["a", "b", "c"] * module.BOUTS
    assert found["float32"]["a"] == pytest.approx([1e9] * module.BOUTS)


def test_a_dtype_that_is_only_emulated_stays_small_and_is_still_reported():
    found, order = turns({"small": 1e6, "huge": 1e6}, {"float16": {"small": 1e4, "huge": 1e9}})
    assert "huge" not in order and found["float16"]["small"][0] == pytest.approx(1e6)


def test_the_clock_ends_it_after_the_first_bout():
    _, order = turns({"a": 1e9, "b": 1e9}, {"float32": {"a": 1e3, "b": 1e3}}, budget=1e-9)
    assert order == ["a", "b"]


def test_the_best_bout_of_the_best_probe_counts():
    rates = {"float32": {"a": [1e9, 4e9, 2e9], "b": [3e9]}, "float16": {}, "copy": {"64": [5e9, 6e9], "8": [1e9]}}
    assert summary(rates) == {"matmul": {"float32": 4e9}, "copy": ((8, 1e9), (64, 6e9))}


def test_a_probe_the_device_refuses_is_left_out():
    def refuse():
        raise RuntimeError("no such kernel")

    found = take_turns({"float8": [Probe("scaled", 1.0, refuse)]}, 1.0, lambda call, piece: 1.0, lambda _: None)
    assert found == {"float8": {}}


# -- the real thing, briefly -------------------------------------------------------------------------------------------


def test_this_machine(capfd):
    import torch

    said: list[str] = []
    random_numbers = torch.get_rng_state()
    found = measure(DEVICE, seconds=0.5, progress=said.append)
    assert {"float32", "bfloat16", "float64"} <= set(found.matmul) and all(r > 0 for r in found.matmul.values())
    assert len(found.copy) > 3 and found.dispatch_ns > 0 and 0 <= found.event_ns <= found.event_shaped_ns
    assert found.interrupted >= 0 and len(said) >= 1
    assert torch.equal(torch.get_rng_state(), random_numbers)
    assert cached(DEVICE) == dataclasses.replace(found, notes=())
    assert "USDT" not in capfd.readouterr().err


@pytest.mark.gpu
def test_this_gpu():
    import torch

    from mlsys_studio.profilers.hardware import detect, peak

    device, before = detect("cuda"), torch.backends.cuda.matmul.fp32_precision
    found = measure(device, seconds=3.0)
    assert {"float32", "float16", "float64"} <= set(found.matmul) and found.dispatch_ns > 500
    assert torch.backends.cuda.matmul.fp32_precision == before
    for dtype, rate in found.matmul.items():
        if dtype in device.peak_flops:
            assert 0.2 < rate / peak(device, dtype) < 1.05, dtype


# -- the profiler's announcements --------------------------------------------------------------------------------------


def test_announcements_stay_out_and_all_else_is_passed_on(capfd):
    with without_announcements():
        os.write(2, b"USDT:2026 profiler_start\nan error of Kineto\n")
        os.write(2, b"a line that mentions USDT: itself\n")
        os.write(2, b"no newline at the end")
    os.write(2, b"\nafterwards\n")
    assert (
        capfd.readouterr().err
        == "an error of Kineto\na line that mentions USDT: itself\nno newline at the end\nafterwards\n"
    )


def test_stderr_is_back_after_an_error(capfd):
    with pytest.raises(KeyError), without_announcements():
        os.write(2, b"before\n")
        raise KeyError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"
