"""How a model is laid out over devices: the degrees of each kind of parallelism.

    tp  tensor parallel    pp  pipeline stages    cp  context parallel (the sequence is split)
    dp  data parallel      ep  expert parallel: a part of the dp x cp ranks, so that it adds no devices

devices = tp x pp x cp x dp. `zero` is the ZeRO stage: 0 all replicated, 1 optimizer states, 2 and gradients, 3 and
parameters sharded over dp x cp (Rajbhandari et al. 2020, arXiv:1910.02054; FSDP's full shard is 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import UsageError
from .amounts import flag, whole

Schedule = Literal["gpipe", "1f1b", "interleaved", "zero-bubble"]


@dataclass(frozen=True, slots=True)
class Layout:
    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    zero: Literal[0, 1, 2, 3] = 0
    sequence_parallel: bool = False  # norms and dropouts split over the tp ranks (Korthikanti et al. 2022)
    schedule: Schedule = "1f1b"
    chunks: int = 1  # model chunks a stage holds under "interleaved"

    def __post_init__(self) -> None:
        for name in ("dp", "tp", "pp", "cp", "ep", "chunks"):
            whole(name, getattr(self, name))
        flag("sequence_parallel", self.sequence_parallel)
        if isinstance(self.zero, bool) or self.zero not in (0, 1, 2, 3):
            raise UsageError(f"ZeRO has stages 0 to 3, and zero={self.zero!r} is none of them")
        if (self.dp * self.cp) % self.ep:
            raise UsageError(f"ep={self.ep} must divide dp x cp = {self.dp * self.cp}")

    @property
    def devices(self) -> int:
        return self.dp * self.tp * self.pp * self.cp
