"""Which line of the user's code costs the time: the operators of one step, each at the line that launched it.

A line tracer notes when the loop's thread moves to another line of the user's; torch's profiler notes when operators
run; they meet on the clock. So a line is exact where torch's own stacks know only the function (2.13: an operator
written as `a @ b` has none), and what tracing costs falls between operators, never inside one. An operator of the
backward pass belongs to the forward line that made its node, by autograd's sequence number.
"""

from __future__ import annotations

import bisect
import linecache
import os
import sys
import sysconfig
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from .errors import UsageError
from .forecast import TooLarge, allow, of_stacks
from .phases import Mark, now
from .roles import LINES, LINES_COUNTED
from .timeline import Labels, innermost

if TYPE_CHECKING:
    from .events import Events, HostEvent
    from .kineto import Take
    from .step import StepClock

MOST = 40  # lines kept, by time
ALLOWED = 4  # times as many lines as were counted: a step that runs more is not kept
NODE = "autograd::engine::evaluate_function"
Place = tuple[str, int, str]  # file, line, function


@dataclass(frozen=True, slots=True)
class SourceLine:
    """The operators launched from one line of the user's, in the one step that was traced. Times in ns.

    On a CPU their self times on the loop's thread; on CUDA the times of their kernels and copies.
    """

    file: str  # "cell", or a path; "" for what no line launched
    line: int
    function: str
    text: str
    calls: int
    phases: Mapping[str, int]

    @property
    def where(self) -> str:
        """ "cell line 3", "train.py:12"."""
        if not self.file:
            return "no line"
        return f"cell line {self.line}" if self.file == "cell" else f"{self.file}:{self.line}"

    @property
    def nanoseconds(self) -> int:
        return sum(self.phases.values())


class Stacks:
    """The extra: one step whose lines are counted, then one whose lines and operators are recorded."""

    name = "stacks"

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.done = False
        self.lines: tuple[SourceLine, ...] = ()
        self._progress = progress

    def steps(self, clock: StepClock, shaped: Take) -> Generator[str]:
        from .kineto import Take

        tracer, take = LineTracer(), Take(shaped.device)
        try:
            tracer.start()
            yield LINES_COUNTED
            tracer.stop()
            forecast = of_stacks(shaped.count, tracer.count)
            allow(forecast, "--stacks")
            self._progress(f"stacks: recording one step, {forecast}")
            tracer = LineTracer(ALLOWED * tracer.count)
            take.begin(clock)
            tracer.start()
            yield LINES
            tracer.stop()
            take.finish(clock)
            if tracer.full:
                raise TooLarge(f"the recorded step ran over {ALLOWED} times as many lines as the one before; try again")
            self.lines = by_line(tracer, take.events, take.marks, (take.start, take.end), take.device == "cuda")
            self.done = True
        finally:
            tracer.stop()
            take.off()


class LineTracer:
    """Notes (when, which line) as the calling thread moves through the user's files, at most so often; or only counts.

    The bound also ends a tracer that a loader's worker has inherited by fork.
    """

    def __init__(self, most: int = 0) -> None:
        self.count, self.most = 0, most
        self.times, self.which = array("q"), array("q")
        self.places: dict[Place, int] = {}
        self._on = False
        self._theirs: dict[str, bool] = {}
        self._skipped = skipped()

    def start(self) -> None:
        if sys.gettrace() is not None:
            raise UsageError("a debugger or a coverage tool is tracing this process; run it without")
        self._on = True
        frame = sys._getframe(1)
        sys.settrace(self._called)
        while frame is not None:  # those that run already: the loop's own
            if self._users(frame.f_code.co_filename):
                frame.f_trace = self._moved
            frame = frame.f_back
        self._returned(sys._getframe(1))

    def stop(self) -> None:
        self._on = False
        if sys.gettrace() != self._called:
            return
        sys.settrace(None)
        frame = sys._getframe(1)
        while frame is not None:
            if frame.f_trace == self._moved:
                frame.f_trace = None
            frame = frame.f_back

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self._on or not self._users(frame.f_code.co_filename):
            return None
        self._note(frame)  # a generator goes on in the middle of a line
        return self._moved

    def _moved(self, frame: FrameType, event: str, _: Any) -> Any:
        if not self._on:  # a frame that outlived the step
            return None
        if event == "return":
            self._returned(frame.f_back)
        else:
            self._note(frame)
        return self._moved

    def _returned(self, frame: FrameType | None) -> None:
        """The nearest frame of the user's goes on."""
        while frame is not None and not self._users(frame.f_code.co_filename):
            frame = frame.f_back
        if frame is not None:
            self._note(frame)

    def _note(self, frame: FrameType) -> None:
        self.count += 1
        if self.full:
            self._on = False
        elif self.most:
            code = frame.f_code
            place = (code.co_filename, frame.f_lineno, code.co_qualname)
            self.times.append(now())
            self.which.append(self.places.setdefault(place, len(self.places)))

    def _users(self, file: str) -> bool:
        known = self._theirs.get(file)
        if known is None:
            known = self._theirs[file] = is_users(file, self._skipped)
        return known

    @property
    def full(self) -> bool:
        return self.count > self.most > 0

    def at(self, t: int) -> int:
        """Which line the thread was at; -1 before the first."""
        i = bisect.bisect_right(self.times, t) - 1
        return self.which[i] if i >= 0 else -1


def skipped() -> tuple[str, ...]:
    """Folders whose code is nobody's to change: torch's, ours, Python's, and what runs cells and draws progress bars."""
    found = [Path(__file__).parent.parent / part for part in ("profilers", "studio", "magics")]
    found += [Path(f).parent for name in ("torch", "IPython", "ipykernel", "tqdm") if (f := _file(name))]
    library = Path(sysconfig.get_paths()["stdlib"])
    return tuple(f"{folder}{os.sep}" for folder in (*found, library))


def _file(module: str) -> str:
    return getattr(sys.modules.get(module), "__file__", None) or ""


def is_users(file: str, skipped: Sequence[str]) -> bool:
    """Of a code object's file name. Installed packages are the user's too: a model may come from one."""
    if file.startswith("<"):
        return file.startswith(("<ipython-input", "<stdin"))
    installed = f"{os.sep}site-packages{os.sep}" in file or f"{os.sep}dist-packages{os.sep}" in file
    inside = [folder for folder in skipped if file.startswith(folder)]
    if installed and inside == list(skipped[-1:]):  # below Python's library, and no part of it
        inside = []
    return not inside and "torchinductor_" not in file


def by_line(
    tracer: LineTracer, events: Events, marks: Sequence[Mark], span: tuple[int, int], cuda: bool
) -> tuple[SourceLine, ...]:
    """The largest lines first; their times add up to those of all operators of `span`, but for lines left out."""
    origin = _Origins(tracer, events, marks, span)
    calls: Counter[int] = Counter()
    spent: dict[int, Counter[str]] = defaultdict(Counter)
    for event, ns in (_on_device if cuda else _on_host)(events, span):
        place, phase = origin.of(event)
        calls[place] += 1
        spent[place][phase] += ns
    places = {i: place for place, i in tracer.places.items()}
    largest = sorted(spent, key=lambda i: -spent[i].total())[:MOST]
    return tuple(_source_line(places.get(i), calls[i], dict(spent[i])) for i in largest)


def _source_line(place: Place | None, calls: int, phases: Mapping[str, int]) -> SourceLine:
    if place is None:
        return SourceLine("", 0, "", "", calls, phases)
    file, line, function = place
    return SourceLine(shown(file), line, function, linecache.getline(file, line).strip()[:200], calls, phases)


def shown(file: str) -> str:
    """A file's name for people: a cell is a cell, an installed file begins with its package."""
    if file.startswith("<ipython-input") or f"{os.sep}ipykernel_" in file:
        return "cell"
    for root in (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}"):
        if root in file:
            return file.rpartition(root)[2]
    here = os.getcwd() + os.sep
    return file.removeprefix(here)


def _on_host(events: Events, span: tuple[int, int]) -> Iterator[tuple[HostEvent, int]]:
    """Self times on the loop's thread."""
    from .capture import loops_thread

    thread = loops_thread(events)
    own = [h for h in events.host if h.thread == thread and not h.runtime]
    sums: Counter[int] = Counter()
    for a, b, i in innermost(own, *span):
        sums[i] += b - a
    return ((own[i], ns) for i, ns in sums.items() if i >= 0)


def _on_device(events: Events, span: tuple[int, int]) -> Iterator[tuple[HostEvent, int]]:
    """The device's work by the operator that launched it. What none launched stays out."""
    operators = {h.id: h for h in events.host if h.id and not h.runtime}
    for d in events.device:
        if d.operator in operators and span[0] <= operators[d.operator].start < span[1]:
            yield operators[d.operator], d.end - d.start


@dataclass
class _Origins:
    """From an operator to the line that launched it, and its phase."""

    tracer: LineTracer
    events: Events
    marks: Sequence[Mark]
    span: tuple[int, int]
    phases: Labels = field(init=False)
    made: dict[int, int] = field(init=False, default_factory=dict)  # autograd's sequence number -> line
    nodes: dict[int, list[HostEvent]] = field(init=False, default_factory=lambda: defaultdict(list))  # by thread

    def __post_init__(self) -> None:
        from .capture import loops_thread

        self.phases = Labels([(m.time, m.phase) for m in self.marks])
        self.thread = loops_thread(self.events)
        for h in self.events.host:
            if h.name.startswith(NODE):
                self.nodes[h.thread].append(h)
            elif h.thread == self.thread and h.sequence >= 0 and self.phases.at(h.start) != "backward":
                self.made[h.sequence] = self.tracer.at(h.start)  # the last one made the node

    def of(self, event: HostEvent) -> tuple[int, str]:
        phase = self.phases.at(event.start)
        node = self._node(event) if phase == "backward" or event.thread != self.thread else None
        if node is not None and node.sequence in self.made and not self._inside_users(event, node):
            return self.made[node.sequence], phase
        if event.thread != self.thread and phase != "backward":
            return -1, phase  # a thread of the user's own: nobody traced it
        return self.tracer.at(event.start), phase

    def _inside_users(self, event: HostEvent, node: HostEvent) -> bool:
        """Has the thread moved to another line since the node began? Then Python of theirs runs inside it."""
        return event.thread == self.thread and self.tracer.at(event.start) != self.tracer.at(node.start)

    def _node(self, event: HostEvent) -> HostEvent | None:
        """The node of the backward pass that is running on the event's thread."""
        nodes = self.nodes.get(event.thread, [])
        i = bisect.bisect_right(nodes, event.start, key=lambda n: n.start) - 1
        return nodes[i] if i >= 0 and event.start < nodes[i].end else None
