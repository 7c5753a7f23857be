"""How fast a model can answer at best: prefill and decode on the roofline of one device, or of a few in tensor parallel.

    seconds of a pass >= max(FLOP / peak, bytes / bandwidth)

FLOP are the products of matrices, of attention those the mask leaves; bytes are each weight a pass touches, once, and
the cache, written or read once. Activations, launches, sampling and communication between devices are not counted, so
that every time is a lower bound and every rate an upper one, unless an `efficiency` is given.

A batch of B tokens touches E (1 - (1 - k/E)^B) of E experts when each token has k, all alike in demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from ..errors import UsageError
from ..hardware import Device, lookup, peak
from ..views.sheet import Curve, Figures, Row, Sheet, Shown
from ..views.units import bandwidth as said_bandwidth, counted, duration, flop, gb, number, percent, rate, three
from .amounts import efficiency as share_of_peak, share, whole
from .architecture import Experts, Transformer
from .compute import decode_flops, prefill_flops
from .dtypes import dtype_name, itemsize
from .kv_cache import kv_cache
from .memory import HEADROOM, both
from .models import model as model_of
from .shards import check_divisible, tied_copy, units
from .speculation import expected_tokens, speculative_speedup

PADDING = 0.01  # by which vocabularies of one family differ at most
BLOCK = 16  # tokens of cache that are reserved at a time (vLLM)
MOST_BATCH = 1 << 24


@dataclass(frozen=True, slots=True)
class Pass:
    """Of one device. Seconds on the roofline."""

    flops: float
    bytes: float
    compute: float
    memory: float

    @property
    def seconds(self) -> float:
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        return "compute" if self.compute > self.memory else "memory"

    @property
    def intensity(self) -> float:
        """FLOP a byte."""
        return self.flops / self.bytes


@dataclass(frozen=True, slots=True)
class Roof:
    """What the passes run on, and in which numbers."""

    device: Device
    tp: int
    dtype: str  # of weights
    cache_dtype: str
    compute_dtype: str  # of the products
    peak: float  # FLOP/s of one device, dense
    bandwidth: float  # B/s of one device
    efficiency: float  # of both

    @property
    def ridge(self) -> float:
        """FLOP a byte from which computing, not memory, takes the time."""
        return self.peak / self.bandwidth


@dataclass(frozen=True, slots=True)
class Speculation:
    """With drafts; seconds and rates as in `Inference`."""

    draft: str
    acceptance: float
    drafts: int
    tokens: float  # a pass gives
    cost: float  # a draft's seconds over those of a pass for one token
    tpot: float
    speedup: float
    theorem: float  # Theorem 3.8's speed-up, where checking costs as much as one token
    same_tokens: bool  # as far as the sizes of the vocabularies tell, which families pad differently


@dataclass(frozen=True, slots=True)
class Inference(Shown):
    """Lower bounds on time. `decode` is a step at the mean context, when half of the output has been written."""

    model: str
    sizes: str  # where the model's were read
    roof: Roof
    batch: int
    prompt: int
    output: int
    cached_prompt: int  # tokens whose keys and values are there already
    prefill: Pass
    decode: Pass
    weights: int  # bytes on one device
    cache: int  # bytes of one sequence of prompt and output on one device, in whole blocks
    max_batch: int  # sequences whose cache fits beside the weights
    break_even: int | None  # batch from which a decode step is bound by compute; None: no batch is
    break_even_weights: int | None  # the same without any cache to read
    by_batch: tuple[tuple[int, float], ...]  # (batch, tokens a second)
    speculation: Speculation | None = None

    @property
    def ttft(self) -> float:
        """Seconds until each of the batch has its first token, all prompts in one pass."""
        return self.prefill.seconds

    @property
    def tpot(self) -> float:
        """Seconds a further token."""
        return self.decode.seconds

    @property
    def latency(self) -> float:
        """Seconds until the last token; the first comes with the prefill."""
        return self.ttft + (self.output - 1) * self.tpot

    @property
    def tokens_per_second(self) -> float:
        """Of the whole batch, while it decodes."""
        return self.batch / self.tpot

    @property
    def fits(self) -> bool:
        return self.batch <= self.max_batch

    def sheet(self) -> Sheet:
        roof = self.roof
        figures = (
            Row("time to first token", duration(self.ttft * 1e9), _said(self.prefill, roof)),
            Row("time per output token", duration(self.tpot * 1e9), _said(self.decode, roof)),
            Row("tokens a second", three(self.tokens_per_second), f"{counted(self.batch, 'sequence')}, while decoding"),
            Row("until the last token", duration(self.latency * 1e9), "prefill, and a step for each further token"),
            Row("break-even batch", "none" if self.break_even is None else f"{self.break_even:,}", self._break_even()),
            Row("largest batch", number(self.max_batch), self._room()),
        )
        parts: list[Any] = [Figures("", figures)]
        if self.speculation:
            parts.append(_speculation_figures(self.speculation))
        if len(self.by_batch) > 1:
            parts.append(Curve("Decoding by batch", "batch", "tokens a second", self.by_batch))
        return Sheet(f"Inference of {self.model} on {_devices(roof)}", self._basis(), tuple(parts), self._notes())

    def _break_even(self) -> str:
        """What the batch is at which a decode step computes as long as it reads, and why there may be none."""
        if self.break_even is None:
            said = "each sequence brings more cache to read than products to compute, so every batch is memory-bound"
        else:
            said = "sequences from which a decode step is compute-bound"
        if self.break_even_weights is None:
            return said
        return f"{said}; {self.break_even_weights:,} if weights were all there is to read"

    def _room(self) -> str:
        each = f"{both(self.cache)} of cache a sequence"
        usable = self.roof.device.memory * (1 - HEADROOM)
        verdict = "" if self.fits else f"a batch of {self.batch:,} does not fit, so nothing above can be had: "
        return f"{verdict}{each}; weights {gb(self.weights)} of {gb(usable)} usable"

    def _basis(self) -> str:
        roof = self.roof
        known = f", of which {self.cached_prompt:,} cached" if self.cached_prompt else ""
        return (
            f"batch {self.batch}, prompt {self.prompt:,} tokens{known}, output {self.output:,}; weights {roof.dtype}, "
            f"cache {roof.cache_dtype}, products {roof.compute_dtype}; dense peak {rate(roof.peak)}, "
            f"{said_bandwidth(roof.bandwidth)}, ridge {three(roof.ridge)} FLOP a byte ({roof.device.peak_source}; "
            f"confidence {roof.device.confidence})"
        )

    def _notes(self) -> tuple[str, ...]:
        how = (
            "at the roofline: times are lower bounds, rates upper ones"
            if self.roof.efficiency == 1
            else f"at {percent(self.roof.efficiency)} of peak and bandwidth, as given"
        )
        notes = [f"{how}; activations, launches, sampling and communication are not counted"]
        notes.append(f"sizes: {self.sizes}")
        if self.speculation and not self.speculation.same_tokens:
            notes.append(
                f"{self.speculation.draft} has another vocabulary: its drafts are other tokens, which this leaves out"
            )
        return tuple(notes)


def inference(
    model: Any,
    device: str | Device,
    *,
    batch: int = 1,
    prompt: int,
    output: int,
    dtype: str = "bfloat16",
    cache_dtype: str | None = None,
    compute_dtype: str | None = None,
    tp: int = 1,
    efficiency: float = 1.0,
    prefix_hit: float = 0.0,
    draft: Any = None,
    acceptance: float | None = None,
    drafts: int = 4,
) -> Inference:
    """Prefill and decode of a model on a device, at best.

    Parameters
    ----------
    model
        A preset's name, a Hugging Face config, or a `Transformer`.
    dtype, cache_dtype, compute_dtype
        Of weights; of keys and values, by default bfloat16 or what 16 bits the weights have; and of the products, by
        default the weights', or bfloat16 where they have 4 bits.
    efficiency
        Share of peak and bandwidth that is reached, if you know it; nothing is assumed.
    prefix_hit
        Share of the prompt whose keys and values are cached already.
    draft, acceptance, drafts
        Speculative decoding: a smaller model, the chance that its token is taken, and how many it drafts a pass.

    Raises
    ------
    UsageError
        Unknown device, a dtype it has no peak for, a tp that does not divide the heads, a model that writes no text.
    """
    target = model_of(model)
    for name, count in {"batch": batch, "prompt": prompt, "output": output, "tp": tp}.items():
        whole(name, count)
    roof = _roof(device, dtype, cache_dtype, compute_dtype, tp, efficiency)
    _decoder(target, tp)
    target.reaches(prompt + output)
    known = int(prompt * share("prefix_hit", prefix_hit))
    context = prompt + ceil(output / 2)
    decode = decode_pass(target, roof, batch=batch, context=context)
    weights = ceil(sum(count * held.total for count, held in units(target, tp)) * itemsize(dtype))
    cache = kv_cache(target, sequence=prompt + output, dtype=roof.cache_dtype, block=BLOCK, tp=tp).reserved
    room = int(roof.device.memory * (1 - HEADROOM)) - weights
    most = max(0, room // cache)
    return Inference(
        model=target.name,
        sizes=target.provenance,
        roof=roof,
        batch=batch,
        prompt=prompt,
        output=output,
        cached_prompt=known,
        prefill=prefill_pass(target, roof, batch=batch, prompt=prompt, cached=known),
        decode=decode,
        weights=weights,
        cache=cache,
        max_batch=most,
        break_even=break_even_batch(target, roof, context=context),
        break_even_weights=break_even_batch(target, roof, context=1),
        by_batch=tuple((n, n / decode_pass(target, roof, batch=n, context=context).seconds) for n in _doubling(most)),
        speculation=_speculate(target, draft, acceptance, drafts, roof, batch, context, decode),
    )


def prefill_pass(model: Transformer, roof: Roof, *, batch: int, prompt: int, cached: int = 0) -> Pass:
    """All prompts in one pass; their first `cached` tokens are only read."""
    whole_prompt = prefill_flops(model, batch=batch, sequence=prompt, pairs="seen")
    flops = whole_prompt.total
    if cached:
        flops -= prefill_flops(model, batch=batch, sequence=cached, pairs="seen").layers
    cache = kv_cache(model, batch=batch, sequence=prompt, dtype=roof.cache_dtype, tp=roof.tp).used
    return _pass(roof, flops, touched(model, roof, batch * (prompt - cached)) + cache)


def decode_pass(model: Transformer, roof: Roof, *, batch: int, context: int, tokens: int = 1) -> Pass:
    """`tokens` new ones for each of `batch` sequences, whose `context` tokens are read."""
    flops = tokens * decode_flops(model, context=context, batch=batch).total
    cache = kv_cache(model, batch=batch, sequence=context, dtype=roof.cache_dtype, tp=roof.tp).used
    return _pass(roof, flops, touched(model, roof, batch * tokens) + cache)


def touched(model: Transformer, roof: Roof, tokens: int) -> float:
    """Bytes of weights that a pass over so many tokens reads on one device: rows of the embedding, experts in demand."""
    first, *runs, last = units(model, roof.tp)
    rows = tokens * model.hidden / roof.tp  # each is on one of the devices
    product = tied_copy(model, roof.tp).total  # the logits read all of a tied table, and nothing the positions'
    read = product + min(rows, first[1].total - product) + last[1].total
    for each, (count, held) in zip(model.stack, runs, strict=True):
        mlp = each.block.mlp
        used = touched_experts(mlp.count, mlp.active, tokens) / mlp.count if isinstance(mlp, Experts) else 0.0
        read += count * (held.dense.total + used * held.experts.total)
    return read * itemsize(roof.dtype)


def touched_experts(count: int, active: int, tokens: int) -> float:
    """Expected experts that at least one of the tokens goes to, each token choosing `active` of `count` alike."""
    return count * (1 - (1 - active / count) ** tokens)


def break_even_batch(model: Transformer, roof: Roof, *, context: int) -> int | None:
    """The smallest batch whose decode step is bound by compute; None where the cache grows faster than the FLOP."""

    def computes(batch: int) -> bool:
        step = decode_pass(model, roof, batch=batch, context=context)
        return step.compute >= step.memory

    low, high = 0, 1
    while not computes(high):
        low, high = high, 2 * high
        if high > MOST_BATCH:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if computes(middle) else (middle, high)
    return high


def _pass(roof: Roof, flops: float, moved: float) -> Pass:
    """`flops` of all devices, `moved` bytes of one."""
    each = flops / roof.tp
    return Pass(each, moved, each / (roof.peak * roof.efficiency), moved / (roof.bandwidth * roof.efficiency))


def _roof(device: str | Device, dtype: str, cache: str | None, compute: str | None, tp: int, efficiency: float) -> Roof:
    spec = lookup(device)
    if spec.bandwidth is None:
        raise UsageError(f"the memory bandwidth of {spec.name} is not known; give a Device with bandwidth=")
    weights = dtype_name(dtype)
    products = dtype_name(compute) if compute else "bfloat16" if itemsize(weights) < 1 else weights
    kept = dtype_name(cache) if cache else weights if itemsize(weights) >= 2 else "bfloat16"
    return Roof(spec, tp, weights, kept, products, peak(spec, products), spec.bandwidth, share_of_peak(efficiency))


def _decoder(model: Transformer, tp: int) -> None:
    """Refuse what cannot be asked for text."""
    if model.encoder is not None or not model.head or not all(each.block.attention.causal for each in model.stack):
        raise UsageError(f"{model.name} does not write token by token; give a model that is a decoder alone")
    check_divisible(model, tp, 1, repeat_kv=True)


def _speculate(
    target: Transformer,
    draft: Any,
    acceptance: float | None,
    drafts: int,
    roof: Roof,
    batch: int,
    context: int,
    decode: Pass,
) -> Speculation | None:
    if draft is None:
        if acceptance is not None:
            raise UsageError("acceptance is of a draft model; give draft= as well, such as a smaller preset")
        return None
    if acceptance is None:
        raise UsageError("a draft model needs acceptance=, the chance that the target takes its token")
    small = model_of(draft)
    _decoder(small, roof.tp)
    small.reaches(context)
    tokens = expected_tokens(acceptance, drafts)
    one = decode_pass(small, roof, batch=batch, context=context).seconds
    check = decode_pass(target, roof, batch=batch, context=context, tokens=drafts + 1).seconds
    cost, tpot = one / decode.seconds, (drafts * one + check) / tokens
    theorem = speculative_speedup(acceptance, drafts, cost)
    return Speculation(
        draft=small.name,
        acceptance=acceptance,
        drafts=drafts,
        tokens=tokens,
        cost=cost,
        tpot=tpot,
        speedup=decode.seconds / tpot,
        theorem=theorem,
        same_tokens=abs(small.vocab - target.vocab) <= PADDING * target.vocab,
    )


def _doubling(most: int) -> list[int]:
    """1, 2, 4, …, and the most."""
    powers = [1 << i for i in range(most.bit_length()) if 1 << i < most]
    return [*powers, most] if most else []


# -- words -------------------------------------------------------------------------------------------------------------


def _said(step: Pass, roof: Roof) -> str:
    each = " each" if roof.tp > 1 else ""
    return f"{flop(step.flops)}, {gb(step.bytes)}{each}: {three(step.intensity)} FLOP a byte, {step.bound}-bound"


def _devices(roof: Roof) -> str:
    return f"{roof.tp} x {roof.device.name}" if roof.tp > 1 else roof.device.name


def _speculation_figures(s: Speculation) -> Figures:
    rows = (
        Row("tokens a pass", three(s.tokens), f"{s.drafts} drafts of {s.draft}, {percent(s.acceptance)} taken each"),
        Row("time per output token", duration(s.tpot * 1e9), f"a draft takes {three(s.cost)} of a pass"),
        Row("speed-up", f"{s.speedup:.2f}x", f"{s.theorem:.2f}x were checking free (arXiv:2211.17192, Theorem 3.8)"),
    )
    return Figures("With speculative decoding", rows)
