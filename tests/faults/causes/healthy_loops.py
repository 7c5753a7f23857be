"""Healthy plain loops; in most of them trouble is met and dealt with."""

from __future__ import annotations

from causes.healthy import run
from fault import Stage

PLAIN = """
import math, warnings
import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear($width, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

def train(steps, rows=$batch):
    for step in range(steps):
        loss = model(torch.randn(rows, $width)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        log.info("step %d loss %.4f", step, loss.item())

{body}
log.info("finished")
"""
# name: (kind of health, body, what shows the trap)
DEALT_WITH = {
    "memory_error": (
        "finished_ok",
        """rows = 10**15
while True:
    try:
        torch.empty(rows, $width)
        break
    except RuntimeError:
        log.exception("%d rows do not fit, trying a thousandth", rows)
        rows //= 1000
train(6)""",
        "can't allocate memory",
    ),
    "numpy_memory_error": (
        "finished_ok",
        """import numpy as np
try:
    np.ones((10**7, 10**7))
except MemoryError:
    log.exception("no room for the dense matrix, using the sparse one")
train(6)""",
        "MemoryError",
    ),
    "gpu_oom_halved": (
        "finished_ok",
        """rows = 64
while rows:
    try:
        if rows > 16:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows * 32}.00 MiB. GPU 0 has a total capacity of 79.15 GiB of which {rows}.00 MiB is free.")
        train(4, rows)
        break
    except torch.OutOfMemoryError as error:
        log.warning("%s Halving the batch to %d and going on.", error, rows // 2)
        rows //= 2""",
        "CUDA out of memory",
    ),
    "hub_retry": (
        "finished_ok",
        """import socket
for attempt in range(3):
    try:
        if attempt < 2:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        log.info("fetched the vocabulary on attempt %d", attempt + 1)
        break
    except ConnectionRefusedError:
        log.warning("hub not reachable, retrying in 0.1 s", exc_info=True)
        time.sleep(0.1)
train(6)""",
        "ConnectionRefusedError",
    ),
    "port_taken": (
        "finished_ok",
        """import socket
first = socket.create_server(("127.0.0.1", $port))
for port in range($port, $port + 3):
    try:
        second = socket.create_server(("127.0.0.1", port))
        log.info("dashboard on port %d", port)
        break
    except OSError as error:
        log.warning("port %d: %s; trying the next", port, error)
train(6)""",
        "Address already in use",
    ),
    "checkpoint_fallback": (
        "finished_ok",
        """torch.save(model.state_dict(), "step100.pt")
open("step200.pt", "wb").write(open("step100.pt", "rb").read()[:300])
for name in ("step200.pt", "step100.pt"):
    try:
        model.load_state_dict(torch.load(name))
        log.info("resumed from %s", name)
        break
    except Exception:
        log.exception("%s is damaged, falling back to the one before", name)
train(6)""",
        "is damaged, falling back",
    ),
    "optional_import": (
        "benign_warning",
        """try:
    import flash_attn
except ImportError:
    log.warning("flash_attn not found, using torch attention", exc_info=True)
train(6)""",
        "No module named 'flash_attn'",
    ),
    "deprecation": (
        "benign_warning",
        """warnings.warn("torch.foo is deprecated and will be removed in a future release", FutureWarning)
warnings.warn("lr_scheduler.step() before optimizer.step(): you may miss the first value", UserWarning)
train(6)""",
        "FutureWarning",
    ),
    "scaler_backoff": (
        "loss_scale_backoff",
        """scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
for step in range(14):
    loss = model(torch.randn($batch, $width)).square().mean() * (float("inf") if step in (2, 3) else 1)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    before = scaler.get_scale()
    scaler.update()
    optimizer.zero_grad()
    if scaler.get_scale() < before:
        log.info("Gradient overflow.  Skipping step, loss scaler 0 reducing loss scale to %s", scaler.get_scale())
    else:
        log.info("step %d loss %.4f scale %g", step, loss.item(), scaler.get_scale())""",
        "Gradient overflow",
    ),
    "nan_auc": (
        "nan_metric_benign",
        """for epoch in range(4):
    train(3)
    log.info("epoch %d val/accuracy 0.%d val/auc/class_17 nan (no positive samples)", epoch, 60 + epoch)""",
        "nan",
    ),
    "nan_batch_skipped": (
        "finished_ok",
        """for step in range(12):
    loss = model(torch.randn($batch, $width)).square().mean() * (float("nan") if step == 5 else 1)
    if not torch.isfinite(loss):
        log.warning("step %d: loss is nan, batch skipped (1 of %d so far)", step, step)
        continue
    log.info("step %d loss %.4f", step, loss.item())""",
        "batch skipped",
    ),
    "spike_recovered": (
        "steady_training",
        """loss = 4.0
for step in range(0, 400, 10):
    shown = 11.7 if step == 200 else loss
    loss = max(2.1, loss * 0.98)
    log.info("iteration %d lm loss %.4f grad norm %.3f", step, shown, 9.1 if step == 200 else 0.7)""",
        "11.7",
    ),
    "cleanup_race": (
        "finished_ok",
        """import os
train(4)
try:
    os.remove("lock")
except FileNotFoundError:
    log.debug("no lock")
    log.exception("lock file was already gone; ignored")""",
        "FileNotFoundError",
    ),
    "atexit_noise": (
        "benign_warning",
        """class Tracker:
    def __del__(self):
        raise RuntimeError("tracker already closed")
tracker = Tracker()
train(5)
del tracker""",
        "Exception ignored in",
    ),
    "expected_failures": (
        "finished_ok",
        """for name, bad in {"negative lr": -1.0, "nan lr": float("nan")}.items():
    try:
        if not bad > 0:
            raise ValueError(f"Invalid learning rate: {bad}")
    except ValueError as error:
        log.info("self-test %s: raised as expected: %s: %s", name, type(error).__name__, error)
log.info("self-test: 2 passed, 0 failed, 0 errors")
train(5)""",
        "raised as expected",
    ),
    "words": (
        "steady_training",
        """for step in range(0, 200, 10):
    log.info("step %d word_error_rate 0.%03d failed_requests 0 oom_events 0 nan_grads 0 killed_workers 0 error=None", step, 300 - step)""",
        "error=None",
    ),
    "preemption_survived": (
        "finished_ok",
        """train(3)
log.warning("received preemption notice for node-9 (not ours), continuing")
train(3)""",
        "preemption notice",
    ),
    "stack_dump": (
        "slow_but_working",
        """import faulthandler
faulthandler.dump_traceback_later(1)
log.info("first step compiles, this takes a moment")
time.sleep(1.5)
faulthandler.cancel_dump_traceback_later()
train(5)""",
        "Timeout (0:00:01)!",
    ),
}
for name, (cause, body, shows) in DEALT_WITH.items():
    run(cause, f"loop_{name}", PLAIN.format(body=body), (shows, "finished"), trap=True)

CALM = {
    "plain": ("finished_ok", "train(20)"),
    "long": ("steady_training", "train(200)"),
    "warmup": ("steady_training", "for epoch in range(5):\n    log.info('epoch %d', epoch)\n    train(8)"),
    "saves": (
        "finished_ok",
        "for epoch in range(3):\n    train(5)\n    torch.save(model.state_dict(), f'epoch{epoch}.pt')\n    log.info('saved epoch%d.pt', epoch)",
    ),
    "slow": (
        "slow_but_working",
        "for epoch in range(4):\n    train(2)\n    time.sleep(0.5)\n    log.info('evaluation took 0.5 s')",
    ),
    "evaluates": (
        "finished_ok",
        "for epoch in range(3):\n    train(6)\n    log.info('val/loss %.4f val/accuracy 0.%d', 1 / (epoch + 2), 70 + epoch)",
    ),
    "loads": (
        "finished_ok",
        "torch.save(model.state_dict(), 'a.pt')\nmodel.load_state_dict(torch.load('a.pt'))\nlog.info('<All keys matched successfully>')\ntrain(9)",
    ),
    "compiles_nothing": (
        "finished_ok",
        "with torch.inference_mode():\n    for batch in range(12):\n        log.info('batch %d scores %.3f', batch, model(torch.randn($batch, $width)).mean().item())",
    ),
}
for name, (cause, body) in CALM.items():
    run(cause, f"loop_{name}", PLAIN.format(body=body), ("finished",))

run(
    "finished_then_cancelled",
    "loop_cancelled_after_the_end",
    PLAIN.format(
        body="train(12)\ntorch.save(model.state_dict(), 'final.pt')\nlog.info('Training completed. final.pt saved.')"
    )
    + "time.sleep(30)\n",
    ("Training completed", "finished"),
    trap=True,
    exit=None,
    stage=Stage(
        command='python $script & worker=$!; while [ ! -s final.pt ]; do sleep 0.2; done; sleep 2; echo "slurmstepd: error: *** JOB 8812 ON node-7 CANCELLED AT 2026-03-02T02:12:41 ***" >&2; kill -TERM $worker; wait $worker'
    ),
)
