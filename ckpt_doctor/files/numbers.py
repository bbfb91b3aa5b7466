"""What the numbers of tensors amount to: each tensor is read once, in pieces, about as fast as its file can be read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..adapter import DTYPE_BITS, AdapterError, FileRange, Gathered, TensorInfo
from .beside import Beside
from .streams import CHUNK, HELD, Files, chunks
from .values import read

MOST_READ = 8
"""Bytes of views that are read at the most, in sizes of the files that they are of: a few bytes can name many views."""

READERS, MOST_ALONE = 2, 1 << 26
"""How many read at once what has more bytes than one reads before another is there."""

SOME = 8
"""How many numbers of a row are read, beside the first, before all are, to see whether it is zero."""

_BELOW_INFINITY = {
    "F64": 0x7FF0 << 48, "F32": 0x7F80 << 16, "F16": 0x7C00, "BF16": 0x7F80, "F8_E5M2": 0x7C, "F8_E4M3": 0x7F,
}  # fmt: skip
"""The bits, without the sign, from which on a dtype has no finite numbers, and below which they grow as the numbers do.
These are infinity's, above which all are NaN, but for E4M3, which has no infinity (Micikevicius et al. 2022,
arXiv:2209.05433)."""

Span = tuple[int, int]


class Numbers(NamedTuple):
    """What a tensor holds: the largest finite magnitude, and how many of its numbers are NaN and infinite.

    `rows` is the one run of rows that are not all zero, [first, one past the last], None where that is all rows, or
    more than one run, or none; `columns` the same along the second axis.
    """

    largest: float
    nan: int = 0
    infinite: int = 0
    rows: Span | None = None
    columns: Span | None = None

    @property
    def is_zero(self) -> bool:
        """Whether every number is zero."""
        return not (self.largest or self.nan or self.infinite)


def numbers(tensors: Mapping[str, TensorInfo]) -> dict[str, Numbers]:
    """What each tensor of a floating type holds; others and empty ones are left out.

    Raises AdapterError where a file became shorter, or views repeat it too often; OSError where one cannot be read.
    """
    wanted = {name: info for name, info in tensors.items() if info.dtype in _BELOW_INFINITY and 0 not in info.shape}
    each = sorted(set(wanted.values()), key=_place)
    plain = [_in_any_order(info) for info in each]
    size = sum(info.nbytes for info in plain)
    paths = {path for path, _ in map(_place, plain)} - {""}
    if size > MOST_READ * sum(map(os.path.getsize, paths)) and paths:
        raise AdapterError(f"{min(paths)} has views that read its bytes more than {MOST_READ} times: they are not read")
    readers = READERS if size > MOST_ALONE else 1
    parts = [[*zip(each, plain, strict=True)][first::readers] for first in range(readers)]
    with Beside() as beside:  # numpy and files let other threads run
        works = [beside.start(partial(_all_of, part, beside)) for part in parts]
        found = {info: one for work in works for info, one in work.result()}
    return {name: found[info] for name, info in wanted.items()}


def _all_of(tensors: Iterable[tuple[TensorInfo, TensorInfo]], beside: Beside) -> list[tuple[TensorInfo, Numbers]]:
    """What tensors hold, each given as it is and in any order."""
    found = []
    buffer = bytearray(CHUNK)
    with Files() as files:
        for info, plain in tensors:
            one = _numbers(plain, beside.wanted(_pieces(plain, buffer, files)))
            if not one.is_zero and _may_have_zero_side(info, files):
                rows, columns = _zero_sides(info, beside.wanted(_gathered(chunks(info, files))))
                one = one._replace(rows=rows, columns=columns)
            found.append((info, one))
    return found


def _place(info: TensorInfo) -> tuple[str, int]:
    source = info.source
    if isinstance(source, Gathered):
        return source.storage.path, source.storage.offset + source.start
    return (source.path, source.offset) if isinstance(source, FileRange) else ("", 0)


def _in_any_order(info: TensorInfo) -> TensorInfo:
    """The same numbers, each once and in the order in which they lie in the file; one run of bytes where they are."""
    source = info.source
    if not isinstance(source, Gathered):
        return info
    axes = [(stride, size) for stride, size in zip(source.strides, info.shape, strict=True) if size > 1 and stride]
    axes.sort(reverse=True)
    shape, strides = tuple(size for _, size in axes), tuple(stride for stride, _ in axes)
    width, count = DTYPE_BITS[info.dtype] // 8, math.prod(shape)
    if all(stride == math.prod(shape[at + 1 :]) for at, stride in enumerate(strides)):
        start = source.storage.offset + source.start * width
        return TensorInfo(info.dtype, (count,), FileRange(source.storage.path, start, count * width))
    return TensorInfo(info.dtype, shape, source._replace(strides=strides))


def _numbers(info: TensorInfo, pieces: Iterable[bytes | memoryview]) -> Numbers:
    """What a tensor holds, in one pass: of bits without their sign the largest tells all, where it is a number."""
    limit = _BELOW_INFINITY[info.dtype]
    width = DTYPE_BITS[info.dtype] // 8
    mask = (1 << (8 * width - 1)) - 1
    largest = nan = infinite = 0
    for piece in pieces:
        # the largest of those without a sign, and of those with one
        signed, unsigned = (np.frombuffer(piece, f"<{kind}{width}") for kind in "iu")
        most = max(int(signed.max()), int(unsigned.max()) & mask)
        if most >= limit:
            bits = unsigned & mask
            at_infinity = 0 if info.dtype == "F8_E4M3" else int(np.count_nonzero(bits == limit))
            nan += int(np.count_nonzero(bits >= limit)) - at_infinity
            infinite += at_infinity
            most = int(np.max(bits, where=bits < limit, initial=0))
        largest = max(largest, most)
    return Numbers(_number(info.dtype, largest), nan, infinite)


def _number(dtype: str, bits: int) -> float:
    width = DTYPE_BITS[dtype] // 8
    return float(read(TensorInfo(dtype, (1,), FileRange("", 0, width)), bits.to_bytes(width, "little"))[0])


def _pieces(info: TensorInfo, buffer: bytearray, files: Files) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor; those of a file in one buffer, so that no memory is touched for the first time."""
    source = info.source
    if not isinstance(source, FileRange):
        yield from _gathered(chunks(info, files))
        return
    file, left, view = files[source.path], source.length, memoryview(buffer)
    file.seek(source.offset)
    while left:
        count = file.readinto(view[: min(len(view), left)])  # type: ignore[attr-defined]
        if not count:
            raise AdapterError(f"{source.path} became shorter while it was read")
        left -= count
        yield view[:count]


def _gathered(pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Small pieces, many in one."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(bytes(piece))
        size += len(piece)
        if size >= CHUNK:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _may_have_zero_side(info: TensorInfo, files: Files) -> bool:
    """Whether the first row, the last, the first column or the last is zero at all of some places."""
    if len(info.shape) < 2:
        return False
    width, source = DTYPE_BITS[info.dtype] // 8, info.source
    if isinstance(source, FileRange):
        path, start = source.path, source.offset
        down, right = (math.prod(info.shape[axis:]) * width for axis in (1, 2))
    elif isinstance(source, Gathered):
        path, start = source.storage.path, source.storage.offset + source.start * width
        down, right = (stride * width for stride in source.strides[:2])
    else:
        return False
    height, columns = info.shape[:2]

    def is_zero(row: int, column: int) -> bool:
        files[path].seek(start + row * down + column * right)
        bits = int.from_bytes(files[path].read(width), "little")
        return not bits & ((1 << (8 * width - 1)) - 1)

    return any(
        all(is_zero(row, at) for at in _some(columns)) or all(is_zero(at, column) for at in _some(height))
        for row, column in ((0, 0), (height - 1, columns - 1))
    )


def _some(count: int) -> list[int]:
    """Places along an axis: the first, the last, and some between them."""
    return sorted({at * (count - 1) // SOME for at in range(SOME + 1)})


def _zero_sides(info: TensorInfo, pieces: Iterable[bytes]) -> tuple[Span | None, Span | None]:
    """The runs of rows and columns of a tensor that are not all zero, where rows or columns at a side may be. None of a
    view that is more than its storage, which may be any size.
    """
    if isinstance(info.source, Gathered) and not info.nbytes <= info.source.storage.length <= HELD:
        return None, None
    width = DTYPE_BITS[info.dtype] // 8
    height, columns = info.shape[:2]
    rest = math.prod(info.shape[2:])
    wide = columns * rest
    in_row, in_column = np.zeros(height, bool), np.zeros(wide, bool)
    at = 0
    for piece in pieces:
        marks = np.frombuffer(piece, f"<u{width}") & ((1 << (8 * width - 1)) - 1) != 0
        while marks.size:
            row, start = divmod(at, wide)
            whole = marks.size // wide if start == 0 else 0
            part = marks[: whole * wide or min(marks.size, wide - start)]
            rows = part.reshape(whole or 1, -1)
            in_row[row : row + len(rows)] |= rows.any(axis=1)
            in_column[start : start + rows.shape[1]] |= rows.any(axis=0)
            at += part.size
            marks = marks[part.size :]
    return _run(in_row), _run(np.any(in_column.reshape(columns, rest), axis=1))


def _run(marks: Any) -> Span | None:
    """The one run of marks, [first, one past the last]; None where there is none, more than one, or all are marked."""
    places = np.flatnonzero(marks)
    if not 0 < places.size < marks.size or places[-1] - places[0] + 1 != places.size:
        return None
    return int(places[0]), int(places[-1]) + 1
