"""The bytes of tensors, in pieces, from wherever they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO, Literal

from ..adapter import DTYPE_BITS, AdapterError, Computed, FileRange, Gathered, TensorInfo, Zeros

CHUNK = 1 << 20


class Files:
    """The files that tensors come from, each opened once, closed at the end of a `with`."""

    def __init__(self) -> None:
        self.open: dict[str, BinaryIO] = {}

    def __getitem__(self, path: str) -> BinaryIO:
        if path not in self.open:
            self.open[path] = open(path, "rb")  # noqa: SIM115 - closed in close
        return self.open[path]

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.open.values():
            file.close()


_ZEROS = bytes(1 << 16)


def chunks(info: TensorInfo, files: Files) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor, in pieces of at most 1 MiB (a strided tensor: one row of elements at a time)."""
    source = info.source
    if isinstance(source, Zeros):
        for at in range(0, source.length, len(_ZEROS)):
            yield memoryview(_ZEROS)[: source.length - at]
    elif isinstance(source, FileRange):
        file, left = files[source.path], source.length
        file.seek(source.offset)
        while left:
            piece = file.read(min(CHUNK, left))
            if not piece:
                raise AdapterError(f"{source.path} became shorter while it was read")
            left -= len(piece)
            yield piece
    elif isinstance(source, Computed):
        from .values import computed

        yield computed(info, source, content(source.base, files), content(source.by, files) if source.by else b"")
    else:
        yield from _gathered(info, source, files)


def _gathered(info: TensorInfo, source: Gathered, files: Files) -> Iterator[bytes]:
    """Row by row, the elements of a strided view."""
    width = DTYPE_BITS[info.dtype] // 8
    file, base = files[source.storage.path], source.storage.offset + source.start * width
    *outer, columns = info.shape
    *steps, step = source.strides
    for index in itertools.product(*(range(size) for size in outer)):
        at = base + width * sum(i * s for i, s in zip(index, steps, strict=True))
        row = bytearray(columns * width)
        for first in range(0, columns, _ROW):
            count = min(_ROW, columns - first)
            file.seek(at + first * step * width)
            if step == 1:
                row[first * width : (first + count) * width] = file.read(count * width)
            elif (count * step) * width <= CHUNK:
                span = file.read(((count - 1) * step + 1) * width)
                if len(span) < ((count - 1) * step + 1) * width:
                    raise AdapterError(f"{source.storage.path} became shorter while it was read")
                if width in _WORDS and step > 0:
                    row[first * width : (first + count) * width] = (
                        memoryview(span).cast(_WORDS[width])[::step].tobytes()
                    )
                    continue
                for i in range(count):
                    row[(first + i) * width : (first + i + 1) * width] = span[i * step * width : (i * step + 1) * width]
            else:
                for i in range(count):
                    file.seek(at + (first + i) * step * width)
                    row[(first + i) * width : (first + i + 1) * width] = file.read(width)
        yield bytes(row)


_WORDS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}
_ROW = 4096  # elements of a strided row that are read together


def content(info: TensorInfo, files: Files) -> bytes:
    """All bytes of a tensor; for small ones."""
    return b"".join(chunks(info, files))
