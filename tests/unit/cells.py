"""A notebook without IPython: cells run in one namespace, and keep their source as IPython's do."""

from __future__ import annotations

import itertools
import linecache
import textwrap
from typing import Any

from mlsys_studio.profilers.loop import Loop
from mlsys_studio.studio.advisor.remedies import Subjects

_numbers = itertools.count(1)


class Cell:
    def __init__(self, source: str, namespace: dict[str, Any]) -> None:
        self.source = textwrap.dedent(source)
        self._namespace = namespace
        file = f"<cell {next(_numbers)}>"
        linecache.cache[file] = (len(self.source), None, self.source.splitlines(keepends=True), file)
        self._code = compile(self.source, file, "exec")

    def run(self, *, display: bool = True) -> None:
        exec(self._code, self._namespace)  # noqa: S102


class Notebook:
    """`run` a cell for good, make a `cell` to run later; `subjects` are what it calls model, optimizer and loader."""

    def __init__(self, *sources: str) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        for source in sources:
            self.run(source)

    def cell(self, source: str) -> Cell:
        return Cell(source, self.names)

    def run(self, source: str) -> None:
        self.cell(source).run()

    def subjects(
        self, dtype: str = "bfloat16", workers: int = 1, others: tuple[Any, ...] = (), **loop: Any
    ) -> Subjects:
        model, optimizer, loader = (self.names.get(name) for name in ("model", "optimizer", "loader"))
        return Subjects(self.names, model, optimizer, loader, Loop(**loop), dtype, workers, others)


SETUP = """
import torch, torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
data = TensorDataset(torch.randn(160, 16), torch.randint(0, 4, (160,)))
loader = DataLoader(data, batch_size=8, shuffle=True, generator=torch.Generator().manual_seed(1))
"""

LOOP = """
for x, y in loader:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
"""
