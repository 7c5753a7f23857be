"""Real traces of five kinds of devices against other people's analysis of them.

The files belong to other projects and are no part of this one: they lie beside it, or these tests are skipped.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("msgspec")

from test_trace_explaining import by_live_rules

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.trace import Trace, read
from mlsys_studio.profilers.traces.dialects import Kind
from mlsys_studio.profilers.traces.explaining import explain

FOLDER = Path(__file__).parents[3] / "shared" / "data" / "traces"
FILES = sorted(FOLDER.glob("*.json.gz"))
pytestmark = pytest.mark.skipif(not FILES, reason=f"no traces of other projects in {FOLDER}")


def told(name: str) -> dict:
    return json.loads((FOLDER / name).read_text()) if FILES else {}


HTA = {
    Path(name).name: result
    for name, result in told("hta_reference.json").get("results", {}).items()
    if name.startswith("dev/") and isinstance(result.get("temporal_breakdown"), list)
}
ORACLE = {Path(name).name: result for name, result in told("idle_dataloader_oracle.json").items()}
TRUTH = {Path(t["file"]).name: t for t in (told("generated_truth.json") or [])}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name[:40])
def test_every_file_is_explained_or_refused_in_a_sentence(path):
    try:
        trace = read(path)
    except UsageError as error:
        assert "execution trace" in str(error)
        assert b'"nodes"' in gzip.decompress(path.read_bytes())
        return
    e = explain(trace)
    assert e.warnings == e.uncounted == ()
    assert sum(e.idle.values()) == e.idle_ns >= 0
    assert e.idle["unattributed"] <= 0.05 * e.span_ns
    if e.device != "cpu":
        assert +by_live_rules(trace) == +Counter(e.idle)


# -- the data loader -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORACLE, ids=lambda n: n[:40])
def test_busy_idle_and_the_data_loader_are_those_of_the_oracle(name):
    """An independent interval union of forty lines made these figures, in whole us."""
    e, oracle = explain(read(FOLDER / name)), ORACLE[name]
    rounding = 1000 if oracle["ts_has_fraction"] else 0
    for ours, theirs in ((e.span_ns, "gpu_span_us"), (e.busy_ns, "gpu_busy_us"), (e.idle_ns, "gpu_idle_us")):
        assert abs(ours - 1000 * oracle[theirs]) <= rounding
    assert e.idle.get("data stall", 0) == 1000 * oracle["idle_overlapping_dataloader_us"]
    assert len(e.steps_ns) == oracle["n_steps"]


@pytest.mark.parametrize("name", TRUTH, ids=lambda n: n[:40])
def test_waiting_is_what_a_stopwatch_in_the_loop_said(name):
    e, truth = explain(read(FOLDER / name)), TRUTH[name]
    assert abs(e.idle["data stall"] / e.span_ns - truth["wait_fraction"]) <= 0.02
    assert e.idle["data stall"] / 1e6 == pytest.approx(sum(truth["wait_ms_per_step"]), rel=0.02)


# -- HTA 0.5.0 -------------------------------------------------------------------------------------------------------------


def as_hta(trace: Trace, include_last: bool) -> Trace:
    """Only the device work that HTA keeps: launched, by correlation, before its last step begins (or ends), if there are
    two steps. Waits on a stream are work to it: those called Sync of no class, others (MTIA's) compute. A fraction of a us
    is rounded inwards.
    """
    content = json.loads(gzip.decompress(Path(trace.path).read_bytes()))["traceEvents"]
    nowhere = [
        round(e["ts"] * 1000) for e in content if e.get("cat") == "cuda_sync" and e["args"].get("stream", -1) == -1
    ]
    syncs = np.isin(trace.name, [i for i, name in enumerate(trace.names) if "Sync" in name])
    waits = (trace.kind == Kind.WAIT) & ~np.isin(trace.start, nowhere)
    kinds = np.where(waits, np.where(syncs, Kind.COPY, Kind.COMPUTE), trace.kind)
    trace = replace(trace, kind=kinds)
    steps = trace.steps()
    kept = np.ones(len(trace), bool)
    if len(steps) > 1:
        until = max(b for _, _, b in steps) + 1 if include_last else max(a for _, a, _ in steps)
        host = (trace.kind < Kind.WAIT) & (trace.start < until)
        kept = (trace.kind < Kind.COMPUTE) | np.isin(trace.correlation, trace.correlation[host])
    start, end = trace.start, trace.end
    if (start % 1000).any():
        start, end = -(-start // 1000) * 1000, end // 1000 * 1000
    end = np.maximum(start, end)
    columns = {
        k: getattr(trace, k)[kept] for k in ("name", "kind", "lane", "correlation", "external", "message", "call")
    }
    return replace(trace, start=start[kept], end=end[kept], **columns)


@pytest.mark.parametrize("include_last", [False, True], ids=["without the last step", "with it"])
@pytest.mark.parametrize("name", HTA, ids=lambda n: n[:40])
def test_under_htas_rule_of_steps_the_figures_are_htas(name, include_last):
    result = HTA[name].get("include_last_profiler_step") if include_last else HTA[name]
    if not isinstance(result, dict) or not isinstance(result.get("temporal_breakdown"), list):
        pytest.skip("HTA has no result for it")
    (theirs,) = result["temporal_breakdown"]
    trace = read(FOLDER / name)
    e = explain(as_hta(trace, include_last))
    ours = {
        "kernel_time(us)": e.span_ns / 1000,
        "idle_time(us)": e.idle_ns / 1000,
        "compute_time(us)": e.compute_ns / 1000,
        "non_compute_time(us)": (e.busy_ns - e.compute_ns) / 1000,
    }
    if "triton_example" in name:  # HTA takes the host's operator for device work, because its `args` name a stream
        assert ours["kernel_time(us)"] < 3 < theirs["kernel_time(us)"]
        return
    # Rounded inwards, work of less than 1 us may end before it starts: it costs HTA up to 1 us of busy time.
    lengths = (trace.end - trace.start)[trace.kind >= Kind.WAIT]
    short = int((lengths < 1000).sum()) if (trace.start % 1000).any() else 0
    assert ours == pytest.approx({k: theirs[k] for k in ours}, abs=short, rel=0)
    overlap = result.get("comm_comp_overlap")
    if e.communication_ns and isinstance(overlap, list):
        assert round(100 * e.overlap_ns / e.communication_ns, 2) == overlap[0]["comp_comm_overlap_pctg"]
