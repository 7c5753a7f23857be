"""A package, an extra, a shared library or a compiler is not there."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("missing_dependency")

fault(
    "python_module_missing",
    "plain_import",
    """
import torch
log.info("torch %s", torch.__version__)
import $module
""",
    says=("ModuleNotFoundError: No module named",),
    because="the package is not installed",
    draws={"module": ("flash_attn", "deepspeed", "xformers", "einops", "bitsandbytes", "apex")},
    exit=1,
    fast=True,
)
fault(
    "python_module_missing",
    "in_loader_worker",
    """
import torch
from torch.utils.data import DataLoader, Dataset

class Clips(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        import $module
        return $module.read(index)

if __name__ == "__main__":
    log.info("first batch")
    next(iter(DataLoader(Clips(), batch_size=4, num_workers=1)))
""",
    says=("ModuleNotFoundError: No module named", "Caught ModuleNotFoundError in DataLoader worker process"),
    enough=("ModuleNotFoundError: No module named",),
    because="the decoder used by the workers is not installed",
    draws={"module": ("decord", "soundfile", "librosa", "torchcodec")},
    exit=1,
)
fault(
    "optional_dependency_missing",
    "transformers_extra",
    """
import torch
from transformers import $processor

log.info("loading processor")
processor = $processor.from_pretrained("$run")
""",
    says=("ImportError", "requires the", "library but it was not found in your environment"),
    because="the class needs an optional library",
    draws={"processor": ("TimmWrapperImageProcessor", "SamProcessor", "GPTSw3Tokenizer")},
    exit=1,
)
fault(
    "optional_dependency_missing",
    "lightning_logger",
    """
from lightning.pytorch.loggers import $kind

log.info("logger %s", "$kind")
$kind("runs")
""",
    says=("ModuleNotFoundError",),
    because="the experiment logger's package is not installed",
    draws={"kind": ("WandbLogger", "MLFlowLogger", "TensorBoardLogger")},
    exit=1,
)
fault(
    "optional_dependency_missing",
    "hf_report_to",
    """
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

config = BertConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
arguments = TrainingArguments("out", use_cpu=True, report_to=["$kind"])
Trainer(BertForSequenceClassification(config), arguments).train()
""",
    says=("Run `pip install",),
    because="the integration asked for is not installed",
    draws={"kind": ("wandb", "mlflow", "comet_ml")},
    confidence="medium",
)
fault(
    "optional_dependency_missing",
    "flash_attention",
    """
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, vocab_size=100)
log.info("building the model with FlashAttention 2")
LlamaForCausalLM._from_config(config, attn_implementation="flash_attention_2")
""",
    says=("ImportError: FlashAttention2 has been toggled on, but it cannot be used",),
    because="the flash-attn package is not installed",
    exit=1,
)
fault(
    "shared_library_missing",
    "dlopen",
    """
import ctypes

log.info("loading the codec")
ctypes.CDLL("$library")
""",
    says=("cannot open shared object file: No such file or directory",),
    because="the library is not on this machine",
    draws={"library": ("libGL.so.1", "libsndfile.so.1", "libavcodec.so.58", "libcusparseLt.so.0", "libmpi.so.40")},
    exit=1,
)
fault(
    "shared_library_missing",
    "extension_needs_it",
    """
log.info("importing the fast tokenizer extension")
import fastext
""",
    says=("ImportError: libhelper.so.3: cannot open shared object file: No such file or directory",),
    because="an extension was linked with a library that was removed",
    stage=Stage(
        files={
            "helper.c": "int help(void) { return 1; }\n",
            "fastext.c": '#include <Python.h>\nint help(void);\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "fastext"};\n'
            "PyMODINIT_FUNC PyInit_fastext(void) { help(); return PyModule_Create(&m); }\n",
        },
        command="gcc -shared -fPIC -Wl,-soname,libhelper.so.3 -o libhelper.so helper.c && gcc -shared -fPIC "
        "-I$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))') -o fastext.so fastext.c -L. -lhelper && rm libhelper.so && python $script",
    ),
    needs=("gcc",),
    exit=1,
)
fault(
    "wrong_package_same_name",
    "apex",
    """
import torch
log.info("mixed precision through apex")
from apex import amp
""",
    says=("ImportError: cannot import name 'amp' from 'apex'", "site-packages/apex/__init__.py"),
    because="the package index's apex is an authentication library, not NVIDIA's",
    stage=Stage(
        files={
            "wheel.py": (
                "import zipfile\n"
                "w = zipfile.ZipFile('apex-0.9.10-py3-none-any.whl', 'w')\n"
                'w.writestr(\'apex/__init__.py\', \'"""Session and OAuth helpers for Pyramid."""\\n\')\n'
                "w.writestr('apex-0.9.10.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: apex\\nVersion: 0.9.10\\nSummary: Toolkit for Pyramid with authentication\\n')\n"
                "w.writestr('apex-0.9.10.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
                "w.writestr('apex-0.9.10.dist-info/RECORD', '')\n"
                "w.close()\n"
            )
        },
        command="python -m venv --without-pip --system-site-packages env && python wheel.py && "
        "python -c 'import sysconfig; print(sysconfig.get_path(\"purelib\"))' > $(echo env/lib/python3*/site-packages)/behind.pth; "
        "python -m pip --isolated --python env/bin/python install --no-index --no-deps ./apex-0.9.10-py3-none-any.whl; env/bin/python $script",
    ),
    exit=1,
)
fault(
    "compiler_missing",
    "inductor",
    """
import torch

@torch.compile
def step(x):
    return torch.sin(x) + torch.cos(x)

log.info("compiling")
step(torch.randn($width, $width))
""",
    says=("InvalidCxxCompiler", "No working C++ compiler found"),
    because="torch.compile on a CPU needs a C++ compiler and there is none",
    stage=Stage(env={"CXX": "/nonexistent/g++"}),
    exit=1,
)
fault(
    "compiler_missing",
    "setup_py",
    """
import subprocess, sys

log.info("building the kernels")
sys.exit(subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], env={"PATH": "/nonexistent", "CC": "x86_64-linux-gnu-gcc-99"}).returncode)
""",
    says=("No such file or directory: 'x86_64-linux-gnu-gcc-99'",),
    because="the C compiler of the build is not installed",
    stage=Stage(
        files={
            "setup.py": "from setuptools import Extension, setup\nsetup(name='kernels', ext_modules=[Extension('kernels', ['kernels.c'])])\n",
            "kernels.c": "int x;\n",
        }
    ),
    exit=1,
)
