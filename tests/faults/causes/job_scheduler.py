"""Somebody ended the job. The signals are real; a line of Slurm's own is echoed in Slurm's words beside them."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("job_scheduler")

LOOP = """
import signal, sys

{before}
for step in range(10_000):
    if step == 9:
        open("running", "w").close()
    time.sleep(0.1)
    log.info("step %d loss %.4f", step, 3 / (step + 1))
"""
KILL = (
    "python $script & worker=$!; until [ -e running ]; do sleep 0.2; done; {say}; kill -{signal} $worker; wait $worker"
)
SLURM = 'echo "slurmstepd: error: *** {what} ON node-7 CANCELLED AT 2026-03-0$fail_atT0$fail_at:12:41 {why} ***" >&2'

fault(
    "time_limit",
    "coreutils_timeout",
    LOOP.format(before=""),
    says=("timeout: sending signal TERM to command",),
    because="the command ran under `timeout` and reached it",
    stage=Stage(command="timeout --verbose 4 python $script"),
    exit=124,
    fast=True,
)
fault(
    "time_limit",
    "slurm",
    LOOP.format(before=""),
    says=("DUE TO TIME LIMIT",),
    because="Slurm's text and the SIGTERM that goes with it",
    stage=Stage(
        command=KILL.replace("{say}", SLURM.format(what="JOB 88$port", why="DUE TO TIME LIMIT")).replace(
            "{signal}", "TERM"
        )
    ),
    exit=143,
    composed=True,
)
fault(
    "preempted",
    "slurm",
    LOOP.format(
        before='signal.signal(signal.SIGTERM, lambda *_: (log.info("SIGTERM: saving before exit"), sys.exit(143)))'
    ),
    says=("DUE TO PREEMPTION",),
    because="Slurm's text and the SIGTERM that goes with it",
    stage=Stage(
        command=KILL.replace("{say}", SLURM.format(what="STEP 88$port.0", why="DUE TO PREEMPTION")).replace(
            "{signal}", "TERM"
        )
    ),
    exit=143,
    composed=True,
)
fault(
    "preempted",
    "spot_notice",
    LOOP.format(
        before='signal.signal(signal.SIGTERM, lambda *_: (log.warning("node-7 is being preempted (spot reclaim notice, 30 s): checkpointing and exiting for requeue"), sys.exit(75)))'
    ),
    says=("is being preempted",),
    because="the instance is reclaimed and the job asks to be queued again",
    stage=Stage(command=KILL.replace("{say}", "true").replace("{signal}", "TERM")),
    exit=75,
)
fault(
    "user_cancelled",
    "keyboard_interrupt",
    LOOP.format(before=""),
    says=("KeyboardInterrupt",),
    because="Ctrl-C",
    # A shell's background job ignores SIGINT: env gives it back.
    stage=Stage(
        command=KILL.replace("python", "env --default-signal=INT python")
        .replace("{say}", "true")
        .replace("{signal}", "INT")
    ),
)
fault(
    "user_cancelled",
    "keyboard_interrupt_torchrun",
    """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
for step in range(1000):
    time.sleep(0.2)
    dist.all_reduce(torch.ones(2))
    log.info("rank %d step %d", dist.get_rank(), step)
""",
    says=("SIGINT", "KeyboardInterrupt"),
    because="Ctrl-C at the launcher",
    stage=Stage(
        command="env --default-signal=INT torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script & job=$!; until grep -rqs 'step 3' logs; do sleep 0.5; done; kill -INT $job; wait $job",
    ),
    ranks=2,
    confidence="medium",
)
fault(
    "user_cancelled",
    "scancel",
    LOOP.format(before=""),
    says=("CANCELLED AT", "by user request"),
    because="Slurm's text for scancel by the job's owner, and its SIGTERM",
    stage=Stage(
        command=KILL.replace(
            "{say}",
            SLURM.format(what="JOB 88$port", why="") + '; echo "job 88$port cancelled by user request (scancel)" >&2',
        ).replace("{signal}", "TERM")
    ),
    exit=143,
    composed=True,
)
fault(
    "node_failure_requeue",
    "slurm",
    LOOP.format(before=""),
    says=("DUE TO NODE FAILURE",),
    because="Slurm's text when a node stops answering, and the end of the step",
    stage=Stage(
        command=KILL.replace(
            "{say}", SLURM.format(what="JOB 88$port", why="DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS")
        ).replace("{signal}", "KILL")
    ),
    exit=137,
    composed=True,
)
