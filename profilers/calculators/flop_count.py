"""The FLOPs of one step of a model: by phase, by operator, by module, and what could not be counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from ..views.sheet import Bars, Figures, Grid, Row, Sheet, Shown
from ..views.units import counted, flop, percent, three
from .module_tree import Flops, ModuleFlops

CONVENTION = (
    "1 multiply-add = 2 FLOP, a complex one 8. Matrix products, convolutions and attention count, attention over all pairs, masked or "
    "not; elementwise operators, norms, reductions and copies do not."
)
_DEPTH, _MOST_ROWS, _MOST_NAMED = 2, 24, 8


@dataclass(frozen=True, slots=True)
class FlopCount(Shown):
    """Integers, of the convention `CONVENTION`, for one call of the model with these inputs.

    `uncounted`: operators without a formula and their calls; their FLOPs are in no sum. `free`: calls of operators
    that have none by the convention.
    """

    model: str  # its class
    inputs: str  # as "input_ids int64 [1, 128]"
    parameters: int
    modules: ModuleFlops
    by_operator: Mapping[str, Flops]  # largest first
    uncounted: Mapping[str, int]
    free: Mapping[str, int]
    compared: str = ""  # with a closed form, or why not

    @property
    def forward(self) -> int:
        return self.modules.whole.forward

    @property
    def backward(self) -> int:
        """0 where it was not asked for."""
        return self.modules.whole.backward

    @property
    def recompute(self) -> int:
        """Forward FLOPs executed again in the backward."""
        return self.modules.whole.recompute

    @property
    def model_flops(self) -> int:
        """forward + backward: the numerator of MFU."""
        return self.modules.whole.model

    @property
    def total(self) -> int:
        """All that is executed, recomputation included: the numerator of HFU."""
        return self.modules.whole.total

    def sheet(self) -> Sheet:
        return Sheet(
            f"FLOPs of {self.model}",
            f"One step with {self.inputs}; {self.parameters:,} parameters. {CONVENTION}",
            (
                Figures("", tuple(self._figures())),
                *([self._bars(), self._operators(), self._tree()] if self.total else []),
            ),
            tuple(self._notes()),
        )

    def _figures(self) -> Iterator[Row]:
        yield Row("forward", f"{self.forward:,}", f"{flop(self.forward)}; {self.forward // 2:,} MAC")
        if self.backward:
            ratio = f", {three(self.backward / self.forward)} times the forward" if self.forward else ""
            yield Row("backward", f"{self.backward:,}", f"{flop(self.backward)}{ratio}")
            yield Row("forward + backward", f"{self.model_flops:,}", f"{flop(self.model_flops)}; for MFU")
        if self.recompute:
            yield Row("recomputed", f"{self.recompute:,}", f"{flop(self.recompute)}, activation checkpointing")
            yield Row("executed", f"{self.total:,}", f"{flop(self.total)}; for HFU")

    def _bars(self) -> Bars:
        phases = [name for name in ("forward", "backward", "recompute") if getattr(self, name)]
        rows = [
            (name, percent(part.total / self.total), tuple(float(getattr(part, phase)) for phase in phases))
            for name, part in list(_branches(self.modules, _DEPTH))[:_MOST_ROWS]
        ]
        return Bars("Where they are", tuple(phases), tuple(rows))

    def _operators(self) -> Grid:
        shown = list(self.by_operator.items())[:_MOST_ROWS]
        return Grid("By operator", ("operator", *_HEADS), tuple((name, *self._cells(each)) for name, each in shown))

    def _tree(self) -> Grid:
        rows = [(name, *self._cells(part)) for name, part in _branches(self.modules, _DEPTH)]
        if len(rows) > _MOST_ROWS:
            left_out = len(rows) - _MOST_ROWS
            rows = [*rows[:_MOST_ROWS], (f"and {left_out} more", *[""] * len(_HEADS))]
        if self.modules.own.total:
            rows.append(("outside any of them", *self._cells(self.modules.own)))
        return Grid("By module", ("module", *_HEADS), tuple(rows))

    def _cells(self, part: Flops) -> tuple[str, ...]:
        spent = (part.forward, part.backward + part.recompute)
        return (*(flop(each) if each else "" for each in spent), percent(part.total / self.total))

    def _notes(self) -> Iterator[str]:
        if self.uncounted:
            named = [f"{name} ×{calls}" for name, calls in self.uncounted.items()]
            more = f" and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
            yield (
                f"Uncounted, in no sum above: {', '.join(named[:_MOST_NAMED])}{more}. "
                'Give a cost with @costs("namespace::operator").'
            )
        else:
            yield "Uncounted: none."
        calls, others = counted(sum(self.free.values()), "call"), counted(len(self.free), "other operator")
        yield f"{calls} of {others} without FLOPs by the convention."
        if self.compared:
            yield f"{self.compared[0].upper()}{self.compared[1:]}."


def _branches(module: ModuleFlops, depth: int, indent: str = "") -> Iterator[tuple[str, Flops]]:
    """The modules below, `depth` levels; equal neighbours are one line, and a list of modules is no level."""
    children = [(each.path.removeprefix(f"{module.path}."), each) for each in _listed(module) if each.whole.total]
    for _, alike in groupby(children, key=lambda child: (child[1].kind, child[1].whole)):
        (first, one), *more = alike
        names = f"{first}–{more[-1][0].rpartition('.')[2]}" if more else first
        yield f"{indent}{names} {one.kind}", sum((each.whole for _, each in more), one.whole)
        if not more and depth > 1:
            yield from _branches(one, depth - 1, indent + "  ")


def _listed(module: ModuleFlops) -> Iterator[ModuleFlops]:
    for child in module.children:
        if child.kind == "ModuleList":
            yield from _listed(child)
        else:
            yield child


_HEADS = ("forward", "backward", "share")
