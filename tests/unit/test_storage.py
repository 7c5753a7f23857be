"""Storage: what is known of filesystems from their mount tables, what a cache hits, what lies in memory, what is too slow."""

from __future__ import annotations

import json
import os
import random
from collections import OrderedDict
from pathlib import Path

import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.storage import doctor, files, filesystems, page_cache
from mlsys_studio.profilers.storage.caching import checkpoint_every, lru_hits, tier
from mlsys_studio.profilers.storage.doctor import storage_doctor
from mlsys_studio.profilers.storage.files import look
from mlsys_studio.profilers.storage.filesystems import Filesystem, above, parse
from mlsys_studio.profilers.views.columns import columns

# Parsed fixtures, in the words of proc_pid_mountinfo(5): these filesystems cannot be made in a test.
TABLE = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
31 27 0:52 / /var/lib/docker/overlay2/1/merged rw,relatime shared:9 master:1 - overlay overlay rw,lowerdir=/a
25 27 0:23 / /dev/shm rw,nosuid - tmpfs tmpfs rw,size=65536k
40 27 0:61 / /data rw,relatime - nfs4 server:/export rw,vers=4.2
41 40 0:62 / /data/my\040set ro,relatime - fuse.gcsfuse bucket rw
42 27 0:63 / /scratch rw - lustre 10.0.0.1@tcp:/fs rw
43 27 0:64 / /late rw - ext4 /dev/vdb rw
44 27 0:65 / /late rw - xfs /dev/vdc rw
nonsense without a dash
"""


@pytest.mark.parametrize(
    ("path", "kind", "trap"),
    [
        ("/home/x", "ext4", ""),
        ("/var/lib/docker/overlay2/1/merged/etc", "overlay", "first write"),
        ("/dev/shm/batch", "tmpfs", "memory"),
        ("/data/train", "nfs4", "server"),
        ("/data/my set/a", "fuse.gcsfuse", "user space"),
        ("/data/my settings", "nfs4", "server"),
        ("/scratch/x", "lustre", "metadata"),
        ("/late/x", "xfs", ""),  # the later mount hides the earlier
    ],
)
def test_the_innermost_mount_and_its_trap(path, kind, trap):
    found = above(Path(path), parse(TABLE))
    assert found is not None
    assert found[0] == kind
    said = Filesystem(*found, size=1, free=1, inodes_free=None)
    assert trap in said.trap
    assert bool(trap) == bool(said.trap)
    assert said.network == (kind in ("nfs4", "lustre", "fuse.gcsfuse"))
    assert said.read_only == (kind == "fuse.gcsfuse")


def test_without_proc_the_kind_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(filesystems, "MOUNTS", tmp_path / "none")
    assert Filesystem.of(tmp_path).kind == "unknown"


# -- caches --------------------------------------------------------------------------------------------------------------


def simulated(items: int, capacity: int, shuffled: bool, epochs: int = 12) -> float:
    """An LRU cache, item by item."""
    draw, cache, hits, asked = random.Random(1), OrderedDict(), 0, 0
    for epoch in range(epochs):
        order = list(range(items))
        if shuffled:
            draw.shuffle(order)
        for item in order:
            asked += epoch > 0
            if item in cache:
                hits += epoch > 0
                cache.move_to_end(item)
            else:
                cache[item] = None
                if len(cache) > capacity:
                    cache.popitem(last=False)
    return hits / asked


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_hits_of_an_evicting_cache_are_those_of_a_simulation(share):
    assert lru_hits(share) == pytest.approx(simulated(3000, int(3000 * share), True), abs=0.012)


def test_in_sequence_an_evicting_cache_thrashes():
    assert lru_hits(0.9, shuffled=False) == simulated(1000, 900, False) == 0
    assert lru_hits(1.0, shuffled=False) == simulated(1000, 1000, False) == 1


def test_a_tier_that_holds_half():
    """Half of the bytes at 10x the speed: 1 / (0.5 + 0.5 / 10) = 1.818."""
    found = tier("memory", 50, 100, cold=1e8, warm=1e9)
    assert (found.share, found.keeping) == (0.5, 0.5)
    assert found.speed == pytest.approx(1.818, abs=0.001)
    assert found.evicting == pytest.approx(0.153, abs=0.001)


@pytest.mark.parametrize(("save", "step"), [(40, 1), (3, 0.2), (0.001, 10)])
def test_saving_takes_at_most_a_hundredth(save, step):
    """Witness: the definition, at the number found and at one less."""
    every = checkpoint_every(save, step)
    assert save / (save + every * step) <= 0.01 + 1e-12
    assert every == 1 or save / (save + (every - 1) * step) > 0.01


# -- what lies there -----------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(60):
        folder = tmp_path / "data" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_bytes(os.urandom(1000))
    (tmp_path / "data" / "large.bin").write_bytes(os.urandom(3 << 20))
    return tmp_path / "data"


def test_files_are_counted_by_size(data):
    found = look(data)
    assert (found.count, found.bytes, found.folders, found.small, found.denied) == (61, 60_000 + (3 << 20), 4, 60, 0)
    assert found.histogram == (60, 0, 0, 1, 0, 0, 0)
    assert found.suffixes[0] == (".txt", 60)
    assert found.largest_folder == 20


def test_links_are_not_followed(data):
    (data / "loop").symlink_to(data)
    (data / "link.txt").symlink_to(data / "large.bin")
    assert look(data).count == 61


def test_a_sample_is_spread_over_all(data):
    """Drawn, not every second: of two alternating kinds of files it has both."""
    names = [Path(path).stem for path, _ in look(data, sample=30).sample]
    assert {int(n) % 2 for n in names if n.isdigit()} == {0, 1}


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="needs posix_fadvise")
def test_what_was_dropped_is_out_of_memory_and_what_was_read_is_in_it(data):
    """Witness: the kernel's own count of major faults is no help on a busy machine; reading must bring every page back."""
    large = str(data / "large.bin")
    Path(large).read_bytes()
    assert page_cache.resident(large) == 1
    if not page_cache.drop([large]):
        pytest.skip("this filesystem keeps its pages")
    assert page_cache.resident(large) == 0
    with open(large, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.read(4096)
    assert 0 < (page_cache.resident(large) or 0) < 0.5


def test_a_report_of_a_folder(data):
    report = storage_doctor(data, need=1.0, checkpoint=1e6, seconds=1)
    text = str(report)
    assert max(columns(line) for line in text.splitlines()) <= 80
    assert report.verdict.startswith("fast enough")
    assert report.saving is not None and report.saving.every >= 1
    assert not list(data.glob(".mlsys*"))
    body = json.loads(report.to_json())
    assert body["files"]["histogram"]["below 4.00 KiB"] == 60
    assert "<script" not in report._repr_mimebundle_()["text/html"]
    assert storage_doctor(data, need=1e15, seconds=0.5).verdict.startswith("too slow")


def test_cold_is_said_to_be_unmeasured_where_nothing_could_be_dropped(data, monkeypatch):
    monkeypatch.setattr(page_cache, "drop", lambda paths: False)
    report = storage_doctor(data, seconds=0.5)
    assert report.rates.sequential_cold is report.rates.files_cold is report.rates.random_cold is None
    assert "cold not measured" in str(report)


# -- bad paths -----------------------------------------------------------------------------------------------------------


def bad(sentence: str, *arguments, **options) -> None:
    with pytest.raises(UsageError, match=sentence):
        storage_doctor(*arguments, seconds=0.5, **options)


def test_nothing_there(tmp_path):
    bad("does not exist", tmp_path / "none")
    bad("holds no file", tmp_path)


def test_no_permission(data, monkeypatch):
    """Root may read everything, so the right is taken away where it is asked for."""
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    bad("may not be read by this user", data)


def test_files_that_may_not_be_read(data, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: Path(path).is_dir())
    bad("none of the files", data)


def test_no_room_for_a_checkpoint(data, monkeypatch):
    monkeypatch.setattr(
        doctor.shutil, "disk_usage", lambda path: os.terminal_size((0, 0)) and type("U", (), {"free": 5})()
    )
    bad("free some, or give another folder", data, checkpoint=1e9)


def test_numbers_that_make_no_sense(data):
    bad("need must be more than 0", data, need=-1)


def test_a_folder_behind_a_locked_one_is_not_said_to_be_missing(monkeypatch, tmp_path):
    """As for a user who may not enter its parent; the tests may be run by root, whom nothing is locked for."""

    def locked(self, **_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", locked)
    with pytest.raises(UsageError, match="may not be read by this user"):
        look(tmp_path)


def test_files_that_may_not_be_read_are_counted(monkeypatch, tmp_path):
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(100))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: not str(path).endswith("b"))
    assert "1 files or folders could not be looked at" in str(storage_doctor(tmp_path, seconds=0.5))


def test_how_often_to_save_and_what_a_failure_then_loses(tmp_path):
    """Saving takes at most 1 % where 99 s of steps stand beside each second of it: a failure loses that much."""
    (tmp_path / "a").write_bytes(bytes(1000))
    saving = storage_doctor(tmp_path, checkpoint=4e6, step=0.01, seconds=0.5).saving
    assert saving is not None
    assert saving.every * saving.step == pytest.approx(99 * saving.seconds, abs=saving.step)
