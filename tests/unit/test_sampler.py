"""What is sampled, against files and a driver made by hand; the sampler's own life, on a clock of the test.

The GPU values come from a stand-in for the driver (`nvml_fake`): they are made up, and no GPU is asked.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from nvml_fake import Card, FakeNvml

from mlsys_studio.profilers.limits import Limits
from mlsys_studio.profilers.sampling.attribution import ours
from mlsys_studio.profilers.sampling.gpus import Gpus
from mlsys_studio.profilers.sampling.host import Host, network, pressure, tree
from mlsys_studio.profilers.sampling.nvml import Nvml
from mlsys_studio.profilers.sampling.records import GPU, HOST
from mlsys_studio.profilers.sampling.ring import Ring
from mlsys_studio.profilers.sampling.sampler import run

GIB = 2**30


def files(root: Path, **texts: str) -> Path:
    """Keys are paths with "__" for "/" and "_dot_" for "."."""
    for name, text in texts.items():
        file = root / name.replace("_dot_", ".").replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


MACHINE = {"proc__meminfo": "MemTotal: 33554432 kB\nMemAvailable: 8388608 kB\n"}  # 32 GiB, 8 of them free

# -- limits ------------------------------------------------------------------------------------------------------------


def test_version_2_counts_what_cannot_be_given_back(tmp_path: Path):
    root = files(
        tmp_path,
        **MACHINE,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__cgroup_dot_controllers="cpu memory",
        sys__fs__cgroup__memory_dot_max=f"{16 * GIB}\n",
        sys__fs__cgroup__memory_dot_current=f"{12 * GIB}\n",
        sys__fs__cgroup__memory_dot_stat=f"anon 5\ninactive_file {3 * GIB}\n",
        sys__fs__cgroup__memory_dot_events="low 0\noom 4\noom_kill 2\n",
        sys__fs__cgroup__cpu_dot_max="150000 100000\n",
        sys__fs__cgroup__cpu_dot_stat="usage_usec 2500000\nuser_usec 1\n",
    )
    found = Limits(root)
    assert (found.memory_limit, found.memory()) == (16 * GIB, 9 * GIB)
    assert found.cpu_limit == min(1.5, os.cpu_count() or 1)
    assert (found.cpu_seconds(), found.oom_kills()) == (2.5, 2)


def test_the_smallest_limit_above_the_process_binds(tmp_path: Path):
    """As under Slurm or systemd: the process's own group has none, the job's has one."""
    root = files(
        tmp_path,
        **MACHINE,
        proc__self__cgroup="0::/job_1/step_0\n",
        sys__fs__cgroup__cgroup_dot_controllers="memory",
        sys__fs__cgroup__job_1__memory_dot_max=f"{4 * GIB}",
        sys__fs__cgroup__job_1__memory_dot_current=f"{GIB}",
        sys__fs__cgroup__job_1__step_0__memory_dot_max="max",
        sys__fs__cgroup__job_1__step_0__memory_dot_current="17",
    )
    found = Limits(root)
    assert (found.memory_limit, found.memory()) == (4 * GIB, GIB)


def test_version_1(tmp_path: Path):
    root = files(
        tmp_path,
        **MACHINE,
        proc__self__cgroup="4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",  # a path the container does not have
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes=f"{8 * GIB}",
        sys__fs__cgroup__memory__memory_dot_usage_in_bytes=f"{6 * GIB}",
        sys__fs__cgroup__memory__memory_dot_stat=f"cache 9\ntotal_inactive_file {GIB}\n",
        sys__fs__cgroup__memory__memory_dot_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="50000",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000",
        sys__fs__cgroup__cpuacct__cpuacct_dot_usage="7000000000",
    )
    found = Limits(root)
    assert (found.memory_limit, found.memory(), found.oom_kills()) == (8 * GIB, 5 * GIB, 3)
    assert (found.cpu_limit, found.cpu_seconds()) == (0.5, 7.0)


@pytest.mark.parametrize("limit", ["9223372036854771712", "max", "", "rubbish"])
def test_without_a_limit_it_is_the_machine(tmp_path: Path, limit: str):
    root = files(tmp_path, **MACHINE, proc__self__cgroup="4:memory:/\n", sys__fs__cgroup__memory__memory_dot_limit_in_bytes=limit)  # fmt: skip
    found = Limits(root)
    assert (found.memory_limit, found.memory()) == (32 * GIB, 24 * GIB)


def test_nothing_readable_is_unknown_and_not_zero(tmp_path: Path):
    sample = dict(zip(HOST, Host(1, tmp_path).sample(1.0), strict=True))
    known = {name for name, value in sample.items() if not math.isnan(value)}
    assert known == {"time", "unix", "cpu_limit"}


# -- the kernel's processes --------------------------------------------------------------------------------------------


def stat_line(name: str, *, cpu: int, pages: int, faults: int = 0) -> str:
    words = ["S", "1", *["0"] * 5, "5", "0", str(faults), "0", str(cpu), "0", *["0"] * 8, str(pages), *["0"] * 3]
    return f"7 ({name}) {' '.join(words)}"


def test_rates_are_the_growth_of_the_kernel_and_its_children(tmp_path: Path):
    tick, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    root = files(tmp_path, proc__7__task__7__children="8 ", proc__7__stat=stat_line("py) (x", cpu=100, pages=10), proc__8__stat=stat_line("worker", cpu=0, pages=5), proc__7__io="read_bytes: 1000\nwrite_bytes: 0\n")  # fmt: skip
    host = Host(7, root)
    host.sample(10.0)
    files(root, proc__7__stat=stat_line("py) (x", cpu=100 + 3 * tick, pages=10, faults=4), proc__8__stat=stat_line("worker", cpu=tick, pages=5), proc__7__io="read_bytes: 5000\nwrite_bytes: 600\n")  # fmt: skip
    found = dict(zip(HOST, host.sample(12.0), strict=True))
    assert found["cpu_kernel"] == pytest.approx(2.0)  # 3 + 1 seconds in 2
    assert found["memory_kernel"] == 15 * page
    assert (found["disk_read"], found["disk_write"], found["faults"]) == (2000, 300, 2)


def test_a_child_that_comes_or_goes_is_no_jump(tmp_path: Path):
    root = files(tmp_path, proc__7__task__7__children="", proc__7__stat=stat_line("py", cpu=0, pages=1))
    host = Host(7, root)
    host.sample(10.0)
    files(root, proc__7__task__7__children="8", proc__8__stat=stat_line("old", cpu=10**6, pages=1))
    assert dict(zip(HOST, host.sample(12.0), strict=True))["cpu_kernel"] == 0


def test_a_tree_that_names_itself_ends(tmp_path: Path):
    root = files(tmp_path, proc__7__task__7__children="8", proc__8__task__8__children="7 8")
    assert sorted(tree(7, root)) == [7, 8]


def test_this_process_works_on_a_core():
    """Witness: the CPU clock of this very process, busy all the while."""
    host = Host(os.getpid())
    import time

    host.sample()
    cpu, began = time.process_time(), time.monotonic()
    while time.monotonic() - began < 0.4:
        pass
    found = dict(zip(HOST, host.sample(), strict=True))
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    assert found["cpu_kernel"] == pytest.approx(share, abs=0.15)
    assert found["memory_kernel"] > 5 * 2**20
    assert 0 < found["memory"] < found["memory_limit"]


def test_network_leaves_loopback_out(tmp_path: Path):
    rows = "a\nb\n    lo: 99 1 0 0 0 0 0 0 99 1\n  eth0: 10 1 0 0 0 0 0 0 20 1\n  eth1:1 1 0 0 0 0 0 0 2 1\n"
    assert network(files(tmp_path, proc__net__dev=rows)) == (11, 22)
    assert network(tmp_path / "none") == (None, None)


def test_pressure_is_the_containers_own_first(tmp_path: Path):
    files(tmp_path, proc__pressure__memory="some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=9 \n")
    assert pressure("memory", tmp_path) == 1.5
    files(tmp_path, sys__fs__cgroup__memory_dot_pressure="some avg10=7.25 avg60=0 total=1\n")
    assert pressure("memory", tmp_path) == 7.25


# -- GPUs, by a stand-in -----------------------------------------------------------------------------------------------


def gpu_values(card: Card, processes: tuple[int, ...] = (1,), times: int = 1, on_host: bool = True) -> dict[str, float]:
    gpus = Gpus(Nvml(FakeNvml(card)), on_host=on_host)
    for n in range(times):
        found = gpus.sample(processes, 10.0 + n)
    return dict(zip(GPU, found, strict=True))


def test_units():
    found = gpu_values(Card())
    assert found["power"] == 412.5 and found["temperature"] == 61 and found["clock"] == 1410
    assert (found["memory_used"], found["memory_total"]) == (30 * GIB, 80 * GIB)
    assert (found["pcie_in"], found["pcie_out"]) == (9 * 1024, 7 * 1024)
    assert found["throttle"] == 4
    assert all(math.isnan(found[name]) for name in ("power_limit", "clock_max", "ecc_corrected"))  # not in this driver


def test_the_kernels_part_is_that_of_its_processes():
    card = Card(processes={1: 2 * GIB, 2: 3 * GIB, 99: 20 * GIB}, busy={1: 40, 2: 20, 99: 30})
    found = gpu_values(card, (1, 2))
    assert (found["memory_kernel"], found["utilisation_kernel"]) == (5 * GIB, 60)
    none = gpu_values(card, (5,))
    assert (none["memory_kernel"], none["utilisation_kernel"]) == (0, 0)


def test_in_a_container_a_like_number_is_not_taken_for_ours():
    found = gpu_values(Card(processes={1: 20 * GIB}), (1,), on_host=False)
    assert math.isnan(found["memory_kernel"]) and math.isnan(found["utilisation_kernel"])


def test_a_driver_that_does_not_say_how_much():
    assert math.isnan(gpu_values(Card(processes={1: 2**64 - 1}))["memory_kernel"])


def test_links_are_rates():
    card = Card(links=(1000, 500))
    gpus = Gpus(Nvml(FakeNvml(card)), on_host=True)
    gpus.sample((), 10.0)
    card.links = (3000, 1500)
    found = dict(zip(GPU, gpus.sample((), 12.0), strict=True))
    assert (found["nvlink_in"], found["nvlink_out"]) == (1000 * 1024, 500 * 1024)


def test_slices_of_a_gpu_are_devices():
    card = Card(slices=(Card("Made-up 1g.10gb", "MIG-1", used=GIB), Card("Made-up 2g.20gb", "MIG-2", used=2 * GIB)))
    gpus = Gpus(Nvml(FakeNvml(card, Card(uuid="GPU-1"))), on_host=True)
    assert [(d["uuid"], d["index"], d["mig"]) for d in gpus.facts()["gpus"]] == [("MIG-1", 0, True), ("MIG-2", 0, True), ("GPU-1", 1, False)]  # fmt: skip
    found = gpus.sample((), 1.0)
    first, third = (dict(zip(GPU, found[i * len(GPU) :][: len(GPU)], strict=True)) for i in (0, 2))
    assert math.isnan(first["utilisation"]) and first["memory_used"] == GIB and first["power"] == 412.5
    assert third["utilisation"] == 97


def test_a_lost_gpu_is_left_out_and_16_are_listed():
    cards = [Card(uuid=f"GPU-{i}", lost=i == 3) for i in range(16)]
    gpus = Gpus(Nvml(FakeNvml(*cards)), on_host=True)
    assert [d.index for d in gpus.devices] == [i for i in range(16) if i != 3]
    assert len(gpus.sample((), 1.0)) == 15 * len(GPU)


def test_slow_counters_are_asked_of_one_gpu_a_sample():
    library = FakeNvml(Card(), Card(), Card())
    gpus = Gpus(Nvml(library), on_host=True)
    for n in range(3):
        library.calls.clear()
        gpus.sample((), float(n))
        assert library.calls.count("nvmlDeviceGetPcieThroughput") == 2


def test_without_a_driver_there_are_no_devices():
    assert Gpus(None).sample((1,)) == ()
    with pytest.raises(OSError, match="does not answer"):
        Nvml(FakeNvml(initialised=9))


# -- whose -------------------------------------------------------------------------------------------------------------


def process(root: Path, number: int, spaces: str, group: str) -> None:
    files(root, **{f"proc__{number}__status": f"Name:\tx\nNSpid:\t{spaces}\n", f"proc__{number}__cgroup": f"0::/{group}\n"})  # fmt: skip


def test_with_the_hosts_proc_a_container_finds_its_own(tmp_path: Path):
    """The kernel is 12 inside and 9012 outside; a neighbour's 9500 is 12 in its own container."""
    process(tmp_path, 12, "12", "mine")
    process(tmp_path, 9012, "9012 12", "mine")
    process(tmp_path, 9500, "9500 12", "neighbour")
    assert ours([9012, 9500], [12], on_host=False, root=tmp_path) == {9012}
    assert ours([9500], [12], on_host=False, root=tmp_path) is None


def test_a_bare_number_in_a_container_proves_nothing(tmp_path: Path):
    process(tmp_path, 12, "12", "mine")
    assert ours([12], [12], on_host=False, root=tmp_path) is None
    assert ours([], [12], on_host=False, root=tmp_path) is None
    assert ours([12, 13], [12], on_host=True, root=tmp_path) == {12}


# -- the sampler's life ------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, now: float) -> None:
        self.now, self.slept = now, []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring.create(tmp_path / "1-2-3.ring", 0, {})


def test_it_ends_a_minute_after_the_last_reader(ring: Ring):
    ring.wish(1.0)
    clock = Clock(ring.wished()[0])
    run(ring, Host(os.getpid()), Gpus(None), lambda: True, clock, clock.sleep)
    assert sum(clock.slept) == pytest.approx(61, abs=1.01)
    assert ring.newest(ring.samples) == 61


def test_it_ends_with_its_parent(ring: Ring):
    clock = Clock(ring.wished()[0])
    left = iter([True, True, False])
    run(ring, Host(os.getpid()), Gpus(None), lambda: next(left), clock, clock.sleep)
    assert ring.newest(ring.samples) == 2


def test_it_ends_when_another_takes_its_place(ring: Ring):
    clock = Clock(ring.wished()[0])
    Ring.create(ring.path, 0, {})
    run(ring, Host(os.getpid()), Gpus(None), lambda: True, clock, clock.sleep)
    assert ring.newest(ring.samples) == 0


@pytest.mark.parametrize(("wish", "period"), [(2.0, 0.5), (10.0, 0.1), (1000.0, 0.1), (0.01, 1.0)])
def test_it_is_as_fast_as_wished_within_bounds(ring: Ring, wish: float, period: float):
    ring.wish(wish)
    clock = Clock(ring.wished()[0])
    left = iter([True] * 20 + [False])
    run(ring, Host(os.getpid()), Gpus(None), lambda: next(left), clock, clock.sleep)
    assert clock.slept == pytest.approx([period] * 20)


def test_a_pause_of_the_machine_is_not_made_up_for(ring: Ring):
    ring.wish(10.0)
    clock = Clock(ring.wished()[0])
    left = iter([True] * 6 + [False])

    def sleep(seconds: float) -> None:
        clock.sleep(seconds + (30 if len(clock.slept) == 2 else 0))

    run(ring, Host(os.getpid()), Gpus(None), lambda: next(left), clock, sleep)
    assert ring.newest(ring.samples) == 6  # and not 300 at once
