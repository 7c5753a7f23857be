"""What `io` says: the verdict, how fast it is read, what lies there, the filesystem's traps, and what a cache would bring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

from ..views.sheet import Bars, Figures, Grid, Part, Row, Sheet, Shown
from ..views.units import bandwidth, duration, number, percent, size, three
from .caching import Tier
from .files import EDGES, SMALL, Files
from .filesystems import Filesystem
from .reading import Rates

SCHEMA_VERSION = 1
COLD = "cold not measured: the files could not be put out of memory"


@dataclass(frozen=True, slots=True)
class Saving:
    """A checkpoint of so many bytes: `rate` as written and synced, seconds for all, steps between two, a log line."""

    bytes: int
    rate: float
    seconds: float
    step: float
    every: int
    line: float


@dataclass(frozen=True, slots=True)
class StorageReport(Shown):
    path: str
    files: Files
    filesystem: Filesystem
    resident: float | None  # of the sampled data, before anything was read
    rates: Rates
    need: float | None
    tiers: tuple[Tier, ...]
    saving: Saving | None
    shm: int | None
    open_files: int | None

    @property
    def small_share(self) -> float:
        return self.files.small / self.files.count

    @property
    def small_cost(self) -> float | None:
        """Of reading a small file, the share that is not its bytes: opening, metadata, closing."""
        rates = self.rates
        files, sequential = (rates.files_cold, rates.sequential_cold) if rates.files_cold and rates.sequential_cold else (rates.files_warm, rates.sequential_warm)  # fmt: skip
        if not files or not sequential:
            return None
        return max(0.0, 1 - rates.small_bytes / sequential * files)

    @property
    def rate(self) -> float | None:
        """Bytes a second at which this data can be read as it lies: small files by the file, others by the byte; cold if known."""
        rates = self.rates
        bytes_rate = rates.sequential_cold or rates.sequential_warm
        file_rate = rates.files_cold or rates.files_warm
        if bytes_rate is None:
            return None if file_rate is None else file_rate * self.files.mean
        if file_rate is None or not self.files.small:
            return bytes_rate
        small = self.files.small / file_rate
        large = max(0.0, self.files.bytes - self.files.small * rates.small_bytes) / bytes_rate
        return self.files.bytes / max(small + large, 1e-9)

    @property
    def verdict(self) -> str:
        rate, where = self.rate, "from memory" if self.rates.sequential_cold is None and self.rates.files_cold is None else "cold"  # fmt: skip
        if rate is None:
            return "nothing could be read long enough to measure"
        said = f"one reader gets {bandwidth(rate)} {where}"
        if self.need is None:
            return said
        if rate >= self.need:
            return f"fast enough: {said}, and the loader needs {bandwidth(self.need)}"
        return f"too slow: {said}, and the loader needs {bandwidth(self.need)}"

    def to_json(self) -> str:
        body = {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "path": self.path,
            "files": {**asdict(self.files), "sample": None, "histogram": dict(zip(_labels(), self.files.histogram, strict=True))},
            "filesystem": {**asdict(self.filesystem), "trap": self.filesystem.trap},
            "resident_share": self.resident,
            "rates": asdict(self.rates),
            "rate_bytes_per_s": self.rate,
            "need_bytes_per_s": self.need,
            "small_file_cost": self.small_cost,
            "tiers": [asdict(each) for each in self.tiers],
            "saving": None if self.saving is None else asdict(self.saving),
            "shm_free": self.shm,
            "open_files": self.open_files,
        }  # fmt: skip
        return json.dumps(body, indent=1)

    def sheet(self) -> Sheet:
        f = self.files
        parts: list[Part] = [_rates(self), _lies(self), _histogram(f)]
        if self.tiers:
            parts.append(_tiers(self))
        if self.saving is not None:
            parts.append(_saving(self.saving))
        more = "" if f.whole else " and more"
        basis = f"{f.count:,} files{more}, {size(f.bytes)} in {f.folders:,} folders on {self.filesystem.kind}."
        return Sheet(f"Storage: {self.verdict.partition(':')[0] if self.need else self.verdict}", f"{self.verdict[:1].upper()}{self.verdict[1:]}. {basis}", tuple(parts), tuple(_notes(self)))  # fmt: skip


def _rates(report: StorageReport) -> Part:
    r = report.rates

    def row(label: str, warm: str, cold: str) -> tuple[str, str, str]:
        return (label, warm or "not measured", cold or "not measured")

    rows = [
        row("in sequence", *(bandwidth(x) if x else "" for x in (r.sequential_warm, r.sequential_cold))),
        row("at random, 4 KiB", *(f"{three(x)}/s" if x else "" for x in (r.random_warm, r.random_cold))),
    ]
    if report.files.small:
        rows.append(row(f"small files ({size(int(r.small_bytes))})", *(f"{three(x)}/s" if x else "" for x in (r.files_warm, r.files_cold))))  # fmt: skip
    return Grid("Read by one process", ("", "from memory", "cold"), tuple(rows))


def _lies(report: StorageReport) -> Part:
    fs, f = report.filesystem, report.files
    resident = "not known" if report.resident is None else percent(report.resident)
    rows = [
        Row("filesystem", fs.kind, f"{fs.mount}{', read-only' if fs.read_only else ''}{'; ' + fs.trap if fs.trap else ''}"),
        Row("free", size(fs.free), f"of {size(fs.size)}; inodes {'uncounted' if fs.inodes_free is None else f'{fs.inodes_free:,}'}"),
        Row("in memory already", resident, "of the files looked at, by mincore"),
        Row("opening", duration(report.rates.open_seconds * 1e9), f"a file; its size by stat {duration(report.rates.stat_seconds * 1e9)}"),
        Row("small files", percent(report.small_share), f"below {size(SMALL)}; mean of all {size(int(f.mean))}"),
    ]  # fmt: skip
    if report.small_cost is not None and f.small:
        rows.append(Row("price of a small file", percent(report.small_cost), "is opening and metadata, not bytes"))
    rows.append(Row("/dev/shm", "none" if report.shm is None else size(report.shm), "free, for the batches of workers"))
    rows.append(Row("open files", "no limit" if report.open_files is None else f"{report.open_files:,}", "at once (ulimit -n)"))  # fmt: skip
    return Figures("Where it lies", tuple(rows))


def _labels() -> list[str]:
    said = [size(edge) for edge in EDGES]
    return [f"below {said[0]}", *(f"{a} to {b}" for a, b in pairwise(said)), f"from {said[-1]}"]


def _histogram(f: Files) -> Part:
    rows = tuple((label, f"{n:,}", (float(n),)) for label, n in zip(_labels(), f.histogram, strict=True) if n)
    return Bars("Files by size", ("files",), rows)


def _tiers(report: StorageReport) -> Part:
    rows = tuple(
        (t.name, size(t.bytes), percent(t.share), percent(t.evicting), percent(t.keeping), "" if t.speed is None else f"{t.speed:.2f}x")
        for t in report.tiers
    )  # fmt: skip
    heads = ("a cache of", "bytes", "of data", "hits, LRU", "hits, kept", "speed")
    return Grid("If it were cached, shuffled epochs", heads, rows)


def _saving(s: Saving) -> Part:
    rows = (
        Row("a checkpoint", duration(s.seconds * 1e9), f"of {size(s.bytes)}, written and synced at {bandwidth(s.rate)}"),
        Row("save every", f"{s.every:,} steps", f"of {duration(s.step * 1e9)}: then it takes at most 1 % of the training, and a failure loses up to {duration(s.every * s.step * 1e9)}"),
        Row("a log line", duration(s.line * 1e9), f"written and flushed; {percent(s.line / (s.step + s.line))} of a step"),
    )  # fmt: skip
    return Figures("Saving and logging", rows)


def _notes(report: StorageReport) -> Iterator[str]:
    f, cost = report.files, report.small_cost
    if cost is not None and cost > 0.5 and report.small_share > 0.5:
        yield f"most of the time goes into opening small files: pack them, %mlsys io {report.path} --pack DIR"
    if f.largest_folder > 100_000:
        yield f"one folder holds {f.largest_folder:,} files: listing and opening get slow; spread them, or pack them"
    thrashing = [t for t in report.tiers if t.share < 1]
    if thrashing:
        t = thrashing[0]
        yield f"{t.name} holds {percent(t.share)} of the data: a cache that evicts (the page cache) hits only {percent(t.evicting)} of shuffled epochs and none in sequence; one that keeps what it has hits {percent(t.keeping)}"
    if report.rates.sequential_cold is None:
        yield COLD
    if f.denied:
        yield f"{number(f.denied)} files or folders could not be looked at: no permission"
    if not f.whole:
        yield f"only the first {f.count:,} files were looked at, for lack of time"
    if report.filesystem.inodes_free is not None and report.filesystem.inodes_free < 10_000:
        yield f"only {report.filesystem.inodes_free:,} inodes are free: new files will fail although there is space"
