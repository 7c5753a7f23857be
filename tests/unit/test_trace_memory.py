"""Memory of a saved trace and of a CUDA snapshot, against scripts whose every block was written for a purpose."""

from __future__ import annotations

import gzip
import json
import pickle
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from memorystories import Story, kineto, snapshot, training

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.traces.blocks import CATEGORIES
from mlsys_studio.profilers.traces.memory import TraceMemory, memory_of


def written(folder: Path, story: Story, form: str) -> TraceMemory:
    path = folder / f"{form}.file"
    if form == "kineto":
        path.write_bytes(kineto(story))
    elif form == "pickle":
        path.write_bytes(pickle.dumps(snapshot(story)))
    else:
        path.write_text(json.dumps(snapshot(story)))
    return memory_of(path)


@pytest.mark.parametrize("form", ["kineto", "pickle", "json"])
@pytest.mark.parametrize("seed", range(6))
def test_the_peak_is_the_scripts_by_purpose(tmp_path, form, seed):
    story = training(seed, steps=3 + seed, layers=1 + seed)
    m = written(tmp_path, story, form)
    assert m.peak.total == story.peak
    assert +Counter(dict(zip(CATEGORIES, m.peak.bytes, strict=True))) == story.highest
    assert sum(a.bytes for a in m.alive) == story.peak
    assert m.device == ("device 0" if form == "kineto" else "cuda:0")
    assert m.growing == ()


@pytest.mark.parametrize("form", ["kineto", "pickle"])
def test_what_every_step_leaves_behind_is_named_with_its_size(tmp_path, form):
    """Six steps of 1,000 B; the first and the last prove nothing."""
    m = written(tmp_path, training(1, steps=6, leak=1000), form)
    (growth,) = m.growing
    assert (growth.blocks, growth.bytes, growth.steps) == (4, 4000, 4)
    assert ("aten::leak" if form == "kineto" else f"me/model.py:{100 + sum(map(ord, 'aten::leak'))}") in growth.site


def test_three_steps_are_too_few_to_call_it_growth(tmp_path):
    m = written(tmp_path, training(1, steps=3, leak=1000), "kineto")
    assert m.growing == ()
    assert "growth over steps needs 4" in " ".join(str(m).split())


def test_there_before_is_what_nobody_saw_being_taken(tmp_path):
    """7,000 B by the allocator's sum alone; in a snapshot by the blocks in its segments; and 300 B seen to be given back."""
    story = training(2)
    story.there = 7000
    story.peak += 7000
    m = written(tmp_path, story, "kineto")
    assert (m.peak.total, m.peak.bytes[CATEGORIES.index("there before")]) == (story.peak, 7000)
    saved = snapshot(training(2))
    saved["segments"].append({"device": 0, "address": 1 << 41, "total_size": 8192, "blocks": [
        {"size": 8192, "requested_size": 7000, "address": 1 << 41, "state": "active_allocated"}]})  # fmt: skip
    saved["device_traces"][0].append(
        {"action": "free_requested", "addr": 5, "size": 300, "time_us": 10**6, "frames": []}
    )
    (tmp_path / "s.json").write_text(json.dumps(saved))
    m = memory_of(tmp_path / "s.json")
    assert m.peak.bytes[CATEGORIES.index("there before")] == 7300


def test_an_address_taken_twice_was_given_back_unseen(tmp_path):
    entries = [{"action": "alloc", "addr": 8, "size": n, "frames": []} for n in (100, 30)]
    (tmp_path / "s.json").write_text(json.dumps({"segments": [], "device_traces": [entries]}))
    assert memory_of(tmp_path / "s.json").peak.total == 100


def test_what_checkpointing_frees_is_all_but_what_a_layer_hands_on(tmp_path):
    """Three runs of a block keep 100 + 60 B each, the second for the next one: 300 B can be taken again."""
    story = Story()
    outer = [story.take("forward", "activations", 500, "embedding")]
    for _ in range(3):
        outer += [story.take("forward", "activations", 100, "attention", 7), story.take("forward", "activations", 60, "out", 7)]  # fmt: skip
    saved = snapshot(story)
    for entry in saved["device_traces"][0]:
        if entry["size"] == 500:  # by the model itself, outside of its blocks
            entry["frames"] = entry["frames"][2:]
    (tmp_path / "s.json").write_text(json.dumps(saved))
    rows = {r.layer: (r.runs, r.kept, r.saved) for r in memory_of(tmp_path / "s.json").recomputable}
    assert rows == {
        "forward in me/model.py, called in line 20": (3, 480, 300),
        "forward in me/model.py": (1, 980, 920),
    }
    (tmp_path / "t.json").write_bytes(kineto(story))
    (row,) = memory_of(tmp_path / "t.json").recomputable
    assert (row.layer, row.runs, row.kept, row.saved) == ("Block", 3, 480, 300)


def test_segments_tell_rounding_from_holes(tmp_path):
    """In use 2 blocks: 512 + 1,024 B for 300 + 700 asked. Holes of 2,048 and 512 B; a segment of 4,096 B is empty."""
    blocks = [
        ("active_allocated", 512, 300),
        ("inactive", 2048, 0),
        ("active_allocated", 1024, 700),
        ("inactive", 512, 0),
    ]
    segments = [
        {
            "address": 0,
            "total_size": 4096,
            "blocks": [{"state": s, "size": n, "requested_size": r} for s, n, r in blocks],
        },
        {"address": 1 << 20, "total_size": 4096, "blocks": [{"state": "inactive", "size": 4096}]},
    ]
    (tmp_path / "s.json").write_text(json.dumps({"segments": segments, "device_traces": [[]]}))
    m = memory_of(tmp_path / "s.json")
    s = m.segments
    assert s is not None
    assert (s.reserved, s.allocated, s.requested, s.free, s.largest_free, s.whole) == (
        8192,
        1536,
        1000,
        2560,
        2048,
        4096,
    )
    assert m.peak.total == 1000
    assert "no history was recorded" in " ".join(m.warnings)


def test_running_out_of_memory_is_said_with_its_size(tmp_path):
    saved = snapshot(training(3))
    saved["device_traces"][0].append(
        {"action": "oom", "size": 3 << 30, "device_free": 1 << 20, "time_us": 9, "frames": []}
    )
    (tmp_path / "s.json").write_text(json.dumps(saved))
    assert (
        "out of memory: 3.00 GiB were asked for, 1.00 MiB of the device were free"
        in memory_of(tmp_path / "s.json").warnings
    )


@pytest.mark.parametrize("break_", [
    lambda s: s.pop("segments"), lambda s: s["segments"].append(3), lambda s: s.update(device_traces=7),
    lambda s: s["device_traces"][0].append({"action": "alloc"}), lambda s: s["device_traces"][0][0].update(size="many"),
    lambda s: s["device_traces"][0][0].update(size=2**80), lambda s: s["device_traces"][0][0].update(addr=2**80),
    lambda s: s["device_traces"][0][0].update(size=0), lambda s: s["device_traces"][0][0].update(frames=[1]),
    lambda s: s["segments"][0]["blocks"].append({}), lambda s: s["segments"][0].update(total_size=None),
])  # fmt: skip
def test_a_damaged_snapshot_is_one_sentence(tmp_path, break_):
    saved = snapshot(training(4))
    break_(saved)
    (tmp_path / "s.pickle").write_bytes(pickle.dumps(saved))
    with pytest.raises(UsageError, match="snapshot"):
        memory_of(tmp_path / "s.pickle")


def test_a_trace_without_memory_says_how_to_record_it(tmp_path):
    (tmp_path / "t.json").write_bytes(kineto(Story()))
    with pytest.raises(UsageError, match="profile_memory=True"):
        memory_of(tmp_path / "t.json")
    with pytest.raises(UsageError, match="cannot be read"):
        memory_of(tmp_path / "none.json")


@pytest.mark.parametrize("form", ["kineto", "pickle"])
def test_text_fits_80_columns_and_the_page_is_escaped(tmp_path, form, monkeypatch):
    import memorystories

    hostile = "/a/<script>alert(1)</script>" + "é" * 90
    monkeypatch.setitem(memorystories.STACKS, "forward", [(hostile, 3, "forward"), (hostile, 4, "forward")])
    story = training(5, steps=6, leak=100)
    story.events = [(s, n, a, o and f"<b>{o}", layer) for s, n, a, o, layer in story.events]
    m = written(tmp_path, story, form)
    assert all(len(line) <= 80 for line in str(m).splitlines())
    page = m._repr_mimebundle_()["text/html"]
    assert "<script" not in page and "<b>" not in page
    assert json.loads(m.to_json())["peak"]["bytes"] == story.peak


# -- a recording of torch's own ------------------------------------------------------------------------------------------------

# torch 2.13 on a CPU recorded this, without its host and paths (profile_memory=True; step 0 was the profiler's warm-up):
#
#     layers = [Linear(256, 256, bias=False) for _ in range(2)]; x, left, aside = randn(64, 256), [], None
#     for step in range(7):
#         if step == 3: aside = torch.empty(1_234_567, dtype=torch.uint8)
#         left.append(torch.zeros(10_000))
#         layers[1](layers[0](x).relu()).sum().backward(); sgd.step(); sgd.zero_grad()
#         if step == 4: aside = None
RECORDED = Path(__file__).parents[1] / "data" / "memory.pt.trace.json.gz"
ASIDE, LEFT, GRADIENT = 1_234_567, 40_000, 4 * 256 * 256


def test_what_torch_recorded_is_what_the_loop_did():
    """Witnesses: the loop above, and the allocator's own count of bytes in use."""
    found = memory_of(RECORDED)
    events = json.loads(gzip.decompress(RECORDED.read_bytes()))["traceEvents"]
    counted = [event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]"]
    assert found.peak.total == max(counted)
    assert found.steps == 6 and not found.warnings
    alive = {(a.site, a.category): (a.blocks, a.bytes) for a in found.alive}
    assert alive["aten::empty", "kept over steps"] == (1, ASIDE)
    assert alive["aten::zeros", "kept over steps"] == (
        4,
        4 * LEFT,
    )  # of steps 1 to 4: the peak is in the last with `aside`
    assert alive["aten::mm", "gradients"] == (2, 2 * GRADIENT)
    (growing,) = found.growing
    assert (growing.site, growing.bytes) == ("aten::zeros", growing.steps * LEFT)


def test_a_tensor_is_seen_only_while_it_lives():
    """Witness: `aside` lives in two of the six steps, from their beginning to their end."""
    found = memory_of(RECORDED)
    events = json.loads(gzip.decompress(RECORDED.read_bytes()), parse_float=Decimal)["traceEvents"]
    first = min(event["ts"] for event in events if event["name"] == "[memory]")
    steps = {event["name"]: event for event in events if event["name"] in ("ProfilerStep#3", "ProfilerStep#4")}
    began, last = (1000 * (steps[f"ProfilerStep#{n}"]["ts"] - first) for n in (3, 4))
    ended = last + 1000 * steps["ProfilerStep#4"]["dur"]
    kept, seen = CATEGORIES.index("kept over steps"), set()
    for moment in found.timeline:
        inside = began <= moment.time_ns < ended
        assert (moment.bytes[kept] > ASIDE) == inside, moment
        seen.add(inside)
    assert seen == {True, False}
