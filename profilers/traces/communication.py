"""Who sent how much to whom, and how fast it went against the link between them.

A trace tells the bytes of a collective and its ranks, not the path they took. Here it is a ring in the order of the group,
NCCL's way for large messages: a rank sends to the next one what the bus bandwidth of nccl-tests counts. An all-to-all
sends every other rank the same, a message its target everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..calculators.collectives import bus_bandwidth
from ..calculators.links import Link, between, link as named
from ..errors import UsageError
from ..hardware import lookup
from .messages import Message


def sent(message: Message, rank: int) -> dict[int, int]:
    """{rank: bytes} that `rank` sends in one run; nothing where the trace does not say enough."""
    if "send" in message.name:
        return {} if message.target is None or not message.bytes else {message.target: message.bytes}
    if not message.bytes or message.operation is None or rank not in message.ranks or "recv" in message.name:
        return {}
    ranks, at = message.ranks, message.ranks.index(rank)
    if len(ranks) < 2:
        return {}
    if message.operation == "all-to-all":
        return {other: message.bytes // len(ranks) for other in ranks if other != rank}
    return {ranks[(at + 1) % len(ranks)]: round(bus_bandwidth(message.operation, message.bytes, len(ranks), 1.0))}


def traffic(messages: Iterable[tuple[Message, int]], rank: int) -> dict[int, int]:
    """{rank: bytes} that `rank` sent, of messages with how often each ran."""
    whole: Counter[int] = Counter()
    for message, runs in messages:
        for other, size in sent(message, rank).items():
            whole[other] += size * runs
    return dict(whole)


def link_of(devices: Sequence[str], name: str | None) -> Link | None:
    """The link by name, else the one between such devices in one node; None where nobody knows."""
    if name is not None:
        return named(name)
    try:
        return between(lookup(devices[0]).name) if devices else None
    except UsageError:
        return None
