"""Model states. Witnesses: the tables of the ZeRO paper and of DeepSpeed's documents, and torch's own optimizers."""

from __future__ import annotations

from typing import Any

import pytest

from mlsys_studio.profilers.calculators.states import (
    PRECISIONS,
    Numbers,
    Precision,
    deepspeed_bytes,
    deepspeed_host_bytes,
    optimizer_bytes,
    precision,
    zero_bytes,
)
from mlsys_studio.profilers.errors import UsageError

# Rajbhandari et al. 2020, arXiv:1910.02054, Table 1: GB a device under stages 1, 2, 3, as printed.
TABLE_1 = {
    7.5e9: {
        1: ("120", "120", "120"),
        4: ("52.5", "41.3", "30"),
        16: ("35.6", "21.6", "7.5"),
        64: ("31.4", "16.6", "1.88"),
        256: ("30.4", "15.4", "0.47"),
        1024: ("30.1", "15.1", "0.12"),
    },
    128e9: {
        1: ("2048", "2048", "2048"),
        4: ("896", "704", "512"),
        16: ("608", "368", "128"),
        64: ("536", "284", "32"),
        256: ("518", "263", "8"),
        1024: ("513", "257", "2"),
    },
    1e12: {
        1: ("16000", "16000", "16000"),
        4: ("7000", "5500", "4000"),
        16: ("4750", "2875", "1000"),
        64: ("4187", "2218", "250"),
        256: ("4046", "2054", "62.5"),
        1024: ("4011", "2013", "15.6"),
    },
}


@pytest.mark.parametrize("params", TABLE_1)
def test_every_cell_of_the_zero_paper_to_its_last_digit(params: float):
    for devices, row in TABLE_1[params].items():
        for stage, printed in enumerate(row, 1):
            half = 10.0 ** -len(printed.partition(".")[2])  # some cells are cut, not rounded: 4187.5, 2218.75
            assert zero_bytes(params, devices, stage) / 1e9 == pytest.approx(float(printed), abs=half), (devices, stage)


GIB = 2**30


@pytest.mark.parametrize(
    ("stage", "offload", "device", "host", "host_zero_init"),
    [  # DeepSpeed memory.rst @0cca539: t5-3b, 2851e6 parameters, largest layer 32e6, one node of 8
        (2, "optimizer", 5.31, 127.45, None),
        (2, "none", 15.93, 127.45, None),
        (3, "optimizer+parameters", 0.12, 127.45, 71.69),
        (3, "optimizer", 0.78, 127.45, 63.72),
        (3, "none", 6.09, 127.45, 1.43),
    ],
)
def test_deepspeeds_table(stage, offload, device, host, host_zero_init):
    said: dict[str, Any] = dict(largest_layer=32e6, offload=offload)
    assert deepspeed_bytes(2851e6, 8, stage, **said) / GIB == pytest.approx(device, abs=0.006)
    assert deepspeed_host_bytes(2851e6, 8, stage, **said) / GIB == pytest.approx(host, abs=0.006)
    if host_zero_init:
        found = deepspeed_host_bytes(2851e6, 8, stage, **said, zero_init=True)
        assert found / GIB == pytest.approx(host_zero_init, abs=0.006)


def test_a_node_offloads_its_share():
    """The same document, ZeRO-3 on two nodes of 8: 18 and 16 a parameter times 8/16, and half as much again."""
    said: dict[str, Any] = dict(per_node=8, largest_layer=32e6, zero_init=True)
    assert deepspeed_host_bytes(1e9, 16, 3, offload="optimizer+parameters", **said) == 1e9 * 18 / 2 * 1.5
    assert deepspeed_host_bytes(1e9, 16, 3, offload="optimizer", **said) == 1e9 * 16 / 2 * 1.5
    assert deepspeed_host_bytes(1e9, 16, 2, offload="optimizer", per_node=2) == 1e9 * 16 * 1.5


@pytest.mark.parametrize(("offload", "mib"), [("none", 3291), ("optimizer+parameters", 125), ("optimizer", 477)])
def test_deepspeeds_worked_example(offload, mib):
    """t5-large on four GPUs, whole MiB."""
    assert int(deepspeed_bytes(737.67e6, 4, 3, largest_layer=32.9e6, offload=offload)) >> 20 == mib


@pytest.mark.parametrize(
    ("name", "bytes_each"),
    [
        ("float32", 16),
        ("bfloat16", 8),
        ("mixed", 16),
        ("mixed, fp32 gradients", 18),
        ("mixed, both gradients", 20),
        ("autocast", 16),
    ],
)
def test_bytes_a_parameter_under_adam(name: str, bytes_each: int):
    """Witnesses: ZeRO's 2 + 2 + 12; Megatron-LM's 18 (docs, distributed optimizer); the course's (1+2+1+2+2+2) x 2."""
    p = PRECISIONS[name]
    assert p.weight + p.gradient + p.master + p.main_gradient + optimizer_bytes("adam", Numbers(1), p) == bytes_each


def test_seven_billion_weights_are_28_gb_and_26_gib():
    """The course notes say 26.7 GB."""
    assert 7e9 * PRECISIONS["float32"].weight == 28.0e9 == pytest.approx(26.1 * GIB, rel=2e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("adam", "Adam", {}),
        ("adamw", "AdamW", {}),
        ("sgd", "SGD", {}),
        ("momentum", "SGD", {"momentum": 0.9}),
        ("adafactor", "Adafactor", {}),
        ("muon", "Muon", {}),
    ],
)
def test_states_are_those_of_torchs_optimizers(name: str, kind: str, options: dict, dtype: str):
    torch = pytest.importorskip("torch")
    matrices = [torch.nn.Parameter(torch.zeros(size, dtype=getattr(torch, dtype))) for size in ((24, 8), (7, 16))]
    vectors = [torch.nn.Parameter(torch.zeros(9, dtype=getattr(torch, dtype)))]
    given = matrices if name == "muon" else matrices + vectors
    optimizer = getattr(torch.optim, kind)(given, lr=0.1, **options)
    for each in given:
        each.grad = torch.ones_like(each)
    optimizer.step()
    tensors = [t for state in optimizer.state.values() for t in state.values() if isinstance(t, torch.Tensor)]
    found = sum(t.nbytes for t in tensors if t.dim())  # step counters are single numbers

    inside = 24 * 8 + 7 * 16
    counted = Numbers(inside, inside, 24 + 8 + 7 + 16) + (Numbers(0) if name == "muon" else Numbers(9, vectors=9))
    assert optimizer_bytes(name, counted, precision(dtype)) == found


def test_muon_keeps_one_number_for_matrices_and_two_for_the_rest():
    assert optimizer_bytes("muon", Numbers(100, hidden_matrices=60), PRECISIONS["mixed"]) == (60 + 2 * 40) * 4


def test_eight_bit_adam_has_a_scale_for_every_256():
    """bitsandbytes: two uint8 moments, and `absmax` in fp32 of ceil(n / 256) blocks for each."""
    assert optimizer_bytes("adamw8bit", Numbers(1000), PRECISIONS["mixed"]) == 2 * 1000 + 2 * 4 * 4


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: zero_bytes(-1, 8, 1), "-1"),
        (lambda: zero_bytes(1e9, 0, 1), "0"),
        (lambda: zero_bytes(1e9, 8, 4), "not 4"),
        (lambda: deepspeed_bytes(1e9, 8, 1), "zero_bytes"),
        (lambda: deepspeed_bytes(1e9, 8, 3), "largest_layer"),
        (lambda: deepspeed_bytes(1e9, 8, 2, offload="disk"), "'disk'"),  # type: ignore[arg-type]
        (lambda: optimizer_bytes("adamx", Numbers(1), PRECISIONS["mixed"]), "'adamx'"),
        (lambda: precision("fp12"), "'fp12'"),
    ],
)
def test_mistakes_are_one_sentence(call, said: str):
    with pytest.raises(UsageError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_a_precision_of_ones_own():
    own = Precision("own", 2, 4, 0, 0, 2, "bfloat16")
    assert precision(own) is own and precision("bf16") is PRECISIONS["bfloat16"]
