"""A `Transformer` from a handful of keywords, with which a user, a preset and a Hugging Face config all say theirs.

What is left out is the block of GPT-2 and GPT-3: as many KV heads as heads, an MLP of four times the hidden size with
two matrices, biases everywhere, two LayerNorms. A gated MLP has no usual width, so `mlp_width` must then be given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import groupby
from typing import Any, Literal

from ..errors import UsageError
from .amounts import LARGEST, whole
from .architecture import MLP, Attention, Block, Experts, Latent, Repeated, Transformer

MOST_LAYERS = 100_000


def build(
    name: str = "a transformer",
    *,
    hidden: int,
    layers: int,
    heads: int,
    vocab: int = 0,
    # attention
    kv_heads: int | None = None,
    head_dim: int | None = None,
    value_dim: int | None = None,
    kv_rank: int | None = None,  # with rope_dim (and q_rank): latent attention
    rope_dim: int | None = None,
    q_rank: int | None = None,
    window: int | None = None,
    full_every: int = 0,  # with `window`: every so manieth layer sees all tokens; 0: none does
    windows: Sequence[int | None] | None = None,  # or each layer's window by itself
    causal: bool = True,
    qk_norm: Literal["head", "row"] | None = None,
    sinks: bool = False,
    relative_projection: bool = False,
    relative_buckets: int = 0,
    # MLP and experts
    mlp_width: int | None = None,
    gated: bool = False,
    experts: int = 0,
    active_experts: int | None = None,
    expert_width: int | None = None,
    shared_width: int = 0,
    shared_gate: bool = False,
    router_bias: bool = False,
    dense_layers: int | Sequence[int] = 0,  # of a model with experts: the first so many, or these (from 0), have none
    # both
    bias: bool = True,
    qkv_bias: bool | None = None,
    output_bias: bool | None = None,
    mlp_bias: bool | None = None,
    parallel: bool = False,
    norms: int | None = None,
    norm: Literal["rms", "layer"] = "layer",
    encoder_layers: int = 0,  # of the same sizes, before `layers` with cross attention
    **rest: Any,
) -> Transformer:
    """Sizes to a model; `rest` are fields of `Transformer` by their names. A size that cannot be is a UsageError."""
    given = {**locals(), **rest}
    for what, size in {"hidden": hidden, "layers": layers, "heads": heads}.items():
        whole(what, size)
    _check({name: value for name, value in given.items() if name != "rest"})
    if kv_rank is None and head_dim is None and hidden % heads:
        raise UsageError(
            f"hidden={hidden} is not divisible by heads={heads}; give a head_dim, or another number of heads"
        )
    latent = None if kv_rank is None else Latent(kv_rank, _needed(rope_dim, "rope_dim", "kv_rank"), q_rank)
    attention = Attention(
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        head_dim=(hidden // heads if latent is None else 0) if head_dim is None else head_dim,
        value_dim=value_dim or head_dim or hidden // heads,
        latent=latent,
        causal=causal,
        bias=_or(qkv_bias, bias),
        output_bias=_or(output_bias, bias),
        qk_norm=qk_norm,
        sinks=sinks,
        relative_projection=relative_projection,
    )
    in_mlp = _or(mlp_bias, bias)
    mlp = MLP(_width(mlp_width, hidden, gated, bool(experts)), gated, in_mlp)
    sparse = None
    if experts:
        sparse = Experts(
            experts,
            _needed(active_experts, "active_experts", "experts"),
            MLP(_needed(expert_width, "expert_width", "experts"), gated, in_mlp),
            MLP(shared_width, gated, in_mlp) if shared_width else None,
            shared_gate,
            router_bias,
        )
    dense = set(range(dense_layers)) if isinstance(dense_layers, int) else set(dense_layers)
    block = Block(attention, mlp, parallel, _or(norms, 1 if parallel else 2))

    def layer(i: int, seen: int | None) -> Block:
        own = replace(attention, window=seen, relative_buckets=0 if i else relative_buckets)
        return replace(block, attention=own, mlp=mlp if sparse is None or i in dense else sparse)

    spans = windows if windows is not None else [_window(i, window, full_every) for i in range(layers)]
    if len(spans) != layers:
        raise UsageError(f"{layers} layers need as many windows, and {len(spans)} are given")
    model = Transformer(name, hidden, vocab, _runs(layer(i, seen) for i, seen in enumerate(spans)), norm=norm, **rest)
    return _with_encoder(model, encoder_layers) if encoder_layers else model


def _check(given: Mapping[str, Any]) -> None:
    """Refuse a name that no size has, and a value of another kind than its annotation's."""
    for name, value in given.items():
        kind = KEYWORDS.get(name)
        if kind is None:
            raise UsageError(f"no size is called {name}; the ones there are: {', '.join(KEYWORDS)}")
        if value is None and "None" in kind:
            continue
        if kind == "str" and not isinstance(value, str):
            raise UsageError(f"{name} must be a text, and {value!r} is not")
        if kind.startswith("bool") and not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, and {value!r} is not")
        if "int" in kind:
            _check_wholes(name, kind, value)
        if kind.startswith("Literal") and repr(value) not in kind:
            raise UsageError(f"{name} must be one of {kind.removeprefix('Literal')}, not {value!r}")


def _check_wholes(name: str, kind: str, value: Any) -> None:
    """One size, or where the annotation has a list, several; of windows some may be None."""
    if "[int" in kind and isinstance(value, list | tuple):
        sizes = [each for each in value if each is not None or "[int | None" not in kind]
    elif "[int" in kind and not kind.startswith("int"):
        raise UsageError(f"{name} must be a list of whole numbers, and {value!r} is not")
    else:
        sizes = [value]
    most = MOST_LAYERS if name in ("layers", "encoder_layers", "dense_layers") else LARGEST
    for each in sizes:
        if isinstance(each, bool) or not isinstance(each, int) or each < 0:
            raise UsageError(f"{name} must be a whole number of at least 0, and {each!r} is not")
        if each > most:
            raise UsageError(f"{name} is more than a model has; give at most {most:,}")


def _with_encoder(decoder: Transformer, layers: int) -> Transformer:
    """The same blocks without a mask, and a decoder whose blocks look at them."""
    block = decoder.stack[-1].block
    free = replace(block.attention, causal=False, relative_buckets=0)
    biased = replace(free, relative_buckets=decoder.stack[0].block.attention.relative_buckets)
    encoder = replace(
        decoder,
        name=f"{decoder.name} encoder",
        stack=_runs(replace(block, attention=free if i else biased) for i in range(layers)),
        head=False,
    )
    stack = tuple(Repeated(each.count, replace(each.block, cross=free)) for each in decoder.stack)
    return replace(decoder, stack=stack, encoder=encoder)


def _runs(blocks: Iterable[Block]) -> tuple[Repeated, ...]:
    return tuple(Repeated(len(list(alike)), block) for block, alike in groupby(blocks))


def _window(layer: int, window: int | None, full_every: int) -> int | None:
    return None if full_every and (layer + 1) % full_every == 0 else window


def _width(given: int | None, hidden: int, gated: bool, sparse: bool) -> int:
    if given is not None or not gated:
        return 4 * hidden if given is None else given
    if sparse:
        return 1  # no layer is dense
    raise UsageError("a gated MLP has no usual width; give mlp_width")


def _needed(value: int | None, what: str, because: str) -> int:
    if value is None:
        raise UsageError(f"{because} needs {what} as well; give {what}=")
    return value


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


KEYWORDS = {
    **{each.name: str(each.type) for each in fields(Transformer) if each.name not in ("stack", "encoder")},
    **{each.name: str(each.annotation) for each in inspect.signature(build).parameters.values() if each.name != "rest"},
}
