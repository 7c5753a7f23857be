"""What the panel costs, and how fast it answers: a real kernel, its subshell and its sampler, without a browser.

    python tests/benchmarks/panel.py          replies, CPU, publishing
    python tests/benchmarks/panel.py steps    step time, four minutes

Reply latency: time from the question to the state document while the main shell is idle, sleeps, loops in Python, or sits
in one C call that holds the GIL; then the ring must have no hole. CPU: the sampler's and the kernel's own CPU clocks at two
samples a second and the questions of the panel, those for the list of kernels too (target: 1 % of one core). Step time: a
training loop in blocks without and with such questions, by turns; the upper 95 % bound of the paired ratio (target: 1.02
over at least 60 blocks of each), without the tenth of the pairs that is highest and the tenth that is lowest: other work of
the machine is in them. A step publishes in at most 2 us.

When the panel asks is read from its source (extensions/lab/src/pace.ts).

Latencies and ratios want a quiet machine; CPU clocks do not. The load is in the result's second line.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import re
import signal
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from heading import heading
from jupyter_client.manager import AsyncKernelManager

RESULTS = Path(__file__).parent / "results"
PANEL = Path(__file__).parents[2] / "extensions" / "lab" / "src"
PAIRS, COST_S, HERTZ = 60, 30.0, 2.0
STATE = "__import__('mlsys_studio.studio.state', fromlist=['read']).read"
LONGEST_HOLE_S = 1.0  # at 10 Hz, on a machine that has other work too


def constant(file: str, name: str) -> float:
    found = re.search(rf"const {name} = ([\d._]+);", (PANEL / file).read_text())
    assert found, f"{file} has no {name}"
    return float(found[1].replace("_", ""))


ASKED_S = constant("pace.ts", "SAMPLES_AN_ANSWER") / HERTZ
KERNELS_EVERY = math.ceil(constant("kernels.ts", "EVERY_MS") / 1e3 / ASKED_S)  # questions
BLOCK_S = ASKED_S


def pause(spent: float) -> float:
    """Seconds to the next question after answers that took so many: as `pause` of pace.ts while a cell runs."""
    return max(ASKED_S, min(spent / constant("pace.ts", "MOST_OF_KERNEL"), constant("pace.ts", "LONGEST_MS") / 1e3))


SITUATIONS = {
    "idle": "",
    "sleeping": "time.sleep(4)",
    "Python loop": "until = time.time() + 4\nwhile time.time() < until: pass",
    "C call holding the GIL": "sum(range(400_000_000))",
}

LOOP = """
import time, json, threading, torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from mlsys_studio.profilers.sampling import steps as published
from mlsys_studio.profilers.step import StepClock
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 10))
optimizer = torch.optim.AdamW(model.parameters())
loader = DataLoader(TensorDataset(torch.randn(100_000, 256), torch.randint(0, 10, (100_000,))), batch_size=64)
def block(seconds):
    "Steps a second over so many seconds of the training thread's wall clock."
    steps, began = 0, time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        for x, y in loader:
            optimizer.zero_grad(); nn.functional.cross_entropy(model(x), y).backward(); optimizer.step()
            steps += 1
            if (now := time.perf_counter()) - began >= seconds: break
    return (now - began) / steps
def unwatched(seconds):
    "The same, and nothing is published."
    lane = published.writer
    published.attach(None)
    wall = block(seconds)
    published.attach(lane)
    return wall
clock = StepClock(); clock.__enter__()
block(1.0);
"""


class Kernel:
    """A kernel with one subshell beside its main shell."""

    async def start(self) -> None:
        self.manager = AsyncKernelManager()
        await self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready()
        self.client.control_channel.send(self.client.session.msg("create_subshell_request"))
        self.subshell = (await self.client.control_channel.get_msg(timeout=30))["content"]["subshell_id"]
        self.ended: dict[str, Any] = {}

    async def reply(self, to: str) -> Any:
        while to not in self.ended:
            message = await self.client.get_shell_msg(timeout=120)
            self.ended[message["parent_header"]["msg_id"]] = message["content"]
        return self.ended.pop(to)

    async def ask(self, expression: str, subshell: bool = True) -> Any:
        content = {"code": "", "silent": True, "store_history": False, "user_expressions": {"it": expression}}
        message = self.client.session.msg("execute_request", content)
        if subshell:
            message["header"]["subshell_id"] = self.subshell
        self.client.shell_channel.send(message)
        it = (await self.reply(message["header"]["msg_id"]))["user_expressions"]["it"]
        assert it["status"] == "ok", it
        return next((v for k, v in it["data"].items() if k.endswith("+json")), it["data"]["text/plain"])

    def run(self, code: str) -> str:
        return self.client.execute(code, store_history=False)

    async def ran(self, cell: str) -> None:
        """Wait for its end; an error in it is one here."""
        said = await self.reply(cell)
        assert said["status"] == "ok", said

    async def now(self, after: dict[str, Any] | None = None, hertz: float = HERTZ) -> dict[str, Any]:
        """What has come since a document; of the first one all."""
        since, step = ((after or {}).get(part) or [[0]] for part in ("samples", "steps"))
        return await self.ask(
            f"{STATE}('now', reader='bench', hertz={hertz}, since={since[-1][0]}, step={step[-1][0]})"
        )

    async def look(self, after: dict[str, Any], kernels: bool) -> dict[str, Any]:
        """As the panel does, in turns with the list of kernels."""
        document = await self.now(after)
        if kernels:
            await self.ask(f"{STATE}('kernels', ids=['a', 'b'])")
        return {part: document[part] or after[part] for part in ("samples", "steps")}

    async def value(self, expression: str) -> Any:
        return json.loads(str(await self.ask(f"__import__('json').dumps({expression})")).strip("'"))

    async def end(self) -> None:
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)


async def latency(kernel: Kernel, name: str, code: str) -> str:
    """Asked at 10 a second until the cell has ended, or 40 times of an idle kernel."""
    first = last = await kernel.now(hertz=10)
    cell = kernel.run(f"import time\n{code}")
    if not code:
        await kernel.ran(cell)
    waits = []
    while len(waits) < 40 if not code else cell not in kernel.ended:
        asked = time.perf_counter()
        document = await kernel.now(last, hertz=10)
        waits.append(1e3 * (time.perf_counter() - asked))
        last = document if document["samples"] else last
        await asyncio.sleep(0.1)
    kernel.ended.pop(cell, None)
    times = [row[1] for row in (await kernel.now(first, hertz=10))["samples"]]
    hole = max((b - a for a, b in pairwise(times)), default=0.0)
    said = "pass" if hole < LONGEST_HOLE_S else "FAIL"
    return f"reply, {name}: median {statistics.median(waits):.0f} ms, longest {max(waits):.0f} ms of {len(waits)}; longest hole of the ring at 10 Hz {hole:.2f} s: {said}"  # fmt: skip


def cpu_s(process: int, thread: int | None = None) -> float:
    """User and system time so far, by the scheduler's own count in ns where it has one."""
    folder = Path(f"/proc/{process}") if thread is None else Path(f"/proc/{process}/task/{thread}")
    tasks = [folder] if thread is not None else list((folder / "task").iterdir())
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


async def sampler_of(kernel: Kernel) -> int:
    watching = "__import__('mlsys_studio.profilers.sampling.watching', fromlist=['w']).watching"
    return int(await kernel.value(f"{watching}._process.pid"))


async def cost(kernel: Kernel) -> str:
    """The sampler whole; of the kernel all of its threads, idle but for the questions."""
    last = await kernel.now()
    process = last["pid"]
    sampler = await sampler_of(kernel)
    await asyncio.sleep(RECENT_S)  # the wishes of the questions before are forgotten
    before, began, asked = (cpu_s(sampler), cpu_s(process)), time.monotonic(), 0
    while time.monotonic() - began < COST_S:
        last = await kernel.look(last, kernels=asked % KERNELS_EVERY == 0)
        asked += 1
        await asyncio.sleep(ASKED_S)
    span = time.monotonic() - began
    idle = cpu_s(process)
    await asyncio.sleep(5)
    rest = (cpu_s(process) - idle) / 5  # what a kernel that nobody asks uses
    sampling, asking = (cpu_s(sampler) - before[0]) / (span + 5), (idle - before[1]) / span - rest
    total = sampling + asking
    said = "pass" if total <= 0.01 else "FAIL"
    return f"CPU at {HERTZ:.0f} samples and {asked / span:.2f} questions a second: sampler {sampling:.2%}, questions {asking:.2%} of one core ({rest:.2%} of an idle kernel left out); target 1 %: {said}"  # fmt: skip


RECENT_S = 6.0


async def step_time(kernel: Kernel) -> str:
    """Without and with sampler, published steps and questions, in turns; which comes first alternates too."""
    await kernel.ran(kernel.run(LOOP))
    sampler = await sampler_of(kernel)
    last, ratios, waits, due = await kernel.now(), [], [], 0.0
    for n in range(PAIRS):
        seconds = {}
        for watched in ((False, True), (True, False))[n % 2]:
            os.kill(sampler, signal.SIGCONT if watched else signal.SIGSTOP)
            cell = kernel.run(f"wall = {'block' if watched else 'unwatched'}({BLOCK_S})")
            if watched and n * BLOCK_S >= due:
                await asyncio.sleep(random.uniform(0, 0.9 * BLOCK_S))
                asked = time.perf_counter()
                last = await kernel.look(last, kernels=len(waits) % KERNELS_EVERY == 0)
                waits.append(time.perf_counter() - asked)
                due = n * BLOCK_S + pause(waits[-1])
            await kernel.ran(cell)
            seconds[watched] = await kernel.value("wall")
        ratios.append(math.log(seconds[True] / seconds[False]))
    os.kill(sampler, signal.SIGCONT)
    middle, error = trimmed(ratios)
    upper, mean = math.exp(middle + 1.645 * error), math.exp(statistics.mean(ratios))
    said = "pass" if upper <= 1.02 else "FAIL"
    return f"step time with over without a panel: {math.exp(middle):.4f} in {PAIRS} pairs of {BLOCK_S:.0f} s blocks (plain mean {mean:.4f}), {len(waits)} answers of {1e3 * statistics.median(waits):.0f} ms, upper 95 % bound {upper:.4f}; target 1.02: {said}"  # fmt: skip


def trimmed(values: list[float], share: float = 0.1) -> tuple[float, float]:
    """The mean without so many at either end, and its standard error by the winsorized variance (Yuen 1974)."""
    ordered, cut = sorted(values), int(share * len(values))
    kept = ordered[cut : len(ordered) - cut]
    winsorized = [kept[0]] * cut + kept + [kept[-1]] * cut
    return statistics.mean(kept), statistics.stdev(winsorized) / ((1 - 2 * share) * math.sqrt(len(values)))


def publishing() -> str:
    """By the CPU clock of this thread, the best of some rounds: what the code needs, not what neighbours take."""
    import tempfile

    from mlsys_studio.profilers.sampling import steps
    from mlsys_studio.profilers.sampling.ring import Ring

    phases, rounds = {"data": 1000, "forward": 2000, "backward": 3000, "optimizer": 400}, []
    with tempfile.TemporaryDirectory() as folder:
        ring = Ring.create(Path(folder) / "1-2-3.ring", 0, {})
        steps.attach(ring.writer(ring.steps))
        for _ in range(20):
            began = time.thread_time_ns()
            for n in range(20_000):
                steps.publish(n, 10**7, phases)
            rounds.append((time.thread_time_ns() - began) / 20_000 / 1e3)
        steps.attach(None)
        began = time.thread_time_ns()
        for n in range(20_000):
            steps.publish(n, 10**7, phases)
        unwatched = (time.thread_time_ns() - began) / 20_000 / 1e3
    said = "pass" if min(rounds) <= 2 else "FAIL"
    return f"publishing a step: {min(rounds):.2f} us (median of 20 rounds {statistics.median(rounds):.2f}), {unwatched:.2f} us where nobody looks; target 2 us: {said}"  # fmt: skip


async def main(steps: bool) -> None:
    lines = [heading(), f"# load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start"]

    def tell(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    print("\n".join(lines), flush=True)
    if not steps:
        tell(publishing())
    kernel = Kernel()
    await kernel.start()
    try:
        while (await kernel.now()).get("starting"):
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        if steps:
            tell(await step_time(kernel))
        else:
            for name, code in SITUATIONS.items():
                tell(await latency(kernel, name, code))
            tell(await cost(kernel))
    finally:
        await kernel.end()
    lines.append(f"# load {os.getloadavg()[0]:.1f} at the end")
    (RESULTS / ("panel_steps.txt" if steps else "panel.txt")).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if not Path("/proc/self/schedstat").exists():
        sys.exit("needs Linux, for the CPU time of other processes")
    asyncio.run(main("steps" in sys.argv[1:]))
