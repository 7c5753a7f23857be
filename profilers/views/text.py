"""A profile for a terminal or a log: the headline, where the time went, what to change, what was left out.

No line is wider than asked. Nothing is told by colour. The percentages of the account add up to exactly 100.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..ledger import CAUSES, Entry, Ledger
from ..profile import Finding, Profile, StepTimes, Trial
from .columns import columns, crop, pad, plain, wrap
from .memory import memory_text
from .shares import Shares
from .stacks import lines_text
from .units import duration, ms, places, rate, ratio, size, three

LABEL, NUMBER, SHARE = 14, 10, 7  # columns of the account; the bar has the rest
_SMALL = 0.01  # entries below this share of the wall time are summed up, unless they are their cause's largest
_EIGHTHS = "▏▎▍▌▋▊▉"
_HEIGHTS = "▁▂▃▄▅▆▇█"


def profile_text(profile: Profile, width: int = 80) -> str:
    """The whole profile in lines of at most `width` columns (40 at least)."""
    width = max(40, width)
    blocks = (
        headline(profile, width),
        [*account(profile.ledger, width), *wrap(bases(profile), width)]
        if profile.ledger
        else phases(profile.steps, width),
        lines_text(profile.lines, width),
        memory_text(profile.memory_use, width),
        steps(profile.steps, width),
        findings(profile.findings, width),
        trials(profile.trials, width),
        _listed("Memory", memory_items(profile), width),
        _listed("Environment", [f"{key} {value}" for key, value in list(profile.environment.items())[:40]], width),
        notes(profile, width),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def headline(profile: Profile, width: int) -> list[str]:
    """Title; step, rate and utilisation; what each of them means."""
    created = profile.created.replace("T", " ").removesuffix("+00:00").removesuffix("Z")
    title = crop(profile.title, width)
    lines = [title, crop(f"{created} UTC · {profile.ledger.basis.device if profile.ledger else 'light mode'}", width)]
    lines += ["─" * width, *wrap(" · ".join(headline_numbers(profile)), width, "  "), ""]
    for sentence in headline_sentences(profile):
        lines += wrap(sentence, width, "  ", most=3)
    return lines


def headline_numbers(profile: Profile) -> list[str]:
    """["71.3 ms a step", "14.0 steps/s", "MFU 23.4 %"]."""
    median, ledger = profile.steps.median, profile.ledger
    if not median:
        return ["no step was measured"]
    numbers = [f"{duration(median)} a step", f"{1e9 / median:.3g} steps/s"]
    if ledger and ledger.mfu is not None:
        shares = Shares.of(ledger)
        numbers.append(f"MFU {shares.mfu:.1f} %")
        if ledger.nanoseconds("recompute"):
            numbers.append(f"HFU {shares.hfu:.1f} %")
    return numbers


def headline_sentences(profile: Profile) -> Iterator[str]:
    """What the headline's numbers are medians and shares of."""
    times, ledger = profile.steps, profile.ledger
    if times.clean:
        low, high = times.quartiles
        yield f"A step is one {times.unit}; median of {len(times.clean)} clean steps, half of them within {duration(low)} to {duration(high)}."
    elif times.median:
        yield f"A step is one {times.unit}; no clean step, so the median is of {'profiled' if times.window else 'warm-up'} steps."
    if ledger is None:
        return
    basis = ledger.basis
    if basis.peak_flops:
        used = "" if basis.dtype_used == basis.dtype else f" The run used {basis.dtype_used}."
        yield f"MFU is of {rate(basis.peak_flops)} {basis.dtype}, {basis.peak_source}.{used} Convention {basis.convention}."
    else:
        yield f"No MFU: the peak of {basis.device} is not known, so operators count as time only."


def account(ledger: Ledger, width: int) -> list[str]:
    """The waterfall: each cause begins where the one above it ends; below it its phases and their first evidence."""
    step = ledger.wall_ns / ledger.steps
    decimals, room = places(step), width - LABEL - NUMBER - SHARE
    shares = Shares.of(ledger).by_cell

    def numbers(entries: Sequence[Entry]) -> str:
        ns = sum(e.nanoseconds for e in entries) / ledger.steps
        return f"{ms(ns, decimals):>{NUMBER}}{sum(shares[e.phase, e.cause] for e in entries):>{SHARE}.1f}"

    lines = [f"{pad('Where the time went', LABEL + room)}{'ms/step':>{NUMBER}}{'%':>{SHARE}}"]
    began = 0
    for cause in CAUSES:
        entries = sorted((e for e in ledger.entries if e.cause == cause), key=lambda e: -e.nanoseconds)
        spent = sum(e.nanoseconds for e in entries)
        if not spent:
            continue
        lines.append(pad(cause, LABEL) + pad(bar(began, spent, ledger.wall_ns, room - 1), room) + numbers(entries))
        began += spent
        shown = [e for i, e in enumerate(entries) if i == 0 or e.share >= _SMALL]
        small = entries[len(shown) :]
        for entry in shown:
            said = pad(f"  {pad(entry.phase, LABEL - 2)}{_first_evidence(entry, room - 2)}", LABEL + room)
            lines.append((said + (numbers([entry]) if len(entries) > 1 else "")).rstrip())
        if small:
            lines.append(pad(f"  {len(small)} smaller", LABEL + room) + numbers(small))
    lines.append(pad(f"a profiled step, mean of {ledger.steps}", LABEL + room) + numbers(ledger.entries))
    by_phase = ", ".join(f"{phase} {ms(ns / ledger.steps, decimals)}" for phase, ns in ledger.by_phase().items())
    return [*lines, "", *wrap(f"By phase, ms/step: {by_phase}.", width)]


def bases(profile: Profile) -> str:
    """Why the ledger's total, the headline and the findings' predictions are of three lengths of a step."""
    times, ledger = profile.steps, profile.ledger
    if ledger is None:
        return ""
    step, profiler = ledger.wall_ns / ledger.steps, ledger.nanoseconds("measurement") / ledger.steps
    said = f"The ledger and the findings are of the {ledger.steps} profiled steps, {duration(step)} each on average"
    if profiler:
        said += f" ({duration(profiler)} of it the profiler's own, which predictions leave out)"
    if times.clean:
        said += f"; the headline is the median of the {len(times.clean)} clean ones, {duration(times.median)}"
    return said + "."


def bar(began: int, part: int, whole: int, width: int) -> str:
    """█████▌ from where the parts before it end; one eighth of a column at least."""
    left = min(began * width // max(1, whole), width - 1)
    eighths = min(max(1, round(part * width * 8 / max(1, whole))), (width - left) * 8)
    full, rest = divmod(eighths, 8)
    return " " * left + "█" * full + (_EIGHTHS[rest - 1] if rest else "")


def phases(times: StepTimes, width: int) -> list[str]:
    """Light mode: the step clock's medians by phase, which need not add up to the median step."""
    if not times.phases:
        return []
    decimals, room = places(times.median), width - LABEL - NUMBER - SHARE
    lines = [f"{pad('Phases of a step', LABEL + room)}{'ms':>{NUMBER}}{'%':>{SHARE}}"]
    whole, began = max(times.median, sum(times.phases.values()), 1), 0
    for phase, ns in list(times.phases.items())[:20]:
        share = f"{ns / max(1, times.median) * 100:>{SHARE}.1f}"
        lines.append(
            f"{pad(phase, LABEL)}{pad(bar(began, ns, whole, room - 1), room)}{ms(ns, decimals):>{NUMBER}}{share}"
        )
        began += ns
    return [*lines, "", *wrap("Medians of clean steps; they need not add up to the median step.", width)]


def steps(times: StepTimes, width: int) -> list[str]:
    """Every step by its role: what the headline is the median of, and what was left out of it."""
    tallest = max((*times.clean, *times.window), default=0) or max(times.warmup, default=1)
    rows = []
    if times.warmup:
        compiling = f"; {duration(times.compile_ns)} of it compiling" if times.compile_ns else ""
        rows.append((times.warmup, f"{len(times.warmup)} warm-up, excluded: {duration(sum(times.warmup))}{compiling}"))
    if times.clean:
        more = f", {times.dropped} more not kept" if times.dropped else ""
        rows.append((times.clean, f"{len(times.clean)} clean: median {duration(times.median)}{more}"))
    if times.window:
        average = duration(sum(times.window) / len(times.window))
        rows.append((times.window, f"{len(times.window)} profiled: mean {average}"))
    rows += [(walls, f"{len(walls)} {role}, excluded") for role, walls in list(times.excluded.items())[:20] if walls]
    if not rows:
        return []
    strip = min(20, max(len(walls) for walls, _ in rows)) if width >= 60 else 0
    lines = ["Steps" + (f" ({duration(times.total_ns)} in all)" if times.total_ns else "")]
    for walls, said in rows:
        lines.append(crop(f"  {pad(sparkline(walls, tallest, strip), strip)}{'  ' if strip else ''}{said}", width))
    return lines


def sparkline(walls: Sequence[int], tallest: int, most: int) -> str:
    """One letter a step, or a step in every so many; taller than `tallest` is █."""
    every = -(-len(walls) // most) if most else len(walls) + 1
    groups = (max(walls[i : i + every]) for i in range(0, len(walls) if most else 0, every))
    return "".join(_HEIGHTS[min(7, max(0, wall * 7 // max(1, tallest)))] for wall in groups)


def findings(found: Sequence[Finding], width: int) -> list[str]:
    """Numbered as `fix` counts them, each with its prediction and what to type."""
    lines = ["Findings"] if found else []
    for number, finding in enumerate(found[:30], 1):
        gain = predicted_gain(finding)
        lead = f"{number:>2}  "
        lines += [""] if number > 1 else []
        if len(lead) + columns(plain(finding.title)) + len(gain) + 2 <= width:
            lines.append(lead + pad(finding.title, width - len(lead) - len(gain)) + gain)
        else:
            lines += [*_led(lead, finding.title, width, most=3), *wrap(gain, width, "    ")]
        lines += wrap(finding.evidence, width, "    ", most=6) + wrap(finding.advice, width, "    ", most=4)
        if finding.remedy is not None:
            lines += wrap(f"%mlsys fix {number}   ({finding.remedy})", width, "    ", most=2)
    if len(found) > 30:
        lines.append(f"    and {len(found) - 30} more")
    return lines


def predicted_gain(finding: Finding) -> str:
    """Such as: 1.58x predicted, 26.0 ms a step. Empty where nothing could be predicted."""
    parts = [f"{ratio(finding.predicted)} predicted"] if finding.predicted is not None else []
    return ", ".join([*parts, f"{duration(finding.saves_ns)} a step"] if finding.saves_ns else parts)


def trials(tried: Sequence[Trial], width: int) -> list[str]:
    """What was predicted, what was measured, what became of it."""
    lines = ["Tried"] if tried else []
    for trial in tried[:30]:
        lines += wrap(str(trial), width, "    ", most=3)
        lines += wrap(trial_reason(trial), width, "      ", most=4)
    return lines


def trial_numbers(trial: Trial) -> str:
    """Such as: predicted 1.60x, measured 1.52x (1.47 to 1.53), kept."""
    predicted = "no prediction" if trial.predicted is None else f"predicted {ratio(trial.predicted)}"
    measured = measured_ratio(trial.measured, trial.low, trial.high)
    return f"{predicted}, {measured or 'not measured'}, {'kept' if trial.kept else 'not kept'}"


def measured_ratio(measured: float | None, low: float | None, high: float | None) -> str:
    """A measured ratio is never said without its bounds; "" where nothing was measured."""
    if measured is None or low is None or high is None:
        return ""
    return f"measured {ratio(measured)} ({low:.2f} to {high:.2f})"


def trial_reason(trial: Trial) -> str:
    """Why it was kept or not; where the remedy touches numerics, by how much the loss differs."""
    if trial.loss_difference is None:
        return trial.reason
    return f"{trial.reason.rstrip('.')}; {loss_differs(trial.loss_difference)}"


def loss_differs(relative: float) -> str:
    """The one wording for it: the same loop's loss with a remedy, against the loss without."""
    by = f"differs by {three(relative * 100)} %" if relative else "is the same"
    return f"the mean loss of the same steps {by}"


def notes(profile: Profile, width: int) -> list[str]:
    """What the measurement itself wants to say."""
    said = [*profile.notes, *(profile.ledger.notes if profile.ledger else ())]
    lines = ["Notes"] if said else []
    for note in said[:30]:
        lines += _led("  - ", note, width, most=5)
    return lines


def memory_items(profile: Profile) -> list[str]:
    """["host peak 1.23 GiB", …], with no item for what was not measured."""
    memory = profile.memory
    if memory is None:
        return []
    device = {"peak": memory.device_peak, "reserved": memory.device_reserved, "total": memory.device_total}
    return [f"host peak {size(memory.host_peak)}"] + [
        f"device {name} {size(count)}" for name, count in device.items() if count is not None
    ]


def _first_evidence(entry: Entry, room: int) -> str:
    if not entry.evidence:
        return ""
    first = entry.evidence[0]
    count = f" ×{first.count}" if first.count > 1 else ""
    return crop(first.what, max(1, room - len(count))) + count


def _led(lead: str, text: str, width: int, most: int) -> list[str]:
    """Wrapped lines, `lead` standing before the first."""
    first, *more = wrap(text, width, " " * len(lead), most) or [""]
    return [lead + first[len(lead) :], *more]


def _listed(head: str, items: Sequence[str], width: int) -> list[str]:
    return [head, *wrap(" · ".join(items), width, "  ", most=8)] if items else []
