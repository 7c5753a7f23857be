"""Weights, states and caches are missing, damaged, or of another model."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("checkpoint_artifact")

SAVED = """
import torch
from torch import nn

def build(width=$width):
    return nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, $classes))

torch.save({"model": build().state_dict(), "ema": torch.zeros(200_000), "step": 100 * $fail_at}, "$run.pt")
"""
CUT = """
data = open("{file}", "rb").read()
open("{file}", "wb").write(data[: int(len(data) * {part})])
"""
TINY = "dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=100)"

fault(
    "truncated_or_corrupt_file",
    "torch_zip",
    SAVED
    + CUT.format(file="$run.pt", part="0.6")
    + """
log.info("resuming from %s", "$run.pt")
state = torch.load("$run.pt")
""",
    says=("PytorchStreamReader failed reading zip archive: failed finding central directory",),
    because="the last two fifths of the checkpoint are missing",
    exit=1,
    fast=True,
)
fault(
    "truncated_or_corrupt_file",
    "torch_head_zeroed",
    SAVED
    + """
data = bytearray(open("$run.pt", "rb").read())
data[:512] = bytes(512)
open("$run.pt", "wb").write(data)
log.info("resuming from $run.pt")
state = torch.load("$run.pt")
""",
    says=("legacy_load", "resuming from $run.pt"),
    because="the first block of the checkpoint is zeroed, so torch takes it for a pickle of its old format",
    confidence="medium",
    exit=1,
)

fault(
    "truncated_or_corrupt_file",
    "safetensors",
    """
import torch
from safetensors.torch import load_file, save_file

save_file({"weight": torch.randn($width, $width)}, "model.safetensors")
"""
    + CUT.format(file="model.safetensors", part="0.5")
    + """
log.info("loading model.safetensors")
load_file("model.safetensors")
""",
    says=("SafetensorError", "file not fully covered"),
    because="half of the safetensors file is missing",
    exit=1,
)
fault(
    "truncated_or_corrupt_file",
    "empty_pickle",
    """
import pickle
open("optimizer_state.pkl", "wb").close()
log.info("loading optimizer_state.pkl")
with open("optimizer_state.pkl", "rb") as file:
    state = pickle.load(file)
""",
    says=("EOFError: Ran out of input", "optimizer_state.pkl"),
    because="the state file has 0 bytes",
    exit=1,
)
fault(
    "truncated_or_corrupt_file",
    "npz",
    """
import numpy as np
np.savez("embeddings.npz", table=np.ones(($width, 64)))
"""
    + CUT.format(file="embeddings.npz", part="0.7")
    + """
log.info("loading pretrained embeddings.npz")
table = np.load("embeddings.npz")["table"]
""",
    says=("zipfile.BadZipFile",),
    because="a third of the npz archive is missing",
    exit=1,
)
fault(
    "state_dict_key_mismatch",
    "ddp_prefix",
    SAVED
    + """
state = {f"module.{name}": tensor for name, tensor in torch.load("$run.pt")["model"].items()}
log.info("loading weights saved under DDP")
build().load_state_dict(state)
""",
    says=(
        "Error(s) in loading state_dict for Sequential",
        "Unexpected key(s) in state_dict",
        "Missing key(s) in state_dict",
    ),
    because="the checkpoint's keys carry DDP's prefix",
    exit=1,
)
fault(
    "state_dict_key_mismatch",
    "lightning_resume",
    """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class Net(L.LightningModule):
    def __init__(self, name):
        super().__init__()
        setattr(self, name, torch.nn.Linear($width, 1))
        self.name = name

    def training_step(self, batch, index):
        return getattr(self, self.name)(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

rows = DataLoader(TensorDataset(torch.randn(16, $width)), batch_size=$batch)
quiet = dict(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
first = L.Trainer(max_epochs=1, **quiet)
first.fit(Net("head"), rows)
first.save_checkpoint("last.ckpt")
L.Trainer(max_epochs=2, **quiet).fit(Net("classifier"), rows, ckpt_path="last.ckpt")
""",
    says=("Error(s) in loading state_dict for Net", "Missing key(s) in state_dict"),
    because="the layer was renamed between saving and resuming",
    exit=1,
)
fault(
    "state_dict_shape_mismatch",
    "resized_head",
    SAVED
    + """
model = build()
model[2] = nn.Linear(2 * $width, $classes + 3)
log.info("fine-tuning with %d classes", $classes + 3)
model.load_state_dict(torch.load("$run.pt")["model"])
""",
    says=("size mismatch for 2.weight",),
    because="the new head has three classes more than the checkpoint",
    exit=1,
)
fault(
    "state_dict_shape_mismatch",
    "hf_vocabulary",
    f"""
from transformers import BertConfig, BertForMaskedLM

small = {TINY}
BertForMaskedLM(BertConfig(**small)).save_pretrained("$run")
log.info("loading $run with a vocabulary of 164")
BertForMaskedLM.from_pretrained("$run", config=BertConfig(**(small | dict(vocab_size=164))))
""",
    says=("size mismatch", "ignore_mismatched_sizes"),
    because="the configuration's vocabulary is larger than the checkpoint's",
    exit=1,
)
fault(
    "incompatible_serialization",
    "weights_only",
    """
import torch

class TrainState:
    step = 100

torch.save({"state": TrainState(), "weights": torch.ones($width)}, "$run.pt")
log.info("loading $run.pt")
torch.load("$run.pt")
""",
    says=("_pickle.UnpicklingError: Weights only load failed",),
    because="the checkpoint holds an object of a class that weights_only does not allow",
    exit=1,
)
fault(
    "incompatible_serialization",
    "class_moved",
    """
import torch

log.info("loading $run.pt")
state = torch.load("$run.pt", weights_only=False)
""",
    says=("Can't get attribute 'TrainState' on <module '__main__'",),
    because="the class pickled into the checkpoint no longer exists",
    stage=Stage(
        files={"save.py": "import torch\nclass TrainState:\n    step = 3\ntorch.save(TrainState(), '$run.pt')\n"},
        command="python save.py && python $script",
    ),
    exit=1,
)
fault(
    "incompatible_serialization",
    "pickle_protocol",
    """
import pickle
data = bytearray(pickle.dumps({"step": 3}))
data[1] = 9
open("scaler.pkl", "wb").write(data)
log.info("loading scaler.pkl")
pickle.load(open("scaler.pkl", "rb"))
""",
    says=("ValueError: unsupported pickle protocol: 9",),
    because="the file was written in a later pickle protocol",
    exit=1,
)
fault(
    "wrong_artifact_format",
    "lfs_pointer",
    """
import torch

log.info("loading pytorch_model.bin")
torch.load("pytorch_model.bin", weights_only=False)
""",
    says=("_pickle.UnpicklingError: invalid load key, 'v'",),
    because="the file is a git-lfs pointer of three lines, not the weights",
    stage=Stage(
        files={
            "pytorch_model.bin": "version https://git-lfs.github.com/spec/v1\noid sha256:"
            + "0a" * 32
            + "\nsize 438007537\n"
        }
    ),
    exit=1,
)
fault(
    "wrong_artifact_format",
    "html_as_safetensors",
    """
from safetensors.torch import load_file

log.info("loading adapter_model.safetensors")
load_file("adapter_model.safetensors")
""",
    says=("SafetensorError: Error while deserializing header",),
    because="the file is a web page saved under the name of the weights",
    stage=Stage(files={"adapter_model.safetensors": "<!DOCTYPE html><html><body>Please sign in</body></html>\n" * 3}),
    confidence="medium",
    exit=1,
)
fault(
    "artifact_file_missing",
    "hf_weights",
    f"""
from transformers import BertConfig, BertModel

BertConfig(**{TINY}).save_pretrained("$run")
log.info("loading $run")
BertModel.from_pretrained("$run")
""",
    says=("no file named", "found in directory"),
    because="the folder holds a configuration and no weights",
    exit=1,
)
fault(
    "artifact_file_missing",
    "resume_from_empty",
    f"""
import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

rows = [dict(input_ids=torch.arange(8), labels=0)] * 8
arguments = TrainingArguments("out", max_steps=2, use_cpu=True, report_to=[])
Trainer(BertForSequenceClassification(BertConfig(**{TINY})), arguments, train_dataset=rows).train(resume_from_checkpoint=True)
""",
    says=("ValueError: No valid checkpoint found in output directory",),
    because="a run is resumed that never saved",
    exit=1,
)
fault(
    "stale_jit_cache",
    "cpp_extension",
    """
import glob, os
import torch
from torch.utils.cpp_extension import _import_module_from_library

# What load() does when its build folder is up to date. The node that wrote the cache had a full disk.
cache = os.path.abspath("torch_extensions/py311_cpu/fused_adam")
os.makedirs(cache)
library = glob.glob(os.path.join(os.path.dirname(torch.__file__), "lib", "libtorch_python.so"))[0]
open(f"{cache}/fused_adam.so", "wb").write(open(library, "rb").read(100))
log.info("No modifications detected for extension module fused_adam, skipping build step")
log.info("Loading extension module fused_adam...")
_import_module_from_library("fused_adam", cache, True)
""",
    says=("skipping build step", "torch_extensions/", "file too short"),
    because="a cached, compiled extension is cut off and taken for up to date",
    exit=1,
)
