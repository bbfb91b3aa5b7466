"""GGUF, the format of llama.cpp, as far as an adapter has it: values by key, then the tensors, then their data
(ggml docs/gguf.md). Every number is held against a bound, as a file may say any.
"""

from __future__ import annotations

import struct
from math import prod
from typing import Any, BinaryIO

from ...adapter import AdapterError, DamagedFile, FileRange, TensorInfo

MAGIC = b"GGUF"
MOST = 50_000
"""Tensors, or keys, of one file; an adapter has some thousand."""
LONGEST = 1 << 16
"""Bytes of a text."""
MOST_VALUES = 1_000
"""Values of a list that is read. A model has its vocabulary in one: such a file is no adapter."""
_NUMBERS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_TEXT, _LIST = 8, 9
_DTYPES = {0: ("F32", 4), 1: ("F16", 2), 30: ("BF16", 2)}
"""Types of tensors that are not quantised (ggml.h: ggml_type), and bytes of an element."""


def read(file: BinaryIO, path: str, size: int) -> dict[str, TensorInfo]:
    """The tensors of an open file of `size` bytes. Raises DamagedFile, AdapterError."""
    return _parsed(file, path, size)[1]


def values(file: BinaryIO, path: str, size: int) -> dict[str, object]:
    """The values by key of an open file. Raises DamagedFile, AdapterError."""
    return _parsed(file, path, size)[0]


def _parsed(file: BinaryIO, path: str, size: int) -> tuple[dict[str, object], dict[str, TensorInfo]]:
    reader = _Reader(file, path)
    if reader.take(4) != MAGIC:
        raise DamagedFile("wrong-container", "it is no GGUF file")
    version = reader.number("<I")
    if version not in (2, 3):
        raise AdapterError(f"{path} is GGUF of version {version}, which is not read")
    tensors, keys = reader.count(), reader.count()
    found: dict[str, object] = {}
    for _ in range(keys):
        key = reader.text()
        found[key] = reader.value(reader.number("<I"))
    infos = [reader.tensor() for _ in range(tensors)]
    alignment = found.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 16:
        raise DamagedFile("wrong-container", "general.alignment is none")
    start = -(-file.tell() // alignment) * alignment
    table: dict[str, TensorInfo] = {}
    for name, shape, kind, offset in infos:
        if kind not in _DTYPES:
            raise AdapterError(f"{path}: {name[:80]} is quantised, or of a type that is not read")
        dtype, width = _DTYPES[kind]
        length = prod(shape) * width
        if name in table or start + offset + length > size:
            raise DamagedFile("truncated-file", f"the data of {name[:80]} are not all there")
        table[name] = TensorInfo(dtype, shape, FileRange(path, start + offset, length))
    return found, table


class _Reader:
    """What is read of a file, one value after the other."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self.file = file
        self.path = path

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise DamagedFile("truncated-file", "the header ends before its last value")
        return data

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self) -> int:
        count: int = self.number("<Q")
        if count > MOST:
            raise AdapterError(f"{self.path} says that it has {count} tensors or keys, which no adapter has")
        return count

    def text(self) -> str:
        length: int = self.number("<Q")
        if length > LONGEST:
            raise AdapterError(f"{self.path} has a text of {length} bytes, which is too long")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _LIST:
            inner, count = self.number("<I"), self.number("<Q")
            if inner == _LIST or count > MOST_VALUES:
                raise AdapterError(f"{self.path} has a list of {count} values, as a model has, and no adapter")
            return [self.value(inner) for _ in range(count)]
        if kind not in _NUMBERS:
            raise DamagedFile("wrong-container", f"a value is of the type {kind}, which GGUF does not have")
        return self.number(_NUMBERS[kind])

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape with the last dimension as the one that runs fastest, type and offset."""
        name, dimensions = self.text(), self.number("<I")
        if dimensions > 4:
            raise DamagedFile("wrong-container", f"{name[:80]} has {dimensions} dimensions")
        sizes = tuple(self.number("<Q") for _ in range(dimensions))
        if any(size > 1 << 40 for size in sizes):
            raise DamagedFile("wrong-container", f"{name[:80]} has a size that no tensor has")
        return name, sizes[::-1], self.number("<I"), self.number("<Q")
