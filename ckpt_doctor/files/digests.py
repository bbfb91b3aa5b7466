"""Digests of files, sha256: of those that are there, and of one that is being written, which is read meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from io import FileIO
from queue import SimpleQueue
from typing import BinaryIO

from ..adapter import AdapterError, DamagedFile
from .beside import Beside
from .loader import regular
from .streams import CHUNK

STEP = 1 << 24
"""Bytes by which a file has grown before they are read again."""


class Growing:
    """The digest of a file that is written within a `with`. Who reads it goes no further than was said, as what a write
    has not ended is not sure.
    """

    def __init__(self, path: str, beside: Beside) -> None:
        self._path, self._beside = path, beside
        self._said, self._sizes = 0, SimpleQueue[int | None]()
        self.digest = beside.start(self._digest)

    def grown(self, size: int) -> None:
        """So many bytes are in the file now. Raises what went wrong beside."""
        if size >= self._said + STEP:
            self._beside.check()
            self._said = size
            self._sizes.put(size)

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._sizes.put(None)  # the file is whole, or will never be

    def _digest(self) -> str:
        size, sum_ = self._sizes.get(), hashlib.sha256()  # before the first there may be no file
        with open(self._path, "rb", buffering=0) as file:  # a buffer would read ahead
            while size is not None:
                _update(sum_, file, self._beside, size - file.tell())
                size = self._sizes.get()
            _update(sum_, file, self._beside)
        return sum_.hexdigest()


def sha256(path: str, beside: Beside | None = None) -> str:
    """Hex digest of a regular file; never waits, as on a FIFO. Raises AdapterError."""
    try:
        file, _ = regular(path)
    except DamagedFile as error:
        raise AdapterError(f"{path} cannot be read: {error.message}") from None
    with file:
        try:
            return digest(file, beside)
        except OSError as error:
            raise AdapterError(f"{path} cannot be read: {error.strerror}") from None


def digest(file: BinaryIO, beside: Beside | None = None) -> str:
    """Hex digest of what is left of an open file."""
    sum_ = hashlib.sha256()
    _update(sum_, file, beside)
    return sum_.hexdigest()


def _update(sum_: hashlib._Hash, file: BinaryIO | FileIO, beside: Beside | None, most: int | None = None) -> None:
    """Add to a sum what is left of an open file, or so many bytes of it."""
    pieces = _pieces(file, most)
    for piece in beside.wanted(pieces) if beside else pieces:
        sum_.update(piece)


def _pieces(file: BinaryIO | FileIO, most: int | None) -> Iterator[memoryview]:
    """What is left of an open file, or so many bytes of it, each piece in the place of the one before."""
    buffer = memoryview(bytearray(CHUNK))
    while count := file.readinto(buffer[:most]):  # type: ignore[union-attr]
        yield buffer[:count]
        most = None if most is None else most - count
