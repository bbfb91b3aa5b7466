"""Many adapters as lines of text, each as soon as those before it are there: from a journal, by workers, or here."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from operator import length_hint
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files.loader import is_remote
from ..reports.wording import Mark, Tally, mark
from ..verbs.memory import Memory
from ..verbs.report import Report
from ..verbs.scan import named_model
from .settings import Choice, Settings
from .terminal import show_trace

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from ..verbs.workers import Workers
    from .journal import Journal

AUTO = 0
"""Workers where they help, as many as there are cores."""
SECONDS, SECONDS_OF_READING = 60, 3600
"""That one adapter may take a worker, and where all its numbers are read, or a server is waited for."""
EACH_REMOTE = 128
"""Remote adapters that a worker is given together: more than it asks for at once, and so few that even those of a
server that takes its time with each come in an hour.
"""
TRIAL = 0.2
"""Seconds whose adapters show whether workers help: not those of the first, as what is the first of its kind takes
longer than all that are like it.
"""
LEAST, LEAST_LEFT = 0.0005, 5.0
"""Seconds of an adapter, and of all that are left, from which on workers help: less is what it takes to hand one over,
and to start them.
"""
BUSY, REMOTE_LEFT = 0.8, 1.0
"""The same of remote adapters: the part of the time that this process has work, else a server is waited for; and the
work that is left.
"""

_Item = tuple[str, bytes | None, "Told | None"]
"""A folder, its state, and what the journal tells of it."""


class Told(NamedTuple):
    """One adapter as its line, and what it adds to a tally. `lasts` is whether the same is told as long as its folder
    is the same, and what the local cache of the Hub has of `model`, an id and a revision (None: whatever it has).
    `trace` is of what failed unforeseen.
    """

    line: str
    mark: Mark
    lasts: bool
    model: tuple[str, str] | None
    trace: str | None = None


class Examiner:
    """Examines one adapter after the other, each by its settings."""

    def __init__(self, choice: Choice, format_: str) -> None:
        self._choice = choice
        self._memory = Memory()
        self._lines = import_module(f"..reports.{format_}", __package__).Lines()

    def __call__(self, folder: str) -> Told:
        """One adapter."""
        by = self._choice.of(folder)
        return self.tell(by.settle(self._memory.examine(folder, by.question)))

    def tell(self, report: Report) -> Told:
        """What is told of a report. Of one that is damaged, or of another tool, more may be read than its folder."""
        subject, adapter = report.subject, report.adapter
        lasts = adapter is not None and not adapter.faults and not adapter.origin
        model = named_model(subject) if subject and subject.question.look_up else None
        return Told(self._lines.line(report), mark(report), lasts, model, report.trace)


class Fleet:
    """How adapters are examined: `jobs` are the processes (1: this one), `dask` is the address of a cluster that does
    it instead, `resume` is the file of the journal.
    """

    def __init__(
        self, settings: Callable[[str], Settings], choice: Choice, format_: str, jobs: int, resume: str | None,
        dask: str | None = None, *, verbose: bool,
    ) -> None:  # fmt: skip
        """Raises AdapterError where the file is no journal, or in use."""
        self._settings = settings
        self._choice = choice
        self._format = format_
        self._verbose = verbose
        self._jobs = jobs
        self._dask = dask
        self._journal: Journal | None = None
        self._examiner = Examiner(choice, format_)
        self._closing = ExitStack()
        self._workers: Workers | None = None
        self._begun: list[Future[None]] = []
        if resume is not None:
            from .journal import Journal

            self._journal = Journal(resume)

    @property
    def again(self) -> int:
        """How many adapters were told as the journal has them."""
        return self._journal.again if self._journal else 0

    def told(self, folders: list[str]) -> Iterator[Told]:
        """Each adapter, in their order. Raises AdapterError where the journal or a worker cannot be used."""
        rest = iter(folders)
        remote = any(map(is_remote, folders))
        if remote:
            self._dask = None
            if self._choice.settings.values:  # which are downloaded, one after the other
                self._jobs = 1
        try:
            if self._jobs < 2 and not self._dask:
                yield from self._here(rest, len(folders), remote)
            if self._jobs > 1 or self._dask:
                yield from self._by_workers(rest, length_hint(rest), remote)
        finally:
            self._closing.close()
            if self._journal:
                self._journal.close()

    def _here(self, rest: Iterator[str], total: int, remote: bool) -> Iterator[Told]:
        """Until all are done, or it shows that workers help."""
        items: Iterator[_Item] = ((folder, *self._known(folder)) for folder in self._until_workers(rest))
        if not remote:
            yield from self._one_by_one(items, total, remote)
            return
        from ..files.remote import ahead

        with ahead(items, _to_ask_for, whole=self._choice.settings.values) as coming:
            yield from self._one_by_one(coming, total, remote)

    def _until_workers(self, rest: Iterator[str]) -> Iterator[str]:
        """Until all have begun, which takes half a second; to the end where one cannot."""
        for folder in rest:
            yield folder
            if self._begun and all(future.done() and not future.exception() for future in self._begun):
                return

    def _one_by_one(self, items: Iterator[_Item], total: int, remote: bool) -> Iterator[Told]:
        begun, work, spent, examined, warm = time.monotonic(), time.process_time(), 0.0, 0, False
        for done, (folder, state, known) in enumerate(items, 1):
            if known is None:
                start = time.monotonic()
                known = self._examiner(folder)
                spent, examined = spent + time.monotonic() - start, examined + 1
                self._note(folder, state, known)
            yield known
            if self._jobs != AUTO or not examined or (passed := time.monotonic() - begun) <= TRIAL:
                continue
            if remote:
                busy = time.process_time() - work
                they_help = busy > BUSY * passed and busy / examined * (total - done) > REMOTE_LEFT
            else:
                they_help = spent / examined > LEAST and spent / examined * (total - done) > LEAST_LEFT
            if warm and they_help and _cores() > 1:
                self._jobs = _cores()
                self._begun = [self._processes(remote).submit(begin, remote) for _ in range(self._jobs)]
            begun, work, spent, examined, warm = time.monotonic(), time.process_time(), 0.0, 0, True

    def _by_workers(self, rest: Iterator[str], total: int, remote: bool) -> Iterator[Told]:
        from ..verbs.batches import Batches, Job

        states = deque[tuple[bytes | None, bool]]()

        def jobs() -> Iterator[Job[Told]]:
            for folder in rest:
                state, known = self._known(folder)
                states.append((state, known is not None))
                yield Job(folder, known)

        if remote:
            from ..files.remote import drop
        with self._executor(remote) as (executor, width):
            work, each = partial(Examiner, self._choice, self._format), EACH_REMOTE if remote else None
            batches = Batches(executor, work, width, total, apart=not self._dask, each=each)
            for job in batches.told(jobs()):
                told = job.answer or self._examiner.tell(Report(job.task, error=job.lost))
                state, was_known = states.popleft()
                if not was_known:
                    self._note(job.task, state, told)
                if remote:
                    drop(job.task)
                yield told

    @contextmanager
    def _executor(self, remote: bool) -> Iterator[tuple[Executor, Callable[[], int]]]:
        """What examines, and how many at a time. Raises AdapterError where it cannot be had."""
        if self._dask:
            from .cluster import cluster

            with cluster(self._dask) as found:
                yield found
            return
        yield self._processes(remote), lambda: self._jobs

    def _processes(self, remote: bool) -> Workers:
        """Processes of our own, which are gone in the end."""
        if self._workers is None:
            from ..verbs.workers import Workers

            if remote:
                from ..files.remote import handing

                self._closing.enter_context(handing())
            seconds = SECONDS_OF_READING if remote or self._choice.settings.values else SECONDS
            self._workers = self._closing.enter_context(Workers(self._jobs, seconds))
        return self._workers

    def _known(self, folder: str) -> tuple[bytes | None, Told | None]:
        """The state of an adapter, and what the journal tells of it."""
        by = self._settings(folder)
        if self._journal is None:
            return None, None
        from .journal import state

        now = state(folder, by, self._format)
        return now, self._journal.known(folder, now) if now else None

    def _note(self, folder: str, state: bytes | None, told: Told) -> None:
        """Keep what was told, if there is a journal; and show what failed unforeseen, if that is asked for."""
        if self._verbose:
            show_trace(told.trace)
        if self._journal and state:
            self._journal.note(folder, state, told)


def begin(remote: bool) -> None:
    """Have imported, in another process, what takes it long."""
    if remote:
        import_module("fsspec.implementations.http")


def _to_ask_for(item: _Item) -> str | None:
    folder, _, known = item
    return folder if is_remote(folder) and not known else None


def lines(format_: str, told: Iterable[Told], unread: Iterable[Report], codes: set[int]) -> Iterator[Any]:
    """What is written of adapters, then of paths without one, and in the end of all; `codes` gets the exit code of each
    adapter.
    """
    module = import_module(f"..reports.{format_}", __package__)
    tally, ours = Tally(), module.Lines()

    def every() -> Iterator[str]:
        for one in told:
            tally.count(one.mark)
            codes.add(one.mark.exit_code)
            yield one.line
        for report in unread:
            tally.add(report)
            yield ours.line(report)

    pieces: Iterator[Any] = module.whole(every(), tally)
    return pieces


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
