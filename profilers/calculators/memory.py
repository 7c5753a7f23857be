"""What one device of a layout needs: model states, activations, logits, cache; and whether that fits.

    weights      the device's shard                           gradients   likewise; sharded under ZeRO-2
    master       fp32 copies of weights and of gradients      optimizer   its states; sharded under ZeRO-1
    in use       under ZeRO-3 the largest layer gathered, the next one fetched, its gradients before they are sharded;
                 under autocast the 16-bit casts
    activations  kept for the backward by every micro-batch in flight
    logits       the result and its fp32 log-softmax, on the last stage
    cache        keys and values, in inference
    working      what exists only for a moment: gradients of the logits, or of one layer's activations

All parts are added as if they met, which with gradient accumulation they do. The stage that needs the most is the one
reported. The CUDA context, communication buffers and fragmentation are no part of the sum: `headroom` is left for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from ..errors import UsageError
from ..hardware import Device, lookup
from ..views.sheet import Bars, Figures, Row, Sheet, Shown
from ..views.units import gb, percent, size
from .activations import FP32, Kernels
from .amounts import flag, share, whole
from .architecture import Transformer
from .dtypes import dtype_name, itemsize
from .layout import Layout
from .models import model as model_of
from .pipelines import check, held
from .recompute import Recompute
from .shards import check_divisible
from .stages import Slicing, Stage, stages
from .states import Optimizer, Precision, optimizer_bytes, precision as precision_of

if TYPE_CHECKING:
    from torch import nn

    from .live_memory import LiveMemory

Mode = Literal["train", "inference"]
ONE_DEVICE = Layout()
HEADROOM = 0.1  # of a device: what vLLM leaves by default (gpu_memory_utilization=0.9)

_PARTS = {
    "weights": "the device's shard",
    "gradients": "as the backward leaves them",
    "master": "fp32 copies of the weights, and of gradients where the precision keeps them",
    "optimizer": "states of the optimizer",
    "in_use": "gathered or cast while they are used",
    "activations": "kept for the backward",
    "logits": "and an fp32 copy of them",
    "cache": "keys and values",
    "working": "for a moment, in one layer or in the loss",
}


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes on one device; they sum to `total`."""

    weights: int = 0
    gradients: int = 0
    master: int = 0
    optimizer: int = 0
    in_use: int = 0
    activations: int = 0
    logits: int = 0
    cache: int = 0
    working: int = 0

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Setting:
    """What was asked."""

    model: str
    sizes: str  # where the model's were read
    mode: Mode
    batch: int  # sequences of a micro-batch on one data-parallel rank
    sequence: int
    micro_batches: int
    layout: Layout
    precision: Precision
    optimizer: str
    recompute: Recompute
    kernels: Kernels
    block: int  # tokens of cache that are reserved at a time


@dataclass(frozen=True, slots=True)
class MemoryEstimate(Shown):
    """Of the device that needs the most. `parameters` are those it holds, before ZeRO shards them."""

    parts: Parts
    parameters: int
    stage: int  # of the pipeline, from 0
    setting: Setting
    device: Device | None = None
    headroom: float = HEADROOM

    @property
    def total(self) -> int:
        """Bytes."""
        return self.parts.total

    @property
    def usable(self) -> int | None:
        """Bytes of the device, less its headroom."""
        return None if self.device is None else int(self.device.memory * (1 - self.headroom))

    @property
    def fits(self) -> bool | None:
        """None where no device was named."""
        return None if self.usable is None else self.total <= self.usable

    @property
    def reason(self) -> str:
        """Why it fits or does not, in a sentence; empty where no device was named."""
        if self.device is None or self.usable is None:
            return ""
        largest = max(_PARTS, key=lambda part: getattr(self.parts, part))
        against = f"{both(self.usable)} of {self.device.name} beside {percent(self.headroom)} headroom"
        if self.fits:
            return f"fits: {both(self.total)} of {against}"
        most = percent(getattr(self.parts, largest) / self.total)
        return f"does not fit: {both(self.total)} is more than {against}; {most} of it is {_said(largest)}"

    def sheet(self) -> Sheet:
        s, parts = self.setting, self.parts
        rows = [
            Row(_said(part), size(getattr(parts, part)), f"{gb(getattr(parts, part))}, {says}")
            for part, says in _PARTS.items()
            if getattr(parts, part)
        ]
        rows.append(Row("sum", size(self.total), f"{gb(self.total)}, of the device that needs the most"))
        bars = [(_said(part), percent(n / self.total), (n,)) for part in _PARTS if (n := getattr(parts, part))]
        verdict = (Figures("", (Row("device", self.device.name, self.reason),)),) if self.device else ()
        return Sheet(
            f"Memory of {s.model}, {s.mode}",
            _basis(s, self.parameters, self.stage),
            (Figures("Bytes a device", tuple(rows)), Bars("Shares", ("bytes",), tuple(bars)), *verdict),
            (*_notes(s), self._sources()),
        )

    def _sources(self) -> str:
        of = "states and shards: ZeRO, arXiv:1910.02054; activations: arXiv:2205.05198, as autograd keeps them"
        if self.setting.mode == "inference":
            of = "cache: arXiv:1911.02150, 2305.13245; latent 2405.04434; blocks 2309.06180"
        capacity = f"; capacity: {self.device.peak_source}" if self.device else ""
        return f"sizes: {self.setting.sizes}; {of}{capacity}"


@overload
def memory(model: nn.Module, *inputs: Any, **options: Any) -> LiveMemory: ...


@overload
def memory(model: Transformer | str | Mapping[str, Any], **options: Any) -> MemoryEstimate: ...


def memory(model: Any, *inputs: Any, **options: Any) -> LiveMemory | MemoryEstimate:
    """Memory of a live `torch.nn.Module` on `inputs` (`live_memory.measure`), or of anything else by `estimate`."""
    if hasattr(model, "named_parameters") and hasattr(model, "forward"):
        from .live_memory import measure

        return measure(model, *inputs, **options)
    if inputs:
        raise UsageError("inputs belong to a live model; for sizes give batch= and sequence=")
    return estimate(model_of(model), **options)


def estimate(
    model: Transformer,
    *,
    batch: int = 1,
    sequence: int,
    layout: Layout = ONE_DEVICE,
    precision: str | Precision | None = None,
    optimizer: str | None = None,
    recompute: Recompute = "none",
    flash: bool = True,
    fused: bool = False,
    dropout: bool = False,
    micro_batches: int | None = None,
    cuts: Sequence[int] | None = None,
    device: str | Device | None = None,
    headroom: float = HEADROOM,
    mode: Mode = "train",
    cache_dtype: str | None = None,
    block: int = 1,
) -> MemoryEstimate:
    """Bytes of the device that needs the most.

    Parameters
    ----------
    batch, micro_batches
        Sequences of one micro-batch on a data-parallel rank, and how many of those a step has; as many as there are
        stages unless given. In inference `batch` is all sequences of a replica.
    precision
        A `Precision` or its name, "mixed" unless given; in inference a dtype of the weights, bfloat16 unless given.
    fused
        Norms, gated activations and the loss are one kernel each (`activations`).
    optimizer
        "adamw" unless given.
    cuts
        Where embedding, layers and head are cut into pp x chunks runs, 0 first; even by matmul weights unless given.
    cache_dtype
        Of keys and values; that of the activations unless given.
    block
        Tokens of cache that are reserved at a time (16 in vLLM); the last block of a sequence is reserved whole.

    Raises
    ------
    UsageError
        Degrees that do not divide what they cut, more stages than layers, sizes below 1, unknown names.
    """
    whole("batch", batch)
    whole("sequence", sequence)
    whole("block", block)
    model.reaches(sequence)
    if not isinstance(layout, Layout):
        raise UsageError(f"layout is a Layout, such as Layout(dp=8, zero=3), and {layout!r} is not")
    for name, given in {"flash": flash, "fused": fused, "dropout": dropout}.items():
        flag(name, given)
    train, tp = mode == "train", layout.tp
    if not train:
        _only_of_training(layout, recompute, optimizer, micro_batches)
    elif cache_dtype is not None or block > 1:
        given = f"block={block}" if cache_dtype is None else "cache_dtype"
        raise UsageError(f"training keeps no cache; leave {given} out, or give mode='inference'")
    optimizer = "adamw" if optimizer is None else optimizer
    _known(mode, recompute, optimizer, headroom)
    stored = precision_of(precision or "mixed") if train or isinstance(precision, Precision) else _stored(precision)
    kernels = Kernels(int(itemsize(stored.compute)), flash, fused, dropout and train)
    check_divisible(model, tp, layout.ep, repeat_kv=not train)
    if sequence % layout.cp:
        raise UsageError(f"cp={layout.cp} does not divide a sequence of {sequence}; give a cp that does")
    m = layout.pp if micro_batches is None else whole("micro_batches", micro_batches)
    if train:
        check(layout.schedule, layout.pp, m, layout.chunks)
    slicing = Slicing(tp, layout.ep, layout.sequence_parallel, kernels, sequence, recompute if train else "none")
    setting = Setting(
        model.name, model.provenance, mode, batch, sequence, m, layout, stored, optimizer, recompute, kernels, block
    )
    cache = itemsize(cache_dtype or stored.compute)
    places = None if cuts is None else _places(cuts, layout.pp * layout.chunks)
    every = stages(model, slicing, layout.pp, layout.chunks, places)
    worst, stage = max(
        ((_parts(model, each, setting, cache), each) for each in every), key=lambda found: found[0].total
    )
    spec = None if device is None else lookup(device)
    return MemoryEstimate(worst, stage.load.held.total, stage.index, setting, spec, headroom)


# -- one stage ---------------------------------------------------------------------------------------------------------


def _parts(model: Transformer, stage: Stage, s: Setting, cache: float) -> Parts:
    layout, p, train = s.layout, s.precision, s.mode == "train"
    tokens, vocab = s.batch * s.sequence // layout.cp, -(-model.vocab // layout.tp) if model.head and stage.last else 0
    e = s.kernels.itemsize
    if not train:
        reserved = -(-s.sequence // s.block) * s.block
        seen = [(n, -(-min(window, s.sequence) // s.block) * s.block) for window, n in stage.load.windowed]
        filled = stage.load.cached * reserved + sum(n * places for n, places in seen)
        return Parts(
            weights=ceil(stage.load.held.total * p.weight),
            logits=s.batch * vocab * (e + FP32),  # of the last token
            cache=ceil(s.batch * filled / layout.cp * cache),
            working=ceil(tokens * stage.load.moment),
        )
    shards, expert_shards = layout.dp * layout.cp, layout.dp * layout.cp // layout.ep
    dense, experts = stage.load.held.dense, stage.load.held.experts

    def sharded(least: int, dense_bytes: float, expert_bytes: float) -> int:
        """Over the data-parallel ranks from ZeRO stage `least` on."""
        if layout.zero < least:
            return ceil(dense_bytes + expert_bytes)
        return ceil(dense_bytes / shards) + ceil(expert_bytes / expert_shards)

    states = [optimizer_bytes(s.optimizer, part, p) for part in (dense, experts)]
    in_flight = held(layout.schedule, layout.pp, s.micro_batches, layout.chunks, stage.index)
    loss = 0 if s.kernels.fused else 2 * FP32 * vocab  # gradients of the log-softmax and of the fp32 logits
    return Parts(
        weights=sharded(3, dense.total * p.weight, experts.total * p.weight),
        gradients=sharded(2, dense.total * p.gradient, experts.total * p.gradient),
        master=sharded(1, dense.total * p.master, experts.total * p.master)
        + sharded(2, dense.total * p.main_gradient, experts.total * p.main_gradient),
        optimizer=sharded(1, *states),
        in_use=_in_use(stage, s),
        activations=ceil(in_flight * tokens * stage.load.kept),
        logits=(s.micro_batches if layout.schedule == "gpipe" else 1) * tokens * vocab * (e + FP32),
        working=ceil(tokens * max(loss, stage.load.moment)),
    )


def _in_use(stage: Stage, s: Setting) -> int:
    e = s.kernels.itemsize
    gathered = (2 * (s.layout.zero == 3) + (s.layout.zero >= 2)) * stage.load.largest * e
    cast = stage.load.held.total * e if s.precision.weight > e and s.layout.zero < 3 else 0
    return gathered + cast


# -- words -------------------------------------------------------------------------------------------------------------


def both(count: float) -> str:
    return f"{gb(count)} ({size(round(count))})"


def _said(part: str) -> str:
    return part.replace("_", " ")


def _basis(s: Setting, parameters: int, stage: int) -> str:
    l, p = s.layout, s.precision
    degrees = [f"{name.upper()} {getattr(l, name)}" for name in ("dp", "tp", "pp", "cp", "ep") if getattr(l, name) > 1]
    place = f"stage {stage + 1} of {l.pp}, " if l.pp > 1 else ""
    if l.sequence_parallel:
        degrees.append("sequence parallel")
    if l.pp > 1:
        chunks = f" x {l.chunks}" if l.chunks > 1 else ""
        degrees.append(f"{l.schedule}{chunks} of {s.micro_batches:,} micro-batches")
    layout = f"{', '.join(degrees) or 'one device'}, ZeRO {l.zero}"
    return f"{place}{parameters:,} parameters, {p.name}, batch {s.batch} x {s.sequence:,} tokens, {layout}"


def _notes(s: Setting) -> list[str]:
    notes = ["not in the sum: the device's context, communication buffers, fragmentation"]
    if s.mode == "inference":
        if s.block > 1:
            notes.append(
                f"cache is reserved {s.block} tokens at a time; on average half a block a sequence stays empty"
            )
        return [*notes, "working memory is that of one pass over the whole batch; a prefill in parts needs less"]
    if s.precision.master:
        notes.append(
            "mixed precision takes 16 bytes a parameter under Adam: 2 + 2 and fp32 weight, momentum, variance; "
            "the 20 one also reads keep an fp32 gradient beside the 16-bit one"
        )
    kernels = (
        "one kernel each (Megatron, Liger, torch.compile)"
        if s.kernels.fused
        else "as transformers' eager code has them"
    )
    if s.layout.pp > 1 and s.layout.zero > 1:
        notes.append(
            "ZeRO 2 and 3 in a pipeline reduce gradients after every micro-batch; code that waits for the last one "
            "(torchtitan) needs what ZeRO 1 needs"
        )
    attention = "flash attention" if s.kernels.flash else "attention that writes its probabilities"
    return [*notes, f"{attention}; RMSNorm, gated activation and loss {kernels}; recompute {s.recompute}"]


# -- what cannot be ----------------------------------------------------------------------------------------------------


def _known(mode: str, recompute: str, optimizer: str, headroom: float) -> None:
    for name, given, known in (
        ("mode", mode, get_args(Mode)),
        ("recompute", recompute, get_args(Recompute)),
        ("optimizer", optimizer, get_args(Optimizer)),
    ):
        if given not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, not {given!r}")
    share("headroom", headroom)


def _only_of_training(layout: Layout, recompute: str, optimizer: str | None, micro_batches: int | None) -> None:
    """Refuse in inference what would be left out of the answer without a word."""
    given = {
        f"zero={layout.zero}": layout.zero > 0,
        f"schedule={layout.schedule!r}": layout.schedule != "1f1b",
        f"chunks={layout.chunks}": layout.chunks > 1,
        f"recompute={recompute!r}": recompute != "none",
        f"optimizer={optimizer!r}": optimizer is not None,
        f"micro_batches={micro_batches}": micro_batches is not None,
    }
    for said in (name for name, wrong in given.items() if wrong):
        raise UsageError(f"{said} is of training, and inference has none of it; leave it out, or give mode='train'")


def _places(cuts: Any, runs: int) -> tuple[int, ...]:
    if not isinstance(cuts, list | tuple) or not all(type(place) is int for place in cuts):
        raise UsageError(f"cuts must be {runs + 1} growing places from 0, such as [0, 4, 8], and {cuts!r} are not")
    return tuple(cuts)


def _stored(given: str | None) -> Precision:
    """Weights alone, in any dtype; quantized ones are computed with in 16 bits."""
    given = given or "bfloat16"
    size = itemsize(given)
    return Precision(given, size, 0, 0, 0, 0, "bfloat16" if size < 2 else dtype_name(given))
