"""CPU time of other processes: on a /proc written by hand, and on this machine beside a process that burns a core."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlsys_studio.profilers.neighbours import PROC, CpuTime

TICK = os.sysconf("SC_CLK_TCK")


def proc(folder: Path, cores: dict[int, str], processes: dict[int, tuple[str, int, tuple[int, int, int, int]]]) -> Path:
    """`processes`: {pid: (name, parent, (utime, stime, cutime, cstime))}, all times in ticks."""
    rows = [f"cpu{n} {ticks}" for n, ticks in cores.items()]
    (folder / "stat").write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 9 9", *rows, "intr 1 2 3"]) + "\n")
    (folder / "uptime").write_text("1")
    for pid, (name, parent, times) in processes.items():
        (folder / str(pid)).mkdir()
        head = f"{pid} ({name}) S {parent} 1 1 0 -1 4194304 7 7 7 7"  # fields 1 to 13; times are 14 to 17 (proc(5))
        (folder / str(pid) / "stat").write_text(f"{head} {' '.join(map(str, times))} 20 0 1 0\n")
    return folder


def test_our_tree_is_told_from_the_others(tmp_path: Path):
    here = proc(
        tmp_path,
        # user nice system idle iowait irq softirq steal guest guest_nice: a guest's time is in user already
        {0: "100 1 20 300 4 5 6 7 50 0", 1: "200 0 0 100 0 0 0 0 0 0", 2: "999 0 0 0 0 0 0 0 0 0"},
        {
            1: ("init", 0, (500, 0, 0, 0)),
            10: ("us) (", 1, (60, 10, 1, 2)),
            11: ("a worker", 10, (30, 0, 0, 0)),
            12: ("its child", 11, (5, 0, 0, 0)),
            20: ("them", 1, (77, 0, 0, 0)),
        },
    )
    seen = CpuTime.now(here, pid=10, cpus={0, 1})
    assert seen is not None
    assert seen.cores == 2
    assert seen.ours * TICK == pytest.approx(73 + 30 + 5)
    assert seen.busy * TICK == pytest.approx(100 + 1 + 20 + 5 + 6 + 7 + 200)
    assert seen.idle * TICK == pytest.approx(304 + 100)


@pytest.mark.parametrize(
    ("cores", "ours", "others", "crowded"),
    [
        (2, 1.0, 0.0, False),
        (2, 1.0, 0.3, False),  # 0.7 are left
        (2, 1.0, 0.6, True),  # 0.4 are left
        (2, 1.95, 0.05, False),  # a system's own
        (2, 1.0, 1.0, True),
        (64, 32.0, 8.0, False),
        (64, 32.0, 20.0, True),
    ],
)
def test_others_count_where_they_leave_less_than_they_take(cores, ours, others, crowded):
    meanwhile = CpuTime(cores, 10 * ours, 10 * (ours + others), 10 * (cores - ours - others))
    assert meanwhile.others == pytest.approx(others, abs=1e-9)
    assert meanwhile.crowded is crowded


@pytest.mark.parametrize("content", ["", "cpu0 1 2 3\n", "cpu0 a b c d e f g h\n", "cpu0 0 0 0 0 0 0 0 0\n"])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, content: str):
    assert CpuTime.now(tmp_path / "nowhere") is None
    (tmp_path / "stat").write_text(content)
    assert CpuTime.now(tmp_path, cpus={0}) is None


BURN = "import time\nend = time.time() + 1.5\nwhile time.time() < end: pass\nprint(time.process_time())"
ORPHAN = f"import os, time\nif os.fork(): os._exit(0)\nos.setsid()\n{BURN}"


@pytest.mark.skipif(not (PROC / "stat").exists(), reason="no /proc")
def test_a_child_is_ours_and_a_stranger_is_not():
    """Witness: the CPU time that the burning process states of itself. Others on this machine may burn beside it."""
    before = CpuTime.now()
    child = subprocess.run([sys.executable, "-c", BURN], capture_output=True, text=True, check=True)
    between = CpuTime.now()
    stranger = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    stranger.wait()
    time.sleep(0.1)
    assert stranger.stdout is not None
    said = float(stranger.stdout.read())  # until it has ended
    after = CpuTime.now()
    assert before and between and after
    assert between.since(before).ours == pytest.approx(float(child.stdout), abs=0.15)
    later = after.since(between)
    assert later.ours < 0.5 * said
    assert later.busy - later.ours >= 0.9 * said - 0.1
