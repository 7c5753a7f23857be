"""Reading and explaining a trace, against HTA 0.5.0 on the same files, in turn (A/B): ratios of time and of memory.

    python -m venv /tmp/hta && /tmp/hta/bin/pip install HolisticTraceAnalysis==0.5.0     (it needs other pins than ours)
    python tests/benchmarks/trace_vs_hta.py --hta /tmp/hta/bin/python [--rounds 7] [FILE ...]

Every measurement is a fresh process. *Load* is the time from a path to a table of events, *both* adds the account (HTA: its
temporal, idle-time, kernel and overlap breakdowns); imports are outside both. Memory is the peak of the process, in all and
above an interpreter that does nothing. Without FILE: the traces above 5 MB beside the repository, and one of 400 MB made
here. Exits 1 if the median ratio on some file misses a target.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from heading import heading

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "traces"
LARGE = 5_000_000  # bytes of JSON
GENERATED = 400_000_000

# VmHWM and not ru_maxrss: the latter starts at what the parent of the process held.
PEAK = "next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) / 1024"
BARE = f"print({PEAK})"
MEASURED = """
import json, sys, time
{imports}
path = sys.argv[1]
began = time.perf_counter()
{load}
loaded = time.perf_counter()
{explain}
done = time.perf_counter()
print(json.dumps([loaded - began, done - began, {peak}]))
"""
OURS = MEASURED.format(
    imports="from mlsys_studio.profilers.trace import read\nfrom mlsys_studio.profilers.traces.explaining import explain",
    load="trace = read(path)",
    explain="explain(trace)",
    peak=PEAK,
)
HTA = MEASURED.format(
    imports="import logging, warnings; logging.disable(50); warnings.simplefilter('ignore')\n"
    "from hta.trace_analysis import TraceAnalysis",
    load="analysis = TraceAnalysis(trace_files={0: path}, trace_dir='/', include_last_profiler_step=True)",
    explain="for name in ('temporal_breakdown', 'idle_time_breakdown', 'gpu_kernel_breakdown', 'comm_comp_overlap'):\n"
    "    getattr(analysis, 'get_' + name)(visualize=False)",
    peak=PEAK,
)


@dataclass(frozen=True, slots=True)
class Run:
    load: float  # seconds
    both: float
    peak: float  # MiB


TARGETS = {"load": 10.0, "load + explain": 5.0, "memory in all": 3.0, "memory above idle": 3.0}


def run(python: str, code: str, path: Path) -> Run:
    done = subprocess.run([python, "-c", code, str(path.resolve())], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{python} failed on {path.name}:\n{done.stderr[-1500:]}")
    return Run(*json.loads(done.stdout.splitlines()[-1]))


def idle(python: str) -> float:
    """MiB of an interpreter that does nothing."""
    return float(subprocess.run([python, "-c", BARE], capture_output=True, text=True, check=True).stdout)


def compare(path: Path, hta: str, rounds: int) -> bool:
    """Prints every ratio of one file; whether all targets are met."""
    bare = idle(sys.executable), idle(hta)
    pairs = [(run(sys.executable, OURS, path), run(hta, HTA, path)) for _ in range(rounds)]
    ratios = {
        "load": [h.load / o.load for o, h in pairs],
        "load + explain": [h.both / o.both for o, h in pairs],
        "memory in all": [h.peak / o.peak for o, h in pairs],
        "memory above idle": [(h.peak - bare[1]) / (o.peak - bare[0]) for o, h in pairs],
    }
    ours, theirs = (
        [statistics.median(getattr(pair[i], f) for pair in pairs) for f in ("load", "both", "peak")] for i in range(2)
    )
    print(f"{path.name[:60]}, {rounds} rounds")
    print(f"  ours {ours[0]:.3f} s, {ours[1]:.3f} s, {ours[2]:.0f} MiB; HTA {theirs[0]:.3f} s, {theirs[1]:.3f} s, {theirs[2]:.0f} MiB")  # fmt: skip
    met = True
    for name, values in ratios.items():
        median = statistics.median(values)
        met &= median >= TARGETS[name]
        verdict = "ok" if median >= TARGETS[name] else "MISSED"
        print(f"  {name:18} {median:5.1f}x  from {min(values):.1f} to {max(values):.1f}  target {TARGETS[name]:.0f}x  {verdict}")  # fmt: skip
    return met


# -- a trace of our own ------------------------------------------------------------------------------------------------------


def generate(path: Path, size: int) -> None:
    """A training loop as Kineto writes it: loader, operators with shapes, launches, kernels on two streams, flows."""
    with path.open("w") as file:
        file.write('{\n  "schemaVersion": 1,\n  "deviceProperties": [\n    {"id": 0, "name": "NVIDIA H100"}\n  ],\n')
        file.write('  "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},\n  "traceEvents": [\n')
        first = True
        for event in _events():
            file.write(event if first else f",\n{event}")
            first = False
            if file.tell() > size:
                break
        file.write('\n  ],\n  "traceName": "generated.json"\n}\n')


def _events() -> Iterator[str]:
    kernels = [f"void at::native::vectorized_elementwise_kernel<4, at::native::Functor_{i}<c10::BFloat16>, std::array<char*, 3ul> >(int, at::native::Functor_{i}<c10::BFloat16>, std::array<char*, 3ul>)" for i in range(60)]  # fmt: skip
    t, link, step = 1_724_411_645_000_000, 0, 0
    while True:
        yield _event("user_annotation", f"ProfilerStep#{step}", 1, 1, t, 60_000, f'"External id": {link}')
        yield _event(
            "user_annotation", "enumerate(DataLoader)#_MultiProcessingDataLoaderIter.__next__", 1, 1, t, 900, ""
        )
        t, ready = t + 1000, t + 1000
        for i in range(1200):
            link += 1
            shapes = f'"External id": {link}, "Record function id": 0, "Concrete Inputs": ["", "", "1"], "Input type": ["c10::BFloat16", "c10::BFloat16", "Scalar"], "Input Dims": [[8, 1024, 4096], [8, 1024, 4096], []], "Ev Idx": {link}'  # fmt: skip
            yield _event("cpu_op", "aten::add", 1, 1, t, 30, shapes)
            yield _event("cpu_op", "aten::empty_strided", 1, 1, t + 3, 4, shapes)
            yield _event("cuda_runtime", "cudaLaunchKernel", 1, 1, t + 10, 6, f'"External id": {link}, "cbid": 211, "correlation": {link}')  # fmt: skip
            stream, ready = (20 if i % 40 == 0 else 7), max(ready, t + 18)
            name = "ncclDevKernel_AllReduce_Sum_bf16_RING_LL" if stream == 20 else kernels[i % 60]
            yield _event("kernel", name, 0, stream, ready, 25 + i % 30, f'"External id": {link}, "queued": 0, "device": 0, "context": 1, "stream": {stream}, "correlation": {link}, "registers per thread": 32, "shared memory": 0, "blocks per SM": 31.03, "warps per SM": 248.2, "grid": [4096, 1, 1], "block": [256, 1, 1], "est. achieved occupancy %": 100')  # fmt: skip
            for ph, pid, tid, at in (("s", 1, 1, t + 10), ("f", 0, stream, ready)):
                yield f'  {{\n    "ph": "{ph}", "id": {link}, "pid": {pid}, "tid": {tid}, "ts": {at}.{link % 1000:03d}, "cat": "ac2g", "name": "ac2g"\n  }}'  # fmt: skip
            ready += 25 + i % 30
            t += 34
        t, step = max(t, ready) + 500, step + 1


def _event(cat: str, name: str, pid: int, tid: int, ts: int, dur: int, args: str) -> str:
    return f'  {{\n    "ph": "X", "cat": "{cat}", "name": "{name}", "pid": {pid}, "tid": {tid},\n    "ts": {ts}.{ts % 997:03d}, "dur": {dur}.{ts % 991:03d},\n    "args": {{\n      {args}\n    }}\n  }}'  # fmt: skip


# -- all of it ---------------------------------------------------------------------------------------------------------------


def large(path: Path) -> bool:
    content = gzip.decompress(path.read_bytes())
    return len(content) > LARGE and b'"traceEvents"' in content


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--hta", help="an interpreter that has HolisticTraceAnalysis==0.5.0")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("files", nargs="*", type=Path)
    given = arguments.parse_args()
    if given.hta is None:
        print(
            "not run: name an interpreter that has HTA, `--hta PYTHON`; the first lines of this file say how to get one"
        )
        return 0
    print(heading())
    met = [compare(path, given.hta, given.rounds) for path in given.files or filter(large, sorted(FOLDER.glob("*.gz")))]
    if not given.files:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "generated.json"
            generate(path, GENERATED)
            met.append(compare(path, given.hta, max(1, given.rounds // 3)))
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
