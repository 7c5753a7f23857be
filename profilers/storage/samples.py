"""What is packed: the files of a folder, or the samples of a Dataset, each as a key and bytes by field.

Files that differ only in what follows the first dot are one sample, as webdataset has it: a.jpg and a.json. Of a Dataset,
tensors and arrays become .npy, numbers and text .txt, bytes .bin, Pillow images .png: nothing is pickled.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError

Sample = tuple[str, dict[str, bytes]]


class Source(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def bytes(self) -> int | None:
        """Of all samples; None where it is not known before."""
        ...

    def __len__(self) -> int: ...
    def sample(self, number: int) -> Sample: ...


class Folder:
    """The files under a path, in the order of their names."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise UsageError(f"{path} is not a folder; give the folder whose files are to be packed")
        self.name = str(path.resolve())
        self._path = path
        self._groups: dict[str, list[tuple[str, Path]]] = {}
        self.bytes: int | None = 0
        for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.is_symlink()):
            self.bytes += file.stat().st_size
            stem, _, fields = file.name.partition(".")
            key = str(file.relative_to(path).parent / (stem or file.name))
            self._groups.setdefault(key, []).append((fields.lower() or "bin", file))
        if not self._groups:
            raise UsageError(f"{path} holds no file; give the folder whose files are to be packed")
        for key, files in self._groups.items():
            names = [field for field, _ in files]
            if len(set(names)) < len(names):
                raise UsageError(f"two files of {key!r} under {path} differ only in letters' case; rename one")
        self._keys = list(self._groups)

    def __len__(self) -> int:
        return len(self._keys)

    def paths(self, number: int) -> list[Path]:
        return [file for _, file in self._groups[self._keys[number]]]

    def sample(self, number: int) -> Sample:
        key = self._keys[number]
        return key, {field: file.read_bytes() for field, file in self._groups[key]}


class Items:
    """The samples of a map-style Dataset, by their number."""

    bytes = None

    def __init__(self, dataset: Any) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise UsageError(f"{type(dataset).__name__} has no length or no items; only a map-style Dataset, or a folder, can be packed")  # fmt: skip
        self.name = f"{type(dataset).__name__}, {len(dataset)} samples"
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def sample(self, number: int) -> Sample:
        try:
            item = self._dataset[number]
        except Exception as error:
            raise UsageError(f"the dataset raised {type(error).__name__} on item {number}: {error}; mend or skip it, then pack again: it goes on from there") from error  # fmt: skip
        return f"{number:09d}", encoded(item, number)


def encoded(item: Any, number: int) -> dict[str, bytes]:
    """Fields by name and kind: {"image.npy": …, "label.txt": …}; of a tuple by place, "0.npy"."""
    if isinstance(item, Mapping):
        named = {str(name): value for name, value in item.items()}
    elif isinstance(item, (list, tuple)):
        named = {str(i): value for i, value in enumerate(item)}
    else:
        named = {"0": item}
    fields = {}
    for name, value in named.items():
        suffix, data = _bytes(value, name, number)
        fields[f"{name.lower().replace('/', '_')}.{suffix}"] = data
    return fields


def _bytes(value: Any, name: str, number: int) -> tuple[str, bytes]:
    if isinstance(value, (bytes, bytearray)):
        return "bin", bytes(value)
    if isinstance(value, (str, int, float)):
        return "txt", str(value).encode()
    write = _numpy(value) or _image(value)
    if write is None:
        raise UsageError(f"item {number} has a {type(value).__name__} as {name!r}, which is not packed without pickling: return tensors, numbers, text, bytes or images")  # fmt: skip
    buffer = io.BytesIO()
    write(buffer)
    return "npy" if _numpy(value) else "png", buffer.getvalue()


def _numpy(value: Any) -> Callable[[Any], None] | None:
    if not (hasattr(value, "__array__") and hasattr(value, "dtype")):
        return None
    import numpy

    return lambda buffer: numpy.save(buffer, numpy.asarray(value), allow_pickle=False)


def _image(value: Any) -> Callable[[Any], None] | None:
    return (lambda buffer: value.save(buffer, "png")) if hasattr(value, "save") and hasattr(value, "getbands") else None


def folder_or_items(source: Any) -> Source:
    """A path is a folder of files; anything else a Dataset."""
    return Folder(Path(source)) if isinstance(source, (str, os.PathLike)) else Items(source)
