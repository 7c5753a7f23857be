"""A training loop's memory as a script: every block with the purpose it was written for, in the words of both writers.

The witness keeps its own sums while the script runs, and never looks at how long a block lives.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

from tracefiles import Event, document, x

BASE, US = 1_000_000, 10  # addresses; us between events


@dataclass
class Story:
    """Events in the order of time: (stage, size, address, operator, layer). Size < 0: given back."""

    events: list[tuple[str, int, int, str, int]] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # number of the event each begins with
    alive: dict[int, tuple[str, int]] = field(default_factory=dict)
    highest: Counter[str] = field(default_factory=Counter)  # bytes by purpose, at the peak
    peak: int = 0
    there: int = 0

    def take(self, stage: str, purpose: str, size: int, operator: str, layer: int = -1) -> int:
        address = BASE + 512 * len(self.events)
        self.events.append((stage, size, address, operator, layer))
        self.alive[address] = purpose, size
        if (total := self.there + sum(s for _, s in self.alive.values())) > self.peak:
            self.peak, self.highest = total, Counter()
            for meant, count in self.alive.values():
                self.highest[meant] += count
        return address

    def give(self, stage: str, address: int) -> None:
        self.events.append((stage, -self.alive.pop(address)[1], address, "", -1))


def training(seed: int, steps: int = 5, layers: int = 3, leak: int = 0) -> Story:
    """`leak`: bytes that every step leaves behind."""
    rnd, story = random.Random(seed), Story()
    sizes = [rnd.randrange(1, 1000) * 4 for _ in range(layers)]
    for step in range(steps):
        story.steps.append(len(story.events))
        activations = []
        for k, size in enumerate(sizes):
            scratch = story.take("forward", "temporaries", rnd.randrange(1, 500), "aten::scratch", k)
            activations.append(story.take("forward", "activations", size, "aten::mm", k))
            story.give("forward", scratch)
        if leak:
            story.take("forward", "kept over steps", leak, "aten::leak")
        gradients = []
        for k in reversed(range(layers)):
            flowing = story.take("backward", "temporaries", sizes[k], "aten::flow")
            gradients.append(story.take("backward", "gradients", 2 * sizes[k], "aten::mm"))
            story.give("backward", flowing)
            story.give("backward", activations[k])
        for size in sizes:
            if step == 0:
                story.take("optimizer", "optimizer state", 4 * size, "aten::zeros_like")
            scratch = story.take("optimizer", "temporaries", size, "aten::sqrt")
            story.give("optimizer", scratch)
        for address in gradients:
            story.give("optimizer", address)
    return story


def kineto(story: Story) -> bytes:
    """As the profiler writes it. Every taking lies in an operator, every stage in what marks it."""
    events: list[Event] = []
    allocated = story.there
    for i, (stage, size, address, operator, layer) in enumerate(story.events):
        at = i * US
        if stage == "backward":
            events.append(x("cpu_op", "autograd::engine::evaluate_function: MmBackward0", 1, 1, at, US - 1))
        if stage == "optimizer":
            events.append(x("user_annotation", "Optimizer.step#Adam.step", 1, 1, at, US - 1))
        if layer >= 0:
            events.append(x("python_function", f"nn.Module: Block_{layer}", 1, 1, at, US - 1))
        if operator:
            events.append(x("cpu_op", operator, 1, 1, at + 1, US - 3))
            events.append(x("cpu_op", "aten::empty", 1, 1, at + 2, US - 5))
        allocated += size
        said = {"Bytes": size, "Addr": address, "Total Allocated": allocated, "Total Reserved": 1 << 20, "Device Type": 1, "Device Id": 0}  # fmt: skip
        events.append({"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]", "pid": 1, "tid": 1, "ts": at + 3, "args": said})  # fmt: skip
        if i % 7 == 0:  # the host's memory is another's
            events.append({**events[-1], "args": {**said, "Device Type": 0, "Device Id": -1, "Bytes": 8}})
    for number, (a, b) in enumerate(pairwise([*story.steps, len(story.events)])):
        events.append(x("user_annotation", f"ProfilerStep#{number}", 1, 1, a * US, (b - a) * US))
    return document(events)


STACKS = {
    "forward": [("/home/me/train.py", 9, "main"), ("/home/me/model.py", 20, "forward"), ("/lib/torch/nn/modules/module.py", 5, "_call_impl"), ("/home/me/model.py", 33, "forward")],
    "optimizer": [("/home/me/train.py", 12, "main"), ("/site-packages/torch/optim/adam.py", 214, "step")],
    "backward": [],
}  # fmt: skip


def snapshot(story: Story) -> dict:
    """As the CUDA allocator writes it, free events without stacks; a block of 512 B rounding in one segment."""
    entries = []
    for i, (stage, size, address, operator, _) in enumerate(story.events):
        frames = (
            [{"filename": f, "line": n, "name": name} for f, n, name in reversed(STACKS[stage])] if size > 0 else []
        )
        if operator and frames:  # every operator is a line of its own
            frames[0] = {**frames[0], "line": 100 + sum(map(ord, operator))}
        action = "alloc" if size > 0 else "free_requested"
        entries.append({"action": action, "addr": address, "size": abs(size), "stream": 0, "time_us": i * US, "frames": frames})  # fmt: skip
        if size < 0:
            entries.append({**entries[-1], "action": "free_completed"})
    blocks, end = [], BASE
    for address, (_, size) in sorted(story.alive.items()):
        if address > end:
            blocks.append(
                {"size": address - end, "requested_size": 0, "address": end, "state": "inactive", "frames": []}
            )
        rounded = -(-size // 512) * 512
        blocks.append({"size": rounded, "requested_size": size, "address": address, "state": "active_allocated", "frames": []})  # fmt: skip
        end = address + rounded
    segment = {"device": 0, "address": BASE, "total_size": end - BASE, "stream": 0, "segment_type": "small", "blocks": blocks}  # fmt: skip
    empty = {**segment, "address": 1 << 40, "total_size": 4096, "blocks": [{"size": 4096, "address": 1 << 40, "state": "inactive"}]}  # fmt: skip
    return {"segments": [segment, empty], "device_traces": [entries, []]}
