"""Disk, shared memory, file handles and the processes that load data fail."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("storage_io")

TRAIN = """
import torch
from torch import nn

model = nn.Sequential(nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, $classes))
for step in range(1, 9):
    loss = model(torch.randn($batch, 600)).square().mean()
    loss.backward()
    log.info("step %d loss %.4f", step, loss.item())
    if step % $fail_at == 0:
        log.info("saving checkpoint to ckpt/step%d.pt", step)
        {save}
"""

fault(
    "disk_full",
    "torch_save",
    TRAIN.replace("{save}", 'torch.save(model.state_dict(), f"ckpt/step{step}.pt")'),
    says=("unexpected pos", "torch/serialization.py", "saving checkpoint"),
    because="the checkpoint folder is a tmpfs of 1 MB; torch's writer reports only that it did not get as far as it should",
    stage=Stage(tmpfs={"ckpt": "1m"}),
    confidence="medium",
    exit=1,
)
fault(
    "disk_full",
    "plain_write",
    TRAIN.replace(
        "{save}",
        'open(f"ckpt/step{step}.bin", "wb").write(b"".join(p.detach().numpy().tobytes() for p in model.parameters()))',
    ),
    says=("OSError: [Errno 28] No space left on device",),
    because="the checkpoint folder is a tmpfs of 1 MB",
    stage=Stage(tmpfs={"ckpt": "1m"}),
    exit=1,
    fast=True,
)
fault(
    "disk_full",
    "safetensors",
    TRAIN.replace(
        "{save}",
        'import safetensors.torch; safetensors.torch.save_file(model.state_dict(), f"ckpt/step{step}.safetensors")',
    ),
    says=("No space left on device",),
    because="safetensors writes into a tmpfs of 1 MB",
    stage=Stage(tmpfs={"ckpt": "1m"}),
    exit=1,
)
fault(
    "disk_full",
    "log_file",
    """
import shutil

for step in range(10_000):
    with open("logs/$run.jsonl", "a") as file:
        file.write(f'{{"step": {step}, "loss": {3 / (step + 1):.6f}}}' * 50 + "\\n")
    if step % 20 == 0:
        log.info("step %d, %d KB free in logs", step, shutil.disk_usage("logs").free // 1024)
""",
    says=("OSError: [Errno 28] No space left on device",),
    because="metrics fill a tmpfs of 200 KB",
    stage=Stage(tmpfs={"logs": "200k"}),
    exit=1,
)
fault(
    "shm_too_small",
    "dataloader_bus_error",
    """
import torch
from torch.utils.data import DataLoader, Dataset

class Images(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return torch.zeros(3, 256, 256)

for step, images in enumerate(DataLoader(Images(), batch_size=$batch, num_workers=2)):
    log.info("step %d images %s", step, tuple(images.shape))
""",
    says=("unable to allocate shared memory(shm) for file",),
    because="/dev/shm has 1 MB and a batch more",
    stage=Stage(tmpfs={"/dev/shm": "1m"}),
    exit=1,
)
fault(
    "shm_too_small",
    "shared_memory_block",
    """
from multiprocessing import shared_memory
import numpy as np

def ring(slots):
    return shared_memory.SharedMemory(create=True, size=slots * 2**20)

log.info("allocating a ring of 8 slots in /dev/shm")
block = ring(8)
np.ndarray((8, 2**20), dtype=np.uint8, buffer=block.buf)[:] = 1
log.info("ring ready")
""",
    says=("Bus error", "in /dev/shm"),
    because="a shared-memory ring of 8 MB is touched in a /dev/shm of 1 MB",
    stage=Stage(command="python -X faulthandler $script", tmpfs={"/dev/shm": "1m"}),
    confidence="medium",
)
fault(
    "too_many_open_files",
    "leaked_handles",
    """
handles = []
for number in range(400):
    handles.append(open(f"shard{number:04d}.bin", "wb"))
    if number % 20 == 0:
        log.info("opened %d shards", number)
""",
    says=("OSError: [Errno 24] Too many open files",),
    because="64 handles are allowed and none is closed",
    stage=Stage(limits={"nofile": 64}),
    exit=1,
    fast=True,
)
fault(
    "too_many_open_files",
    "tensors_through_queue",
    """
import torch
import torch.multiprocessing as mp

def fill(queue):
    for number in range(200):
        queue.put(torch.full((16,), float(number)))

if __name__ == "__main__":
    queue = mp.Queue()
    worker = mp.Process(target=fill, args=(queue,), daemon=True)
    worker.start()
    kept = []
    for number in range(200):
        kept.append(queue.get(timeout=90))
        if number % 10 == 0:
            log.info("collected %d sample tensors", number)
""",
    says=("Too many open files",),
    because="every shared tensor keeps a descriptor open and 64 are allowed",
    stage=Stage(limits={"nofile": 64}),
)
fault(
    "dataloader_worker_killed",
    "sigkill",
    """
import os, signal
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        if index == 20 * $fail_at:
            time.sleep(0.5)  # let the loop take what is ready
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros($width)

for step, rows in enumerate(DataLoader(Rows(), batch_size=$batch, num_workers=2)):
    log.info("step %d", step)
""",
    says=("RuntimeError: DataLoader worker (pid", "is killed by signal: Killed"),
    because="a loader's worker is killed with SIGKILL",
    exit=1,
)
fault(
    "dataloader_worker_killed",
    "exited",
    """
import os
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 400

    def __getitem__(self, index):
        if index == 20 * $fail_at:
            time.sleep(0.5)
            os._exit(1)
        return torch.zeros($width)

for step, rows in enumerate(DataLoader(Rows(), batch_size=$batch, num_workers=2)):
    log.info("step %d", step)
""",
    says=("exited unexpectedly", "DataLoader worker (pid"),
    because="a loader's worker ends by itself in the middle of an epoch",
    exit=1,
)
fault(
    "mmap_io_bus_error",
    "memmap_shrunk",
    """
import os
import numpy as np

tokens = np.memmap("$shard.bin", dtype=np.uint16, mode="w+", shape=(4 * 2**20,))
tokens.flush()

def block(index):
    return int(tokens[index * 2**18 : (index + 1) * 2**18].astype(np.int64).sum())

for step in range(16):
    if step == $fail_at:
        os.truncate("$shard.bin", 4096)  # the writer on the other side of the network starts the file anew
    log.info("read block %d of $shard.bin through memmap: %d", step, block(step))
""",
    says=("Fatal Python error: Bus error", "through memmap"),
    because="a memory-mapped file gets shorter while it is read",
    stage=Stage(command="python -X faulthandler $script"),
)
fault(
    "stale_file_handle",
    "handle_of_removed_file",
    """
import ctypes, os

libc = ctypes.CDLL(None, use_errno=True)

class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

def handle_of(path):
    handle, mount = Handle(128, 0), ctypes.c_int()
    if libc.name_to_handle_at(-100, path.encode(), ctypes.byref(handle), ctypes.byref(mount), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return handle

def open_shard(folder, handle, path):
    descriptor = libc.open_by_handle_at(folder, ctypes.byref(handle), os.O_RDONLY)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    return os.fdopen(descriptor, "rb")

open("$shard.tar", "wb").write(b"x" * 4096)
folder = os.open(".", os.O_RDONLY)
handle = handle_of("$shard.tar")
for epoch in range(4):
    log.info("epoch %d: reading /mnt/nfs/data/$shard.tar", epoch)
    if epoch == 2:
        os.unlink("$shard.tar")
    with open_shard(folder, handle, "/mnt/nfs/data/$shard.tar") as file:
        log.info("%d bytes", len(file.read()))
""",
    says=("OSError: [Errno 116] Stale file handle",),
    because="the file behind the handle was removed, as by another client of a network file system",
    needs=("root",),
    exit=1,
)
fault(
    "concurrent_download_race",
    "incomplete_moved",
    """
import os, sys, time

rank = int(os.environ["RANK"])
log.info("rank %d: fetching model.safetensors into the shared cache", rank)
os.makedirs("cache", exist_ok=True)
with open("cache/model.safetensors.incomplete", "wb") as file:
    file.write(b"0" * 4096)
while len([name for name in os.listdir(".") if name.startswith("ready")]) < 2:
    open(f"ready{rank}", "w").close()
    time.sleep(0.05)
time.sleep(0.3 * rank)
log.info("rank %d: download complete, moving it into place", rank)
os.rename("cache/model.safetensors.incomplete", "cache/model.safetensors")
log.info("rank %d: model loaded", rank)
""",
    says=(
        "FileNotFoundError: [Errno 2] No such file or directory: 'cache/model.safetensors.incomplete' ->",
        "rank 0: fetching",
        "rank 1: fetching",
    ),
    because="two ranks download into one cache without a lock; the first takes the file from the second",
    stage=Stage(command="(RANK=0 python $script & RANK=1 python $script & wait) 2>&1; exit 1"),
    confidence="medium",
    hard="ambiguous",
    decoy="config_permission",
    exit=1,
)
fault(
    "disk_io_error",
    "eio",
    """
import os

os.symlink("/proc/self/mem", "$shard.tar")  # reading unmapped memory is the kernel's own EIO

def scan(path):
    with open(path, "rb", buffering=0) as file:
        return len(file.read(4096))

for number in range(3):
    log.info("reading $shard.tar, attempt %d", number)
    try:
        scan("$shard.tar")
    except OSError:
        if number == 2:
            raise
""",
    says=("OSError: [Errno 5] Input/output error",),
    because="every read of the shard fails with EIO",
    exit=1,
)
