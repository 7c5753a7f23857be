"""A profile as JSON text: versioned, refused unless it is whole and coherent, never beyond 1 MB.

Where everything does not fit, the smallest operators, long texts and step times give way, and a note says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace

from .allocations import CATEGORIES, MemoryUse, thinned as thinned_instants
from .errors import UsageError
from .ledger import CAUSES, PHASES, Ledger
from .profile import SCHEMA, Profile, StepTimes
from .schema import mapped, pack, unpack

FORMAT = "mlsys.profile"
MOST_BYTES = 1_000_000


def write(profile: Profile) -> str:
    """ASCII JSON; what `read` returns for it equals `profile`, unless that is too large."""
    text = _dumps(profile)
    for rows, letters in ((2000, 4000), (500, 1000), (100, 200), (10, 60)):
        if len(text) <= MOST_BYTES:
            break
        text = _dumps(_condensed(profile, rows, letters))
    return text


def read(text: str) -> Profile:
    """The profile in `text`, which anybody may have written."""
    if len(text) > 2 * MOST_BYTES:
        raise UsageError(f"not a profile: {len(text):,} letters, and a profile has at most {MOST_BYTES:,}")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("not a profile: the text is not JSON, or was cut off") from error
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise UsageError(f"not a profile: the text is JSON, but not of the format {FORMAT!r}")
    schema = data.get("schema")
    if type(schema) is not int or schema != SCHEMA:
        raise UsageError(
            f"a profile of schema {str(schema)[:20]!r}, and this mlsys-studio reads {SCHEMA}: profile again"
        )
    profile = unpack(Profile, data, "profile")
    for complaint in _incoherences(profile):
        raise UsageError(f"not a profile: {complaint}")
    return profile


def thinned(walls: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most `most` of them, evenly by rank, in their own order; their median stays what it was."""
    if len(walls) <= most:
        return walls
    ranked = sorted(range(len(walls)), key=lambda i: walls[i])
    half, centre = (most - 1) // 2, len(walls) // 2
    below = [ranked[centre * k // half] for k in range(half)]
    above = [ranked[centre + (len(walls) - 1 - centre) * (k + 1) // half] for k in range(half)]
    return tuple(walls[i] for i in sorted({*below, ranked[centre], *above}))


def _dumps(profile: Profile) -> str:
    return json.dumps({"format": FORMAT, **pack(profile)}, allow_nan=False, separators=(",", ":"))


def _condensed(profile: Profile, rows: int, letters: int) -> Profile:
    """`rows` operators, and everything else of unbounded length in proportion."""
    few = max(3, rows // 10)
    kept = sorted(profile.operators, key=lambda row: -row.nanoseconds)[:rows]
    rest = sum(row.nanoseconds for row in profile.operators) - sum(row.nanoseconds for row in kept)
    left_out = len(profile.operators) - len(kept)
    said = [f"{left_out} operators, {rest / 1e6:.3g} ms in all"] if left_out else []
    steps = profile.steps
    thin = {role: thinned(getattr(steps, role), 10 * rows) for role in ("warmup", "clean", "window")}
    if dropped := sum(len(getattr(steps, role)) - len(walls) for role, walls in thin.items()):
        said.append(f"{dropped} step times, evenly by rank")
    said.append(f"texts beyond {letters} letters, long lists beyond {few}")
    note = f"left out to stay within 1 MB: {'; '.join(said)}"
    smaller = replace(
        profile,
        operators=tuple(kept),
        steps=replace(
            steps,
            **thin,
            phases=dict(list(steps.phases.items())[:few]),
            excluded={role: thinned(walls, few) for role, walls in list(steps.excluded.items())[:few]},
        ),
        ledger=profile.ledger and _condensed_ledger(profile.ledger, few),
        lines=profile.lines[:few],
        memory_use=profile.memory_use and _condensed_memory(profile.memory_use, few),
        findings=profile.findings[:few],
        trials=profile.trials[:few],
        kept=profile.kept and profile.kept[:few],
        environment=dict(list(profile.environment.items())[:few]),
        notes=profile.notes[: few - 1],
    )
    smaller = mapped(smaller, lambda text: text if len(text) <= letters else text[: letters - 1] + "…")
    return replace(smaller, notes=(*smaller.notes, note))


def _condensed_ledger(ledger: Ledger, few: int) -> Ledger:
    entries = tuple(replace(entry, evidence=entry.evidence[: min(few, 5)]) for entry in ledger.entries)
    return replace(ledger, entries=entries, notes=ledger.notes[:few])


def _condensed_memory(use: MemoryUse, few: int) -> MemoryUse:
    timeline = tuple(thinned_instants(use.timeline, use.length, max(50, few)))
    return replace(use, timeline=timeline, largest=use.largest[:few])


def _incoherences(profile: Profile) -> Iterator[str]:
    """What types cannot say: times are not negative, and a ledger adds up."""
    if _least(profile.steps) < 0:
        yield "a step time is negative"
    if any(min(row.nanoseconds, row.calls, row.flops or 0, row.bytes or 0) < 0 for row in profile.operators):
        yield "an operator has a negative number"
    if profile.disturbed_ns < 0:
        yield "it was disturbed by a negative time"
    if profile.memory and any((getattr(profile.memory, f.name) or 0) < 0 for f in fields(profile.memory)):
        yield "a number of bytes is negative"
    if any(min(0, line.calls, *line.phases.values()) < 0 for line in profile.lines):
        yield "a line has a negative number"
    yield from _memory_incoherences(profile.memory_use)
    ledger = profile.ledger
    if ledger is None:
        return
    cells = {(entry.phase, entry.cause): entry.nanoseconds for entry in ledger.entries}
    if ledger.wall_ns < 1 or ledger.steps < 1:
        yield "its ledger is of no step"
    elif any(phase not in PHASES or cause not in CAUSES for phase, cause in cells):
        yield "its ledger has an unknown phase or cause"
    elif (
        len(cells) < len(ledger.entries) or min(cells.values(), default=0) < 0 or sum(cells.values()) != ledger.wall_ns
    ):
        yield "the entries of its ledger do not add up to the wall time"
    elif any(abs(entry.share - entry.nanoseconds / ledger.wall_ns) > 1e-9 for entry in ledger.entries):
        yield "a share in its ledger is not that of its nanoseconds"
    elif any(min(item.nanoseconds, item.count) < 0 for entry in ledger.entries for item in entry.evidence):
        yield "its ledger has negative evidence"


def _memory_incoherences(use: MemoryUse | None) -> Iterator[str]:
    if use is None:
        return
    if not use.timeline:
        yield "its memory has no timeline"
    if any(len(instant.bytes) != len(CATEGORIES) for instant in use.timeline):
        yield f"an instant of its memory has not {len(CATEGORIES)} categories"
    if any(min(instant.time, *instant.bytes, 0) < 0 for instant in use.timeline) or use.length < 0:
        yield "its memory has a negative number"


def _least(steps: StepTimes) -> int:
    walls = (steps.warmup, steps.clean, steps.window, *steps.excluded.values(), tuple(steps.phases.values()))
    return min(steps.compile_ns, steps.total_ns, steps.dropped, *(time for group in walls for time in group))
