"""FLOP of training on one token, by the named conventions that papers and trainers count with.

MFU is a quotient, and this is its numerator: the same run has a different MFU under each name, so every figure says which
it is. All count a multiply-add as two and the backward as twice the forward. They differ in what N is, in how much of
attention's square they count, and in whether what is computed twice counts twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from ..errors import UsageError
from ..views.sheet import Grid
from ..views.units import three
from .architecture import Transformer
from .compute import training_flops
from .parameters import count
from .recompute import Recompute

Count = Callable[[Transformer, int, Recompute], float]


@dataclass(frozen=True, slots=True)
class Convention:
    """`per_token(model, sequence, recompute)`; under "none" it is what the model needs, else what the hardware does."""

    name: str
    formula: str
    source: str
    per_token: Count


def flops_per_token(
    model: Transformer, sequence: int, convention: str = "counted", recompute: Recompute = "none"
) -> float:
    """Training FLOP a token: for MFU without `recompute`, for HFU with what the run recomputes."""
    return named(convention).per_token(model, sequence, recompute)


def six_n(
    params: float, *, layers: int = 0, width: float = 0, sequence: int = 0, recompute: Recompute = "none"
) -> float:
    """6N + 12·L·(H·Q)·T FLOP a token: two for each weight and pass, and attention's two products over every pair.

    N are the weights a token meets; `width` is heads x head size. With recomputation the hardware's: under "full" one
    more forward (4/3 of it), under "selective" one more of attention's products.
    """
    if recompute not in get_args(Recompute):
        raise UsageError(f"recompute must be one of {', '.join(get_args(Recompute))}, not {recompute!r}")
    attention = 12 * layers * width * sequence
    if recompute == "full":
        return (6 * params + attention) * 4 / 3
    return 6 * params + attention * (4 / 3 if recompute == "selective" else 1)


def named(convention: str) -> Convention:
    """The convention of this name; an unknown one is an error that names them all."""
    if not isinstance(convention, str) or convention not in CONVENTIONS:
        raise UsageError(f"no convention is called {convention!r}; type one of {', '.join(CONVENTIONS)}")
    return CONVENTIONS[convention]


def compared(model: Transformer, sequence: int) -> Grid:
    """One model under every convention; a dash where one does not apply."""

    def said(each: Convention) -> str:
        try:
            return three(each.per_token(model, sequence, "none") / 1e9)
        except UsageError:
            return "-"

    rows = tuple((each.name, each.formula, said(each)) for each in CONVENTIONS.values())
    title = f"Training FLOP a token at {sequence:,} tokens, by convention"
    return Grid(title, ("convention", "formula", "GFLOP"), rows, 2)


def _six(left_out: Callable[[Transformer], int] = lambda model: 0, attention: bool = True) -> Count:
    """6N, where N are a token's parameters without those left out."""

    def per_token(model: Transformer, sequence: int, recompute: Recompute) -> float:
        if model.encoder is not None:
            raise UsageError(
                f"6N counts every weight for every token, and in {model.name} a token meets either the encoder or the "
                'decoder; type convention="counted"'
            )
        params = count(model).active - left_out(model)
        attentions = [block.attention for block in model.blocks()]
        wide = sum(a.heads * (a.head_dim + a.value_dim) / 2 for a in attentions) / model.layers
        return six_n(params, layers=model.layers * attention, width=wide, sequence=sequence, recompute=recompute)

    return per_token


def _counted(model: Transformer, sequence: int, recompute: Recompute) -> float:
    """Of an encoder-decoder: for a token of either half, which are as long."""
    return training_flops(model, sequence=sequence, recompute=recompute).hardware / sequence


def _megatron21(model: Transformer, sequence: int, recompute: Recompute) -> float:
    return _counted(model, sequence, "full")


def _megatron22(model: Transformer, sequence: int, recompute: Recompute) -> float:
    """The paper's selective term, s/3h, is three times the two products that run again (those would be s/18h more)."""
    passes = training_flops(model, sequence=sequence, recompute=recompute)
    again = passes.recomputed.total * (3 if recompute == "selective" else 1)
    return (passes.model + again) / sequence


def _megatron_now(model: Transformer, sequence: int, recompute: Recompute) -> float:
    passes = training_flops(model, sequence=sequence, pairs="half", recompute=recompute)
    return (passes.hardware - passes.forward.router * (4 if recompute == "full" else 3)) / sequence


def _chinchilla(model: Transformer, sequence: int, recompute: Recompute) -> float:
    """Also the embedding, as a product with one-hot rows, and three FLOP a score for its softmax."""
    runs = [
        replace(run, block=replace(run.block, attention=replace(run.block.attention, relative_projection=False)))
        for run in model.stack
    ]
    passes = training_flops(replace(model, stack=tuple(runs)), sequence=sequence, recompute=recompute)
    softmax = 3 * sum(block.attention.heads for block in model.blocks()) * sequence
    return passes.hardware / sequence + 3 * (2 * model.vocab * model.hidden + softmax)


_ROWS = (
    Convention(
        "counted",
        "3 x forward, every product",
        "torch.utils.flop_counter.FlopCounterMode on every product as it runs",
        _counted,
    ),
    Convention("6n", "6N", "Kaplan et al. 2020, arXiv:2001.08361, 2.1", _six(attention=False)),
    Convention("palm", "6N + 12LHQT", "Chowdhery et al. 2022, arXiv:2204.02311, app. B", _six()),
    Convention(
        "megatron21",
        "96BsLh²(1 + s/6h + V/16Lh) / Bs",
        "Narayanan et al. 2021, arXiv:2104.04473, eq. 3; it holds a full recomputation, so it is HFU's",
        _megatron21,
    ),
    Convention(
        "megatron22",
        "72BsLh²(1 + s/6h + V/12Lh) / Bs; selective s/3h",
        "Korthikanti et al. 2022, arXiv:2205.05198, app. A",
        _megatron22,
    ),
    Convention(
        "megatron_now",
        "3 x forward, half of attention",
        "NVIDIA Megatron-LM, megatron/training/training.py, num_floating_point_operations",
        _megatron_now,
    ),
    Convention(
        "torchtitan",
        "6(N - embedding) + 12LHQT",
        "pytorch/torchtitan, get_nparams_and_flops",
        _six(lambda model: 0 if model.tied else model.vocab * model.hidden),
    ),
    Convention("mosaic", "6N + 12LdT", "mosaicml/llm-foundry, scripts/train/benchmarking", _six()),
    Convention(
        "chinchilla",
        "3 x (2Vd + L(8d² + 4Td + 3HT + 4df) + 2Vd)",
        "Hoffmann et al. 2022, arXiv:2203.15556, app. F",
        _chinchilla,
    ),
    Convention(
        "nanogpt",
        "6(N - positions) + 12LHQT",
        "karpathy/nanoGPT, model.py, estimate_mfu",
        _six(lambda model: model.positions * model.hidden),
    ),
)

CONVENTIONS = {each.name: each for each in _ROWS}
