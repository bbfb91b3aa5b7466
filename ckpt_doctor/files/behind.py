"""The digest of a file that is being written: it is read again while more of it is written."""

from __future__ import annotations

import hashlib
from threading import Condition
from typing import BinaryIO

from .streams import CHUNK

STEP = 1 << 24
"""Bytes by which a file has grown before they are read again."""


class Growing:
    """How much of a file is written. Who reads it goes no further, as what a write has not ended is not sure."""

    def __init__(self) -> None:
        self._size, self._ended, self._more = 0, False, Condition()

    def grown(self, size: int) -> None:
        """So many bytes are in the file now."""
        if size >= self._size + STEP:
            with self._more:
                self._size = size
                self._more.notify_all()

    def end(self) -> None:
        """The file is whole, or will never be: nobody waits for more of it."""
        with self._more:
            self._ended = True
            self._more.notify_all()

    def _beyond(self, at: int) -> int:
        """Wait for more than so many bytes, and give how many there are; no more at the end."""
        with self._more:
            self._more.wait_for(lambda: self._ended or self._size > at)
            return self._size

    def digest(self, path: str) -> str:
        """Hex digest, sha256, of what is in the file in the end, read from it."""
        at, size, sum_ = 0, self._beyond(0), hashlib.sha256()
        with open(path, "rb") as file:
            while size > at:
                update(sum_, file, size - at)
                at, size = size, self._beyond(size)
            update(sum_, file)
        return sum_.hexdigest()


def update(sum_: hashlib._Hash, file: BinaryIO, most: int | None = None) -> None:
    """Add to a sum what is left of an open file, or so many bytes of it."""
    buffer = memoryview(bytearray(CHUNK))
    while count := file.readinto(buffer[:most]):  # type: ignore[attr-defined]
        sum_.update(buffer[:count])
        most = None if most is None else most - count
