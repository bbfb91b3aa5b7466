"""The bytes of tensors, in pieces, from wherever they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import BinaryIO, Literal

from ..adapter import DTYPE_BITS, AdapterError, Computed, Constant, FileRange, Gathered, Joined, TensorInfo, Zeros
from .loader import is_remote, regular

CHUNK = 1 << 18
"""Bytes that are read at once: they stay in a cache of a core until they are written, hashed or compared."""
HELD = 1 << 27
"""Bytes of storages that are held: many views are of one (an expert's factor is every 128th number of one)."""


class Files:
    """The files that tensors come from, each opened once, closed at the end of a `with`."""

    def __init__(self) -> None:
        self.open: dict[str, BinaryIO] = {}
        self._held: dict[FileRange, bytes] = {}

    def __getitem__(self, path: str) -> BinaryIO:
        if path not in self.open:
            self.open[path] = regular(path)[0] if is_remote(path) else open(path, "rb")  # noqa: SIM115 - closed in close
        return self.open[path]

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.open.values():
            file.close()

    def part(self, storage: FileRange, start: int, length: int) -> memoryview:
        """Some bytes of a storage, which is held as long as there is room. Raises AdapterError."""
        if storage.length > HELD:
            whole, start = self._read(storage.path, storage.offset + start, length), 0
        else:
            while storage not in self._held and sum(map(len, self._held.values())) + storage.length > HELD:
                del self._held[next(iter(self._held))]
            if storage not in self._held:
                self._held[storage] = self._read(storage.path, storage.offset, storage.length)
            whole = self._held[storage]
        part = memoryview(whole)[start : start + length]
        if len(part) < length:
            raise AdapterError(f"{storage.path} became shorter while it was read")
        return part

    def _read(self, path: str, offset: int, length: int) -> bytes:
        self[path].seek(offset)
        return self.read(path, length)

    def read(self, path: str, length: int) -> bytes:
        """The next bytes of a file. Raises OSError, which names it, as a disk that fails does not."""
        try:
            return self[path].read(length)
        except OSError as error:
            error.filename = error.filename or path
            raise


_ZEROS = bytes(1 << 16)


def chunks(info: TensorInfo, files: Files) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor, in pieces of at most CHUNK bytes."""
    source = info.source
    if isinstance(source, Zeros):
        for at in range(0, source.length, len(_ZEROS)):
            yield memoryview(_ZEROS)[: source.length - at]
    elif isinstance(source, Constant):
        yield source.data
    elif isinstance(source, FileRange):
        left = source.length
        files[source.path].seek(source.offset)
        while left:
            piece = files.read(source.path, min(CHUNK, left))
            if not piece:
                raise AdapterError(f"{source.path} became shorter while it was read")
            left -= len(piece)
            yield piece
    elif isinstance(source, Computed):
        from .values import computed

        yield computed(info, source, content(source.base, files), content(source.by, files) if source.by else b"")
    elif isinstance(source, Joined):
        yield from _joined(source, files)
    else:
        yield from _gathered(info, source, files)


def _joined(source: Joined, files: Files) -> Iterator[bytes | memoryview]:
    """The rows of matrices, one matrix after the other, or each row from all of them."""
    if source.axis == 0:
        for part in source.parts:
            yield from chunks(part, files)
        return
    height = source.parts[0].shape[0]
    columns = [memoryview(content(part, files)) for part in source.parts]
    for row in range(height):
        yield b"".join(part[row * len(part) // height : (row + 1) * len(part) // height] for part in columns)


def _gathered(info: TensorInfo, source: Gathered, files: Files) -> Iterator[bytes | memoryview]:
    """The elements of a strided view, in their order."""
    width = DTYPE_BITS[info.dtype] // 8
    (*outer, columns), (*steps, step) = _collapsed(info.shape, source.strides)
    most = max(1, min(columns, CHUNK // (max(step, 1) * width)))
    for index in itertools.product(*(range(size) for size in outer)):
        at = source.start + sum(i * s for i, s in zip(index, steps, strict=True))
        for first in range(0, columns, most):
            count = min(most, columns - first)
            span = files.part(source.storage, (at + first * step) * width, ((count - 1) * step + 1) * width)
            if step == 1:
                yield span
            elif width in _WORDS and step > 0:
                yield span.cast(_WORDS[width])[::step].tobytes()
            else:
                yield b"".join(span[i * step * width : (i * step + 1) * width] for i in range(count))


def _collapsed(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Sizes and strides with those dimensions in one that continue each other."""
    sizes, steps = [1], [1]
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if sizes == [1]:
            sizes, steps = [size], [stride]
        elif stride == sizes[0] * steps[0]:
            sizes[0] *= size
        elif size != 1:
            sizes, steps = [size, *sizes], [stride, *steps]
    return sizes, steps


_WORDS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


def content(info: TensorInfo, files: Files) -> bytes:
    """All bytes of a tensor; for small ones."""
    source = info.source
    if not isinstance(source, FileRange):
        return b"".join(chunks(info, files))
    files[source.path].seek(source.offset)
    data = files.read(source.path, source.length)
    if len(data) < source.length:
        raise AdapterError(f"{source.path} became shorter while it was read")
    return data


def identical(x: TensorInfo, y: TensorInfo, files: Files) -> bool:
    """Whether two tensors have the same type, shape and bytes."""
    if x[:2] != y[:2]:
        return False
    left, right = bytearray(), bytearray()
    ours, theirs = chunks(x, files), chunks(y, files)
    while True:
        left += next(ours, b"")
        right += next(theirs, b"")
        if not left and not right:
            return True
        count = min(len(left), len(right))
        if left[:count] != right[:count] or not count:
            return False
        del left[:count], right[:count]
