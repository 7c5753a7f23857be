"""The same failure as other people meet it: pure functions from a real output to another text with the same truth.

Each takes the text and a lot (`random.Random`) and gives a text. A plan draws a few of them in the order in which the
world applies them: what the job said before, what its launcher says afterwards, who prefixes the lines, and what of it
was kept. Whether the evidence survived is asked once, at the end, by `decidable`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

Variation = Callable[[str, Random], str]


@dataclass(frozen=True, slots=True)
class Varied:
    text: str
    applied: tuple[str, ...]


# ---- where it ran ------------------------------------------------------------------------------------------------

PLACES = (
    {"$HOME": "/workspace/run", "$ENV": "/opt/venv", "$BASE": "/usr/local"},
    {"$HOME": "/home/mei/projects/lm", "$ENV": "/home/mei/miniconda3/envs/lm", "$BASE": "/home/mei/miniconda3/envs/lm"},
    {"$HOME": "/lustre/team/exp/0417", "$ENV": "/lustre/team/venvs/torch", "$BASE": "/usr"},
    {"$HOME": "/app", "$ENV": "/usr/local", "$BASE": "/usr/local"},
)


def place(text: str, lot: Random) -> str:
    """Fill the folders that `stage.py` took out."""
    for name, path in lot.choice(PLACES).items():
        text = text.replace(name, path)
    return text


# ---- what was said before ----------------------------------------------------------------------------------------


def steady_training(text: str, lot: Random) -> str:
    """A few dozen steps of a run that was fine."""
    loss, lines = lot.uniform(2.5, 11), []
    style = lot.randrange(4)
    for step in range(0, 10 * lot.randint(8, 60), 10):
        loss *= lot.uniform(0.97, 1.005)
        lines.append(
            (
                f"step {step:6d} | loss {loss:.4f} | lr 3.00e-04 | grad_norm {lot.uniform(0.3, 1.4):.3f} | tokens/s {lot.randint(9000, 9900)}",
                f"{{'loss': {loss:.4f}, 'grad_norm': {lot.uniform(0.3, 1.4):.4f}, 'learning_rate': 3e-04, 'epoch': {step / 500:.2f}}}",
                f" iteration {step:8d}/  500000 | consumed samples: {step * 256:12d} | elapsed time per iteration (ms): {lot.uniform(900, 990):.1f} | lm loss: {loss:.6E} | loss scale: 1.0 | number of skipped iterations:   0 | number of nan iterations:   0 |",
                f"Epoch 0 Step {step} train_loss={loss:.3f} samples_per_second={lot.uniform(90, 120):.1f}",
            )[style]
        )
    return "\n".join(lines) + "\n" + text


def survived_trouble(text: str, lot: Random) -> str:
    """Warnings and errors that were dealt with, before the one that was not."""
    troubles = (
        "WARNING metrics: push to http://metrics:9091 failed (ReadTimeout), retry 1/5\nINFO metrics: push succeeded after 1 retry\n",
        "FutureWarning: `torch.cuda.amp.autocast(args...)` is deprecated. Please use `torch.amp.autocast('cuda', args...)` instead.\n",
        "WARNING data: sample 88123 has no caption, skipped (3 of 2000000 skipped so far)\n",
        "Some weights of BertForSequenceClassification were not initialized from the model checkpoint and are newly initialized: ['classifier.bias', 'classifier.weight']\n",
        "INFO autobatch: trying batch size 64: out of memory, falling back to 32\nINFO autobatch: batch size 32 fits\n",
        "[W socket.cpp:697] [c10d] The client socket has failed to connect to [node-0]:29500 (errno: 111 - Connection refused).\nINFO launch: connected to node-0 on the second attempt\n",
        "WARNING ckpt: could not remove old checkpoint step100 (already gone), ignored\n",
    )
    return "".join(lot.sample(troubles, lot.randint(2, 4))) + text


# ---- what is said afterwards: a last line that is not the cause -----------------------------------------------------


def elastic_summary(exit: int) -> Variation:
    """torchrun's report of a child that failed (torch/distributed/elastic/multiprocessing/errors)."""

    def tail(text: str, lot: Random) -> str:
        rank, pid = lot.randrange(8), lot.randint(2000, 90000)
        signal = -exit if exit < 0 else exit - 128 if exit in (134, 135, 137, 139, 143) else 0
        code = -signal if signal else exit
        names = {6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
        message = (
            f"Signal {signal} ({names.get(signal, '?')}) received by PID {pid}"
            if signal
            else "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"
        )
        stamp = f"2026-03-1{rank}_0{rank}:14:0{rank}"
        return (
            f"{text}W0312 04:14:0{rank}.118000 {pid - 60} site-packages/torch/distributed/elastic/multiprocessing/api.py:1010] Sending process {pid + 1} closing signal SIGTERM\n"
            f"E0312 04:14:0{rank}.531000 {pid - 60} site-packages/torch/distributed/elastic/multiprocessing/api.py:984] failed (exitcode: {code}) local_rank: {rank} (pid: {pid}) of binary: /usr/bin/python3\n"
            "Traceback (most recent call last):\n"
            '  File "/usr/local/bin/torchrun", line 8, in <module>\n    sys.exit(main())\n'
            "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
            f"{'=' * 60}\ntrain.py FAILED\n{'-' * 60}\nFailures:\n  <NO_OTHER_FAILURES>\n{'-' * 60}\n"
            f"Root Cause (first observed failure):\n[0]:\n  time      : {stamp}\n  host      : node-7\n  rank      : {rank} (local_rank: {rank})\n"
            f"  exitcode  : {code} (pid: {pid})\n  error_file: <N/A>\n  traceback : {message}\n{'=' * 60}\n"
        )

    return tail


def slurm_summary(exit: int) -> Variation:
    def tail(text: str, lot: Random) -> str:
        task, step = lot.randrange(8), lot.randint(100_000, 900_000)
        ended = (
            f"Exited with exit code {exit}"
            if 0 < exit < 128
            else "Killed"
            if exit in (137, -9)
            else f"Terminated abnormally (status {exit})"
        )
        return (
            f"{text}srun: error: node-7: task {task}: {ended}\n"
            f"srun: Terminating StepId={step}.0\nslurmstepd: error: *** STEP {step}.0 ON node-7 CANCELLED AT 2026-03-12T04:14:09 ***\n"
        )

    return tail


def peers_complain(text: str, lot: Random) -> str:
    """Other ranks lose their peer a moment later."""
    peers = lot.sample(range(8), 2)
    return text + "".join(
        f"[rank{rank}]: RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.{rank + 2}]:2{rank}417\n"
        for rank in peers
    )


def leaked_semaphores(text: str, lot: Random) -> str:
    return (
        f"{text}/usr/local/lib/python3.11/multiprocessing/resource_tracker.py:254: UserWarning: resource_tracker: There appear to be "
        f"{lot.randint(2, 40)} leaked semaphore objects to clean up at shutdown\n  warnings.warn('resource_tracker: There appear to be %d '\n"
    )


def tracker_goodbye(text: str, lot: Random) -> str:
    return f"{text}wandb: \nwandb: You can sync this run to the cloud by running:\nwandb: wandb sync wandb/offline-run-2026{lot.randint(1000, 9999)}\nwandb: Find logs at: ./wandb/logs\n"


# ---- who prefixes the lines ------------------------------------------------------------------------------------------


def _each_line(text: str, prefix: Callable[[int], str]) -> str:
    return "".join(prefix(number) + line + "\n" for number, line in enumerate(text.splitlines()))


def _clock(lot: Random) -> Callable[[int], datetime.datetime]:
    start, pace = (
        datetime.datetime(2026, 3, lot.randint(1, 28), lot.randrange(24), lot.randrange(60)),
        lot.uniform(0.01, 2),
    )
    return lambda number: start + datetime.timedelta(seconds=number * pace)


def rank_prefix(text: str, lot: Random) -> str:
    rank = lot.randrange(8)
    return _each_line(text, lambda _: f"[rank{rank}]: ")


def slurm_label(text: str, lot: Random) -> str:
    task = lot.randrange(16)
    return _each_line(text, lambda _: f"{task:2d}: ")


def iso_time(text: str, lot: Random) -> str:
    at = _clock(lot)
    return _each_line(text, lambda number: f"{at(number):%Y-%m-%d %H:%M:%S},{number % 1000:03d} ")


def kubernetes(text: str, lot: Random) -> str:
    at = _clock(lot)
    return _each_line(text, lambda number: f"{at(number):%Y-%m-%dT%H:%M:%S}.{number % 10**6:06d}118Z stderr F ")


def pod_prefix(text: str, lot: Random) -> str:
    pod = f"train-{lot.randrange(10**5):05d}-worker-{lot.randrange(8)}"
    return _each_line(text, lambda _: f"[pod/{pod}/pytorch] ")


def ray_worker(text: str, lot: Random) -> str:
    pid = lot.randint(1000, 99999)
    return _each_line(text, lambda _: f"\x1b[36m(RayTrainWorker pid={pid}, ip=10.0.{pid % 9}.4)\x1b[0m ")


def docker_compose(text: str, lot: Random) -> str:
    return _each_line(text, lambda _: "trainer-1  | ")


# ---- what the terminal did to it ---------------------------------------------------------------------------------------


def colours(text: str, lot: Random) -> str:
    """Levels and exception names in colour, as rich and colorlog print them."""
    text = re.sub(r"\b(INFO|WARNING)\b", "\x1b[32m\\1\x1b[0m", text)
    return re.sub(r"(?m)^(\w*(?:Error|Exception|Interrupt))\b", "\x1b[1;31m\\1\x1b[0m", text)


def progress_bars(text: str, lot: Random) -> str:
    """tqdm redraws its line between the others; the last redraw ends where the next line begins."""
    total, lines = lot.randint(50, 900), text.splitlines(keepends=True)
    drawn = []
    for number, line in enumerate(lines[: lot.randint(1, 12)]):
        done = [min(total, (number * 5 + k) * total // 90) for k in range(5)]
        bars = [
            f"{d * 100 // total:3d}%|{'█' * (d * 10 // total):<10}| {d}/{total} [00:{d % 60:02d}<01:{d % 60:02d},  3.{d % 10}1it/s]"
            for d in done
        ]
        drawn.append("\r".join(["", *bars]) + "\n" + line)
    return "".join(drawn + lines[len(drawn) :])


def windows_lines(text: str, lot: Random) -> str:
    return text.replace("\n", "\r\n")


# ---- what of it was kept -------------------------------------------------------------------------------------------------


def missing_head(text: str, lot: Random) -> str:
    """`tail`: the first lines are gone, often with the word Traceback."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[lot.randint(1, max(1, len(lines) * 2 // 3)) :])


def cut_off(text: str, lot: Random) -> str:
    """The collector stopped in the middle of a line near the end."""
    return text[: max(1, len(text) - lot.randint(5, max(6, min(len(text) // 4, 900))))]


def elided(text: str, lot: Random) -> str:
    """Somebody shortened it for a ticket."""
    lines = text.splitlines(keepends=True)
    if len(lines) < 8:
        return text
    first = lot.randint(2, len(lines) // 2)
    last = lot.randint(first + 1, max(first + 2, len(lines) - 4))
    return "".join([*lines[:first], f"... ({last - first} lines omitted) ...\n", *lines[last:]])


BEFORE: tuple[Variation, ...] = (steady_training, survived_trouble)
PREFIX: tuple[Variation, ...] = (rank_prefix, slurm_label, iso_time, kubernetes, pod_prefix, ray_worker, docker_compose)
TERMINAL: tuple[Variation, ...] = (colours, progress_bars, windows_lines)
KEPT: tuple[Variation, ...] = (missing_head, cut_off, elided)


def vary(text: str, exit: int, lot: Random, *, plain: bool = False, single: bool = True) -> Varied:
    """The text of seed `lot`. `plain`: only the folders are filled. `single`: one process, so that a launcher may wrap it."""
    chain: list[Variation] = [place]
    if not plain:
        after: list[Variation] = [leaked_semaphores, tracker_goodbye]
        if single and exit:
            after += [elastic_summary(exit), slurm_summary(exit), peers_complain]
        chain += _some(BEFORE, lot, 0.5) + _some(after, lot, 0.55) + _some(TERMINAL[:2], lot, 0.3)
        chain += _some(PREFIX, lot, 0.6) + _some(KEPT, lot, 0.4) + _some(TERMINAL[2:], lot, 0.1)
    for variation in chain:
        text = variation(text, lot)
    return Varied(text, tuple(variation.__qualname__.split(".")[0] for variation in chain[1:]))


def healthy(text: str, lot: Random, *, plain: bool = False) -> Varied:
    """The same for a run that ended well: nothing is added after its end but what also follows success."""
    chain: list[Variation] = [place]
    if not plain:
        chain += _some((steady_training, survived_trouble), lot, 0.4) + _some(
            (leaked_semaphores, tracker_goodbye), lot, 0.3
        )
        chain += _some(TERMINAL[:2], lot, 0.3) + _some(PREFIX, lot, 0.6)
    for variation in chain:
        text = variation(text, lot)
    return Varied(text, tuple(variation.__name__ for variation in chain[1:]))


def _some(choices: Sequence[Variation], lot: Random, chance: float) -> list[Variation]:
    return [lot.choice(choices)] if choices and lot.random() < chance else []


def folder(ranks: Mapping[int, str], lot: Random) -> dict[str, str]:
    """One file a rank, named as launchers name them, in no particular order."""
    name = lot.choice(("rank{}.log", "worker_{}.err", "node-7_rank{}_stderr.log", "attempt_0_{}_stderr.log"))
    order = list(ranks)
    lot.shuffle(order)
    return {name.format(rank): ranks[rank] for rank in order}


def concatenated(files: Mapping[str, str]) -> str:
    """What `tail -n +1 *` prints."""
    return "\n".join(f"==> {name} <==\n{text}" for name, text in files.items())


def decidable(text: str, says: Sequence[str]) -> bool:
    """All that an expert needs is still there; prefixes, colours and carriage returns do not matter."""
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return all(words in bare for words in says)
