"""What the tuner found: the setting, its measured gain, the line to write, and every point that was raced."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

from ..views.sheet import Figures, Grid, Part, Row, Sheet, Shown
from ..views.units import duration, ratio, three
from .settings import Setting

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Point:
    """One setting raced. Seconds a step; `predicted` is nan where the model has none."""

    setting: Setting
    measured: float
    predicted: float
    bouts: int


@dataclass(frozen=True, slots=True)
class Tuned(Shown):
    """`loader` is the one to use: a new one, or the user's where nothing is gained. `gain`: (lower, mean, upper)."""

    given: DataLoader
    before: Setting
    after: Setting
    loader: DataLoader
    gain: tuple[float, float, float]
    points: tuple[Point, ...]
    seconds: float
    reason: str  # why it was left alone, or ""
    notes: tuple[str, ...]

    @classmethod
    def kept(
        cls,
        loader: DataLoader,
        setting: Setting,
        reason: str,
        points: tuple[Point, ...] = (),
        seconds: float = 0.0,
        notes: Sequence[str] = (),
    ) -> Self:
        return cls(loader, setting, setting, loader, (1.0, 1.0, 1.0), points, seconds, reason, tuple(notes))

    @property
    def line(self) -> str:
        return self.after.line(self.before)

    def to_json(self) -> str:
        low, middle, high = self.gain
        points = [
            {**asdict(p.setting), "step_us": p.measured * 1e6, "bouts": p.bouts,
             "predicted_us": None if math.isnan(p.predicted) else p.predicted * 1e6}
            for p in self.points
        ]  # fmt: skip
        body = {
            "schema_version": SCHEMA_VERSION,
            "changed": self.after != self.before,
            "line": self.line,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "gain": {"low": low, "mean": middle, "high": high},
            "points": points,
            "seconds": self.seconds,
            "reason": self.reason,
            "notes": list(self.notes),
        }
        return json.dumps(body, indent=1)

    def sheet(self) -> Sheet:
        low, middle, high = self.gain
        if self.after == self.before:
            title, basis = (
                "Data loader: left as it is",
                f"{self.reason[:1].upper()}{self.reason[1:]}. It has {self.before}.",
            )
        else:
            title = f"Data loader: {middle:.2f}x as fast"
            basis = f"From {self.before} to {self.after}: {middle:.2f}x ({low:.2f} to {high:.2f}, 95 %), same samples, same order."
        parts: list[Part] = []
        if self.after != self.before:
            parts.append(Figures("To write", (Row("", self.line),)))
        if self.points:
            rows = tuple(
                (str(p.setting), duration(p.measured * 1e9), "" if math.isnan(p.predicted) else duration(p.predicted * 1e9),
                 three(1 / p.measured), ratio(self._base() / p.measured), str(p.bouts))
                for p in sorted(self.points, key=lambda p: p.measured)
            )  # fmt: skip
            heads = ("setting", "a step", "predicted", "batches/s", "speed", "bouts")
            parts.append(Grid(f"Raced in {self.seconds:.0f} s", heads, rows))
        return Sheet(title, basis, tuple(parts), self.notes)

    def _base(self) -> float:
        return next((p.measured for p in self.points if p.setting == self.before), self.points[0].measured)
