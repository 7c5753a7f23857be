"""Ways to spoil a trace: what a crashed job, a bad disk or a hostile hand makes of a file."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable

from memorystories import kineto, training
from tracefiles import DIALECTS, document, x

MESSAGE = {
    "Collective name": "allreduce",
    "In msg nelems": 9,
    "dtype": "Float",
    "Process Group Ranks": "[0, 1]",
    "Group size": 2,
}
HUGE = [2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 10**400, -1, 1e308, 5e-324]
WRONG = [None, True, [], {}, "", "x" * 5000, "\u0000", "<b>", [[]], {"a": {}}, 1.5, "NaN", "-7", *HUGE]
TIMES = ("ts", "dur")


def truncated(content: bytes, rnd: random.Random) -> bytes:
    return content[: rnd.randrange(len(content))]


def flipped(content: bytes, rnd: random.Random) -> bytes:
    """One to thirty bits."""
    spoiled = bytearray(content)
    for _ in range(rnd.randrange(1, 30)):
        spoiled[rnd.randrange(len(spoiled))] ^= 1 << rnd.randrange(8)
    return bytes(spoiled)


def spliced(content: bytes, rnd: random.Random) -> bytes:
    """A piece cut out, doubled, or put elsewhere."""
    a, b = sorted(rnd.randrange(len(content)) for _ in range(2))
    piece, at = content[a:b], rnd.randrange(len(content))
    rest = rnd.choice([content[:a] + content[b:], content])
    return rest[:at] + piece * rnd.randrange(3) + rest[at:]


def retyped(content: bytes, rnd: random.Random) -> bytes:
    """Some fields of some events become something else, or vanish."""
    events = _events(content)
    for event in rnd.sample(events, min(len(events), rnd.randrange(1, 20))):
        key = rnd.choice([*event, "args", "name", "ph"])
        target = (
            event["args"] if key == "args" and isinstance(event.get("args"), dict) and rnd.random() < 0.7 else event
        )
        key = rnd.choice([*target, "correlation", "External id"]) if target is not event else key
        if rnd.random() < 0.2:
            target.pop(key, None)
        else:
            target[key] = rnd.choice(WRONG)
    rnd.shuffle(events)
    header = {
        "distributedInfo": rnd.choice(WRONG),
        "deviceProperties": rnd.choice([*WRONG, [{"name": rnd.choice(WRONG)}]]),
    }
    return json.dumps({**header, "traceEvents": rnd.choice([events, events, events, rnd.choice(WRONG)])}).encode()


def untimed(content: bytes, rnd: random.Random) -> bytes:
    """Huge, negative and crossing times."""
    events = _events(content)
    for event in rnd.sample(events, min(len(events), rnd.randrange(1, 60))):
        key = rnd.choice(TIMES)
        if isinstance(event.get(key), int | float):
            event[key] = rnd.choice(
                [*HUGE, event[key] * rnd.random(), -event[key], event[key] + rnd.randrange(-1000, 1000)]
            )
    return json.dumps({"traceEvents": events}).encode()


def nested(content: bytes, rnd: random.Random) -> bytes:
    depth = rnd.choice([10, 1000, 100_000])
    deep = rnd.choice([b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth, b"[" * depth])
    at = content.find(b'"ts"', rnd.randrange(len(content)))
    return content[:at] + b'"deep": ' + deep + b", " + content[at:]


def unreal(content: bytes, rnd: random.Random) -> bytes:
    """NaN for numbers, control characters and bad escapes in strings."""
    for _ in range(rnd.randrange(1, 9)):
        at = content.find(rnd.choice([b": 1", b'"aten', b": "]), rnd.randrange(len(content)))
        junk = rnd.choice([b"NaN, ", b"-Infinity", b"\x00", b"\\x", b'"', b"\xff\xfe", b"1e999", b"\n"])
        content = content[: at + 3] + junk + content[at + 3 :]
    return content


def packed(content: bytes, rnd: random.Random) -> bytes:
    """Compressed, and then spoiled."""
    return rnd.choice([truncated, flipped, spliced])(gzip.compress(content, 1), rnd)


def _events(content: bytes) -> list[dict]:
    document = json.loads(content)
    events = document if isinstance(document, list) else document["traceEvents"]
    return [e for e in events if isinstance(e, dict)]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncated, flipped, spliced, retyped, untimed, nested, unreal, packed,
)  # fmt: skip
OURS = [
    *(
        content
        for name, content in DIALECTS.items()
        if name not in ("a list without end", "trailing comma", "with a mark")
    ),
    kineto(training(1, steps=5, leak=100)),
    document(
        [x("kernel", "ncclDevKernel_AllReduce", 0, 7, i * 100, 50, **MESSAGE) for i in range(20)],
        distributedInfo={"rank": 0},
    ),
]
