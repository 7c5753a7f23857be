"""A small training program; what goes wrong is written into its model, batches and step."""

from __future__ import annotations

LOOP = """
import torch
from torch import nn
from torch.nn import functional as F

WIDTH, BATCH, CLASSES = $width, $batch, $classes

{model}

def batches():
    for step in range(6):
        {batch}

def training_step(model, batch, step):
    {step}

def main():
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step, batch in enumerate(batches()):
        loss = training_step(model, batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.info("step %d loss %.4f", step, loss.item())

if __name__ == "__main__":
    main()
"""
MLP = """class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.head = nn.Linear(2 * WIDTH, CLASSES)

    def forward(self, x):
        return self.head(F.gelu(self.up(x)))"""
GOOD_BATCH = "yield torch.randn(BATCH, WIDTH), torch.randint(0, CLASSES, (BATCH,))"
GOOD_STEP = "x, y = batch; return F.cross_entropy(model(x), y)"


def loop(model: str = MLP, batch: str = GOOD_BATCH, step: str = GOOD_STEP) -> str:
    return LOOP.format(model=model, batch=batch, step=step)
