"""Digests of files, sha256: of those that are there, and of one that is being written, which is read meanwhile."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import FileIO
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from ..adapter import AdapterError, DamagedFile
from .loader import regular
from .streams import CHUNK

STEP = 1 << 24
"""Bytes by which a file has grown before they are read again."""
PATIENCE = 1.0  # seconds for a thread to give up


class Beside:
    """Threads that take digests beside this one: each takes as long as a copy, and lets other threads run.

    At the end of a `with`, however it ends, a digest that was not waited for is given up: what is left of a large file
    holds up no fix that failed or was interrupted.
    """

    def __init__(self) -> None:
        self.over = False
        self._threads: list[Taking] = []

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def take(self, digest: Callable[[], Any]) -> Taking:
        """Start a thread that takes a digest, or some."""
        thread = Taking(digest)
        thread.start()
        self._threads.append(thread)
        return thread


class Taking(Thread):
    """A thread that takes a digest. An interruption may leave it without its last word, or with a lock that nobody
    opens: it is a daemon, and holds up no process that ends.
    """

    def __init__(self, digest: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._digest = digest
        self._taken: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Take it."""
        try:
            self._taken = self._digest()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raises what went wrong so far."""
        if self._error is not None:
            raise self._error

    def result(self) -> Any:
        """Wait for it. Raises what went wrong."""
        self.join()
        self.check()
        return self._taken


class Growing:
    """The digest of a file that is written within a `with`. Who reads it goes no further than was said, as what a write
    has not ended is not sure.
    """

    def __init__(self, path: str, beside: Beside) -> None:
        self._path, self._beside = path, beside
        self._said, self._sizes = 0, SimpleQueue[int | None]()
        self.digest = beside.take(self._digest)

    def grown(self, size: int) -> None:
        """So many bytes are in the file now. Raises what went wrong where it is read."""
        if size >= self._said + STEP:
            self.digest.check()
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
        return digest(file, beside)


def digest(file: BinaryIO, beside: Beside | None = None) -> str:
    """Hex digest of what is left of an open file."""
    sum_ = hashlib.sha256()
    _update(sum_, file, beside)
    return sum_.hexdigest()


def _update(sum_: hashlib._Hash, file: BinaryIO | FileIO, beside: Beside | None, most: int | None = None) -> None:
    """Add to a sum what is left of an open file, or so many bytes of it. Raises RuntimeError where it was given up."""
    buffer = memoryview(bytearray(CHUNK))
    while count := file.readinto(buffer[:most]):  # type: ignore[union-attr]
        if beside and beside.over:
            raise RuntimeError("given up")
        sum_.update(buffer[:count])
        most = None if most is None else most - count
