"""Shards: what was packed comes back byte by byte, a stop loses nothing, a flipped bit is found."""

from __future__ import annotations

import errno
import gc
import io
import json
import tarfile
from pathlib import Path

import numpy
import pytest

from mlsys_studio.profilers.errors import UsageError
from mlsys_studio.profilers.storage import packing, shards
from mlsys_studio.profilers.storage.packing import pack_shards, verified
from mlsys_studio.profilers.storage.samples import Folder, encoded

FORMATS = [pytest.param(name, marks=pytest.mark.skipif(not packing.find_spec(library), reason=f"needs {library}")) for name, library in shards.LIBRARIES.items()]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i in range(40):
        folder = tmp_path / "data" / str(i % 2)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.jpg").write_bytes(bytes([i]) * (100 + i))
        (folder / f"{i:02}.cls").write_text(str(i % 7))
    return tmp_path / "data"


def contents(folder: Path, format: str) -> dict[str, dict[str, bytes]]:
    """Witness: Python's own tarfile, and pyarrow's own table."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.glob(f"*.{format}")):
        if format == "tar":
            with tarfile.open(path) as tar:
                for member in tar.getmembers():
                    key, _, field = member.name.rpartition(".")
                    found.setdefault(key, {})[field] = tar.extractfile(member).read()  # type: ignore[union-attr]
        else:
            parquet = pytest.importorskip("pyarrow.parquet")
            for row in parquet.read_table(path).to_pylist():
                found[row.pop("__key__")] = row
    return found


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_packed_comes_back(data, tmp_path, format):
    packed = pack_shards(data, tmp_path / "out", format=format, shard_bytes=2000)
    expected = {f"{i % 2}/{i:02}": {"jpg": bytes([i]) * (100 + i), "cls": str(i % 7).encode()} for i in range(40)}
    assert contents(tmp_path / "out", format) == expected
    assert packed.shards.samples == 40
    assert len(packed.shards.shards) > 1
    assert packed.compared == 40 and packed.before_warm and packed.after_warm
    assert "40 samples" in str(packed)
    json.loads(packed.to_json())


def test_webdataset_reads_it(data, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    packed = pack_shards(data, tmp_path / "out", shard_bytes=2000)
    urls = [str(packed.shards.folder / shard.name) for shard in packed.shards.shards]
    read = {
        sample["__key__"]: sample["cls"]
        for sample in webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    }
    assert read == {f"{i % 2}/{i:02}": str(i % 7).encode() for i in range(40)}


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_loses_nothing_and_the_same_again_goes_on(data, tmp_path, monkeypatch, format):
    """Witness: the shards' own dates: those that were complete are not written again."""
    write, calls = shards.WRITERS[format], []

    def full(file, samples):
        calls.append(1)
        if len(calls) > 2:
            file.write(b"half a shard")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, samples)

    out = tmp_path / "out"
    monkeypatch.setitem(shards.WRITERS, format, full)
    with pytest.raises(UsageError, match=r"is full: .* of 40 samples are packed and kept"):
        pack_shards(data, out, format=format, shard_bytes=2000)
    kept = {path.name: path.stat().st_mtime_ns for path in out.glob(f"*.{format}")}
    assert len(kept) == 2
    assert not list(out.glob("*.part"))
    monkeypatch.setitem(shards.WRITERS, format, write)
    pack_shards(data, out, format=format, shard_bytes=2000)
    assert {path.name: path.stat().st_mtime_ns for path in out.glob(f"*.{format}") if path.name in kept} == kept
    assert len(contents(out, format)) == 40


@pytest.mark.parametrize("format", FORMATS)
def test_a_flipped_bit_is_found_and_only_that_shard_written_again(data, tmp_path, format):
    out = tmp_path / "out"
    pack_shards(data, out, format=format, shard_bytes=2000)
    assert verified(out).shards.samples == 40
    damaged = sorted(out.glob(f"*.{format}"))[1]
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UsageError, match=f"{damaged.name} is damaged"):
        verified(out)
    pack_shards(data, out, format=format, shard_bytes=2000)
    verified(out)


def test_a_shard_that_reads_back_differently_is_not_kept(data, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    read = shards.READERS["tar"]

    def flipped(path):
        for key, fields in read(path):
            yield key, {**fields, "jpg": fields["jpg"][:-1] + b"\xff"}

    monkeypatch.setitem(shards.READERS, "tar", flipped)
    with pytest.raises(UsageError, match="reads back differently"):
        pack_shards(data, tmp_path / "out", shard_bytes=2000)
    assert not list((tmp_path / "out").iterdir())


class Items:
    def __len__(self) -> int:
        return 9

    def __getitem__(self, index: int) -> object:
        return {"x": numpy.full(3, index, dtype=numpy.float32), "label": index}


@pytest.mark.parametrize("format", FORMATS)
def test_a_dataset_is_packed_without_pickling(tmp_path, format):
    pack_shards(Items(), tmp_path / "out", format=format)
    found = contents(tmp_path / "out", format)
    fields = found["000000007"] if format == "parquet" else {"x.npy": found["000000007.x"]["npy"], "label.txt": found["000000007.label"]["txt"]}  # fmt: skip
    assert fields["label.txt"] == b"7"
    assert numpy.load(io.BytesIO(fields["x.npy"]), allow_pickle=False).tolist() == [7, 7, 7]


def test_progress_ends_at_the_whole(data, tmp_path):
    pytest.importorskip("webdataset")
    told: list[tuple[int, int]] = []
    pack_shards(data, tmp_path / "out", shard_bytes=2000, progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert told[-1] == (40, 40)


def test_files_with_one_key_are_one_sample(data):
    source = Folder(data)
    assert len(source) == 40
    assert source.sample(0)[0] == "0/00"
    assert set(source.sample(0)[1]) == {"jpg", "cls"}


# -- bad input ---------------------------------------------------------------------------------------------------------------


class Raising(Items):
    def __getitem__(self, index: int) -> object:
        if index == 5:
            raise ValueError("broken image")
        return b"x"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # a stream that complains of its end
@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        (Raising(), {}, "raised ValueError on item 5: broken image"),
        (iter([1]), {}, "no length or no items"),
        ("nowhere", {}, "is not a folder"),
        (Items(), {"shard_bytes": 3}, "is a small file again"),
    ],
)
def test_what_cannot_be_packed(tmp_path, source, options, sentence):
    pytest.importorskip("webdataset")
    with pytest.raises(UsageError, match=sentence):
        pack_shards(source, tmp_path / "out", **options)
    gc.collect()


@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_is_full_once_the_shard_is_written(data, tmp_path, monkeypatch, format):
    """Only its entry in the manifest finds no room: what was entered stays, and the same again goes on."""
    save, calls, out = shards._save, [], tmp_path / "out"

    def full(more):
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(more)

    monkeypatch.setattr(shards, "_save", full)
    with pytest.raises(UsageError, match=r"is full: .* samples are packed and kept"):
        pack_shards(data, out, format=format, shard_bytes=2000)
    monkeypatch.setattr(shards, "_save", save)
    assert len(shards.load(out).shards) == 2
    pack_shards(data, out, format=format, shard_bytes=2000)
    assert len(contents(out, format)) == 40


def test_a_folder_that_cannot_be_made(data, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        pack_shards(data, tmp_path / "file" / "out")


def test_what_would_need_pickling_is_refused():
    with pytest.raises(UsageError, match="not packed without pickling"):
        encoded({"x": object()}, 3)


def test_a_folder_that_is_not_empty_or_of_something_else(data, tmp_path):
    pytest.importorskip("webdataset")
    (tmp_path / "busy").mkdir()
    (tmp_path / "busy" / "mine").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        pack_shards(data, tmp_path / "busy")
    pack_shards(Items(), tmp_path / "out")
    with pytest.raises(UsageError, match="holds tar shards of Items"):
        pack_shards(data, tmp_path / "out")
    with pytest.raises(UsageError, match="lies within"):
        pack_shards(data, data / "shards")


def test_a_disk_without_room_is_known_before(data, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(UsageError, match="packing needs about"):
        pack_shards(data, tmp_path / "out")


def test_a_manifest_that_is_damaged(tmp_path):
    (tmp_path / shards.MANIFEST).write_text('{"format": ')
    with pytest.raises(UsageError, match="cannot be read"):
        verified(tmp_path)
