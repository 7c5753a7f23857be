"""One rank of several fails in its own way; the others meet the consequence in the next all-reduce.

The truth of these is exact in two respects: what failed, and on which rank.
"""

from __future__ import annotations

from fault import Stage, faults_of

LOOP = """
import datetime, json, os
import torch
import torch.distributed as dist
from torch import nn

dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=20))
rank, world = dist.get_rank(), dist.get_world_size()

{before}
def step_of(step):
    if rank == {rank} and step == $fail_at:
        {fails}
    return 3 / (step + 1)

for step in range(8):
    loss = torch.tensor([step_of(step)])
    dist.all_reduce(loss)
    log.info("rank %d step %d loss %.4f", rank, step, loss.item() / world)
"""


def one_rank(
    category: str,
    cause: str,
    name: str,
    rank: int,
    fails: str,
    says: tuple[str, ...],
    because: str,
    *,
    world: int = 2,
    before: str = "",
    exit: int | None = 1,
    **stage,
) -> None:
    faults_of(category)(
        cause,
        f"rank_{rank}_{name}",
        LOOP.format(before=before, rank=rank, fails=fails),
        says=says,
        because=f"rank {rank}: {because}; the others lose their peer",
        stage=Stage(
            command=f"torchrun --standalone --nproc-per-node {world} --log-dir logs --tee 3 $script",
            **stage,
        ),
        exit=exit,
        ranks=world,
        first_rank=rank,
        hard="consequence",
        decoy="collective_hang",
    )


one_rank(
    "code_error",
    "shape_mismatch",
    "linear",
    1,
    "nn.Linear($width, 4)(torch.ones($batch, $width + 1))",
    ("mat1 and mat2 shapes cannot be multiplied",),
    "its last batch has one feature too many",
)
one_rank(
    "code_error",
    "name_or_syntax_error",
    "name",
    0,
    "return los",
    ("NameError: name 'los' is not defined",),
    "a branch that only it takes has a misspelt name",
)
one_rank(
    "data_format",
    "missing_field",
    "key",
    1,
    'return {"text": "x"}["labels"]',
    ("KeyError: 'labels'",),
    "its shard lacks the field",
)
one_rank(
    "data_format",
    "invalid_json_or_csv",
    "json",
    2,
    'json.loads(\'{"text": "abc\')',
    ("json.decoder.JSONDecodeError: Unterminated string",),
    "a line of its shard is cut off",
    world=3,
)
one_rank(
    "data_format",
    "label_out_of_range",
    "target",
    1,
    "nn.functional.cross_entropy(torch.ones(4, $classes), torch.full((4,), $classes))",
    ("IndexError: Target", "is out of bounds"),
    "its shard holds an unknown class",
)
one_rank(
    "storage_io",
    "disk_full",
    "write",
    0,
    'open("ckpt/step.bin", "wb").write(bytes(2**21))',
    ("OSError: [Errno 28] No space left on device",),
    "it alone writes checkpoints, into a full tmpfs",
    tmpfs={"ckpt": "1m"},
)
one_rank(
    "storage_io",
    "too_many_open_files",
    "handles",
    1,
    "kept = [open(os.devnull) for _ in range(10**6)]",
    ("OSError: [Errno 24] Too many open files",),
    "it opens shards and closes none",
    limits={"nofile": 256},
)
one_rank(
    "storage_io",
    "disk_io_error",
    "eio",
    2,
    'open("/proc/self/mem", "rb", buffering=0).read(16)',
    ("OSError: [Errno 5] Input/output error",),
    "its shard cannot be read",
    world=3,
)
one_rank(
    "host_oom",
    "host_ram_exhausted",
    "numpy",
    1,
    "import numpy; numpy.ones((10**6, 10**6))",
    ("Unable to allocate", "_ArrayMemoryError"),
    "it builds a dense matrix",
    limits={"as": 40 * 2**30},
)
one_rank(
    "numerical",
    "nan_inf_logits",
    "multinomial",
    1,
    "torch.multinomial(torch.full((2, 4), float('nan')), 1)",
    ("probability tensor contains either `inf`, `nan` or element < 0",),
    "its logits are NaN",
)
one_rank(
    "checkpoint_artifact",
    "truncated_or_corrupt_file",
    "pickle",
    0,
    'import pickle; open("rng.pkl", "wb").close(); pickle.load(open("rng.pkl", "rb"))',
    ("EOFError: Ran out of input", "rng.pkl"),
    "its state file is empty",
)
one_rank(
    "missing_dependency",
    "python_module_missing",
    "import",
    1,
    "import decord",
    ("ModuleNotFoundError: No module named 'decord'",),
    "its node lacks a package",
)
one_rank(
    "config_permission",
    "path_not_found",
    "shard",
    2,
    'open("/data/$run/$shard.bin")',
    ("FileNotFoundError: [Errno 2] No such file or directory: '/data/",),
    "its node has no data folder",
    world=3,
)
one_rank(
    "gpu_kernel_compile",
    "native_segfault",
    "dump",
    0,
    "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(8)",
    ("Fatal Python error: Segmentation fault",),
    "it crashes in native code",
)
