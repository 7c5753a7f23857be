"""The machine's memory, its cgroup's, or page-locked memory is used up."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("host_oom")
GIB = 2**30

EATER = """
import numpy as np

cache = {}
for shard in range(10_000):
    cache[shard] = np.ones($width * 32_768)
    log.info("cached shard %d, %d MB in memory", shard, sum(block.nbytes for block in cache.values()) // 2**20)
"""
KILLED = "dmesg | grep -aE 'oom-kill:constraint=CONSTRAINT_MEMCG|Memory cgroup out of memory: Killed' | tail -2"

fault(
    "host_ram_exhausted",
    "numpy",
    """
import numpy as np

log.info("building the similarity matrix of $count samples")
scores = np.zeros(($count, $count))
""",
    says=("Unable to allocate", "numpy._core._exceptions._ArrayMemoryError"),
    because="a dense matrix larger than the address space allowed",
    stage=Stage(limits={"as": 2 * GIB}),
    draws={"count": (60_000, 100_000, 250_000)},
    exit=1,
    fast=True,
)
fault(
    "host_ram_exhausted",
    "memory_error",
    """
def tokens(count):
    return [index for index in range(count)]

log.info("reading corpus into memory")
corpus = []
while True:
    corpus.append(tokens(2_000_000))
    log.info("%d M tokens", 2 * len(corpus))
""",
    says=("MemoryError",),
    because="the corpus is kept in lists until the address space is full",
    stage=Stage(limits={"as": GIB // 2}),
    exit=1,
)
fault(
    "host_alloc_failed_enomem",
    "torch",
    """
import torch

log.info("allocating optimizer state on the host")
state = [torch.zeros($count, $count) for _ in range(2)]
""",
    says=("DefaultCPUAllocator: can't allocate memory: you tried to allocate", "Cannot allocate memory"),
    because="torch's CPU allocator gets ENOMEM",
    stage=Stage(limits={"as": 6 * GIB}),
    draws={"count": (60_000, 80_000, 120_000)},
    exit=1,
)
fault(
    "host_alloc_failed_enomem",
    "mmap",
    """
import mmap

log.info("reserving a staging buffer of 64 GiB")
buffer = mmap.mmap(-1, 64 * 2**30)
""",
    says=("OSError: [Errno 12] Cannot allocate memory",),
    because="an anonymous mapping larger than the limit",
    stage=Stage(limits={"as": 2 * GIB}),
    exit=1,
)
fault(
    "cgroup_oom_kill",
    "with_kernel_log",
    EATER,
    says=("Killed", "Memory cgroup out of memory: Killed process"),
    enough=("Memory cgroup out of memory: Killed process",),
    because="the job's memory cgroup is full and the kernel log says so",
    stage=Stage(command=f"python $script; code=$?; {KILLED}; exit $code", memory_mb=200),
    exit=137,
)
fault(
    "cgroup_oom_kill",
    "dataloader_workers",
    """
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    kept = []

    def __len__(self):
        return 4000

    def __getitem__(self, index):
        self.kept.append(torch.ones(2**20))
        return torch.zeros($width)

for step, rows in enumerate(DataLoader(Rows(), batch_size=$batch, num_workers=2)):
    log.info("step %d", step)
""",
    says=("is killed by signal: Killed", "Memory cgroup out of memory: Killed process"),
    enough=("Memory cgroup out of memory: Killed process",),
    because="the cgroup kills a loader's worker for memory: the worker's death is the consequence",
    stage=Stage(command=f"python $script; code=$?; {KILLED}; exit $code", memory_mb=700),
    hard="consequence",
    decoy="storage_io",
    exit=1,
)
fault(
    "killed_by_oom_suspected",
    "silent_kill",
    EATER,
    says=("Killed", "MB in memory"),
    because="killed by the memory cgroup; only the growing memory in the log and SIGKILL tell",
    stage=Stage(command="python $script; echo exit code $?; exit 137", memory_mb=200),
    confidence="medium",
    exit=137,
)
fault(
    "killed_by_oom_suspected",
    "torchrun_sigkill",
    """
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
rank, kept = dist.get_rank(), []
for step in range(400):
    if rank == 1:
        kept.append(torch.ones($width * 65_536))
        log.info("rank 1 step %d host memory %d MB", step, sum(block.nbytes for block in kept) // 2**20)
    dist.all_reduce(torch.ones(4))
""",
    says=("Signal 9 (SIGKILL) received by PID", "host memory"),
    because="rank 1 fills the cgroup and is killed; torchrun sees signal 9",
    stage=Stage(command="torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script", memory_mb=1100),
    confidence="medium",
    hard="consequence",
    decoy="collective_hang",
    ranks=2,
    first_rank=1,
)
fault(
    "pinned_memory_limit",
    "mlock",
    """
import ctypes, mmap, os

libc = ctypes.CDLL(None, use_errno=True)

def pinned(size):
    buffer = mmap.mmap(-1, size)
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(size)):
        code = ctypes.get_errno()
        raise OSError(code, f"mlock of {size >> 20} MiB of page-locked host memory failed ({os.strerror(code)}); check ulimit -l")
    return buffer

log.info("pinning staging buffers")
buffers = [pinned(2**20 * 2**step) for step in range(8)]
""",
    says=("page-locked host memory failed", "ulimit -l"),
    because="RLIMIT_MEMLOCK is 4 MB and the buffers need more",
    stage=Stage(limits={"memlock": 4 * 2**20}, unprivileged=True),
    exit=1,
)
