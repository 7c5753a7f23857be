"""Small training loops that know nothing of us, in the shapes users write them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def mlp(width: int = 32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, 4))


def loader(batches: int = 20, batch_size: int = 8, **options) -> DataLoader:
    rows = batches * batch_size
    data = TensorDataset(torch.randn(rows, 16), torch.randint(0, 4, (rows,)))
    return DataLoader(data, batch_size=batch_size, **options)


def train(model: nn.Module, batches: int = 20, every: int = 1, between=lambda: None) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    for i, (x, y) in enumerate(loader(batches)):
        F.cross_entropy(model(x), y).backward()
        between()
        if i % every == every - 1:
            optimizer.step()
            optimizer.zero_grad()
