"""The processes of one job cannot form their group."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("dist_init")

INIT = """
import datetime, os
import torch.distributed as dist

log.info("rank %s: initialising process group, world size %s", os.environ["RANK"], os.environ["WORLD_SIZE"])
dist.init_process_group("{backend}", timeout=datetime.timedelta(seconds=5))
log.info("rank %d ready", dist.get_rank())
"""
ALONE = "RANK=$rank WORLD_SIZE=$world MASTER_ADDR=127.0.0.1 MASTER_PORT=$port python $script"

fault(
    "rendezvous_timeout",
    "torchrun_waits_for_a_node",
    INIT.format(backend="gloo"),
    says=("RendezvousTimeoutError",),
    because="one of two nodes never joins the rendezvous",
    stage=Stage(
        command="torchrun --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:$port "
        "--rdzv-id $run --rdzv-conf join_timeout=4,last_call_timeout=1,close_timeout=1 $script"
    ),
    exit=1,
)
fault(
    "rendezvous_timeout",
    "no_master",
    INIT.format(backend="gloo"),
    says=("The client socket has timed out after", "while trying to connect to"),
    because="nobody listens on the master's address",
    stage=Stage(command=ALONE),
    draws={"rank": (1, 2), "world": (4,)},
    exit=1,
)
fault(
    "rendezvous_missing_ranks",
    "half_the_world",
    INIT.format(backend="gloo"),
    says=("clients joined",),
    because="rank 0 waits for ranks that were never started",
    stage=Stage(command=ALONE),
    draws={"rank": (0,), "world": (2, 3, 4)},
    exit=1,
)
fault(
    "store_wait_timeout",
    "key_never_set",
    """
import datetime
import torch.distributed as dist

store = dist.TCPStore("127.0.0.1", $port, 1, True, timeout=datetime.timedelta(seconds=2))
log.info("waiting for the tokenizer cache of rank 0")
store.wait(["$run/tokenizer_ready"], datetime.timedelta(seconds=3))
""",
    says=("wait timeout after", "tokenizer_ready"),
    because="a key of the store that no rank sets",
    exit=1,
)
fault(
    "store_wait_timeout",
    "second_group",
    """
import datetime, os
import torch.distributed as dist

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
log.info("rank %d: world ready", dist.get_rank())
if dist.get_rank() == 0:
    store = dist.distributed_c10d._get_default_store()
    store.set_timeout(datetime.timedelta(seconds=3))
    log.info("rank 0: waiting for the address of the parameter server")
    store.get("$run/parameter_server")
else:
    import time
    time.sleep(6)
""",
    says=("wait timeout after", "parameter_server"),
    because="rank 0 waits for a key that rank 1 never sets",
    stage=Stage(command="torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script"),
    exit=1,
    ranks=2,
    first_rank=0,
)
fault(
    "port_in_use",
    "master_port",
    INIT.format(backend="gloo"),
    says=("EADDRINUSE",),
    because="another job holds the master's port",
    stage=Stage(command="python -m http.server $port >/dev/null 2>&1 & sleep 1; " + ALONE),
    draws={"rank": (0,), "world": (1, 2)},
    exit=1,
)
fault(
    "port_in_use",
    "torchrun",
    INIT.format(backend="gloo"),
    says=("EADDRINUSE",),
    because="a forgotten run holds torchrun's master port",
    stage=Stage(
        command="python -m http.server $port >/dev/null 2>&1 & sleep 1; torchrun --nproc-per-node 1 --master-addr 127.0.0.1 --master-port $port $script"
    ),
    exit=1,
)
fault(
    "backend_unavailable",
    "nccl",
    INIT.format(backend="nccl"),
    says=("Distributed package doesn't have NCCL built in",),
    because="this torch is built without NCCL",
    stage=Stage(command=ALONE),
    draws={"rank": (0,), "world": (1,)},
    exit=1,
)
fault(
    "backend_unavailable",
    "mpi",
    INIT.format(backend="mpi"),
    says=("Distributed package doesn't have MPI built in",),
    because="this torch is built without MPI",
    stage=Stage(command=ALONE),
    draws={"rank": (0,), "world": (1,)},
    exit=1,
)
