"""What training keeps for every parameter: its weight, gradient, master copy and optimizer states, and who keeps them.

    bytes a parameter            weight  gradient  master  fp32 gradient  Adam    sum
    float32                         4        4        -          -         8       16
    bfloat16                        2        2        -          -         4        8    states in the weight's dtype
    mixed                           2        2        4          -         8       16    ZeRO's 2 + 2 + K, K = 12
    mixed, fp32 gradients           2        -        4          4         8       18    Megatron-LM's main_grad
    mixed, both gradients           2        2        4          4         8       20
    autocast                        4        4        -          -         8       16    + a 16-bit cast while in use

"Mixed precision takes 16 bytes a parameter" and "it takes 20" are both right: the second keeps an fp32 copy of the
gradients beside the 16-bit ones.

ZeRO's stages are Rajbhandari et al. 2020, arXiv:1910.02054, section 5; DeepSpeed's own estimates its `memory.rst`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UsageError
from .amounts import positive, whole
from .dtypes import dtype_name

Optimizer = Literal["adam", "adamw", "adamw8bit", "sgd", "momentum", "lion", "muon", "adafactor"]
Offload = Literal["none", "optimizer", "optimizer+parameters"]

_BLOCK = 256  # elements that share one fp32 scale (bitsandbytes; Dettmers et al. 2022, arXiv:2110.02861, used 2048)


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes a parameter, and the dtype that activations have. 0 where there is no such copy."""

    name: str
    weight: float  # half a byte for the 4-bit formats
    gradient: int
    master: int
    main_gradient: int  # an fp32 copy, to accumulate micro-batches in
    state: int  # of each number the optimizer keeps
    compute: str  # dtype of activations, and of weights while they are used


PRECISIONS = {
    each.name: each
    for each in (
        Precision("float32", 4, 4, 0, 0, 4, "float32"),
        Precision("bfloat16", 2, 2, 0, 0, 2, "bfloat16"),
        Precision("mixed", 2, 2, 4, 0, 4, "bfloat16"),
        Precision("mixed, fp32 gradients", 2, 0, 4, 4, 4, "bfloat16"),
        Precision("mixed, both gradients", 2, 2, 4, 4, 4, "bfloat16"),
        Precision("autocast", 4, 4, 0, 0, 4, "bfloat16"),
        Precision("float8 weights", 1, 2, 4, 0, 4, "bfloat16"),
    )
}


def precision(given: str | Precision) -> Precision:
    """By name; a dtype's short form is also one."""
    if isinstance(given, Precision):
        return given
    found = PRECISIONS.get(str(given))
    if found is not None:
        return found
    try:
        return PRECISIONS[dtype_name(given)]
    except (UsageError, KeyError):
        raise UsageError(f"unknown precision {given!r}; type one of {', '.join(map(repr, PRECISIONS))}") from None


@dataclass(frozen=True, slots=True)
class Numbers:
    """How many parameters, and what optimizers ask of their shapes."""

    total: int
    hidden_matrices: int = 0  # of `total`, in the layers' matrices: those Muon orthogonalizes
    rows_and_columns: int = 0  # summed over all matrices: what Adafactor keeps of them
    vectors: int = 0  # of `total`, in no matrix: biases, norms

    def __add__(self, other: Numbers) -> Numbers:
        return Numbers(
            self.total + other.total,
            self.hidden_matrices + other.hidden_matrices,
            self.rows_and_columns + other.rows_and_columns,
            self.vectors + other.vectors,
        )

    def times(self, n: int) -> Numbers:
        return Numbers(n * self.total, n * self.hidden_matrices, n * self.rows_and_columns, n * self.vectors)


def optimizer_bytes(optimizer: str, numbers: Numbers, precision: Precision) -> int:
    """Bytes of the optimizer's states, its step counters apart.

    adam, adamw     two moments
    adamw8bit       two moments of one byte, and an fp32 scale for each 256 (Dettmers et al. 2022)
    momentum, lion  one
    muon            one for the layers' matrices, AdamW's two for the rest (Jordan et al. 2024)
    adafactor       rows and columns of each matrix, one for each other number, no momentum (Shazeer & Stern 2018, 4)
    """
    if optimizer not in get_args(Optimizer):
        raise UsageError(f"unknown optimizer {optimizer!r}; type one of {', '.join(get_args(Optimizer))}")
    n, size = numbers.total, precision.state
    match optimizer:
        case "sgd":
            return 0
        case "momentum" | "lion":
            return n * size
        case "adamw8bit":
            return 2 * (n + 4 * -(-n // _BLOCK))
        case "muon":
            return (2 * n - numbers.hidden_matrices) * size
        case "adafactor":
            return (numbers.rows_and_columns + numbers.vectors) * size
        case _:
            return 2 * n * size


def zero_bytes(
    params: float, devices: int, stage: int, *, weight: float = 2, gradient: float = 2, states: float = 12
) -> float:
    """Bytes of model states on each device under ZeRO; stage 0 shards nothing.

    `states` are the optimizer's, its fp32 master copy included: K = 12 for Adam in mixed precision.
    """
    positive("params", params)
    whole("devices", devices)
    if stage not in (0, 1, 2, 3):
        raise UsageError(f"ZeRO has stages 0 to 3, not {stage!r}")
    shared = [devices if stage >= least else 1 for least in (3, 2, 1)]
    return params * sum(each / n for each, n in zip((weight, gradient, states), shared, strict=True))


def deepspeed_bytes(
    params: float, devices: int, stage: int, *, largest_layer: float = 0, offload: Offload = "none"
) -> float:
    """Bytes on each device as DeepSpeed's estimator has them (docs/code-docs/source/memory.rst); it prints GiB as GB.

    stage 2  4 P + 16 P/n;                     2 P with the optimizer on the CPU
    stage 3  4 largest layer + 18 P/n;         + 2 P/n with the optimizer on the CPU, nothing with parameters there too

    18 a parameter are the 16 of fp32 training and the 16-bit weight.
    """
    positive("params", params)
    whole("devices", devices)
    if offload not in get_args(Offload):
        raise UsageError(f"offload must be one of {', '.join(map(repr, get_args(Offload)))}, not {offload!r}")
    if stage == 2:
        if offload == "optimizer+parameters":
            raise UsageError("ZeRO-2 keeps the parameters on the device; give stage=3 to offload them")
        return 2 * params if offload == "optimizer" else 4 * params + 16 * params / devices
    if stage != 3:
        raise UsageError(f"DeepSpeed estimates stages 2 and 3, not {stage!r}; use zero_bytes")
    sharded = {"none": 18, "optimizer": 2, "optimizer+parameters": 0}[offload]
    return 4 * positive("largest_layer", largest_layer) + sharded * params / devices


def deepspeed_host_bytes(
    params: float,
    devices: int,
    stage: int,
    *,
    per_node: int | None = None,
    largest_layer: float = 0,
    offload: Offload = "none",
    zero_init: bool = False,
    buffer: float = 1.5,
) -> float:
    """Bytes of a node's main memory by the same estimator: 4 a parameter and process to build the model, or what is
    offloaded, whichever is more; half as much again as buffers."""
    positive("params", params)
    whole("devices", devices)
    node = devices if per_node is None else whole("per_node", per_node)
    if stage not in (2, 3):
        raise UsageError(f"DeepSpeed estimates stages 2 and 3, not {stage!r}")
    kept = {"none": 0, "optimizer": 16, "optimizer+parameters": 18}[offload]
    if stage == 3:
        kept = kept * node / devices
        if zero_init:
            return buffer * (kept * params or 4 * node * positive("largest_layer", largest_layer))
    return buffer * params * max(4 * node, kept)
