"""A profile as one `<div>`: what a step costs, where it went, what to change; then what that rests on.

It needs no script, no network and no font of its own, and can be read as plain tables where its style is taken away.
Every text goes through `markup.tag`, which escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..ledger import CAUSES, Ledger
from ..profile import Finding, OperatorRow, Profile, StepTimes, Trial
from .columns import crop
from .markup import LONGEST, Markup, joined, name, tag
from .memory import memory_html
from .palette import colour
from .shares import Shares
from .stacks import lines_html
from .style import SCOPE, STYLE
from .svg import strip, waterfall
from .text import bases, headline_numbers, headline_sentences, memory_items, trial_reason
from .units import bandwidth, duration, ms, number, percent, places, rate, ratio

_OPEN_ROWS, _MOST_ROWS = 12, 60
_NONE = tag("td", "·", class_="none roomy")


def profile_html(profile: Profile) -> str:
    """Self-contained; the style comes with it, under its own class."""
    return view(
        heading(profile),
        account(profile.ledger, bases(profile)) if profile.ledger else phases(profile.steps),
        lines_html(profile.lines),
        findings(profile.findings),
        trials(profile.trials),
        step_times(profile.steps),
        operators(profile),
        memory_html(profile.memory_use),
        section("Memory", tag("p", " · ".join(memory_items(profile)))) if profile.memory else None,
        notes(profile),
        environment(profile),
    )


def view(*parts: Markup | None) -> Markup:
    """The scope that the style belongs to."""
    return tag("div", tag("style", Markup(STYLE)), *parts, class_=SCOPE)


def section(title: str, *parts: object) -> Markup:
    """A heading and what is under it."""
    return tag("section", tag("h3", title), *parts)


def table(heads: Sequence[Markup], rows: Iterable[Markup], foot: Markup | None = None) -> Markup:
    """Scrolls by itself where the page is too narrow."""
    parts = (tag("thead", tag("tr", *heads)), tag("tbody", *rows), tag("tfoot", foot) if foot else None)
    return tag("div", tag("table", *parts), class_="wide")


def heads(left: Sequence[str], right: Sequence[str], where: str = "") -> list[Markup]:
    """Column heads, texts first, then numbers. `where` there is room: "" everywhere | "roomy" | "spare"."""
    columns = [tag("th", head, scope="col", class_=f"left {where}".strip()) for head in left]
    return [*columns, *(tag("th", head, scope="col", class_=where or None) for head in right)]


def heading(profile: Profile) -> Markup:
    """Title, the headline's numbers, and what they are medians and shares of."""
    made = profile.created.replace("T", " ").removesuffix("+00:00").removesuffix("Z")
    device = profile.ledger.basis.device if profile.ledger else "light mode: step times only"
    tiles = [tag("div", tag("b", value), tag("span", label)) for value, label in map(_tile, headline_numbers(profile))]
    return tag(
        "header",
        tag("h2", profile.title),
        tag("p", f"{made} UTC · ", device, class_="soft"),
        tag("div", *tiles, class_="numbers"),
        *(tag("p", sentence, class_="soft") for sentence in headline_sentences(profile)),
    )


def account(ledger: Ledger, said: str = "") -> Markup:
    """The waterfall, and the table that is its legend: cause × phase, ms a step, darker where more went.

    `said` is what its total has to do with the headline.
    """
    phases_seen, decimals = list(ledger.by_phase()), places(ledger.wall_ns / ledger.steps)
    cells = {(entry.phase, entry.cause): entry.nanoseconds for entry in ledger.entries}
    shares, most = Shares.of(ledger).by_cause, max(cells.values(), default=1)

    def cell(phase: str, cause: str) -> Markup:
        if not (ns := cells.get((phase, cause), 0)):
            return _NONE
        shade = f"background:rgba(74,143,208,{0.06 + 0.5 * ns / most:.2f})"
        return tag("td", ms(ns / ledger.steps, decimals), class_="roomy", style=shade)

    rows = [
        tag(
            "tr",
            tag(
                "td",
                tag("span", class_="swatch", style=f"background:{colour(cause)}"),
                cause,
                class_="left",
                title=CAUSES[cause],
            ),
            *(cell(phase, cause) for phase in phases_seen),
            tag("td", ms(ns / ledger.steps, decimals)),
            tag("td", f"{shares[cause]:.1f}"),
        )
        for cause, ns in ledger.by_cause().items()
    ]
    sums = [tag("td", ms(ns / ledger.steps, decimals), class_="roomy") for ns in ledger.by_phase().values()]
    whole = tag("td", ms(ledger.wall_ns / ledger.steps, decimals))
    foot = tag("tr", tag("td", f"mean of {ledger.steps} profiled", class_="left"), *sums, whole, tag("td", "100.0"))
    return section(
        "Where the time of a step went",
        waterfall(ledger),
        table([*heads(["cause"], []), *heads([], phases_seen, "roomy"), *heads([], ["ms/step", "%"])], rows, foot),
        tag("p", said, class_="soft") if said else None,
        evidence(ledger),
    )


def evidence(ledger: Ledger) -> Markup:
    """What each entry rests on, largest first; closed until asked for."""
    decimals = places(ledger.wall_ns / ledger.steps)
    rows = [
        tag(
            "tr",
            tag("td", f"{entry.cause}, {entry.phase}" if i == 0 else "", class_="left"),
            tag("td", name(item.what), class_="left break"),
            tag("td", f"{item.count}"),
            tag("td", ms(item.nanoseconds / ledger.steps, decimals)),
        )
        for entry in ledger.entries
        for i, item in enumerate(entry.evidence[:5])
    ]
    words = [tag("li", tag("b", cause), f": {CAUSES[cause]}") for cause in ledger.by_cause()]
    return tag(
        "details",
        tag("summary", "Evidence for each entry, and what the causes mean"),
        table(heads(["entry", "evidence"], ["count", "ms/step"]), rows),
        tag("ul", *words),
    )


def phases(times: StepTimes) -> Markup | None:
    """Light mode: medians by phase."""
    if not times.phases:
        return None
    decimals = places(times.median)
    rows = [
        tag(
            "tr",
            tag("td", phase, class_="left"),
            tag("td", ms(ns, decimals)),
            tag("td", f"{ns / max(1, times.median) * 100:.1f}"),
        )
        for phase, ns in list(times.phases.items())[:20]
    ]
    said = "Medians of clean steps; they need not add up to the median step."
    return section("Phases of a step", table(heads(["phase"], ["ms", "%"]), rows), tag("p", said, class_="soft"))


def findings(found: Sequence[Finding]) -> Markup | None:
    """Numbered as `fix` counts them."""
    if not found:
        return None
    more = tag("p", f"and {len(found) - 30} more", class_="soft") if len(found) > 30 else None
    return section(
        "Findings", tag("ol", *(_finding(i, f) for i, f in enumerate(found[:30], 1)), class_="findings"), more
    )


def _finding(number: int, finding: Finding) -> Markup:
    gain = (
        [tag("b", _times(finding.predicted)), tag("span", "predicted", class_="soft")]
        if finding.predicted is not None
        else []
    )
    saves = tag("div", f"{duration(finding.saves_ns)} a step", class_="soft") if finding.saves_ns else None
    remedy = tag("code", f"%mlsys fix {number}", class_="type") if finding.remedy is not None else None
    what = (
        tag("div", finding.title, class_="title"),
        tag("div", prose(finding.evidence)),
        tag("div", prose(finding.advice)),
        remedy,
    )
    return tag("li", tag("div", number, class_="nth"), tag("div", *what), tag("div", *gain, saves, class_="gain"))


def prose(text: str) -> Markup:
    """A sentence whose `code` is in backticks."""
    parts = crop(text, LONGEST).split("`")
    return joined(*(tag("code", part) if i % 2 else part for i, part in enumerate(parts)))


def trials(tried: Sequence[Trial]) -> Markup | None:
    """Predicted beside measured, and what became of it."""
    if not tried:
        return None
    return section("Tried", tag("ol", *map(_trial, tried[:30]), class_="findings"))


def _trial(trial: Trial) -> Markup:
    said = f"{'kept' if trial.kept else 'not kept'}: {trial_reason(trial)}"
    what = (tag("div", name(trial.remedy, 200)), tag("div", prose(said)))
    predicted = None if trial.predicted is None else tag("div", f"{_times(trial.predicted)} predicted", class_="soft")
    if trial.measured is None or trial.low is None or trial.high is None:
        numbers = [tag("div", "not measured", class_="soft")]
    else:
        bounds = tag("div", f"measured, {trial.low:.2f} to {trial.high:.2f}", class_="soft")
        numbers = [tag("b", _times(trial.measured)), bounds]
    gain = tag("div", *numbers, predicted, class_="gain")
    return tag("li", tag("div", "✓" if trial.kept else "–", class_="nth"), tag("div", *what), gain)


def step_times(times: StepTimes) -> Markup | None:
    """Every step, with those the headline leaves out."""
    picture = strip(times)
    if picture is None:
        return None
    said = {
        "warmup": f"{len(times.warmup)} warm-up, {duration(sum(times.warmup))}, excluded",
        "clean": f"{len(times.clean)} clean, median {duration(times.median)} (dashed)",
        "window": f"{len(times.window)} profiled, mean {duration(sum(times.window) / max(1, len(times.window)))}",
    }
    if times.compile_ns:
        said["warmup"] += f"; {duration(times.compile_ns)} of it compiling"
    if times.dropped:
        said["clean"] += f", {times.dropped} more not kept"
    legend = [
        tag("span", tag("span", class_=f"swatch {role}"), words) for role, words in said.items() if getattr(times, role)
    ]
    if times.excluded:
        others = ", ".join(f"{len(walls)} {role}" for role, walls in list(times.excluded.items())[:20])
        legend.append(tag("span", f"excluded too: {others}"))
    whole = tag("span", f"{duration(times.total_ns)} in all") if times.total_ns else None
    return section("Steps", picture, tag("div", *legend, whole, class_="legend"))


def operators(profile: Profile) -> Markup | None:
    """The largest by time, each with the limit that binds it and how much of that limit it reaches."""
    rows = sorted(profile.operators, key=lambda row: -row.nanoseconds)[:_MOST_ROWS]
    if not rows:
        return None
    steps = profile.ledger.steps if profile.ledger else max(1, len(profile.steps.window))
    wall = profile.ledger.wall_ns if profile.ledger else None
    columns = [
        *heads(["operator"], []),
        *heads(["phase"], ["calls/step"], "spare"),
        *heads([], ["ms/step", "% of step"]),
        *heads([], ["rate"], "spare"),
        *heads([], ["bound", "of its roofline"], "roomy"),
    ]
    written = [_operator(row, steps, wall, places(rows[0].nanoseconds / steps)) for row in rows]
    more = None
    if len(written) > _OPEN_ROWS:
        left_out = f" of {len(profile.operators)}" if len(profile.operators) > len(rows) else ""
        summary = tag("summary", f"Operators {_OPEN_ROWS + 1} to {len(rows)}{left_out}")
        more = tag("details", summary, table(columns, written[_OPEN_ROWS:]))
    return section("Operators", table(columns, written[:_OPEN_ROWS]), more)


def _operator(row: OperatorRow, steps: int, wall: int | None, decimals: int) -> Markup:
    reached = "" if row.nanoseconds <= 0 else rate(row.flops * 1e9 / row.nanoseconds) if row.flops else ""
    if not reached and row.bytes and row.nanoseconds > 0:
        reached = bandwidth(row.bytes * 1e9 / row.nanoseconds)
    gauge = None
    if row.roofline is not None:
        part = f"--part:{min(1.0, max(0.0, row.roofline)) * 100:.0f}%"
        gauge = joined(percent(row.roofline), tag("span", class_="gauge", style=part))
    return tag(
        "tr",
        tag(
            "td",
            name(row.name),
            " ",
            tag("span", name(f"{row.shapes} {row.dtype}", 60), class_="soft"),
            class_="left break",
        ),
        tag("td", row.phase, class_="left spare"),
        tag("td", number(row.calls / steps), class_="spare"),
        tag("td", ms(row.nanoseconds / steps, decimals)),
        tag("td", f"{row.nanoseconds / wall * 100:.1f}" if wall else ""),
        tag("td", reached, class_="spare"),
        tag("td", row.bound, class_="roomy"),
        tag("td", gauge, class_="roomy"),
    )


def notes(profile: Profile) -> Markup | None:
    """What the measurement itself wants to say."""
    said = [*profile.notes, *(profile.ledger.notes if profile.ledger else ())]
    return section("Notes", tag("ul", *(tag("li", note) for note in said[:40]))) if said else None


def environment(profile: Profile) -> Markup | None:
    """Where it was measured; closed until asked for."""
    if not profile.environment:
        return None
    rows = [
        part for key, value in list(profile.environment.items())[:60] for part in (tag("dt", key), tag("dd", value))
    ]
    return tag("details", tag("summary", "Environment"), tag("dl", *rows))


def _tile(number: str) -> tuple[str, str]:
    """("69.0 ms", "a step"), ("14.5", "steps/s"), ("19.2 %", "MFU"): the value large, the rest small below it."""
    if number.startswith(("MFU ", "HFU ")):
        return number[4:], number[:3]
    value, _, label = number.partition(" a ")
    if label:
        return value, f"a {label}"
    value, _, label = number.partition(" steps/s")
    return (value, "steps/s") if number.endswith(" steps/s") else (number, label)


def _times(value: float | None) -> str:
    return ratio(value).replace("x", "×")
