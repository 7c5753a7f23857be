"""A kernel cannot be compiled, or native code crashes. No GPU is needed to fail to compile."""

from __future__ import annotations

from fault import Stage, faults_of

fault = faults_of("gpu_kernel_compile")

TRITON = Stage(packages=("triton==3.7.1",))
# Without a GPU the compiler is called by name, for an H100.
COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

{kernel}

log.info("compiling kernel for sm_90")
source = ASTSource(kernel, {{"x_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"}}, {{"BLOCK": $block}})
triton.compile(source, target=GPUTarget("cuda", 90, 32))
"""

fault(
    "triton_compile_error",
    "not_a_power_of_two",
    COMPILE.format(
        kernel="""@triton.jit
def kernel(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + offsets, 1.0, mask=offsets < n)"""
    ),
    says=("triton.compiler.errors.CompilationError", "power of 2"),
    because="tl.arange of a length that is no power of two",
    stage=TRITON,
    draws={"block": (100, 96, 1000)},
    exit=1,
)
fault(
    "triton_compile_error",
    "undefined_name",
    COMPILE.format(
        kernel="""@triton.jit
def kernel(x_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x_ptr + offsets, tl.load(x_ptr + offsets) * scale, mask=offsets < n)"""
    ),
    says=("triton.compiler.errors.CompilationError", "scale is not defined"),
    because="the kernel uses a name it was not given",
    stage=TRITON,
    draws={"block": (128, 256)},
    exit=1,
)
fault(
    "triton_compile_error",
    "interpreter",
    """
import torch
import triton
import triton.language as tl

@triton.jit
def kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets, mask=offsets < n)
    tl.store(y_ptr + offsets, tl.dot(x, x), mask=offsets < n)

x = torch.ones(100)
log.info("running under the Triton interpreter")
kernel[(1,)](x, torch.empty_like(x), 100, BLOCK=128)
""",
    says=("triton.runtime.errors.InterpreterError",),
    because="tl.dot of two vectors; the interpreter reports it",
    stage=Stage(packages=("triton==3.7.1",), env={"TRITON_INTERPRET": "1"}),
    exit=1,
)
fault(
    "torch_compile_failure",
    "fullgraph_break",
    """
import torch

@torch.compile(fullgraph=True, backend="eager")
def step(x):
    if x.sum() > 0:
        print("positive")
    return x * 2

log.info("compiling the step")
step(torch.randn($batch, $width))
""",
    says=("torch._dynamo.exc.",),
    because="a branch on data cannot be one graph",
    exit=1,
)
fault(
    "torch_compile_failure",
    "backend_raises",
    """
import torch

def backend(graph, inputs):
    for node in graph.graph.nodes:
        if node.op == "call_function" and "sin" in str(node.target):
            raise NotImplementedError(f"no lowering for {node.target}")
    return graph.forward

@torch.compile(backend=backend)
def step(x):
    return torch.sin(x) + 1

log.info("compiling")
step(torch.randn($width))
""",
    says=("BackendCompilerFailed", "no lowering for"),
    because="the backend cannot lower one operator",
    exit=1,
)
fault(
    "extension_build_failure",
    "cpp_extension",
    """
import torch
from torch.utils.cpp_extension import load_inline

log.info("building the extension")
load_inline("fused_$width", "int twice(int x) { return x * factor; }", functions=["twice"])
""",
    says=("RuntimeError: Error building extension", "was not declared in this scope"),
    because="the C++ source uses an undeclared name",
    stage=Stage(seconds=400),  # compiles torch's headers
    needs=("g++", "ninja"),
    exit=1,
)
fault(
    "extension_build_failure",
    "setup_py",
    """
import subprocess, sys

log.info("building kernels")
sys.exit(subprocess.run([sys.executable, "setup.py", "build_ext", "--inplace"]).returncode)
""",
    says=("undeclared (first use in this function)", "error:"),
    because="the C source is wrong",
    stage=Stage(
        files={
            "setup.py": "from setuptools import Extension, setup\nsetup(name='kernels', ext_modules=[Extension('kernels', ['kernels.c'])])\n",
            "kernels.c": "#include <Python.h>\nint twice(int x) { return x * factor; }\n",
        }
    ),
    needs=("gcc",),
    exit=1,
)
fault(
    "extension_build_failure",
    "nvcc_shared_memory",
    """
import subprocess, sys

log.info("building attention kernel")
sys.exit(subprocess.run(["nvcc", "-arch=sm_90", "-c", "attention.cu", "-o", "attention.o"]).returncode)
""",
    says=("ptxas error", "uses too much shared data"),
    because="the kernel declares more static shared memory than 48 KB",
    stage=Stage(
        files={
            "attention.cu": "__global__ void attention_$run_kernel(float *x) {\n  __shared__ float tile[$tile];\n"
            "  for (int i = threadIdx.x; i < $tile; i += 32) tile[i] = x[i];\n  __syncthreads();\n  x[threadIdx.x] = tile[$tile - 1 - threadIdx.x];\n}\n".replace(
                "$run_", ""
            )
        },
    ),
    draws={"tile": (16384, 20000, 32768)},
    needs=("nvcc",),
    exit=255,
)
fault(
    "extension_build_failure",
    "nvcc_syntax",
    """
import subprocess, sys

log.info("nvcc rope.cu")
sys.exit(subprocess.run(["nvcc", "-arch=sm_80", "-c", "rope.cu", "-o", "rope.o"]).returncode)
""",
    says=("rope.cu(", "error: identifier"),
    because="the CUDA source uses an undefined name",
    stage=Stage(
        files={
            "rope.cu": "__global__ void rope(float *x, int n) {\n  int i = blockIdx.x * blockDim.x + threadIdx.x;\n  if (i < n) x[i] *= cosine;\n}\n"
        },
    ),
    needs=("nvcc",),
    exit=2,
)
fault(
    "native_segfault",
    "extension",
    """
import fastext

def run(step):
    fastext.gather(step)

for step in range(4):
    log.info("step %d", step)
    if step == 2:
        run(step)
""",
    says=("Fatal Python error: Segmentation fault", "in run"),
    because="a C extension writes through a null pointer",
    stage=Stage(
        files={
            "fastext.c": "#include <Python.h>\nstatic PyObject *gather(PyObject *s, PyObject *a) { *(volatile int *)0 = 1; return 0; }\n"
            'static PyMethodDef f[] = {{"gather", gather, METH_O, ""}, {0}};\nstatic struct PyModuleDef m = {PyModuleDef_HEAD_INIT, "fastext", 0, -1, f};\n'
            "PyMODINIT_FUNC PyInit_fastext(void) { return PyModule_Create(&m); }\n"
        },
        command="gcc -shared -fPIC -I$(python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))') -o fastext.so fastext.c && python -X faulthandler $script",
    ),
    needs=("gcc",),
    exit=139,
    fast=True,
)
fault(
    "native_segfault",
    "no_dump",
    """
import ctypes

log.info("step 17 loss 2.301")
ctypes.string_at(8)
""",
    says=("Segmentation fault",),
    because="native code reads an invalid address; only the shell reports the signal",
    exit=139,
)
fault(
    "native_segfault",
    "torchrun",
    """
import ctypes
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
for step in range(6):
    if dist.get_rank() == 1 and step == $fail_at:
        ctypes.string_at(8)
    dist.all_reduce(torch.ones(4))
    log.info("rank %d step %d", dist.get_rank(), step)
""",
    says=("Signal 11 (SIGSEGV) received by PID",),
    because="rank 1 crashes in native code; the others lose their peer",
    stage=Stage(command="torchrun --standalone --nproc-per-node 2 --log-dir logs --tee 3 $script"),
    ranks=2,
    first_rank=1,
    hard="consequence",
    decoy="network",
)
