"""Training loops that waste something known, so and so many times: a byte-level GPT, a CNN, and an LSTM the rules were
not fitted to.

Twice a loss is twice as many of the same operators, lines or checkpoints, or a sleep twice as long, at the same places
of the step: it differs from the loss by its length, and by nothing around it.
"""

from __future__ import annotations

import contextlib
import os
import sysconfig
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

FILES = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
SLEEP = 0.012  # s a step, shared by its samples
IDLE = 0.012  # s a step; by as much a late rank keeps the others waiting
SINK = open(os.devnull, "w")  # noqa: SIM115  prints must go somewhere that costs what a print costs

Loss = frozenset[str]


class Bytes(Dataset):
    """129 bytes of a real file: 128 to read and the next of each to predict."""

    def __init__(self, losses: Loss, times: int, batch: int) -> None:
        self.losses, self.times, self.pause = losses, times, SLEEP / batch

    def __len__(self) -> int:
        return 1 << 20

    def __getitem__(self, i: int) -> tuple:
        path = FILES[i % len(FILES)]
        with path.open("rb") as file:
            file.seek((i * 977) % max(1, path.stat().st_size - 200))
            raw = file.read(129).ljust(129)
        lose_in_dataset(self.losses, self.times, self.pause)
        x = torch.frombuffer(bytearray(raw), dtype=torch.uint8).long()
        return x[:-1], x[1:]


class Pictures(Bytes):
    def __getitem__(self, i: int):
        lose_in_dataset(self.losses, self.times, self.pause)
        return torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(i)), i % 10


def lose_in_dataset(losses: Loss, times: int, pause: float) -> None:
    if "sleep" in losses:
        time.sleep(pause * times)
    if "transform" in losses:
        t = torch.randn(120, 120)
        for _ in range(6 * times):
            t = torch.tanh(t @ t / 120)
        sum(j * j for j in range(12_000 * times))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, -1)).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, -1))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.between(x))


class GPT(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.bytes, self.positions = nn.Embedding(256, width), nn.Embedding(128, width)
        self.blocks, self.head = nn.ModuleList(Block(width) for _ in range(depth)), nn.Linear(width, 256)

    def forward(self, x):
        x = self.bytes(x) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class LSTM(nn.Module):
    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.bytes, self.lstm, self.head = (
            nn.Embedding(256, width),
            nn.LSTM(width, width, batch_first=True),
            nn.Linear(width, 256),
        )

    def forward(self, x):
        return self.head(self.lstm(self.bytes(x))[0])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def model_of(which: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    wide = device == "cuda"
    models = {"gpt": lambda: GPT(1024 if wide else 160, 8 if wide else 3), "cnn": cnn, "lstm": LSTM}
    return models[which]().to(device)


def batch_of(which: str, device: str) -> int:
    return {"gpt": 32 if device == "cuda" else 8, "cnn": 32, "lstm": 8}[which]


def steps(which: str, losses: Loss, device: str = "cpu", times: int = 1, rank: int = 0) -> Generator[None]:
    """One training step each; `losses` are what it wastes, each so many `times`. `rank` 1 is the late one."""
    model = model_of(which, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batch = batch_of(which, device)
    loader = DataLoader((Pictures if which == "cnn" else Bytes)(losses, times, batch), batch_size=batch)
    tiny, other = torch.zeros(4, device=device), torch.randn(1 << 24, device=device) if "copies" in losses else None
    path = Path(tempfile.gettempdir()) / f"ledger_truth_{os.getpid()}.pt"
    flat = torch.zeros(100_000) if "all-reduce" in losses else None
    try:
        for batch_ in cached(loader) if device == "cuda" and not losses & {"sleep", "transform"} else loader:
            x, y = (t.to(device, non_blocking=True) for t in batch_)
            with torch.autocast(device, torch.bfloat16, enabled="bf16" in losses):
                out = model(x)
            loss = F.cross_entropy(out.flatten(0, -2).float(), y.flatten())
            if "tiny" in losses:
                for _ in range(3000 * times):
                    tiny.add_(1)
            if losses & {"idle", "hidden sleep"}:
                time.sleep(IDLE * times)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if "save" in losses:
                for _ in range(3 * times):
                    torch.save((model.state_dict(), optimizer.state_dict()), path)
            if "print" in losses:
                nine = next(model.parameters()).flatten()[:9]  # once: the loss is printing, not taking it out
                for _ in range(40 * times):
                    print(nine, file=SINK)
            if "item" in losses:
                loss.item()
            if other is not None:
                other.cpu()
            if flat is not None:
                if rank:
                    time.sleep(IDLE * times)
                torch.distributed.all_reduce(flat)
            yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def cached(loader: DataLoader) -> Iterator:
    """The same few batches again and again: a GPU's step without a data stall."""
    few = [batch for batch, _ in zip(loader, range(4), strict=False)]
    while True:
        yield from few
