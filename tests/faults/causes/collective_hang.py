"""A collective stalls because a rank is missing, late, or on another path. Two to four processes over gloo."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("collective_hang")

HEAD = """
import datetime, os, time
import torch
import torch.distributed as dist

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=$patience))
rank, world = dist.get_rank(), dist.get_world_size()
log.info("rank %d of %d ready", rank, world)

def mean(value):
    total = torch.tensor([float(value)])
    dist.all_reduce(total)
    return total.item() / world
"""


def torchrun(ranks: int, **env: str) -> Stage:
    return Stage(command=f"torchrun --standalone --nproc-per-node {ranks} --log-dir logs --tee 3 $script", env=env)


PATIENCE = {"patience": (8, 10)}  # seconds; a rank of a busy machine may be late without a fault

fault(
    "rank_divergence",
    "shapes",
    HEAD
    + """
for step in range(6):
    grads = torch.ones(64 if rank == 0 or step < $fail_at else 128)
    dist.all_reduce(grads)
    log.info("rank %d step %d reduced %d values", rank, step, grads.numel())
""",
    says=("op.preamble.length <= op.nbytes",),
    because="one rank reduces a tensor of another size than the others",
    stage=torchrun(2),
    draws=PATIENCE,
    exit=1,
    ranks=2,
    first_rank=None,  # either rank's size may be the wrong one
    confidence="medium",
)
fault(
    "rank_divergence",
    "detected_mismatch",
    HEAD
    + """
for step in range(6):
    value = torch.ones(4)
    if rank == 1 and step == $fail_at:
        dist.broadcast(value, 0)
    else:
        dist.all_reduce(value)
    log.info("rank %d step %d", rank, step)
""",
    says=("Detected mismatch between collectives on ranks",),
    because="rank 1 broadcasts where the others reduce",
    stage=torchrun(2, TORCH_DISTRIBUTED_DEBUG="DETAIL"),
    draws=PATIENCE,
    exit=1,
    ranks=2,
)
fault(
    "rank_conditional_collective",
    "barrier_on_rank_zero",
    HEAD
    + """
for step in range(6):
    log.info("rank %d step %d loss %.4f", rank, step, mean(1 / (step + 1)))
    if step == $fail_at and rank == 0:
        log.info("rank 0: evaluating, then barrier")
        dist.monitored_barrier(timeout=datetime.timedelta(seconds=3))
        log.info("rank 0: past the barrier")
if rank:
    time.sleep(8)
""",
    says=("failed to pass monitoredBarrier in",),
    because="only rank 0 enters the barrier",
    stage=torchrun(2),
    draws={"patience": (20,)},
    exit=1,
    ranks=2,
    confidence="medium",
)
fault(
    "rank_conditional_collective",
    "all_reduce_under_if",
    HEAD
    + """
for step in range(6):
    log.info("rank %d step %d", rank, step)
    if rank == 0 or step != $fail_at:
        log.info("rank %d step %d loss %.4f", rank, step, mean(step))
time.sleep(3 * $patience if rank else 0)
""",
    says=("Timed out waiting",),
    because="every rank but 0 skips one reduction; ranks come out of step and the last one waits for ever",
    stage=torchrun(2),
    draws=PATIENCE,
    ranks=2,
    confidence="medium",
    exit=1,
)
fault(
    "slow_rank_checkpoint",
    "rank_zero_saves",
    HEAD
    + """
for step in range(6):
    log.info("rank %d step %d loss %.4f", rank, step, mean(1 / (step + 1)))
    if step == $fail_at:
        if rank == 0:
            log.info("rank 0: writing checkpoint step%d (estimated 20 s)", step)
            time.sleep(3 * $patience)
            log.info("rank 0: checkpoint written")
        dist.monitored_barrier(timeout=datetime.timedelta(seconds=$patience)) if rank else None
""",
    says=("rank 0: writing checkpoint", "imed out"),
    because="rank 0 writes a checkpoint for longer than the others wait",
    stage=torchrun(3),
    draws=PATIENCE,
    exit=1,
    ranks=3,
    first_rank=0,
    hard="consequence",
    confidence="medium",
)
fault(
    "hang_before_enqueue",
    "stuck_loader",
    HEAD
    + """
import faulthandler

def next_batch(step):
    if rank == 1 and step == $fail_at:
        faulthandler.dump_traceback_later(2)
        while True:  # a remote read that never returns
            time.sleep(0.5)
    return torch.ones(8) * step

for step in range(6):
    batch = next_batch(step)
    log.info("rank %d step %d loss %.4f", rank, step, mean(batch.mean()))
""",
    says=("Timed out waiting", "Timeout (0:00:02)!", "in next_batch"),
    because="rank 1 hangs while it fetches a batch and never reaches the reduction",
    stage=torchrun(2),
    draws=PATIENCE,
    exit=1,
    ranks=2,
    first_rank=1,
    hard="consequence",
)
fault(
    "hang_before_enqueue",
    "deadlocked_lock",
    HEAD
    + """
import faulthandler, threading

lock = threading.Lock()

def publish(step):
    with lock:
        if rank == 2 and step == $fail_at:
            faulthandler.dump_traceback_later(2)
            with lock:  # the logger takes the lock again
                pass

for step in range(6):
    publish(step)
    log.info("rank %d step %d loss %.4f", rank, step, mean(step))
""",
    says=("Timed out waiting", "Timeout (0:00:02)!", "in publish"),
    because="rank 2 deadlocks on its own lock before the reduction",
    stage=torchrun(3),
    draws=PATIENCE,
    exit=1,
    ranks=3,
    first_rank=2,
    hard="consequence",
)
fault(
    "worker_no_progress",
    "heartbeat",
    """
import os, subprocess, time

WORKER = '''
import time
for step in range(1000):
    if step < $fail_at * 2:
        print(f"worker: step {step}", flush=True)
        open("heartbeat", "w").write(str(step))
    time.sleep(0.2)
'''
worker = subprocess.Popen(["python", "-c", WORKER])
while not os.path.exists("heartbeat"):
    time.sleep(0.2)
while worker.poll() is None:
    silent = time.time() - os.stat("heartbeat").st_mtime
    log.info("heartbeat: last step %s, %.1f s ago", open("heartbeat").read(), silent)
    if silent > 3:
        worker.kill()
        raise TimeoutError(f"worker made no progress for {silent:.1f} s (last step {open('heartbeat').read()}); it was killed")
    time.sleep(1)
""",
    says=("TimeoutError: worker made no progress for",),
    because="the worker stops stepping while alive; a heart-beat monitor ends it",
    exit=1,
)
fault(
    "uneven_inputs",
    "join_raises",
    HEAD
    + """
from torch import nn
from torch.nn.parallel import DistributedDataParallel

model = DistributedDataParallel(nn.Linear($width, 1))
batches = 6 if rank == 0 else $fail_at
with model.join(throw_on_early_termination=True):
    for step in range(batches):
        model(torch.randn($batch, $width)).sum().backward()
        log.info("rank %d step %d of %d", rank, step, batches)
""",
    says=("Rank", "exhausted all inputs"),
    because="rank 1 has fewer batches than rank 0",
    stage=torchrun(2),
    draws={"patience": (20,)},
    exit=1,
    ranks=2,
    first_rank=1,
)
fault(
    "uneven_inputs",
    "one_rank_runs_out",
    HEAD
    + """
batches = 8 if rank != world - 1 else $fail_at
log.info("rank %d: %d batches in this shard", rank, batches)
for step in range(batches):
    log.info("rank %d step %d/%d loss %.4f", rank, step, batches, mean(1 / (step + 1)))
log.info("rank %d: epoch finished after %d batches", rank, batches)
time.sleep(3 * $patience)
""",
    says=("batches in this shard", "Timed out waiting", "epoch finished after"),
    because="the last rank's shard has fewer batches: the others wait for it in the next reduction",
    stage=torchrun(3),
    draws=PATIENCE,
    exit=1,
    ranks=3,
    first_rank=2,
    hard="consequence",
)
