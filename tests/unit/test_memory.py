"""Memory of a device. Witnesses: sums written here, ZeRO's equations, published layouts, properties."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import Any

import pytest

from mlsys_studio.profilers.calculators.activations import Kernels
from mlsys_studio.profilers.calculators.kv_cache import kv_cache
from mlsys_studio.profilers.calculators.layout import Layout
from mlsys_studio.profilers.calculators.memory import MemoryEstimate, Parts, both, estimate, memory
from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.pipelines import held
from mlsys_studio.profilers.calculators.presets import preset, presets
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.calculators.stages import Slicing, load, stages
from mlsys_studio.profilers.calculators.states import zero_bytes
from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.hardware import lookup

LLAMA = preset("llama-2-7b")
STATES = ("weights", "gradients", "master", "optimizer")


def states(found: MemoryEstimate) -> int:
    return sum(getattr(found.parts, name) for name in STATES)


def test_llama_2_7b_on_one_device_part_by_part():
    """6,738,415,616 parameters, mixed precision, 4096 tokens; h 4096, f 11008, 32 heads, V 32000, eager kernels."""
    n, tokens, h, f, v = 6_738_415_616, 4096, 4096, 11008, 32_000
    found = estimate(LLAMA, sequence=tokens)
    norm_in, norm_own = 4 * h, 2 * h + 4
    layer = 2 * (2 * h) + 2 * (norm_in + norm_own) + 2 * (4 * h) + 4 * 32 + 2 * (4 * f)
    ends = 8 + norm_in + norm_own + 2 * h
    assert found.parts == Parts(
        weights=2 * n,
        gradients=2 * n,
        master=4 * n,
        optimizer=8 * n,
        activations=tokens * (32 * layer + ends),
        logits=tokens * (2 + 4) * v,
        working=tokens * 8 * v,
    )
    assert found.total == sum(asdict(found.parts).values()) and found.fits is None and found.parameters == n


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("devices", [1, 8, 64])
def test_states_under_zero_are_the_papers(stage: Any, devices: int):
    found = estimate(LLAMA, sequence=128, layout=Layout(dp=devices, zero=stage))
    assert states(found) == pytest.approx(zero_bytes(count(LLAMA).total, devices, stage), abs=8)


def test_adam_takes_16_bytes_and_20_with_both_gradients():
    for name, each in (("mixed", 16), ("mixed, both gradients", 20), ("float32", 16)):
        assert states(estimate(LLAMA, sequence=1, precision=name)) == each * count(LLAMA).total
    text = str(estimate(LLAMA, sequence=1))
    assert "16 bytes a parameter" in text and "20" in text


def test_gb_and_gib_are_two_names_of_one_number():
    """7 B parameters of 4 bytes, which the course notes call 26.7 GB; and any number read back from either name."""
    assert both(7e9 * 4) == "28.0 GB (26.1 GiB)"
    powers = {
        "B": 1,
        "kB": 1e3,
        "MB": 1e6,
        "GB": 1e9,
        "TB": 1e12,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
    }
    draw = random.Random(7)
    for _ in range(500):
        count = draw.randrange(1, 10 ** draw.randrange(1, 15))
        decimal, binary = both(count).removesuffix(")").split(" (")
        for said in (decimal, binary):
            value, unit = said.split()
            assert float(value) * powers[unit] == pytest.approx(count, rel=0.006)


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("pp", [1, 2, 4])
def test_shards_sum_to_the_whole(tp: int, pp: int):
    """All stages' weights together; norms, 2 L + 1 vectors, are on each tensor parallel rank."""
    model = preset("llama-3-70b")
    slicing = Slicing(tp, 1, False, Kernels(), 8, "none")
    everything = sum(each.held.total for each in load(model, slicing))
    assert tp * everything == count(model).total + (tp - 1) * (2 * 80 + 1) * 8192
    worst = estimate(model, sequence=8, layout=Layout(tp=tp, pp=pp)).parameters
    assert everything <= pp * worst <= 1.5 * everything


def test_experts_are_sharded_over_fewer_ranks():
    """Mixtral on 8: ep 8 deals one expert of eight to each, and ZeRO-1 has nobody to share those with."""
    mixtral = preset("mixtral-8x7b")
    experts = 32 * 8 * 3 * 4096 * 14336
    dense = count(mixtral).total - experts
    found = estimate(mixtral, sequence=8, layout=Layout(dp=8, ep=8, zero=1)).parts
    assert found.weights == 2 * (dense + experts // 8)
    assert found.optimizer == 8 * (dense // 8 + experts // 8)
    dealt = estimate(mixtral, sequence=8, layout=Layout(dp=16, ep=8, zero=3)).parts
    assert dealt.weights == pytest.approx(2 * (dense / 16 + experts / 8 / 2), abs=2)


def test_the_first_stage_holds_most_micro_batches():
    """24 equal layers on 4 stages; 1F1B holds 4 micro-batches of 6 layers, GPipe all 16, interleaved 4 + 3/2 of 6."""
    model = build(hidden=512, layers=24, heads=8, vocab=512, head=False)
    more = replace(model, stack=(replace(model.stack[0], count=25),))
    layer = estimate(more, sequence=64).parts.activations - estimate(model, sequence=64).parts.activations

    def in_flight(**layout: Any) -> float:
        chunks = layout.get("chunks", 1)
        even = [0, *(1 + 24 * i // (4 * chunks) for i in range(1, 4 * chunks)), 26]
        found = estimate(model, sequence=64, micro_batches=16, cuts=even, layout=Layout(pp=4, **layout))
        assert found.stage == 0
        return found.parts.activations / (6 * layer)

    assert in_flight() == pytest.approx(4, rel=1e-3)  # and the token indices the embedding keeps
    assert in_flight(schedule="gpipe") == pytest.approx(16, rel=1e-3)
    assert in_flight(schedule="interleaved", chunks=2) == pytest.approx(5.5, rel=1e-3)
    assert in_flight(schedule="zero-bubble") == pytest.approx(4, rel=1e-3)


@pytest.mark.parametrize("stages", [2, 4, 8])
def test_later_stages_hold_less(stages: int):
    """Megatron-LM's schedules.py: a stage's warm-up, and the micro-batch (or chunk) that then runs."""
    for stage in range(stages):
        warm_up = stages - stage - 1
        assert held("1f1b", stages, 64, stage=stage) == warm_up + 1
        chunks = 3
        warm_up = 2 * (stages - stage - 1) + (chunks - 1) * stages
        assert held("interleaved", stages, 64, chunks, stage) == pytest.approx((warm_up + 1) / chunks)
        assert held("gpipe", stages, 64, stage=stage) == 64


def test_gpipe_holds_every_micro_batchs_logits():
    layout = Layout(pp=2, schedule="gpipe")
    model = build(hidden=8, layers=2, heads=2, vocab=5000)
    assert estimate(model, sequence=7, micro_batches=4, layout=layout).parts.logits == 4 * 7 * 5000 * 6
    assert (
        estimate(model, sequence=7, micro_batches=4, layout=replace(layout, schedule="1f1b")).parts.logits
        == 7 * 5000 * 6
    )


def test_recomputation_keeps_each_layers_input():
    model = build(hidden=64, layers=10, heads=4, vocab=11)
    none, selective, full = (
        estimate(model, batch=2, sequence=32, recompute=how, flash=False).parts for how in ("none", "selective", "full")
    )
    tokens, probabilities = 2 * 32, 2 * 4 * 32
    assert none.activations - selective.activations == tokens * 10 * probabilities
    ends = tokens * (8 + 2 * 64 + 8 + 2 * 64)  # indices; the last norm's input and statistics; the head's input
    assert full.activations - ends == tokens * 10 * 2 * 64
    assert full.working > selective.working > none.working


def test_sequence_and_context_parallel_divide_activations():
    model = preset("llama-3-8b")
    one = estimate(model, sequence=8192, fused=True).parts
    context = estimate(model, sequence=8192, fused=True, layout=Layout(cp=4)).parts
    assert one.activations == 4 * context.activations and one.logits == 4 * context.logits
    both = estimate(model, sequence=8192, fused=True, layout=Layout(tp=8, sequence_parallel=True)).parts
    assert both.activations == pytest.approx(one.activations / 8, rel=1e-12)
    without = estimate(model, sequence=8192, fused=True, layout=Layout(tp=8)).parts
    assert both.activations < without.activations < one.activations


def test_zero_3_gathers_two_layers_and_a_gradient():
    """Llama-2-7B: the largest unit is a layer of 202,383,360; 16 bits each."""
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert estimate(LLAMA, sequence=1, layout=Layout(dp=8, zero=3)).parts.in_use == 3 * 2 * layer
    assert estimate(LLAMA, sequence=1, layout=Layout(dp=8, zero=2)).parts.in_use == 2 * layer
    assert estimate(LLAMA, sequence=1, precision="autocast").parts.in_use == 2 * count(LLAMA).total


def test_inference_is_weights_cache_and_one_pass():
    """Llama-2-7B, 16 x 4096 tokens: 13.48 GB of weights and 512 KiB a token of cache."""
    found = estimate(LLAMA, batch=16, sequence=4096, mode="inference").parts
    assert (found.weights, found.cache) == (2 * 6_738_415_616, 16 * 4096 * 524_288)
    assert (found.gradients, found.optimizer, found.master, found.activations) == (0, 0, 0, 0)
    fourbit = estimate(LLAMA, sequence=4096, mode="inference", precision="int4", cache_dtype="float8").parts
    assert (fourbit.weights, fourbit.cache) == (6_738_415_616 // 2, 4096 * 524_288 // 2)
    eighth = estimate(preset("llama-3-70b"), sequence=100, mode="inference", layout=Layout(tp=16)).parts
    assert eighth.cache == 100 * 80 * 2 * 128 * 2  # 8 KV heads on 16 devices: one each


@pytest.mark.parametrize("name", ["gpt-oss-20b", "deepseek-v3", "llama-3-8b"])
@pytest.mark.parametrize("sequence", [100, 5000])
def test_the_cache_is_that_of_its_own_calculator(name: str, sequence: int):
    """Summed over stages here, over the stack there; half of gpt-oss's layers see 128 tokens at most."""
    model = preset(name)
    asked: dict[str, Any] = dict(batch=3, sequence=sequence, mode="inference")
    assert estimate(model, **asked).parts.cache == kv_cache(model, batch=3, sequence=sequence).used
    assert (
        estimate(model, layout=Layout(tp=2), **asked).parts.cache
        == kv_cache(model, batch=3, sequence=sequence, tp=2).used
    )


def test_a_tied_heads_table_is_on_the_first_stage_and_on_the_last():
    model = preset("gpt2")
    slicing = Slicing(1, 1, False, Kernels(), 8, "none")
    alone, several = (stages(model, slicing, pp) for pp in (1, 2))
    assert alone[0].load.held.total == count(model).total
    assert sum(each.load.held.total for each in several) == count(model).total + 50_257 * 768


def test_the_stage_that_needs_the_most_is_reported():
    """Two layers, then five, then one: the second stage, though the first holds a micro-batch more."""
    model = build(hidden=64, layers=8, heads=4, vocab=10)
    found = estimate(model, sequence=8, layout=Layout(pp=3), cuts=(0, 3, 8, 10))
    assert found.stage == 1 and found.parameters == 5 * 12 * 64**2 + 5 * 13 * 64


def test_a_fused_loss_has_no_gradients_beside_its_logits():
    eager, fused = (estimate(LLAMA, sequence=4096, fused=f).parts for f in (False, True))
    assert eager.logits == fused.logits
    assert eager.working == 4096 * 8 * 32_000 and fused.working < 4096 * 8 * 32_000 / 2


# -- published layouts --------------------------------------------------------------------------------------------------

FIT = {  # Narayanan et al. 2021, arXiv:2104.04473, Table 1: A100-80GB, full recomputation, 16 bits, no ZeRO
    "megatron-18.4b": (Layout(tp=8, dp=32), 4),
    "megatron-145.6b": (Layout(tp=8, pp=8, dp=24), 2),
    "megatron-529.6b": (Layout(tp=8, pp=35, dp=9), 1),
    "megatron-1008b": (Layout(tp=8, pp=64, dp=6), 1),
}


@pytest.mark.parametrize("name", FIT)
def test_layouts_that_ran_fit(name: str):
    layout, batch = FIT[name]
    found = estimate(
        preset(name), batch=batch, sequence=2048, micro_batches=64, layout=layout, recompute="full", flash=False,
        dropout=True, precision="mixed, fp32 gradients", device="A100-SXM4-80GB", headroom=0,
    )  # fmt: skip
    assert found.fits, found.reason


def test_llama_3_405b_as_published_fits_and_without_its_stages_does_not():
    """Dubey et al. 2024, arXiv:2407.21783, Table 4: TP 8, PP 16, DP 128, 8,192 tokens, no recomputation."""
    ran = Layout(tp=8, pp=16, dp=128, zero=2, sequence_parallel=True)
    asked: dict[str, Any] = dict(sequence=8192, micro_batches=16, fused=True, device="H100 SXM")
    model = preset("llama-3-405b")
    assert estimate(model, layout=ran, precision="mixed, fp32 gradients", **asked).fits
    for layout in (replace(ran, pp=4, dp=512), replace(ran, tp=2, dp=512), Layout(dp=16384, zero=1)):
        found = estimate(model, layout=layout, **asked)
        assert found.fits is False
        assert found.reason.startswith("does not fit") and "H100-SXM5" in found.reason and "\n" not in found.reason


# -- measured on devices ---------------------------------------------------------------------------------------------------

MEASURED = [  # dp, tp, pp, sequences a micro-batch; MiB of states and at the peak, as torch's allocator counted on H100s
    (1, 8, 1, 32, 2489.87, 60095.72),
    (2, 4, 1, 8, 3279.84, 25808.34),
    (4, 2, 1, 8, 4865.93, 43650.72),
    (1, 4, 2, 8, 3048.98, 25707.36),
    (1, 8, 2, 8, 1572.43, 16549.94),
    (1, 1, 8, 4, 4717.29, 44034.23),
    (2, 1, 4, 4, 4612.90, 39056.83),
    (2, 2, 2, 1, 4034.71, 8570.26),
    (1, 2, 8, 8, 2394.03, 45800.36),
    (1, 8, 8, 16, 655.29, 34839.89),
]


@pytest.mark.parametrize(("dp", "tp", "pp", "batch", "resident", "peak"), MEASURED)
def test_peaks_that_others_measured(dp: int, tp: int, pp: int, batch: int, resident: float, peak: float):
    """The ten runs of huggingface.co/nanotron/old_bench and /bench_cluster (llama-1B, 4,096 tokens, 1,024 sequences a
    step, ZeRO-1, bf16 with fp32 gradients, sequence parallel; log_metrics.csv) that we found, every one of them.

    Nothing is fitted. Resident is 70 to 107 MiB of workspaces more than states; our peak is an upper bound, because
    it lets gradients, all activations and the loss meet.
    """
    model = build(
        "llama-1B", hidden=2048, layers=24, heads=32, vocab=50_257, mlp_width=4096, gated=True, norm="rms", bias=False, tied=True
    )  # fmt: skip
    found = estimate(
        model,
        batch=batch,
        sequence=4096,
        micro_batches=1024 // dp // batch,
        layout=Layout(dp=dp, tp=tp, pp=pp, zero=1 if dp > 1 else 0, sequence_parallel=tp > 1),
        precision="mixed, fp32 gradients",
        cuts=nanotrons_cuts(pp),
    )
    assert 0 < resident - states(found) / 2**20 < 120
    assert 1.0 < found.total / 2**20 / peak < 1.15


def nanotrons_cuts(stages: int) -> list[int]:
    """Where it cuts embedding, 24 layers and head: after the one that exceeds a stage's share of the weights."""
    costs = [0, *[4 * 2048**2 + 3 * 4096 * 2048] * 24, 50_257 * 2048]
    cuts, seen = [0], 0
    for i, cost in enumerate(costs):
        seen += cost
        if seen * stages > sum(costs) * len(cuts) and len(cuts) < stages:
            cuts.append(i + 1)
    return [*cuts, len(costs)]


@pytest.mark.parametrize(("dp", "cp", "peak"), [(8, 1, 83.9), (4, 2, 84.2), (2, 4, 84.0), (1, 8, 84.5)])
def test_torchtitans_context_parallel_table(dp: int, cp: int, peak: float):
    """pytorch/torchtitan benchmarks/llama3_h100_202412, Table 2: Llama 3.1 8B, 32,768 tokens a device, full recompute.

    Their GiB are what the allocator reserved, fragments included.
    """
    found = estimate(
        preset("llama-3-8b"),
        sequence=32_768 * cp,
        layout=Layout(dp=dp, cp=cp, zero=3),
        precision="autocast",
        recompute="full",
    )
    assert 0.95 < found.total / 2**30 / peak <= 1


# -- properties ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_grows_with_batch_sequence_and_layers(mode: Any):
    def total(batch: int = 2, sequence: int = 64, layers: int = 4) -> int:
        model = build(hidden=64, layers=layers, heads=4, vocab=100, window=96, full_every=2)
        return estimate(model, batch=batch, sequence=sequence, mode=mode).total

    for name, values in {"batch": (1, 2, 5), "sequence": (1, 64, 65, 200), "layers": (1, 2, 7)}.items():
        found = [total(**{name: value}) for value in values]
        assert all(a < b for a, b in pairwise(found)), name


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_figure(name: str):
    """Also models with encoders, of pictures, and with two kinds of layers: all their parameters, and room to compute."""
    found = [estimate(preset(name), batch=2, sequence=n, precision="bfloat16", optimizer="sgd") for n in (64, 128)]
    assert all(each.parameters == count(preset(name)).total for each in found)
    assert all(each.parts.weights == each.parts.gradients == 2 * each.parameters for each in found)
    assert 2 * found[0].parts.activations <= found[1].parts.activations


def test_no_more_on_more_devices():
    model = preset("llama-3-70b")
    asked: dict[str, Any] = dict(sequence=4096, fused=True)
    for name in ("tp", "cp"):
        found = [estimate(model, layout=replace(Layout(), **{name: n}), **asked).total for n in (1, 2, 4, 8)]
        assert all(a > b for a, b in pairwise(found)), name
    found = [estimate(model, layout=Layout(dp=n, zero=3), **asked).total for n in (1, 2, 4, 8)]
    assert all(a > b for a, b in pairwise(found[1:]))


def test_gb_and_gib_are_the_same_bytes():
    text = str(estimate(LLAMA, sequence=1, precision="float32"))
    row = next(line for line in text.splitlines() if line.strip().startswith("weights"))
    gib, gb = float(row.split()[1]), float(row.split()[3])
    assert gib * 2**30 == pytest.approx(gb * 1e9, rel=5e-3) and gb == pytest.approx(6.738415616 * 4, rel=5e-3)


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_shown_in_80_columns_and_in_html(mode: Any):
    found = memory("mixtral-8x7b", batch=2, sequence=512, device="A100-SXM4-80GB", mode=mode)
    assert max(map(len, str(found).splitlines())) <= 80
    assert "<svg" in found._repr_mimebundle_()["text/html"]
    assert json.loads(json.dumps(asdict(found.parts))) == {f.name: getattr(found.parts, f.name) for f in fields(Parts)}


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(layout=Layout(tp=3)), "tp=3 does not divide 64 heads"),
        (dict(layout=Layout(tp=16)), "tp=16 does not divide 8 KV heads"),
        (dict(layout=Layout(pp=100)), "pp=100 is more than the 80 layers"),
        (dict(layout=Layout(cp=3)), "cp=3 does not divide a sequence of 128"),
        (dict(layout=Layout(dp=2, ep=2)), "ep=2 needs experts"),
        (dict(batch=-1), "batch must be a whole number of at least 1, and -1"),
        (dict(batch=1.5), "1.5"),
        (dict(optimizer="adamx"), "'adamx'"),
        (dict(precision="fp12"), "'fp12'"),
        (dict(precision="int4", mode="inference", cache_dtype="fp12"), "'fp12'"),
        (dict(recompute="some"), "'some'"),
        (dict(mode="serve"), "'serve'"),
        (dict(headroom=1.0), "headroom"),
        (dict(device="H1000"), "H1000"),
        (dict(cuts=(0, 5, 9)), "cuts"),
    ],
)
def test_mistakes_are_one_sentence(asked: dict[str, Any], said: str):
    with pytest.raises(UsageError, match=said) as error:
        estimate(preset("llama-3-70b"), **{"sequence": 128, **asked})
    assert "\n" not in str(error.value)


def test_inputs_without_a_live_model_are_refused():
    name: Any = "gpt2"
    with pytest.raises(UsageError, match="live model"):
        memory(name, (1, 8))


def test_headroom_is_left():
    device = lookup("H100 SXM")
    found = estimate(LLAMA, sequence=1, device=device, headroom=0.25)
    assert found.usable == 0.75 * device.memory
