"""One rank of a tiny data-parallel training, profiled. Prints what its profile says, as JSON on one line."""

from __future__ import annotations

import json
import sys
import warnings

import torch
import torch.distributed as dist
import torch.nn.functional as F
from profiled import MADE_UP
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mlsys_studio
from mlsys_studio.profilers import ceilings
from mlsys_studio.profilers.recorder import Recorder

STEPS = 60


def main(rank: int, store: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 8)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ceilings.measure = lambda *_, **__: MADE_UP
    began: list[int] = []
    begin = Recorder._begin

    def noted(self, clock, shapes, then):
        began.append(clock.count)
        return begin(self, clock, shapes, then)

    Recorder._begin = noted
    with mlsys_studio.profile() as run:
        for i in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(8, 64)), torch.randint(0, 8, (8,))).backward()
            optimizer.step()
            if rank == 1 and i % 7 == 0:
                torch.randn(200, 200) @ torch.randn(200, 200)  # one rank is slower than the other, now and then
    dist.destroy_process_group()
    found = run.profile
    assert found is not None and found.ledger is not None, found and found.notes
    assert sum(e.nanoseconds for e in found.ledger.entries) == found.ledger.wall_ns
    comm = [[e.phase, e.cause, e.nanoseconds] for e in found.ledger.entries if e.cause in ("comm", "wait for rank")]
    names = sorted({e.what.split(" ")[0] for entry in found.ledger.entries for e in entry.evidence})
    steps = found.steps
    roles = [len(steps.warmup), len(steps.clean), len(steps.window)]
    print(
        json.dumps(
            {"rank": rank, "began": began, "roles": roles, "comm": comm, "evidence": names, "notes": found.notes}
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
