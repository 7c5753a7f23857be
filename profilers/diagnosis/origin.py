"""Which rank and host a log is of, by its name: `rank_3.log`, torchrun's `attempt_0/3/stderr.log`, `node-7-rank2.err`."""

from __future__ import annotations

import re

_RANK = re.compile(
    r"(?:rank|worker|proc|task)[-_.]?(\d{1,5})(?!\d)|(?:^|/)(\d{1,5})/(?:std(?:out|err)|error|output|log)\b|\.(\d{1,4})\.(?:log|out|err)\b",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"(?:^|[/_.-])((?:node|host|gpu|ip-|compute|slurm|dgx)[a-z]*[-_]?\d[\w-]*?)(?=[/_.]|[-_]rank|$)", re.IGNORECASE
)


def origin(name: str) -> tuple[int | None, str | None]:
    """(rank, host), each None where the name does not say."""
    rank, host = _RANK.search(name), _HOST.search(name)
    number = next((group for group in rank.groups() if group), None) if rank else None
    return (int(number) if number else None), (host[1] if host else None)
