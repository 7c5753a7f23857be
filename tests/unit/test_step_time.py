"""A step's parts against sums written out for small layouts, and what no layout may break."""

import math
from dataclasses import replace

import pytest

from mlsys_studio.profilers.calculators.cluster import Cluster, Rates
from mlsys_studio.profilers.calculators.layer_time import CURRENT, MEGATRON21, Slice, layer_time, optimizer_time
from mlsys_studio.profilers.calculators.layout import Layout
from mlsys_studio.profilers.calculators.links import Link
from mlsys_studio.profilers.calculators.parameters import count
from mlsys_studio.profilers.calculators.sizes import build
from mlsys_studio.profilers.calculators.step_time import StepTime, _stages, cuts, step_time
from mlsys_studio.profilers.hardware import lookup

RATES = Rates(312e12, 270e12, 1.7e12, 108, 0.87, "")
NEAR, FAR = Link("near", 200e9, 0.0), Link("far", 20e9, 0.0)
GPT = build("gpt", hidden=1024, layers=8, heads=16, vocab=512)
MOE = build("moe", hidden=1024, layers=8, heads=16, vocab=512, experts=8, active_experts=2, expert_width=1024)
ENDLESS = 1e30


def step(
    layout=None, model=GPT, near=NEAR, far=FAR, micro_batches=8, recompute="none", software=MEGATRON21
) -> StepTime:
    layout = layout or Layout()
    cluster = Cluster(lookup("A100-SXM4-80GB"), layout.devices, min(8, layout.devices), near, far)
    return step_time(
        model, cluster, layout, micro_batch=1, micro_batches=micro_batches, sequence=2048, recompute=recompute,
        rates=RATES, software=software,
    )  # fmt: skip


def layer(model=GPT, **split):
    part = Slice(1, 2048, *({"tp": 1, "cp": 1, "ep": 1} | split).values())
    return layer_time(model.stack[0].block, 1024, part, RATES, MEGATRON21)


def test_tensor_parallelism_is_four_all_reduces_a_layer_and_six_with_recomputation():
    """Shoeybi et al. 2019, fig. 4: two forward, two backward; a ring of 4 moves 2 x 3/4 of b s h x 2 bytes."""
    one = 2 * 3 / 4 * 2048 * 1024 * 2 / 200e9
    assert step(Layout(tp=4)).tensor == pytest.approx(8 * 8 * 4 * one)
    assert step(Layout(tp=4), recompute="full").tensor == pytest.approx(8 * 8 * 6 * one)


def test_full_recomputation_is_one_more_forward_and_selective_one_more_core():
    time = layer()
    assert step(recompute="full").recompute == pytest.approx(8 * 8 * time.forward.seconds)
    assert step(recompute="selective").recompute == pytest.approx(8 * 8 * time.core.seconds)
    activation = 2 * 2 * 2048 * 4096 / 1.7e12  # where flash attention keeps no scores: the MLP's, read and written
    assert step(recompute="selective", software=CURRENT).recompute == pytest.approx(8 * 8 * activation)


@pytest.mark.parametrize("schedule, chunks, waits", [("1f1b", 1, 1.0), ("interleaved", 2, 0.5), ("gpipe", 1, 1.0)])
def test_a_pipeline_of_equal_stages_waits_for_the_others(schedule, chunks, waits):
    """Vocabulary and embedding are next to nothing here, so that every stage has two layers."""
    tiny = replace(GPT, vocab=1)
    found = step(Layout(pp=4, schedule=schedule, chunks=chunks), tiny)
    stage = 2 * (layer().forward + layer().backward).seconds
    assert found.bubble == pytest.approx(waits * 3 * stage, rel=0.01)
    assert found.matmul + found.memory + found.imbalance == pytest.approx(8 * stage, rel=0.02)


def test_a_pipeline_passes_every_micro_batch_there_and_back():
    one = 2048 * 1024 * 2 / 200e9
    assert step(Layout(pp=4)).pipeline == pytest.approx(8 * 2 * one)
    assert step(Layout(pp=4, schedule="interleaved", chunks=2)).pipeline == pytest.approx(8 * 2 * 2 * one)
    assert step(Layout(pp=4), software=CURRENT).pipeline == pytest.approx(3 * 2 * one)  # filling and draining


def test_gradients_are_reduced_once_a_step():
    """16-bit gradients over 8 ranks of a node: 2 x 7/8 of 2 bytes a matrix element."""
    matrices = 12 * 1024**2 * 8 + 2 * 512 * 1024
    assert step(Layout(dp=8)).data == pytest.approx(2 * 7 / 8 * 2 * matrices / 200e9)
    assert step(Layout(dp=8, zero=1)).data == pytest.approx(2 * 7 / 8 * 2 * matrices / 200e9)
    each = 7 / 8 * 2 * matrices / 200e9
    assert step(Layout(dp=8, zero=2)).data == pytest.approx(8 * each + each)
    assert step(Layout(dp=8, zero=3)).data == pytest.approx(8 * (each + 2 * each))


def test_the_optimizer_steps_through_a_ranks_own_weights():
    matrices = 12 * 1024**2 * 8 + 2 * 512 * 1024
    assert step(Layout(dp=8)).optimizer == pytest.approx(optimizer_time(matrices, RATES, MEGATRON21))
    assert step(Layout(dp=8, zero=1)).optimizer == pytest.approx(optimizer_time(matrices / 8, RATES, MEGATRON21))


def test_experts_send_each_token_to_its_experts_and_back():
    """Dispatch and combine, forward and backward: 4 all-to-alls of 2 experts a token, 3/4 of which leave a rank of 4."""
    one = 3 / 4 * 2 * 2048 * 1024 * 2 / 200e9
    assert step(Layout(dp=4, ep=4), MOE).expert == pytest.approx(8 * 8 * 4 * one)


def test_a_ring_of_keys_and_values_goes_around_once_and_back_twice():
    one = 3 * (512 * 2 * 1024 * 2) / 200e9
    assert step(Layout(cp=4)).context == pytest.approx(8 * 8 * 3 * one)
    assert step(Layout(cp=4), software=CURRENT, near=Link("endless", ENDLESS, 0)).context == 0


LAYOUTS = [
    Layout(),
    Layout(dp=8),
    Layout(dp=4, tp=4),
    Layout(dp=2, tp=2, pp=2, zero=1),
    Layout(dp=8, zero=3),
    Layout(tp=8, pp=4, schedule="interleaved", chunks=2),
    Layout(dp=4, cp=2, tp=2, zero=2),
    Layout(pp=8, schedule="zero-bubble"),
]


@pytest.mark.parametrize("software", [CURRENT, MEGATRON21])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_sum_and_more_bandwidth_is_never_slower(layout, software):
    slow, fast = (
        step(layout, near=Link("near", more * 200e9, 1e-6), far=Link("far", more * 20e9, 1e-5), software=software)
        for more in (1, 2)
    )
    assert fast.total <= slow.total
    assert slow.total == pytest.approx(sum(getattr(slow, name) for name in StepTime.__slots__))
    assert min(getattr(slow, name) for name in StepTime.__slots__) >= 0


@pytest.mark.parametrize("model", [GPT, MOE], ids=["gpt", "moe"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("layout", [*LAYOUTS, Layout(dp=4, ep=4, tp=2), Layout(cp=4, tp=2)])
def test_stages_work_as_long_as_their_parts(layout, recompute, model):
    """Forward and backward of all stages, against the six parts that are said of them."""
    layout = layout if model is MOE else replace(layout, ep=1)
    cluster = Cluster(lookup("A100-SXM4-80GB"), layout.devices, min(8, layout.devices), NEAR, FAR)
    part = Slice(1, 2048, layout.tp, layout.cp, layout.ep)
    stages = _stages(model, cluster, part, recompute, RATES, MEGATRON21, layout.pp, layout.chunks)
    found = step(layout, model, recompute=recompute)
    parts = found.matmul + found.memory + found.recompute + found.tensor + found.context + found.expert
    assert sum(stage.forward + stage.backward for stage in stages) / layout.pp * 8 == pytest.approx(parts)
    assert max(stage.seconds for stage in stages) * 8 == pytest.approx(parts + found.imbalance)


def test_a_parallel_block_is_one_sum_instead_of_two():
    """GPT-J's attention and MLP are added before they are summed over ranks (Chowdhery et al. 2022, section 2)."""
    both = build("parallel", hidden=1024, layers=8, heads=16, vocab=512, parallel=True)
    assert step(Layout(tp=4), both).tensor == pytest.approx(step(Layout(tp=4)).tensor / 2)


def test_without_sequence_parallelism_what_was_scattered_is_gathered_again():
    """Narayanan et al. 2021, 4.1: each of 4 ranks sends a quarter between nodes, and NVLink puts them together."""
    whole = 2048 * 1024 * 2
    found = step(Layout(tp=4, pp=4))  # two stages to a node, and every other message leaves it: counted by stride 4
    assert found.pipeline == pytest.approx(8 * 2 * (whole / 4 / 200e9 + 3 / 4 * whole / 200e9))


def test_experts_states_are_shared_over_the_ranks_that_hold_the_same_ones():
    """8 ranks, 4 of them with different experts: an expert's optimizer states are on 2 ranks, all others' on 8."""
    experts = 8 * 2 * 1024 * 1024 * 8
    dense = (4 * 1024**2 + 8 * 1024) * 8 + 2 * 512 * 1024  # attention, router; embedding and head
    found = step(Layout(dp=8, ep=4, zero=1), MOE).optimizer
    assert found == pytest.approx(optimizer_time(dense / 8 + experts / 4 / 2, RATES, MEGATRON21))


def test_a_tied_head_has_no_weights_of_its_own():
    matrices = 12 * 1024**2 * 8 + 512 * 1024
    assert step(Layout(dp=8), replace(GPT, tied=True)).data == pytest.approx(2 * 7 / 8 * 2 * matrices / 200e9)


def test_at_least_one_layers_gradients_are_waited_for():
    """However much the backward hides, the first layer's gradients come last."""
    quick = step(Layout(dp=8), software=CURRENT, near=Link("near", 1e15, 0)).data
    matrices = 12 * 1024**2 * 8 + 2 * 512 * 1024
    assert quick == pytest.approx(2 * 7 / 8 * 4 * matrices / 1e15 / 8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overlap_never_costs(layout):
    assert step(layout, software=replace(MEGATRON21, overlap=True)).total <= step(layout).total


def test_more_devices_with_the_same_work_each_compute_the_same():
    few, many = step(Layout(dp=8)), step(Layout(dp=64))
    assert (few.matmul, few.memory, few.optimizer) == (many.matmul, many.memory, many.optimizer)
    assert many.data > few.data


@pytest.mark.parametrize("model", [GPT, MOE], ids=["gpt", "moe"])
@pytest.mark.parametrize("tp, pp, ep", [(1, 1, 1), (2, 4, 1), (4, 2, 2), (8, 1, 4)])
def test_weights_of_all_ranks_are_the_models(model, tp, pp, ep):
    ep = ep if model is MOE else 1
    cluster = Cluster(lookup("A100-SXM4-80GB"), tp * pp * ep, 8, NEAR, FAR)
    stages = _stages(model, cluster, Slice(1, 2048, tp, 1, ep), "none", RATES, CURRENT, pp, 1)
    found = sum(stage.dense * tp + stage.experts * tp * ep for stage in stages)
    parts = count(model)
    biases_and_norms = 0.002
    assert found == pytest.approx(parts.total - parts.positions, rel=biases_and_norms)


def test_runs_of_equal_layers_are_equal():
    assert [b - a for a, b in zip(cuts(GPT, 2048, 4), cuts(GPT, 2048, 4)[1:], strict=False)][1:3] == [2, 2]
    assert math.isclose(cuts(GPT, 2048, 1)[-1], GPT.layers + 2)
