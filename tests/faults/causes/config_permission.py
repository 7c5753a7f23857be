"""Options, paths, credentials or permissions are wrong."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("config_permission")

TINY = "dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100)"
ARGUMENTS = """
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
parser.add_argument("--data", required=True)
arguments = parser.parse_args()
"""
# A hub that refuses: huggingface_hub reads the reason from these headers.
HUB = """
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Hub(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response({code})
        self.send_header("X-Error-Code", "{reason}")
        self.send_header("X-Error-Message", "{message}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_):
        pass

threading.Thread(target=HTTPServer(("127.0.0.1", $port), Hub).serve_forever, daemon=True).start()
from transformers import AutoModelForCausalLM

log.info("loading org/$run")
AutoModelForCausalLM.from_pretrained("org/$run")
"""

fault(
    "invalid_cli_argument",
    "unknown_option",
    ARGUMENTS,
    says=("error: unrecognized arguments: --learning-rate",),
    because="the option is called --lr",
    stage=Stage(command="python $script --data d --learning-rate 0.1"),
    exit=2,
    fast=True,
)
fault(
    "invalid_cli_argument",
    "choice",
    ARGUMENTS,
    says=("error: argument --precision: invalid choice: 'fp8'",),
    because="fp8 is not among the choices",
    stage=Stage(command="python $script --data d --precision fp8"),
    exit=2,
)
fault(
    "invalid_cli_argument",
    "hf_arguments",
    """
from transformers import HfArgumentParser, TrainingArguments

(arguments,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
""",
    says=("ValueError: Some specified arguments are not used by the HfArgumentParser",),
    because="an option that TrainingArguments does not have",
    stage=Stage(command="python $script --output_dir out --per_gpu_batch 4"),
    exit=1,
)
fault(
    "invalid_cli_argument",
    "torchrun",
    "log.info('never reached')\n",
    says=("torchrun: error: unrecognized arguments",),
    because="an option that torchrun does not have",
    stage=Stage(command="torchrun --num-gpus=8 $script"),
    exit=2,
)
fault(
    "invalid_parallel_config",
    "device_mesh",
    """
import torch
from torch.distributed.device_mesh import init_device_mesh

log.info("building mesh dp=2 x tp=4")
mesh = init_device_mesh("cpu", (2, 4), mesh_dim_names=("dp", "tp"))
""",
    says=("RuntimeError: Mesh should not be bigger than default world size",),
    because="the mesh asks for eight ranks, the job has two",
    stage=Stage(command="torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script"),
    exit=1,
    ranks=2,
)
fault(
    "invalid_parallel_config",
    "divisibility",
    """
def layout(world, tensor, pipeline):
    if world % (tensor * pipeline):
        raise ValueError(f"world size ({world}) is not divisible by tensor parallel size ({tensor}) times pipeline parallel size ({pipeline})")
    return world // (tensor * pipeline)

log.info("parallel layout")
layout(6, 4, 1)
""",
    says=("is not divisible by tensor parallel size",),
    because="six ranks cannot be cut in groups of four",
    exit=1,
)
fault(
    "invalid_parallel_config",
    "heads",
    """
import torch
from torch import nn

nn.MultiheadAttention(embed_dim=$width + 1, num_heads=8)
""",
    says=("AssertionError: embed_dim must be divisible by num_heads",),
    because="the width is not a multiple of the heads",
    confidence="low",  # an invalid argument of the code as much as of a configuration
    exit=1,
)
fault(
    "path_not_found",
    "dataset",
    """
def corpus(path):
    with open(path) as file:
        return file.read()

log.info("opening dataset")
corpus("/data/$run/train.txt")
""",
    says=("FileNotFoundError: [Errno 2] No such file or directory: '/data/",),
    because="the data folder does not exist on this machine",
    exit=1,
)
fault(
    "path_not_found",
    "script",
    "pass\n",
    says=("can't open file", "[Errno 2] No such file or directory"),
    because="the launcher is given a script that is not there",
    stage=Stage(command="python scripts/$script --epochs 3"),
    exit=2,
)
fault(
    "path_not_found",
    "config_yaml",
    """
import yaml

def settings(name):
    with open(f"configs/{name}.yaml") as file:
        return yaml.safe_load(file)

log.info("experiment %s", "$run")
settings("$run")
""",
    says=("FileNotFoundError: [Errno 2] No such file or directory: 'configs/",),
    because="there is no configuration of this name",
    exit=1,
)
fault(
    "permission_denied",
    "output_folder",
    """
import os

log.info("writing to checkpoints/, which belongs to uid %d", os.stat("checkpoints").st_uid)
open("checkpoints/step1.pt", "wb")
""",
    says=("PermissionError: [Errno 13] Permission denied: 'checkpoints/step1.pt'",),
    because="the folder belongs to another user than the job's",
    stage=Stage(files={"checkpoints/.keep": ""}, unprivileged=True),
    exit=1,
    fast=True,
)
fault(
    "permission_denied",
    "cache_folder",
    f"""
from transformers import BertConfig

log.info("saving the configuration")
BertConfig(**{TINY}).save_pretrained("shared/models/$run")
""",
    says=("PermissionError: [Errno 13] Permission denied: 'shared/models/",),
    because="the shared model folder may not be written by this user",
    stage=Stage(files={"shared/models/.keep": ""}, unprivileged=True),
    exit=1,
)
fault(
    "permission_denied",
    "privileged_port",
    """
from http.server import HTTPServer, SimpleHTTPRequestHandler

log.info("serving on port 80")
HTTPServer(("127.0.0.1", 80), SimpleHTTPRequestHandler)
""",
    says=("PermissionError: [Errno 13] Permission denied", "serving on port 80"),
    because="an ordinary user may not bind port 80",
    stage=Stage(command="python $script", unprivileged=True),
    exit=1,
)
fault(
    "permission_denied",
    "read_only",
    """
import os

log.info("mounting")
open("ro/metrics.jsonl", "w")
""",
    says=("OSError: [Errno 30] Read-only file system: 'ro/metrics.jsonl'",),
    because="the folder is mounted read-only",
    stage=Stage(command="mount -o remount,ro ro && python $script", tmpfs={"ro": "1m"}),
    confidence="medium",  # storage_io holds failing disks; this one works and refuses
    exit=1,
)
fault(
    "gated_or_unauthorized_model",
    "gated",
    HUB.format(
        code=403, reason="GatedRepo", message="Access to model is restricted and you are not in the authorized list."
    ),
    says=("You are trying to access a gated repo",),
    because="our stand-in for the hub answers as for a gated model",
    stage=Stage(env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:$port"}),
    draws={"port": (18080,)},
    exit=1,
)
fault(
    "gated_or_unauthorized_model",
    "unauthorized",
    HUB.format(code=401, reason="RepoNotFound", message="Invalid username or password."),
    says=("is not a local folder and is not a valid model identifier",),
    because="our stand-in for the hub answers 401",
    stage=Stage(env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:$port"}),
    draws={"port": (18080,)},
    confidence="medium",
    exit=1,
)
fault(
    "storage_credentials",
    "boto3",
    """
import boto3

log.info("uploading checkpoint to s3://$run/step100")
boto3.client("s3", region_name="us-east-1").put_object(Bucket="$run", Key="step100", Body=b"0")
""",
    says=("botocore.exceptions.NoCredentialsError: Unable to locate credentials",),
    because="no credentials are configured",
    stage=Stage(packages=("boto3", "botocore", "s3transfer", "jmespath"), env={"AWS_EC2_METADATA_DISABLED": "true"}),
    exit=1,
)
fault(
    "unsupported_model_or_option",
    "model_type",
    """
from transformers import AutoConfig

log.info("loading $run")
AutoConfig.from_pretrained("$run")
""",
    says=("model type `zephyrnet`", "does not recognize this architecture"),
    because="the model type is unknown to transformers",
    stage=Stage(files={"$run/config.json": '{"model_type": "zephyrnet", "hidden_size": 64}'}),
    exit=1,
)
fault(
    "unsupported_model_or_option",
    "attention",
    f"""
from transformers import BertConfig, BertModel

log.info("building")
BertModel._from_config(BertConfig(**{TINY}), attn_implementation="ring")
""",
    says=("ValueError", 'attn_implementation="ring"'),
    because="there is no such attention implementation",
    exit=1,
)
fault(
    "unsupported_model_or_option",
    "compile_backend",
    """
import torch

log.info("compiling with backend turbo")
torch.compile(torch.nn.Linear($width, 1), backend="turbo")(torch.randn(2, $width))
""",
    says=("Invalid backend: 'turbo'",),
    because="torch.compile knows no backend of this name",
    exit=1,
)
fault(
    "environment_not_detected",
    "env_rendezvous",
    """
import torch.distributed as dist

log.info("joining the job")
dist.init_process_group("gloo")
""",
    says=("environment variable RANK expected, but not set",),
    because="the script is started without a launcher",
    confidence="medium",
    exit=1,
)
fault(
    "environment_not_detected",
    "lightning_gpu",
    """
import lightning as L

log.info("trainer on 8 GPUs")
L.Trainer(accelerator="gpu", devices=8)
""",
    says=("MisconfigurationException: No supported gpu backend found!",),
    because="the configuration asks for GPUs on a machine that has none",
    exit=1,
)
fault(
    "environment_not_detected",
    "bf16_on_no_gpu",
    """
import os

def required(name):
    if name not in os.environ:
        raise RuntimeError(f"{name} is not set: not running under Slurm? Start with srun, or pass --local")
    return os.environ[name]

log.info("reading the job's layout")
rank, nodes = required("SLURM_PROCID"), required("SLURM_NNODES")
""",
    says=("SLURM_PROCID is not set",),
    because="the script expects Slurm's variables",
    exit=1,
)
fault(
    "checkpoint_config_conflict",
    "megatron_style",
    """
import torch

torch.save({"args": {"hidden_size": $width, "num_layers": 4}}, "$run.pt")
arguments = {"hidden_size": 2 * $width, "num_layers": 4}
log.info("loading checkpoint $run.pt")
for name, value in torch.load("$run.pt")["args"].items():
    assert value == arguments[name], f"{name} value from checkpoint ({value}) is not equal to the input argument value ({arguments[name]})."
""",
    says=("value from checkpoint (", "is not equal to the input argument value ("),
    because="the run asks for another width than the checkpoint was trained with",
    exit=1,
)
fault(
    "checkpoint_config_conflict",
    "optimizer_groups",
    """
import torch
from torch import nn

model = nn.Linear($width, 4)
torch.save(torch.optim.AdamW(model.parameters()).state_dict(), "optimizer.pt")
log.info("resuming with weight decay for weights only")
now = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}])
now.load_state_dict(torch.load("optimizer.pt"))
""",
    says=("ValueError: loaded state dict has a different number of parameter groups",),
    because="the saved optimizer had one parameter group, the new one two",
    confidence="low",  # the state does not fit: checkpoint_artifact as well
    exit=1,
)
fault(
    "unsupported_model_or_option",
    "yaml_syntax",
    """
import yaml

log.info("reading configs/$run.yaml")
with open("configs/$run.yaml") as file:
    settings = yaml.safe_load(file)
""",
    says=("yaml.scanner.ScannerError", "configs/"),
    because="the run's own configuration is no YAML",
    stage=Stage(files={"configs/$run.yaml": "model:\n  width: 64\n  lr: 1e-3: 2\n"}),
    confidence="medium",  # the taxonomy has no cause of its own for a broken configuration file
    exit=1,
)
