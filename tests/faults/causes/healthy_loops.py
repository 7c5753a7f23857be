"""Healthy servers, data loaders and plain loops; in half of them trouble is met and dealt with."""

from __future__ import annotations

from causes.healthy import run
from fault import Stage

# ---- servers -----------------------------------------------------------------------------------------------------------

SERVER = """
import json, threading, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        size = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(size)
        {handle}

    def answer(self, code, value):
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, line, *values):
        log.info("%s %s", self.client_address[0], line % values)

server = ThreadingHTTPServer(("127.0.0.1", $port), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
log.info("serving on 127.0.0.1:$port")

def ask(body, path="/v1/completions"):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:$port{{path}}", body, timeout=9).status
    except urllib.error.HTTPError as error:
        return error.code

{client}
server.shutdown()
log.info("server stopped, %d requests served", requests)
"""
PREDICT = 'self.answer(200, {"tokens": len(json.loads(body)["prompt"].split())})'
GUARDED = """try:
            self.answer(200, {"tokens": len(json.loads(body)["prompt"].split())})
        except Exception:
            log.exception("bad request from client, answered 400")
            self.answer(400, {"error": "bad request"})"""
CALLS = """requests = 0
for number in range({count}):
    code = ask({body})
    requests += 1
    log.info("client got %d", code)"""


def server(
    name: str, handle: str, body: str, *, count: int = 8, trap=False, cause="finished_ok", says=("server stopped",)
) -> None:
    run(
        cause,
        f"server_{name}",
        SERVER.format(handle=handle, client=CALLS.format(count=count, body=body)),
        says,
        trap=trap,
    )


GOOD = 'b\'{"prompt": "a b c"}\''
server("plain", PREDICT, GOOD)
server("busy", PREDICT, GOOD, count=40)
server("not_found", "self.answer(404 if self.path != '/v1/chat' else 200, {})", GOOD, trap=True)
server(
    "bad_json",
    GUARDED,
    "b'{oops' if number % 4 == 3 else " + GOOD,
    trap=True,
    says=("json.decoder.JSONDecodeError", "server stopped"),
)
server(
    "missing_prompt",
    GUARDED,
    "b'{\"text\": 1}' if number % 4 == 3 else " + GOOD,
    trap=True,
    says=("KeyError: 'prompt'", "server stopped"),
)
server("overloaded", "self.answer(503 if int(time.time() * 10) % 3 == 0 else 200, {})", GOOD, trap=True)
server("slow", f"time.sleep(0.4); {PREDICT}", GOOD, cause="slow_but_working")
run(
    "finished_ok",
    "server_sigterm",
    """
import signal, threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

server = ThreadingHTTPServer(("127.0.0.1", $port), SimpleHTTPRequestHandler)
signal.signal(signal.SIGTERM, lambda *_: (log.info("SIGTERM: draining and shutting down"), threading.Thread(target=server.shutdown).start()))
log.info("ready")
open("running", "w").close()
server.serve_forever()
log.info("drained, all requests answered, bye")
""",
    ("drained", "bye"),
    trap=True,
    stage=Stage(
        command="python $script & worker=$!; until [ -e running ]; do sleep 0.2; done; sleep 1; kill -TERM $worker; wait $worker"
    ),
)

# ---- data loaders --------------------------------------------------------------------------------------------------------

LOADER = """
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 96

    def __getitem__(self, index):
        {item}
        return torch.full(($width,), float(index))

def main():
    total = 0
    for epoch in range({epochs}):
        for step, rows in enumerate(DataLoader(Rows(), batch_size=$batch, {options})):
            total += len(rows)
            log.info("epoch %d batch %d rows %d", epoch, step, len(rows))
    log.info("done, %d rows in all", total)

if __name__ == "__main__":
    main()
"""
RETRY = """for attempt in range(3):
            try:
                if index % 30 == 7 and attempt < 1:
                    raise {error}
                break
            except {kind}:
                log.{level}("read of row %d failed, attempt %d, retrying", index, attempt{info})"""


def loader(
    name: str,
    item: str = "pass",
    *,
    options="num_workers=0",
    epochs=1,
    trap=False,
    cause="finished_ok",
    says=("done, 96 rows",),
    **rest,
) -> None:
    run(cause, f"loader_{name}", LOADER.format(item=item, options=options, epochs=epochs), says, trap=trap, **rest)


loader("plain")
loader("workers", options="num_workers=2")
loader("epochs", options="num_workers=1, persistent_workers=True", epochs=2, says=("done, 192 rows",))
loader("slow", "time.sleep(0.02)", cause="slow_but_working")
loader("spawn", options='num_workers=1, multiprocessing_context="spawn"')
loader("many_workers", options="num_workers=3", cause="benign_warning", trap=True)
loader(
    "retry_timeout",
    RETRY.format(error='TimeoutError("read timed out")', kind="TimeoutError", level="warning", info=""),
    trap=True,
    says=("retrying", "done, 96 rows"),
)
loader(
    "retry_traceback",
    RETRY.format(error='OSError(5, "Input/output error")', kind="OSError", level="warning", info=", exc_info=True"),
    trap=True,
    says=("OSError: [Errno 5]", "done, 96 rows"),
)
loader(
    "skips_broken",
    'if index % 40 == 9:\n            log.warning("row %d: UnicodeDecodeError in caption, replaced by an empty one", index)',
    trap=True,
)

# ---- plain loops, with trouble that is dealt with ---------------------------------------------------------------------

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
