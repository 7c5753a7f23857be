"""Probes of a CPU: matmul and convolution in each dtype, copies from cache to memory, an operator on four elements.

Outputs are written into memory that is already mapped, or are small enough for the allocator to reuse: page faults
halved a convolution here (425 against 240 GFLOP/s, fp32, two cores of an EPYC, torch 2.13).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from .ceilings import Probe, Progress, event_prices, summary, take_turns

DTYPES = ("float32", "bfloat16", "float16", "float64")
TINY = 1000  # operators a bout: enough events to price one, few enough to take a millisecond


def probe(seconds: float, progress: Progress) -> dict[str, Any]:
    """The measured fields of `Ceilings`, in about `seconds`."""
    with torch.no_grad():
        families = {dtype: [*_matmuls(dtype), *_convolutions(dtype)] for dtype in DTYPES}
        rates = take_turns({**families, "copy": _copies()}, 0.75 * seconds, shortest, progress)
        return {**summary(rates), **event_prices(_tiny(), "aten::neg_", TINY)}


def shortest(call: Callable[[], object], piece: float) -> float:
    """Seconds of the shortest call within `piece` seconds; one call that takes longer ends it."""
    best, end = float("inf"), time.perf_counter() + piece
    while True:
        began = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - began)
        if now > end:
            return max(best, 1e-9)


def _matmuls(dtype: str) -> list[Probe]:
    def prepare(n: int) -> Callable[[], object]:
        a = torch.randn(n, n).to(getattr(torch, dtype))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, a, out=out)

    return [Probe(f"matmul {n}", 2 * n**3, lambda n=n: prepare(n)) for n in (128, 256, 512, 1024)]


def _convolutions(dtype: str) -> list[Probe]:
    """3x3 convolutions, whose vendor kernels may beat the vendor's matmul."""

    def prepare(batch: int, channels: int, side: int, layout: torch.memory_format) -> Callable[[], object]:
        x = torch.randn(batch, channels, side, side).to(getattr(torch, dtype)).to(memory_format=layout)
        w = torch.randn(channels, channels, 3, 3).to(getattr(torch, dtype)).to(memory_format=layout)
        return lambda: F.conv2d(x, w, padding=1)

    sizes = ((4, 64, 28, torch.channels_last), (4, 256, 14, torch.contiguous_format))
    return [Probe(f"convolution {s[:3]}", 2 * s[0] * s[2] ** 2 * s[1] ** 2 * 9, lambda s=s: prepare(*s)) for s in sizes]


def _copies() -> list[Probe]:
    """Copies of 16 KiB to 128 MiB, read and write together: first, second and third cache, then memory."""

    def prepare(nbytes: int) -> Callable[[], object]:
        source = torch.zeros(nbytes // 8)
        target = torch.zeros_like(source)
        return lambda: target.copy_(source)

    return [
        Probe(str(1 << k), float(1 << k), lambda k=k: prepare(1 << k)) for k in (14, 16, 18, 20, 22, 24, 25, 26, 27)
    ]


def _tiny() -> Callable[[], object]:
    """An in-place operator on four elements, many times: all dispatch and no work."""
    x = torch.zeros(4)

    def run() -> None:
        for _ in range(TINY):
            x.neg_()

    return run
