"""Which rank and host a log is of, by its name: `rank_3.log`, torchrun's `attempt_0/3/stderr.log`, `node-7-rank2.err`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from .lines import Line

_RANK = re.compile(
    r"(?:rank|worker|proc|task)[-_.]?(\d{1,5})(?!\d)|(?:^|/)(\d{1,5})/(?:std(?:out|err)|error|output|log)\b|\.(\d{1,4})\.(?:log|out|err)\b",
    re.IGNORECASE,
)
_HOST = re.compile(
    r"(?:^|[/_.-])((?:node|host|gpu|ip-|compute|slurm|dgx)[a-z]*[-_]?\d[\w-]*?)(?=[/_.]|[-_]rank|$)", re.IGNORECASE
)

_JOINED = re.compile(r"==> (\S.*) <==$")
_ROW = re.compile(r"\s*rank {2,}: (\d+) \(local_rank")
_OF_ROW = re.compile(r"\s*(?:exitcode|error_file|traceback) *: ")


def origin(name: str) -> tuple[int | None, str | None]:
    """(rank, host), each None where the name does not say."""
    rank, host = _RANK.search(name), _HOST.search(name)
    number = next((group for group in rank.groups() if group), None) if rank else None
    return (int(number) if number else None), (host[1] if host else None)


def attributed(lines: Iterable[Line]) -> Iterator[Line]:
    """With the rank that a line has by where it stands: below the name of its file, where `tail` or `head` joined
    several, or in the row of torchrun's table that is about that rank."""
    of_file: tuple[int | None, str | None] = (None, None)
    of_row: int | None = None
    for line in lines:
        if line.text.startswith("==> ") and (joined := _JOINED.match(line.text)):
            of_file, of_row = origin(joined[1]), None
        elif row := _ROW.match(line.text):
            of_row = int(row[1])
        elif of_row is not None and not _OF_ROW.match(line.text):
            of_row = None
        rank = line.rank if line.rank is not None else of_row if of_row is not None else of_file[0]
        host = line.host or of_file[1]
        yield line if (rank, host) == (line.rank, line.host) else replace(line, rank=rank, host=host)
