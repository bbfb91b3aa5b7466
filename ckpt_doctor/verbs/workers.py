"""Processes that work for this one, and that are killed where one piece of work takes too long."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ..adapter import AdapterError, unforeseen

Answer = TypeVar("Answer")
AHEAD = 4
"""Pieces of work that a worker is given at once, so that it need not wait for the next."""


class Job(Generic[Answer]):
    """One piece of work; in the end it has its answer, or why there is none."""

    def __init__(self, task: str) -> None:
        self.task = task
        self.answer: Answer | None = None
        self.lost = ""

    @property
    def done(self) -> bool:
        """Whether nothing more comes of it."""
        return self.answer is not None or bool(self.lost)


class _Worker(Generic[Answer]):
    def __init__(self, make: Callable[[], Callable[[str], Answer]]) -> None:
        context = multiprocessing.get_context("spawn")  # which inherits no lock, no thread and no file
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, make), daemon=True)
        self.process.start()
        theirs.close()
        self.ready = False
        self.jobs = deque[Job[Answer]]()
        self.since = 0.0  # when it began with the first of them

    def end(self) -> str:
        """Kill it; how it ended, if by itself."""
        self.process.join(0.1)  # one that ended says so a little later
        code = self.process.exitcode
        self.process.kill()
        self.process.join(1)  # what hangs in the system itself is left to it
        self.connection.close()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


class Workers(Generic[Answer]):
    """So many processes, of which each calls `make` once and then what it gave for one task after another.

    A task that takes more than `seconds` is lost, and its process with it; so is one whose process ends by itself, for
    want of memory as an example. The others go on in a new one.
    """

    def __init__(self, make: Callable[[], Callable[[str], Answer]], count: int, seconds: float) -> None:
        self.count = count
        self._make = make
        self._seconds = seconds
        self._waiting = deque[Job[Answer]]()
        self._workers: list[_Worker[Answer]] = []

    def give(self, job: Job[Answer]) -> None:
        """Have a piece of work done, after those that were given before."""
        self._waiting.append(job)

    def step(self) -> None:
        """Wait until one is done, or lost, or a worker is ready; none may be left undone. Raises AdapterError."""
        self._start()
        self._hand_out()
        busy = {worker.connection: worker for worker in self._workers if worker.jobs or not worker.ready}
        begun = [worker.since for worker in busy.values() if worker.jobs]
        rest = max(min(begun) + self._seconds - time.monotonic(), 0) if begun else None
        ready = wait(list(busy), rest)
        now = time.monotonic()
        for connection, worker in busy.items():
            if connection in ready:
                self._receive(worker)
            elif worker.jobs and now - worker.since >= self._seconds:
                self._lose(worker, f"it was given up after {self._seconds:.0f} s")

    def close(self) -> None:
        """End all of them."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _start(self) -> None:
        while len(self._workers) < min(self.count, len(self._workers) + len(self._waiting)):
            self._workers.append(_Worker(self._make))

    def _hand_out(self) -> None:
        for worker in sorted(self._workers, key=lambda worker: len(worker.jobs)):
            if not worker.ready or len(worker.jobs) > 1 or not self._waiting:
                continue
            fair = -(-len(self._waiting) // self.count)
            jobs = [self._waiting.popleft() for _ in range(min(fair, AHEAD))]
            if not worker.jobs:
                worker.since = time.monotonic()
            worker.jobs.extend(jobs)
            try:
                worker.connection.send([job.task for job in jobs])
            except OSError:
                continue  # it has ended, which the next step sees

    def _receive(self, worker: _Worker[Answer]) -> None:
        try:
            got: Any = worker.connection.recv()
        except (EOFError, OSError):
            self._lose(worker, "")
            return
        if not worker.ready:
            worker.ready = True
            return
        worker.since = time.monotonic()
        job = worker.jobs.popleft()
        job.answer, job.lost = got

    def _lose(self, worker: _Worker[Answer], why: str) -> None:
        self._workers.remove(worker)
        ended = worker.end()
        if not worker.ready:
            raise AdapterError(f"a worker could not be started ({ended}); without --jobs none is needed")
        if worker.jobs:
            job = worker.jobs.popleft()
            job.lost = f"{job.task}: {why or f'the process that examined it ended with {ended}'}"
        self._waiting.extendleft(reversed(worker.jobs))


def _work(connection: Connection, make: Callable[[], Callable[[str], Answer]]) -> None:
    """What a worker does, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the other side heeds
    gc.set_threshold(50_000)
    answer = make()
    gc.freeze()
    try:
        connection.send(None)
        while True:
            for task in connection.recv():
                try:
                    told: tuple[Answer | None, str] = answer(task), ""
                except Exception as error:
                    told = None, unforeseen(task, error)
                connection.send(told)
    except (EOFError, OSError):
        return
