"""Work that an executor does in batches: large enough to keep its workers busy, told of in order, and done again where
a worker was lost.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from functools import lru_cache
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import uuid4

from .. import __file__ as package
from .. import __version__
from ..adapter import AdapterError, unforeseen
from ..files.loader import arriving, handed, take

Answer = TypeVar("Answer")
Work = Callable[[], Callable[[str], Answer]]
"""What a worker calls once, and then what it gave for each task. Both sides have it by its name: it can be pickled."""
SECONDS = 0.7
"""That a batch should take a worker: what it costs to hand one over is little beside that."""
FIRST, GROWTH = 4, 16
"""Tasks of a batch before it is known what one takes, and how many times as many the next may have."""
MOST = 2_000
"""Tasks of a batch."""
WINDOW = 3
"""Batches for each worker that are begun before the first of them is told."""
ROOM, PIECE = 32 << 20, 2 << 20
"""Bytes of answers that may be held for the sake of order, and of those of one batch, which are sent in one piece: both
sides hold it several times over.
"""
LOOK = 5.0
"""Seconds without an answer after which it is asked whether there still are workers."""
TRIES = 3
"""Times that a batch is begun, and then each task of it alone, where workers are lost that others may have ended."""


class Job(Generic[Answer]):
    """One piece of work; in the end it has its answer, or why there is none. One that has it from the start is told in
    its place.
    """

    def __init__(self, task: str, answer: Answer | None = None) -> None:
        self.task = task
        self.answer = answer
        self.lost = ""
        self.packed = b""


class _Batch(Generic[Answer]):
    """Jobs that are told together, and how many of them are not done."""

    def __init__(self, jobs: list[Job[Answer]]) -> None:
        self.jobs = jobs
        self.out = 0


class _Errand(NamedTuple):
    """What one future is for: `jobs` of a batch, how many times they were begun, and whether nothing else was."""

    batch: _Batch[Any]
    jobs: list[Job[Any]]
    tries: int = 1
    alone: bool = False


class Batches(Generic[Answer]):
    """Jobs done by an executor, which may be a cluster, and which is left as it is. `width` says how many workers it
    has, or raises AdapterError where they are gone for good; `total` how many jobs there are at the most.

    With `apart` a future that fails has lost its own process, and no other can have ended it. Tasks that a worker does
    not do one after the other are handed over `each` so many: what one of them takes says nothing of more.
    """

    def __init__(
        self, executor: Executor, work: Work[Answer], width: Callable[[], int], total: int, *, apart: bool = False,
        each: int | None = None,
    ) -> None:  # fmt: skip
        self._executor = executor
        self._width = width
        self._left = total
        self._apart = apart
        self._each = each
        self._run = uuid4().hex  # a scheduler that has done the same before would not do it again
        self._work = pickle.dumps(work)
        self._program = "" if apart else ourselves()
        self._running: dict[Future[_Done], _Errand] = {}
        self._suspects = deque[_Errand]()
        self._number = 0
        self._seconds = self._bytes = 0.0  # that one task takes
        self._largest = 0

    def told(self, jobs: Iterable[Job[Answer]]) -> Iterator[Job[Answer]]:
        """Each job as soon as those before it are done. Raises AdapterError where the executor cannot do them."""
        rest = iter(jobs)
        begun = deque[_Batch[Answer]]()
        try:
            while True:
                while len(begun) < WINDOW * self._width() and not self._suspects and (batch := self._next(rest)):
                    begun.append(batch)
                if not begun:
                    return
                while begun[0].out:
                    self._step()
                for job in begun.popleft().jobs:
                    if job.packed:
                        job.answer, job.lost = pickle.loads(job.packed)  # noqa: S301 - of our own workers
                        job.packed = b""
                    yield job
        finally:
            for future in self._running:
                future.cancel()

    def _next(self, rest: Iterator[Job[Answer]]) -> _Batch[Answer] | None:
        """A batch of what comes next, begun; None where nothing comes."""
        size, jobs, unknown = self._size(), list[Job[Answer]](), list[Job[Answer]]()
        for job in rest:
            jobs.append(job)
            if job.answer is None:
                unknown.append(job)
            if len(unknown) == size or len(jobs) == MOST:
                break
        if not jobs:
            return None
        self._left -= len(jobs)
        batch = _Batch(jobs)
        if unknown:
            batch.out = len(unknown)
            self._begin(_Errand(batch, unknown))
        return batch

    def _size(self) -> int:
        """How many tasks the next batch has: fewer in the end, so that no worker is long without work."""
        if not self._largest:
            return FIRST
        width = self._width()
        most = min(MOST, GROWTH * self._largest, -(-self._left // (2 * width)))
        by_time = self._each or SECONDS / max(self._seconds, 1e-6)
        by_room = min(PIECE, ROOM / (WINDOW * width)) / max(self._bytes, 1)
        return max(1, int(min(most, by_time, by_room)))

    def _begin(self, errand: _Errand) -> None:
        """Hand it over. Raises AdapterError."""
        tasks = [job.task for job in errand.jobs]
        where = "" if all(map(os.path.isabs, tasks)) else os.getcwd()
        given = handed(tasks, self._width())
        self._number += 1
        try:
            future = self._executor.submit(
                done, f"{self._run}-{self._number}", __version__, self._program, where, self._work, given, tasks
            )
        except Exception as error:
            raise AdapterError(f"the workers take no more work ({_said(error)})") from None
        self._running[future] = errand

    def _step(self) -> None:
        """Wait until something is done, or lost. Raises AdapterError."""
        if not self._running:
            self._begin(self._suspects.popleft())
        while not (over := wait(self._running, LOOK, FIRST_COMPLETED).done):
            self._width()  # which raises where nothing is done any more
        for future in over:
            errand = self._running.pop(future)
            try:
                answers, seconds, refused = future.result()
            except AdapterError:
                raise
            except (ImportError, AttributeError) as error:
                raise AdapterError(
                    f"a worker has not the ckpt-doctor {__version__} that is here ({_said(error)}): install it for all"
                ) from None
            except Exception as error:
                self._lose(errand, error)
                continue
            if refused:
                raise AdapterError(refused)
            for job, packed in zip(errand.jobs, answers, strict=True):
                job.packed = packed
            errand.batch.out -= len(answers)
            self._learn(len(answers), seconds, sum(map(len, answers)))

    def _learn(self, count: int, seconds: float, size: int) -> None:
        share = 0.5 if self._largest else 1.0
        self._seconds += share * (seconds / count - self._seconds)
        self._bytes += share * (size / count - self._bytes)
        self._largest = max(self._largest, count)

    def _lose(self, errand: _Errand, error: BaseException) -> None:
        """Begin again what was lost; in the end each task alone, and what is lost even so is told to be."""
        batch, jobs, tries, alone = errand
        if not self._apart and tries < TRIES:
            again = errand._replace(tries=tries + 1)
            if alone:
                self._suspects.appendleft(again)
            else:
                self._begin(again)
        elif len(jobs) == 1 and (alone or self._apart):
            why = str(error) if isinstance(error, Lost) else f"the worker that examined it was lost ({_said(error)})"
            jobs[0].lost = f"{jobs[0].task}: {why}"
            batch.out -= 1
        elif self._apart:
            for job in jobs:
                self._begin(_Errand(batch, [job]))
        else:
            self._suspects.extend(_Errand(batch, [job], alone=True) for job in jobs)


# In the worker

_Done = tuple[list[bytes], float, str]
"""The answers, each pickled with why there is none; the seconds that they took; why nothing was done."""
_ONE = threading.Lock()
"""One batch at a time in a process: what is remembered from one adapter to the next is not for several threads."""


def done(_: str, version: str, program: str, where: str, work: bytes, given: object, tasks: list[str]) -> _Done:
    """Do a batch, if this is the ckpt-doctor that asks for it, and relative paths begin in the same folder here. What
    is `given` is for reading its folders.
    """
    if program and (version, program) != (__version__, ourselves()):
        other = "another build of it" if version == __version__ else f"ckpt-doctor {__version__}"
        return [], 0.0, f"here is ckpt-doctor {version}, and a worker has {other}: install the same for all"
    if where and os.getcwd() != where:
        return [], 0.0, f"a worker is in {os.getcwd()} and not in {where}: name paths from the root on"
    with _ONE:
        begun = time.perf_counter()
        answer = made(work)
        take(given)
        answers = [pickle.dumps(_answer(answer, task)) for task in arriving(tasks, whole=False)]
        return answers, time.perf_counter() - begun, ""


def _answer(answer: Callable[[str], Any], task: str) -> tuple[Any, str]:
    try:
        return answer(task), ""
    except AdapterError as error:
        return None, str(error)
    except Exception as error:
        return None, unforeseen(task, error)


@lru_cache(2)
def made(work: bytes) -> Callable[..., Any]:
    """What work gave in this process, which is asked for once."""
    work_of: Callable[..., Any] = pickle.loads(work)()  # noqa: S301 - of the run that this worker is for
    return work_of


@lru_cache(1)
def ourselves() -> str:
    """What judges: this program, by the content of its files: of two with one version, one may know more."""
    root = os.path.dirname(package)
    digest = sha256()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            with open(os.path.join(folder, name), "rb") as file:
                digest.update(f"{os.path.relpath(folder, root)}/{name}\0".encode() + sha256(file.read()).digest())
    return digest.hexdigest()


def _said(error: BaseException) -> str:
    """An error on one line."""
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}{': ' if first else ''}{first[:200]}"


class Lost(Exception):  # noqa: N818 - it is what became of a task
    """What a worker was given, and did not do."""
