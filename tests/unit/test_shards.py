"""What devices hold of the weights. Witness: the parameter count, derived apart, and replicated parts in closed form."""

from __future__ import annotations

import pytest

from mlsys_studio.profilers.calculators.architecture import Transformer
from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.calculators.shards import check_divisible, units
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.calculators.states import Numbers
from mlsys_studio.profilers.errors import UsageError


def held(model: Transformer, tp: int = 1, ep: int = 1) -> int:
    return sum(n * each.total for n, each in units(model, tp, ep))


@pytest.mark.parametrize("name", presets())
def test_one_device_holds_every_parameter(name: str):
    assert held(preset(name)) == count(preset(name)).total


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_shards_sum_to_the_whole_and_what_is_on_every_device(tp: int):
    llama = preset("llama-3-70b")  # two norms a layer and the last one are whole everywhere
    assert tp * held(llama, tp) == count(llama).total + (tp - 1) * (2 * 80 + 1) * 8192
    gpt = build(hidden=256, layers=3, heads=8, vocab=4096, positions=128, tied=True)
    everywhere = 3 * (2 * 2 + 2) * 256 + 2 * 256 + 128 * 256  # norms, biases after a sum; the last norm; positions
    assert tp * held(gpt, tp) == count(gpt).total + (tp - 1) * everywhere


@pytest.mark.parametrize("ep", [2, 8])
def test_experts_are_dealt(ep: int):
    mixtral = preset("mixtral-8x7b")
    experts = 32 * 8 * 3 * 4096 * 14336
    assert held(mixtral, ep=ep) == count(mixtral).total - experts + experts // ep


def test_kv_heads_repeat_and_a_vocabulary_is_padded():
    model = build(hidden=64, layers=1, heads=8, kv_heads=2, vocab=50, bias=False, norm="rms", tied=True)
    whole, eighth = ([each.dense.total for _, each in units(model, tp)] for tp in (1, 8))
    assert eighth[0] == -(-50 // 8) * 64
    assert eighth[1] == (8 + 8 + 2 * 8 + 2 * 32) * 64 + 2 * 64  # one query and one KV head of 8; norms
    assert whole[1] == (64 + 64 + 2 * 16 + 2 * 256) * 64 + 2 * 64


def test_what_optimizers_ask_of_shapes():
    """GPT-2's layer: four matrices; Adafactor keeps rows and columns, Muon one number for each of their elements."""
    model = build(hidden=64, layers=1, heads=8, vocab=50)
    layer = units(model)[1][1].dense
    matrices = 4 * 64 * 64 + 2 * 64 * 256
    assert layer == Numbers(matrices + 13 * 64, matrices, 4 * 128 + 2 * 320, 13 * 64)
    assert units(model)[0][1].dense.hidden_matrices == 0


@pytest.mark.parametrize(
    ("name", "tp", "ep", "said"),
    [
        ("llama-3-70b", 3, 1, "tp=3 does not divide 64 heads"),
        ("llama-3-70b", 16, 1, "tp=16 does not divide 8 KV heads"),
        ("mixtral-8x7b", 1, 3, "ep=3 does not divide 8 experts"),
        ("llama-3-70b", 1, 2, "ep=2 needs experts"),
    ],
)
def test_degrees_that_cut_nothing_evenly_are_refused(name: str, tp: int, ep: int, said: str):
    with pytest.raises(UsageError, match=said):
        check_divisible(preset(name), tp, ep)


def test_kv_heads_may_repeat_where_said():
    check_divisible(preset("llama-3-70b"), 16, 1, repeat_kv=True)
