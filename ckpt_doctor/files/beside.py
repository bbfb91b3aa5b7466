"""Threads that read large files beside this one, and end with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import Thread
from typing import Generic, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

PATIENCE = 1.0  # seconds for a thread to give up


class Beside:
    """Threads that do some work each within a `with`. They are given up at the end of it, however it ends, and where
    one of them fails: what is left of a large file holds up nobody who has failed or was interrupted.
    """

    def __init__(self) -> None:
        self.over = False
        self.error: BaseException | None = None
        self._threads: list[Thread] = []

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        for thread in self._threads:
            thread.join(PATIENCE)

    def start(self, work: Callable[[], Result]) -> Work[Result]:
        """Have a thread do it."""
        thread = Work(work, self)
        thread.start()
        self._threads.append(thread)
        return thread

    def wanted(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """Pieces one by one, as long as somebody wants them. Raises RuntimeError then."""
        for piece in pieces:
            if self.over:
                raise RuntimeError("nobody waits for it")
            yield piece

    def check(self) -> None:
        """Raises what went wrong first in one of the threads."""
        if self.error is not None:
            raise self.error


class Work(Thread, Generic[Result]):
    """What a thread does. An interruption may leave it without its last word, or with a lock that nobody opens: it is a
    daemon, and holds up no process that ends.
    """

    def __init__(self, work: Callable[[], Result], beside: Beside) -> None:
        super().__init__(daemon=True)
        self._work, self._beside = work, beside
        self._results: list[Result] = []

    def run(self) -> None:
        """Do it."""
        try:
            self._results.append(self._work())
        except BaseException as error:
            if not self._beside.over:
                self._beside.error, self._beside.over = error, True

    def result(self) -> Result:
        """What came of it, which is waited for. Raises what went wrong in any of the threads."""
        self.join()
        self._beside.check()
        return self._results[0]
