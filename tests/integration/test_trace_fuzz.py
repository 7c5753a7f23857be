"""A spoiled trace costs an error or a warning, never a crash, a wrong sum or the machine's memory.

A sample runs in `make test`; `make soak` runs 2,000 copies in a child whose memory is limited.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from mutations import MUTATIONS, OURS

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.trace import read
from mlsys_studio.profilers.traces.explaining import explain
from mlsys_studio.profilers.traces.memory import TraceMemory, memory_of
from mlsys_studio.profilers.traces.report import TraceReport
from mlsys_studio.profilers.traces.together import together
from mlsys_studio.profilers.traces.waits import Waits

SAMPLE, ALL = 160, 2000
ADDRESS_SPACE = 1 << 30  # bytes a soaking process may map; Python, numpy and the program take 0.3 of it
SLOWEST = 20.0  # seconds on a core for one small file; on a loaded machine the clock on the wall says nothing of us
SMALL = 1_100_000  # bytes of JSON
FOLDER = Path(__file__).parents[3] / "shared" / "data" / "traces"


def seeds() -> list[bytes]:
    """Our own small traces, and those of other projects where they are at hand."""
    real = (gzip.decompress(path.read_bytes()) for path in sorted(FOLDER.glob("*.json.gz")))
    return [*OURS, *(content for content in real if len(content) < SMALL and b'"traceEvents"' in content)]


def judge(path: Path) -> str:
    """ "explained", "warned" or "refused"; fails unless the answer is one that can be relied on."""
    began = time.process_time()
    try:
        e = explain(read(path))
    except UsageError as error:
        assert len(str(error)) < 400
        assert "\n" not in str(error)
        return "refused"
    assert time.process_time() - began < SLOWEST
    assert sum(e.idle.values()) == e.idle_ns == e.span_ns - e.busy_ns
    assert min(e.idle.values(), default=0) >= 0
    assert 0 <= e.overlap_ns <= min(e.communication_ns, e.compute_ns)
    assert max(e.compute_ns, e.memory_op_ns) <= e.busy_ns <= e.span_ns
    waits = Waits()
    waits.add(e)
    shown(TraceReport((e,), together([e], waits, None), ()))
    with contextlib.suppress(UsageError):
        m = memory_of(path)
        shown(m)
        assert sum(a.bytes for a in m.alive) == m.peak.total >= min(m.peak.bytes) >= 0
    return "warned" if e.warnings else "explained"


def shown(result: TraceReport | TraceMemory) -> None:
    assert all(len(line) <= 80 for line in str(result).splitlines())
    json.loads(result.to_json(), parse_constant=lambda constant: pytest.fail(f"{constant} in the JSON"))


def soak(folder: Path, start: int, count: int) -> dict[str, int]:
    """Copies `start` to `start + count`, each spoiled in the way of its number; how each was taken."""
    originals, found = seeds(), {"explained": 0, "warned": 0, "refused": 0}
    for number in range(start, start + count):
        rnd = random.Random(number)
        content = MUTATIONS[number % len(MUTATIONS)](originals[number // len(MUTATIONS) % len(originals)], rnd)
        path = folder / "spoiled.json"
        path.write_bytes(content)
        try:
            found[judge(path)] += 1
        except BaseException as error:
            error.add_note(f"copy {number}")
            raise
    return found


def test_a_sample_of_spoiled_traces(tmp_path):
    found = soak(tmp_path, 0, SAMPLE)
    assert all(found.values())  # some of each: neither too tame nor too wild


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, ALL, ALL // 4))
def test_soak(tmp_path, start):
    """In a child, so that a crash of the interpreter is seen, and with its memory bounded by the kernel."""
    code = f"""
import resource, sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]!r}
from test_trace_fuzz import ADDRESS_SPACE, soak
resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
print(soak(Path({str(tmp_path)!r}), {start}, {ALL // 4}), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, "MiB")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False)
    # below 0: killed by that signal; 1 with MemoryError: more than its memory; TimeoutExpired: it hung
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-3000:]}"
    print(done.stdout)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < ADDRESS_SPACE // 1024
