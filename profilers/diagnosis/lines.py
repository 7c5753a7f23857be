"""One line of a log, freed of what launchers, loggers and terminals put before it: who said it, when, how loudly.

Understood: torchrun (`[rank3]:`, `[default3]:`, `[3]:`), c10d (`[E814 17:27:59.4 file.cpp:607]`), srun -l (`3: `), Ray and
vLLM (`(VllmWorker rank=0 pid=226)`), SGLang (`[2025-05-19 08:01:31 TP0]`), Python's logging, loguru, syslog and dmesg,
NCCL (`host:pid:tid [dev] NCCL`), mpirun (`[1,3]<stderr>:`), kubectl, the container runtime's files and docker compose, pdsh and DeepSpeed (`node-7: `), pytest (`E   `), boxes of rich, quotes of mails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 4000  # letters of a line that are looked at; the last ones are kept too
_END = 1000

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BARE_COLOUR = re.compile(
    r"(?<![\w\]])\[(?:\d{1,2}(?:;\d{1,3})*)m"
)  # where the escape was lost on the way, as in a posted log
_BAR = re.compile(r"[^|\n]{0,80}?\d{1,3}%\|[^|\n]{0,200}\| *\S{1,24}(?: \[[^\]\n]{0,80}\])?")
_MONTHS = {
    name: n
    for n, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], 1)
}

_TIME = r"(?P<h>\d{1,2}):(?P<m>\d\d):(?P<s>\d\d(?:[.,]\d+)?)"
_DATE = r"(?P<Y>\d{4})[-/](?P<M>\d\d)[-/](?P<D>\d\d)"
_ZONE = r"(?:Z|[+-]\d\d:?\d\d)?"
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        r"[\s>│|]*\[(?:rank|default|RANK|Rank) ?(?P<rank>\d+)\]:? ?",
        r"\[(?P<rank>\d{1,4})\]:\s?",
        r" {0,3}(?P<rank>\d{1,4}): (?=\S|\s+File)",
        r"\[pod/(?P<host>[^\]/\s]+)[^\]\s]*\] ?",
        r"(?:stdout|stderr) [FP] ?",
        r"\d{1,7} \| \d{9,19} \| ",  # a table of a log's lines and times
        r"[a-z][\w.-]*[-_]\d+ +\| ?",
        r"[a-z][\w.-]{1,24}: (?=(?:DEBUG|INFO|WARN(?:ING)?|ERROR|CRITICAL|FATAL)\b)",
        r"\[[\w.]+\](?=\[(?:DEBUG|INFO|WARNING|ERROR|CRITICAL)\])",
        r"\((?P<who>[A-Za-z_]\w*(?: [\w.]+)?)(?P<more>(?:[ ,]+[\w-]+=[^\s,)]+)+)\)\s?",
        rf"\[?{_DATE}[T ]{_TIME}{_ZONE}(?P<tag>(?: [A-Z]{{2,3}}\d+)*)\]?[:,]?\s?",
        rf"(?P<level>[EWIF])(?P<M>\d\d)(?P<D>\d\d) {_TIME} +\d+ (?P<file>[\w./]+:\d+)\]\s?",
        rf"(?P<level>[EWIF])?\[?(?P<M>\d\d)-?(?P<D>\d\d) {_TIME}\]?:?\s?",
        rf"\[?(?P<M>\d\d)/(?P<D>\d\d)/(?P<Y>\d{{4}}) {_TIME}\]?:?\s?",
        r"\[(?P<level>[EWIF]) (?P<file>[\w./]+:\d+)\]\s?",
        r"(?:(?P<level>[WI])|E) [\w./]+:\d+\]\s?",
        r"\[\d+,(?P<rank>\d+)\]<std(?:out|err)>: ?",
        r"\s*\[std(?:out|err)\]:? ?",
        rf"\s*\[(?P<level>[EWIF])(?P<M>\d\d?)(?P<D>\d\d) {_TIME} (?P<file>[\w./]+:\d+)\]\s?",
        rf"(?P<mon>[A-Z][a-z]{{2}}) +(?P<D>\d{{1,2}}) {_TIME} (?P<host>[\w.-]+) (?=\w+(?:\[\d+\])?:)",
        rf"\[?{_TIME}\]?\s+",
        r"\[ *(?P<up>\d+\.\d{4,6})\]\s?",
        r"(?P<host>[\w.-]+):\d+:\d+ \[(?P<dev>\d+)\] (?=\S* ?NCCL|\w)",
        r"\s{0,4}\[?\b(?P<word>DEBUG|INFO|NOTICE|WARNING|WARN|ERROR|CRITICAL|FATAL|TRACE|SUCCESS|warning|info|debug)\b\]?\s*(?:[:|-]+\s*)?",
        r"-? ?[\w.:<>-]{1,60} - (?P<word>DEBUG|INFO|WARNING|ERROR|CRITICAL) - ",
        r"\[[\w./<>-]+(?:\.py)?:\d+(?::\w+)?\]\s?",
        r"[\w./-]+\.py:\d+\]\s?",
        r"(?:stderr|stdout)\s*\|\s?",
        r"(?P<host>(?:[a-z][\w-]*)?(?:node|host|worker|gpu|ip-|slurm|compute)[\w.-]*\d[\w.-]*):\s(?=\S|\s+File)",
        r"[-|]\s+(?=\S)",
        r"E {3,}(?=\S)",
        r"[>│┃]\s?",
    )
)
_RANK = re.compile(r"\b(?:Rank|rank|global_rank|GLOBAL_RANK)[ =:]{1,2}(\d+)\b|\[PG[^\]]*\bRank (\d+)\]")


@dataclass(frozen=True, slots=True)
class Line:
    source: str  # name of the file, or "" for a text
    number: int  # 1-based, in the original
    text: str  # without its prefixes
    rank: int | None
    host: str | None
    time: str | None  # as printed
    clock: tuple[int, float] | None  # (how much of a date it has, seconds): comparable where the first parts agree
    level: str  # "debug" | "info" | "warning" | "error" | ""
    native: bool  # said by C++ (c10d), whose warnings are often all there is


def parse(raw: str, number: int, source: str = "", rank: int | None = None, host: str | None = None) -> Line:
    """`rank` and `host` are those of the file, for lines that do not say."""
    text = shortened(raw)
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    elif "m" in text[:6] or "[0m" in text:
        text = _BARE_COLOUR.sub("", text)
    if "\r" in text:
        text = max(text.rstrip("\r").split("\r")[-2:], key=lambda part: (not _BAR.match(part), len(part)), default="")
    body, level, time, clock, native = text, "", None, None, False
    for _ in range(9):
        if "%|" in body[:120] and (bar := _BAR.match(body)) and body[bar.end() :].strip():
            body = body[bar.end() :].lstrip()
        for pattern in _PREFIXES:
            found = pattern.match(body)
            if found and found.end():
                break
        else:
            break
        parts = found.groupdict()
        if parts.get("rank"):
            rank = int(parts["rank"])
        if more := parts.get("more"):
            rank = _rank_of(more, rank)
            host = next((word.partition("=")[2] for word in re.split("[ ,]+", more) if word.startswith("ip=")), host)
        if tag := parts.get("tag"):
            rank = next((int(word[2:]) for word in tag.split() if word.startswith("TP")), rank)
        host = parts.get("host") or host
        level = _level(parts) or level
        native = native or bool(parts.get("file"))
        if parts.get("h") and time is None:
            time, clock = _clock(parts)
        body = body[found.end() :]
    if rank is None and (said := _RANK.search(body)):
        rank = int(said[1] or said[2])
    return Line(source, number, body, rank, host, time, clock, level, native)


def shortened(raw: str) -> str:
    """A line of ten megabytes is looked at where it begins and where it ends."""
    return raw if len(raw) <= LONGEST else f"{raw[: LONGEST - _END]} … {raw[-_END:]}"


def _rank_of(more: str, rank: int | None) -> int | None:
    found = re.search(r"\b(?:rank|local_rank|tp_rank)=(\d+)", more)
    return int(found[1]) if found else rank


def _level(parts: dict[str, str | None]) -> str:
    word = (parts.get("word") or parts.get("level") or "").lower()
    return {
        "w": "warning", "warn": "warning", "warning": "warning", "e": "error", "error": "error", "f": "error",
        "critical": "error", "fatal": "error", "i": "info", "info": "info", "notice": "info", "success": "info",
        "debug": "debug", "trace": "debug",
    }.get(word, "")  # fmt: skip


def _clock(parts: dict[str, str | None]) -> tuple[str, tuple[int, float]]:
    """The time as printed, and as seconds since some day; years and months have 372 and 31 days, for order only."""
    seconds = int(parts["h"] or 0) * 3600 + int(parts["m"] or 0) * 60 + float((parts["s"] or "0").replace(",", "."))
    said = f"{parts['h']}:{parts['m']}:{parts['s']}"
    if not parts.get("D"):
        return said, (0, seconds)
    month = int(parts.get("M") or _MONTHS.get((parts.get("mon") or "").lower(), 0))
    days = month * 31 + int(parts["D"] or 0)
    day = f"{month:02}-{int(parts['D'] or 0):02}"
    if parts.get("Y"):
        return f"{parts['Y']}-{day} {said}", (2, (int(parts["Y"] or 0) * 372 + days) * 86400 + seconds)
    return f"{day} {said}", (1, days * 86400 + seconds)
