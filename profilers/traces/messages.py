"""What a collective's event says of itself: which operation, among whom, how many bytes. As torch's NCCL backend writes it.

gloo's name no more than the tensors; who takes part then follows where the job has a single group.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import msgspec
from msgspec import json

from ..calculators.collectives import Collective

Raw = tuple[bytes, ...]  # the JSON of a message's fields, in the order of FIELDS
FIELDS = ("group", "group_name", "collective", "sent", "dtype", "members", "target")
SIZES = {"double": 8, "long": 8, "float": 4, "int": 4, "half": 2, "bfloat16": 2, "short": 2, "char": 1, "byte": 1, "bool": 1}  # fmt: skip
OPERATIONS: tuple[tuple[str, Collective], ...] = (  # the first that a name holds
    ("allreduce", "all-reduce"),
    ("reducescatter", "reduce-scatter"),
    ("allgather", "all-gather"),
    ("alltoall", "all-to-all"),
    ("broadcast", "send"),  # each rank passes on what it gets, as nccl-tests counts it
    ("reduce", "send"),
    ("send", "send"),
    ("recv", "send"),
)
UNSAID: Raw = (b"",) * len(FIELDS)
LONGEST = 10_000  # bytes of shapes: no tensors have longer ones
MOST_RANKS = 4096
GLOO_TYPES = {"long int": "long", "unsigned char": "byte", "signed char": "char", "c10::Half": "half", "c10::BFloat16": "bfloat16"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Message:
    """One kind of message; many events share it. Bytes are 0 and ranks () where the trace does not say."""

    group: str  # the ranks where they are written, for its name may mean another group on another rank
    name: str  # of the collective, "" where only the kernel's name is known
    operation: Collective | None
    bytes: int  # S of nccl-tests: what a rank holds at the larger end
    ranks: tuple[int, ...]
    size: int  # of the group, 0: unknown
    target: int | None  # of a message to one other


def of_gloo(name: str, dims: bytes, types: bytes) -> Raw:
    """The same fields of a collective as gloo's threads write it: "gloo:all_reduce" of [[1000]] and ["float"]."""
    if len(dims) > LONGEST:
        return UNSAID
    try:
        elements = sum(math.prod(shape) for shape in json.decode(dims, type=list[list[int]]))
        kinds = set(json.decode(types, type=list[str]))
    except (msgspec.DecodeError, RecursionError):
        return UNSAID
    (kind,) = kinds if len(kinds) == 1 and 0 <= elements < 10**15 else ("",)
    said = {"collective": name, "sent": str(elements), "dtype": GLOO_TYPES.get(kind, kind)}
    return tuple(said.get(field, "").encode() for field in FIELDS)


def message(raw: Raw, everyone: tuple[int, ...] = ()) -> Message:
    """From the fields as written, whatever they are. `everyone`: the ranks of the job's only group, if it has but one."""
    said = {field: text.decode("utf-8", "replace").strip('"') for field, text in zip(FIELDS, raw, strict=True)}
    ranks = _ranks(said["group"])
    if said["collective"] and not (said["group"] or said["group_name"] or said["members"]):
        ranks = everyone
    size = _whole(said["members"]) or len(ranks)
    ranks = ranks if len(ranks) == size else ()
    operation = _operation(said["collective"])
    elements = (_whole(said["sent"]) or 0) * (size if operation == "all-gather" else 1)  # said of a rank's own part
    return Message(
        said["group"] or said["group_name"],
        said["collective"],
        operation,
        elements * _width(said["dtype"]),
        ranks,
        size,
        _global(_whole(said["target"]), ranks) if "send" in said["collective"] else None,
    )


def _operation(name: str) -> Collective | None:
    plain = re.sub(r"[^a-z]", "", name.lower())
    return next((operation for word, operation in OPERATIONS if word in plain), None)


def _global(rank: int | None, ranks: tuple[int, ...]) -> int | None:
    """A peer is written as a rank of the group by some versions, of the world by others."""
    if rank is None or rank in ranks or not ranks:
        return rank
    return ranks[rank] if rank < len(ranks) else None


def _ranks(text: str) -> tuple[int, ...]:
    """[0, 1, 2]; () where some are left out, as torch does for large groups."""
    found = re.fullmatch(r"\[\s*(\d{1,7}(?:\s*,\s*\d{1,7})*)\s*\]", text) if len(text) < 10 * MOST_RANKS else None
    return tuple(map(int, found[1].split(","))) if found else ()


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,15}", text) else None


def _width(dtype: str) -> int:
    low = dtype.lower()
    return SIZES.get(low, 1 if low.startswith("float8") else 0)
