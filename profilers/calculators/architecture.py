"""What a transformer is made of: the few integers from which parameters, FLOP and bytes follow.

A `Transformer` is a stack of `Block`s, each an attention and an MLP or a set of experts. Layers that are alike are one
`Repeated` block, so that three dense layers before fifty-eight with experts, or windows in every second layer, are said
as they are. The presets and the Hugging Face reader (`presets`, `hugging_face`) build these; every calculator reads
nothing else.

    h  hidden size      L  layers           a  query heads      g  key/value heads
    d  head size        f  MLP width        V  vocabulary       s  tokens of a sequence      b  sequences
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..errors import UsageError


@dataclass(frozen=True, slots=True)
class Latent:
    """Multi-head latent attention: keys and values from one small vector a token (DeepSeek-V2, arXiv:2405.04434, 2.1).

    Only `kv_rank + rope_dim` numbers a token and layer are cached. `q_rank` is None where queries are not compressed.
    """

    kv_rank: int
    rope_dim: int  # of the head size, the part that carries the rotary position and is shared by all heads
    q_rank: int | None = None

    def __post_init__(self) -> None:
        whole(self)


@dataclass(frozen=True, slots=True)
class Attention:
    """heads > kv_heads > 1 is grouped-query, kv_heads = 1 multi-query attention."""

    heads: int
    kv_heads: int
    head_dim: int  # of queries and keys
    value_dim: int  # of values; differs from head_dim only with a latent
    latent: Latent | None = None
    window: int | None = None  # a query sees at most this many tokens, itself included
    causal: bool = True
    bias: bool = False  # of the query, key and value projections
    output_bias: bool = False
    qk_norm: Literal["head", "row"] | None = None  # a norm on queries and on keys, over each head or over all together
    sinks: bool = False  # one learned logit a head
    relative_projection: bool = False  # positions have keys of their own (Transformer-XL, Gopher, Chinchilla)
    relative_buckets: int = 0  # learned position biases: buckets x heads (T5 keeps them in its first layer)

    def __post_init__(self) -> None:
        whole(self)
        if self.heads % self.kv_heads:
            raise UsageError(
                f"{self.heads} heads cannot share {self.kv_heads} KV heads evenly; give a kv_heads that divides heads"
            )
        if self.latent is not None and self.latent.rope_dim >= self.head_dim:
            raise UsageError(
                f"the rotary part ({self.latent.rope_dim}) must be smaller than the head ({self.head_dim}); "
                "head_dim is qk_nope_head_dim + qk_rope_head_dim"
            )


@dataclass(frozen=True, slots=True)
class MLP:
    """Two matrices, or three where gated (SwiGLU, GEGLU)."""

    width: int
    gated: bool = True
    bias: bool = False

    def __post_init__(self) -> None:
        whole(self)

    @property
    def matrices(self) -> int:
        return 3 if self.gated else 2


@dataclass(frozen=True, slots=True)
class Experts:
    """`active` of `count` routed experts run for a token, and all `shared` ones (as one MLP of `shared.width`)."""

    count: int
    active: int
    each: MLP
    shared: MLP | None = None
    shared_gate: bool = False  # a learned scalar gate on the shared one (Qwen2-MoE)
    router_bias: bool = False

    def __post_init__(self) -> None:
        whole(self)
        if self.active > self.count:
            raise UsageError(f"{self.active} active experts of {self.count}: give active <= count")


@dataclass(frozen=True, slots=True)
class Block:
    """One layer. `parallel`: attention and MLP read the same norm and are added together (GPT-J, PaLM)."""

    attention: Attention
    mlp: MLP | Experts
    parallel: bool = False
    norms: int = 2  # vectors of the hidden size that are scaled: 1 where parallel, 4 with norms after as well
    cross: Attention | None = None  # a decoder's attention to the encoder, which brings one more norm


@dataclass(frozen=True, slots=True)
class Repeated:
    count: int
    block: Block

    def __post_init__(self) -> None:
        whole(self)


@dataclass(frozen=True, slots=True)
class Transformer:
    """Sizes only; `source` says where they were read and `confidence` how far to trust them."""

    name: str
    hidden: int
    vocab: int  # rows of the embedding, padded as the model has them; classes have `classes`
    stack: tuple[Repeated, ...]
    positions: int = 0  # rows of a learned position table
    token_types: int = 0  # rows of a learned segment table (BERT)
    tied: bool = False  # the head is the embedding
    head: bool = True  # logits over the vocabulary are computed
    head_bias: bool = False  # GPT-J, Phi, masked language models
    head_transform: bool = False  # one hidden x hidden layer and a norm before the logits (BERT's masked model)
    classes: int = 0  # a classifier over so many classes instead (ViT)
    patch: int = 0  # an image embedding by patches of patch x patch x 3 instead of a vocabulary (ViT)
    pooler: bool = False  # one hidden x hidden layer on the first token (BERT)
    norm: Literal["rms", "layer"] = "rms"  # "layer" has a bias beside its weight
    norm_bias: bool = True  # of "layer" only
    embedding_norm: bool = False  # BERT, BLOOM
    final_norm: bool = True
    encoder: Transformer | None = None  # an encoder-decoder's first half; shares the embedding
    prediction_layers: int = 0  # extra multi-token-prediction modules: never in params, which count the main model
    context: int = 0  # longest sequence it was made for; 0 if not known
    source: str = ""
    confidence: str = ""  # "high" | "medium" | "low"

    def __post_init__(self) -> None:
        whole(self)
        if not self.stack:
            raise UsageError(f"{self.name} has no layers; give layers >= 1")

    @property
    def layers(self) -> int:
        return sum(each.count for each in self.stack)

    @property
    def provenance(self) -> str:
        """Where the sizes were read, and how far to trust that."""
        return f"{self.source or 'given by keyword'}{f' ({self.confidence} confidence)' if self.confidence else ''}"

    def reaches(self, sequence: int) -> None:
        """Refuse a sequence longer than the learned positions, past which the model cannot run."""
        if self.positions and sequence > self.positions:
            raise UsageError(
                f"{self.name} has learned {self.positions:,} positions; give a sequence of at most so many"
            )

    def blocks(self) -> Iterator[Block]:
        """Every layer's block, first to last."""
        for each in self.stack:
            for _ in range(each.count):
                yield each.block


MAY_BE_ZERO = {
    "positions",
    "token_types",
    "classes",
    "patch",
    "prediction_layers",
    "context",
    "relative_buckets",
    "vocab",
}


def whole(sizes: Any) -> None:
    """Refuse a size that is no positive whole number, by its name."""
    for field in fields(sizes):
        value = getattr(sizes, field.name)
        if not str(field.type).startswith("int") or value is None:
            continue
        least = 0 if field.name in MAY_BE_ZERO or (field.name == "norms") else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{field.name} must be a whole number of at least {least}, and {value!r} is not")
