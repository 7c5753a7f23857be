"""Probes of a CUDA device, timed by its own events: matmul in each dtype its units have, copies beyond the L2, the shortest kernel.

Sizes grow by the clock, so that a T4 and a B200 both reach their ceiling within the time given. Written without a GPU
at hand: each probe a device refuses is left out, never guessed.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from .ceilings import Probe, Progress, event_prices, summary, take_turns

TINY = 500
WORKING_MEMORY = 0.25  # of the memory free now: the user's model lives here too


def probe(seconds: float, progress: Progress) -> dict[str, Any]:
    """The measured fields of `Ceilings`, in about `seconds`; leaves the allocator's cache as large as it found it."""
    room = WORKING_MEMORY * torch.cuda.mem_get_info()[0]
    with torch.no_grad():
        rates = take_turns({**_arithmetic(room), "copy": _copies(room)}, 0.75 * seconds, shortest, progress)
        kernel_ns = 1e9 * shortest(_tiny(1), 0.05)
        prices = event_prices(_tiny(), "aten::neg_", TINY)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return {**summary(rates), **prices, "dispatch_ns": kernel_ns}  # a kernel's least time on the device, not the host's


def shortest(call: Callable[[], object], piece: float) -> float:
    """Device seconds of the shortest call within `piece` seconds of wall time.

    Calls are timed one by one, by a pair of events each; a batch is queued before it is waited for, so that the
    device does not idle between them.
    """
    call()
    torch.cuda.synchronize()
    best, batch, end = float("inf"), 1, time.perf_counter() + piece
    while time.perf_counter() < end:
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(batch + 1)]
        marks[0].record()
        for mark in marks[1:]:
            call()
            mark.record()
        torch.cuda.synchronize()
        best = min(best, min(a.elapsed_time(b) for a, b in itertools.pairwise(marks)))
        batch = min(2 * batch, 32)
    return max(best * 1e-3, 1e-9) if best < float("inf") else piece


def _arithmetic(room: float) -> dict[str, list[Probe]]:
    """Each dtype under the name its peak has: "float32" with TF32 refused, "tf32" with it allowed."""
    has = torch.cuda.get_device_capability()
    amd = torch.version.hip is not None
    families = {d: [*_matmuls(d, d, room), *_convolutions(d, d, room)] for d in ("float32", "float16", "float64")}
    if amd or has >= (8, 0):
        families["bfloat16"] = [*_matmuls("bfloat16", "bfloat16", room), *_convolutions("bfloat16", "bfloat16", room)]
    if not amd and has >= (8, 0):
        families["tf32"] = [*_matmuls("tf32", "float32", room), *_convolutions("tf32", "float32", room)]
    if not amd and has >= (8, 9) and hasattr(torch, "_scaled_mm"):
        families["float8"] = _scaled_matmuls(room)
    return families


@contextlib.contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """TF32 in matmul and convolution, set for the call and put back: the setting is the user's.

    By torch's newer interface, since one may not read the older one while both disagree.
    """
    backends: Any = torch.backends
    units = [backends.cuda.matmul, backends.cudnn.conv]
    before = [unit.fp32_precision for unit in units]
    try:
        for unit in units:
            unit.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for unit, precision in zip(units, before, strict=True):
            unit.fp32_precision = precision


def _under(kind: str, call: Callable[[], object]) -> Callable[[], object]:
    """`call` with TF32 as its dtype's name says; other dtypes do not look at the setting."""
    if kind not in ("tf32", "float32"):
        return call

    def under() -> object:
        with _tf32(kind == "tf32"):
            return call()

    return under


def _matmuls(kind: str, dtype: str, room: float) -> list[Probe]:
    def prepare(n: int) -> Callable[[], object]:
        a = torch.randn(n, n, device="cuda", dtype=getattr(torch, dtype))
        out = torch.empty_like(a)
        return _under(kind, lambda: torch.mm(a, a, out=out))

    sizes = [n for n in (512, 2048, 4096, 8192) if 16 * n * n < room]
    return [Probe(f"matmul {n}", 2 * n**3, lambda n=n: prepare(n)) for n in sizes]


def _convolutions(kind: str, dtype: str, room: float) -> list[Probe]:
    def prepare(batch: int, channels: int, side: int) -> Callable[[], object]:
        x = torch.randn(batch, channels, side, side, device="cuda", dtype=getattr(torch, dtype))
        w = torch.randn(channels, channels, 3, 3, device="cuda", dtype=x.dtype)
        x, w = (t.to(memory_format=torch.channels_last) for t in (x, w))
        return _under(kind, lambda: F.conv2d(x, w, padding=1))

    sizes = [s for s in ((8, 256, 28), (64, 512, 28)) if 64 * s[0] * s[1] * s[2] ** 2 < room]
    return [Probe(f"convolution {s}", 2 * s[0] * s[2] ** 2 * s[1] ** 2 * 9, lambda s=s: prepare(*s)) for s in sizes]


def _scaled_matmuls(room: float) -> list[Probe]:
    """fp8 with one scale a tensor, bf16 out; the second operand column-major, as the hardware wants it."""

    def prepare(n: int) -> Callable[[], object]:
        a = torch.randn(n, n, device="cuda").to(torch.float8_e4m3fn)
        b, one = a.t(), torch.ones((), device="cuda")
        return lambda: torch.ops.aten._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)

    sizes = [n for n in (512, 4096, 8192) if 8 * n * n < room]
    return [Probe(f"scaled matmul {n}", 2 * n**3, lambda n=n: prepare(n)) for n in sizes]


def _copies(room: float) -> list[Probe]:
    """Copies of 1 MiB to 2 GiB, read and write together: from within the L2 to far beyond it."""

    def prepare(nbytes: int) -> Callable[[], object]:
        source = torch.zeros(nbytes // 8, device="cuda")
        target = torch.zeros_like(source)
        return lambda: target.copy_(source)

    sizes = [1 << k for k in range(20, 32) if 1 << k < room]
    return [Probe(str(n), float(n), lambda n=n: prepare(n)) for n in sizes]


def _tiny(count: int = TINY) -> Callable[[], object]:
    x = torch.zeros(4, device="cuda")

    def run() -> None:
        for _ in range(count):
            x.neg_()

    return run
