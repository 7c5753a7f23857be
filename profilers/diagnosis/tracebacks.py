"""Which lines of a log belong to a traceback, and what part each plays.

Source lines quoted in a traceback hold any words at all (`raise RuntimeError("out of memory")`), so they never count as
something that happened; the last line of a traceback is the one thing it says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from .lines import Line

Kind = Literal["log", "header", "frame", "source", "exception", "noise"]

_HEADER = re.compile(r"^\s*(?:\S.{0,80}\s)?Traceback \(most recent call")
_FRAME = re.compile(
    r"^\s*(?:File \"[^\"]*\", line \d+|(?:Cell )?In ?\[\d+\],? line \d+|<ipython-input-[^>]*>|File \S+:\d+, in |frame #\d+: "
    r"|\S+\.py(?::\d+)?(?: in \w+\(|:\d+: in )|#\d+ +0x[0-9a-f]+)"
)
_SOURCE = re.compile(
    r"^\s+(?:\^|~)[\^~ ]*$|^\s*(?:❱|-+>)?\s*\d+\s{1,8}(?:\s{3}|[│|])|^\s*(?:❱|-+>)\s*\d+ |^\s*[╭╰─│]{2,}"
    r"|^\s{2,}(?:raise|return|assert|with|for|if|elif|else|try|except|import|from|yield|await|async|def|class|self\.|[\w.\[\], ]+ = )\b.*"
)
_EXCEPTION = re.compile(
    r"^\s{0,3}\*{0,2}`{0,3}(?:\d+ )?(?P<type>(?:[A-Za-z_][\w]*\.)*(?:Exception|_?[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Failure|Failed|Timeout|TimeoutExpired|Unavailable|Mismatch|Expired|NotFound|Unsupported|Warning|Iteration|Empty|Full|Closed|OutOfResources|Resources|Conflict|Violation|Divergence|Died)|(?:requests|huggingface_hub|urllib3|httpx|botocore|ray|torch|triton|jaxlib|tensorflow|pynvml|subprocess|queue|concurrent|google|grpc)\.(?:\w+\.)*_?[A-Z]\w*))"
    r"(?:: ?(?P<message>.*)|\s*$)"
)
# Whatever its name: the line after a traceback's frames that is not indented.
_LAST = re.compile(r"^(?P<type>(?:[A-Za-z_]\w*\.)*_?[A-Z][a-z]\w*): (?P<message>.*)")
_ANY_EXCEPTION = re.compile(r"^(?:[A-Za-z_]\w*\.)*_?[A-Z]\w*(?:: |$)")
_NOISE = re.compile(
    r"^\s*(?:Extension modules: |args: |Namespace\(|.{0,60}with config: |server_args=|.{0,40}non-default args)"
)


def exception_of(text: str, last: bool = False) -> tuple[str, str] | None:
    """(type without its module, message) where the line looks like the last of a traceback, or is known to be it."""
    found = _EXCEPTION.match(text) or (_LAST.match(text) if last else None)
    if not found or found["type"].endswith("Warning"):
        return None
    return found["type"].rpartition(".")[2], (found["message"] or "").strip()


def kinds(lines: Sequence[Line]) -> list[Kind]:
    """One a line. Interleaved ranks are followed one by one."""
    found: list[Kind] = []
    before: dict[tuple[str, int | None], Kind] = {}
    for line in lines:
        who = (line.source, line.rank)
        part = before.get(who, "log")
        kind = _kind(line.text, after_frame=part == "frame", in_traceback=part in ("frame", "source"))
        before[who] = "log" if "frame #" in line.text else kind
        found.append(kind)
    return found


def cut_off(lines: Sequence[Line], kinds: Sequence[Kind]) -> list[int]:
    """The last line of every traceback whose exception is not in the text. Frames without a header that others follow
    are the stack of a process that goes on."""
    open_: dict[tuple[str, int | None], int] = {}
    headed: set[tuple[str, int | None]] = set()
    for index, (line, kind) in enumerate(zip(lines, kinds, strict=True)):
        who = (line.source, line.rank)
        if kind == "header":
            headed.add(who)
        if kind in ("header", "frame") or (kind == "source" and who in open_):
            if "frame #" not in line.text:
                open_[who] = index
        elif (
            who in open_
            and line.text.strip()
            and (kind == "exception" or _ANY_EXCEPTION.match(line.text) or who not in headed)
        ):
            del open_[who]
            headed.discard(who)
    return sorted(open_.values())


def _kind(text: str, *, after_frame: bool, in_traceback: bool) -> Kind:
    if _HEADER.match(text):
        return "header"
    if _FRAME.match(text):
        return "frame"
    if _NOISE.match(text):
        return "noise"
    if _EXCEPTION.match(text) or (in_traceback and _LAST.match(text)):
        return "exception"
    if _SOURCE.match(text) or (after_frame and text.startswith((" ", "\t"))):
        return "source"
    return "log"
