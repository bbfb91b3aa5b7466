"""Processes that work for this one, and that are killed where one piece of work takes too long."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

from ..adapter import AdapterError
from .batches import Lost

Result = TypeVar("Result")


class _Call(NamedTuple):
    future: Future[Any]
    call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class _Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # which inherits no lock, no thread and no file
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _no_interruption():
            self.process.start()
        theirs.close()

    def started(self) -> None:
        """Raises AdapterError where it does not begin to work."""
        try:
            self.connection.recv()
        except (EOFError, OSError):
            raise AdapterError(f"a worker could not be started ({self.end()}); without --jobs none is needed") from None

    def answer(self, call: object, seconds: float) -> tuple[Any, BaseException | None]:
        """What came of a call, or what it raised. Raises Lost, and then it has ended."""
        try:
            self.connection.send(call)
            if self.connection.poll(seconds):
                got: tuple[Any, BaseException | None] = self.connection.recv()
                return got
        except (EOFError, OSError):
            raise Lost(f"the process that examined it ended with {self.end()}") from None
        self.end()
        raise Lost(f"it was given up after {seconds:.0f} s")

    def end(self) -> str:
        """Kill it; how it ended, if by itself."""
        self.process.join(0.1)  # one that ended says so a little later
        code = self.process.exitcode
        self.process.kill()
        self.process.join(1)  # what hangs in the system itself is left to it
        self.connection.close()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class Workers(Executor):
    """So many processes. A call that takes one more than `seconds` is lost, and its process with it; so is one whose
    process ends by itself, for want of memory as an example. The others go on in a new one.
    """

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._calls = SimpleQueue[_Call | None]()
        self._threads: list[threading.Thread] = []
        self._workers: set[_Worker] = set()
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Have a function called in one of them, after those that were given before."""
        future: Future[Result] = Future()
        self._calls.put(_Call(future, (fn, args, kwargs)))
        if len(self._threads) < self._count:
            self._threads.append(threading.Thread(target=self._serve, daemon=True))
            self._threads[-1].start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - none is waited for
        """End all of them at once."""
        with self._lock:
            self._closed = True
            for worker in self._workers:
                worker.process.kill()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Have one process do one call after the other."""
        worker: _Worker | None = None
        while (given := self._calls.get()) and not self._closed:
            future, call = given
            if not future.set_running_or_notify_cancel():
                continue
            try:
                worker = worker or self._begun()
                result, error = worker.answer(call, self._seconds)
            except (Lost, AdapterError, OSError) as failure:
                if worker:
                    self._workers.discard(worker)
                worker, result, error = None, None, failure
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        if worker:
            worker.end()

    def _begun(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise Lost("nothing more is done")
            worker = _Worker()
            self._workers.add(worker)
        worker.started()
        return worker


@contextmanager
def _no_interruption() -> Iterator[None]:
    """What is started here does not heed Ctrl-C, which is for the one that started it: it ends what it started."""
    if sys.platform == "win32":
        yield
        return
    from multiprocessing.resource_tracker import ensure_running

    ensure_running()  # which would unblock it, if it were started with the process
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection) -> None:
    """What a worker does, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(50_000)
    try:
        connection.send(None)
        _do_one(connection)
        gc.freeze()  # what was imported for the first call stays
        while True:
            _do_one(connection)
    except (EOFError, OSError):
        return


def _do_one(connection: Connection) -> None:
    function, args, kwargs = connection.recv()
    told: tuple[Any, BaseException | None]
    try:
        told = function(*args, **kwargs), None
    except Exception as error:
        told = None, error
    connection.send(told)
