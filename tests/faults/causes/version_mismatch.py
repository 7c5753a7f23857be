"""The parts are there and do not fit each other."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("version_mismatch")

INCLUDE = "-I$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')"
MODULE = '#include <Python.h>\n{before}\nstatic struct PyModuleDef m = {{PyModuleDef_HEAD_INIT, "fastext"}};\nPyMODINIT_FUNC PyInit_fastext(void) {{ {call} return PyModule_Create(&m); }}\n'

fault(
    "incompatible_package_versions",
    "old_hub_client",
    """
import transformers
log.info("transformers %s", transformers.__version__)
""",
    says=("ImportError", "huggingface"),
    because="transformers 5 beside a huggingface_hub years older",
    stage=Stage(packages=("huggingface_hub==0.16.4",), network=True),
    exit=1,
)
fault(
    "incompatible_package_versions",
    "old_tokenizers_metadata",
    """
log.info("starting")
import transformers
""",
    says=(
        "ImportError: tokenizers>=",
        "is required for a normal functioning of this module, but found tokenizers==0.13.3",
    ),
    because="transformers checks its dependencies and finds tokenizers 0.13",
    stage=Stage(
        files={
            "old/tokenizers-0.13.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: tokenizers\nVersion: 0.13.3\n"
        },
        env={"PYTHONPATH": "old"},
    ),
    exit=1,
)
fault(
    "incompatible_package_versions",
    "removed_name",
    """
import torch
log.info("torch %s", torch.__version__)
from transformers import $name
""",
    says=("ImportError: cannot import name", "from 'transformers'"),
    because="the script was written for transformers 4; the name is gone in 5",
    draws={"name": ("AdamW", "TFBertModel", "FlaxBertModel")},
    exit=1,
    confidence="medium",
)
fault(
    "incompatible_package_versions",
    "numpy_1_extension",
    """
import numpy
log.info("numpy %s", numpy.__version__)
import pywt
""",
    says=("numpy.dtype size changed, may indicate binary incompatibility",),
    because="the package was compiled against NumPy 1 and runs beside NumPy 2",
    stage=Stage(packages=("pywavelets==1.4.1",), network=True),
    confidence="medium",
)
fault(
    "incompatible_package_versions",
    "pip_resolution",
    """
import subprocess, sys

sys.exit(subprocess.run([sys.executable, "-m", "pip", "install", "--no-index", "--find-links", ".", "--target", "site", "trainkit", "evalkit"]).returncode)
""",
    says=("ResolutionImpossible", "conflicting dependencies"),
    because="two requirements pin two versions of a third",
    stage=Stage(
        files={
            "wheels.py": (
                "import zipfile\n"
                "for name, version, needs in [('trainkit', '2.0', 'corelib==1.0'), ('evalkit', '0.4', 'corelib==2.0'), ('corelib', '1.0', ''), ('corelib', '2.0', '')]:\n"
                "    with zipfile.ZipFile(f'{name}-{version}-py3-none-any.whl', 'w') as wheel:\n"
                "        wheel.writestr(f'{name}.py', '')\n"
                "        home = f'{name}-{version}.dist-info/'\n"
                "        wheel.writestr(home + 'METADATA', f'Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n' + (f'Requires-Dist: {needs}\\n' if needs else ''))\n"
                "        wheel.writestr(home + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
                "        wheel.writestr(home + 'RECORD', '')\n"
            )
        },
        command="python wheels.py && python $script",
    ),
    exit=1,
)
fault(
    "abi_undefined_symbol",
    "extension",
    """
import torch
log.info("torch %s", torch.__version__)
import fastext
""",
    says=("ImportError:", "undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationESs"),
    because="the extension calls a torch symbol of another C++ ABI",
    stage=Stage(
        files={
            "fastext.c": MODULE.format(
                before="extern void _ZN3c105ErrorC2ENS_14SourceLocationESs(void);",
                call="_ZN3c105ErrorC2ENS_14SourceLocationESs();",
            )
        },
        command=f"gcc -shared -fPIC {INCLUDE} -o fastext.so fastext.c && python $script",
    ),
    needs=("gcc",),
    exit=1,
)
fault(
    "gpu_arch_unsupported",
    "nvcc",
    """
import subprocess, sys

arch = "$arch"
log.info("building kernels for sm_%s", arch)
sys.exit(subprocess.run(["nvcc", f"-gencode=arch=compute_{arch},code=sm_{arch}", "-c", "kernel.cu", "-o", "kernel.o"]).returncode)
""",
    says=("Unsupported gpu architecture",),
    because="this CUDA no longer builds for the architecture asked for",
    stage=Stage(files={"kernel.cu": "__global__ void k(float *x) { x[threadIdx.x] *= 2; }\n"}),
    draws={"arch": ("35", "37", "50", "61", "70")},
    needs=("nvcc",),
    exit=1,
)
fault(
    "glibc_too_old",
    "extension",
    """
log.info("importing the prebuilt kernels")
import fastext
""",
    says=("version `GLIBC_2.99' not found",),
    because="the extension was linked with a newer C library than this machine's",
    stage=Stage(
        files={
            "libc.c": "void fresh(void) {}\n",
            "libc.map": "GLIBC_2.99 { global: fresh; };\n",
            "fastext.c": MODULE.format(before="extern void fresh(void);", call="fresh();"),
        },
        command="gcc -shared -fPIC -nostdlib -Wl,-soname,libc.so.6 -Wl,--version-script=libc.map -o stub.so libc.c && "
        f"gcc -shared -fPIC {INCLUDE} -o fastext.so fastext.c ./stub.so && python $script",
    ),
    needs=("gcc",),
    exit=1,
)
fault(
    "stale_build_artifacts",
    "bytecode",
    """
import py_compile
py_compile.compile("kernels.py", "stale/kernels.pyc")
data = bytearray(open("stale/kernels.pyc", "rb").read())
data[0] = (data[0] + 40) % 256  # as a 3.9 interpreter wrote it
open("stale/kernels.pyc", "wb").write(data)
sys.path.insert(0, "stale")
log.info("importing precompiled kernels")
import kernels
""".replace('"kernels.py"', '"source.py"'),
    says=("ImportError: bad magic number in 'kernels'",),
    because="compiled code of another Python lies in the path",
    stage=Stage(files={"source.py": "x = 1\n", "stale/readme": ""}),
    exit=1,
)
fault(
    "native_library_load_failure",
    "elf_class",
    """
import ctypes

log.info("loading libkernels.so")
ctypes.CDLL("./libkernels.so")
""",
    says=("OSError: ./libkernels.so: wrong ELF class",),
    because="a 32-bit library is loaded into a 64-bit process",
    stage=Stage(
        files={"k.c": "int x;\n"},
        command="gcc -shared -fPIC -nostdlib -o libkernels.so k.c && printf '\\001' | dd of=libkernels.so bs=1 seek=4 conv=notrunc 2>/dev/null; python $script",
    ),
    needs=("gcc",),
    exit=1,
)
fault(
    "wrong_source_revision",
    "example_of_a_later_version",
    """
from transformers.utils import check_min_version

log.info("checking requirements")
check_min_version("9.99.0.dev0")
""",
    says=("ImportError: This example requires a source install from HuggingFace Transformers",),
    because="the example script belongs to a later revision than the package",
    exit=1,
)
