"""Many adapters as lines of JSON, each as soon as those before it are there: from a journal, by workers, or here."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from ..files.loader import is_remote
from ..reports.jsonl import Lines
from ..reports.wording import Mark, Tally, mark
from ..verbs.memory import Memory
from ..verbs.report import Report
from ..verbs.scan import named_model
from .settings import Choice, Settings
from .terminal import show_trace

if TYPE_CHECKING:
    from ..verbs.workers import Job, Workers
    from .journal import Journal

AUTO = 0
"""Workers where they help, as many as there are cores."""
SECONDS, SECONDS_OF_VALUES = 60, 3600
"""That one adapter may take a worker."""
WINDOW = 16
"""Adapters for each worker that are begun before the first of them is told."""
TRIAL = 1.0
"""Seconds after which it shows whether workers help."""
LEAST, LEAST_LEFT = 0.0005, 5.0
"""Seconds of an adapter, and of all that are left, from which on workers help: less is what it takes to hand one over,
and to start them.
"""


class Told(NamedTuple):
    """One adapter as its line, and what it adds to a tally. `lasts` is whether the same is told as long as its folder
    is the same, and what the local cache of the Hub has of `model`, an id and a revision (None: whatever it has).
    """

    line: str
    mark: Mark
    lasts: bool
    model: tuple[str, str] | None


class Examiner:
    """Examines one adapter after the other."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose
        self._memory = Memory()
        self._lines = Lines()

    def examine(self, folder: str, by: Settings) -> Told:
        """One adapter, by its settings."""
        report = by.settle(self._memory.examine(folder, by.question))
        if self._verbose:
            show_trace(report.trace)
        return self.tell(report)

    def tell(self, report: Report) -> Told:
        """What is told of a report. Of one that is damaged, or of another tool, more may be read than its folder."""
        subject, adapter = report.subject, report.adapter
        lasts = adapter is not None and not adapter.faults and not adapter.origin
        model = named_model(subject) if subject and subject.question.look_up else None
        return Told(self._lines.line(report), mark(report), lasts, model)


class Work:
    """What a worker is told: by what adapters are judged."""

    def __init__(self, choice: Choice, verbose: bool) -> None:
        self.choice = choice
        self.verbose = verbose

    def __call__(self) -> Callable[[str], Told]:
        """What examines an adapter, in the worker."""
        examiner = Examiner(self.verbose)
        return lambda folder: examiner.examine(folder, self.choice.of(folder))


class Fleet:
    """How adapters are examined: `jobs` are the processes (1: this one), `resume` is the file of the journal."""

    def __init__(
        self, settings: Callable[[str], Settings], choice: Choice, jobs: int, resume: str | None, *, verbose: bool
    ) -> None:
        """Raises AdapterError where the file is no journal, or in use."""
        self._settings = settings
        self._work = Work(choice, verbose)
        self._jobs = jobs
        self._journal: Journal | None = None
        self._examiner = Examiner(verbose)
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
            self._jobs = 1  # what takes long of them is on the way at once, and needs no process
        try:
            if self._jobs < 2:
                yield from self._here(rest, len(folders), remote)
            if self._jobs > 1:
                yield from self._by_workers(rest)
        finally:
            if self._journal:
                self._journal.close()

    def _here(self, rest: Iterator[str], total: int, remote: bool) -> Iterator[Told]:
        """Until all are done, or it shows that workers help."""
        begun, spent, examined = time.monotonic(), 0.0, 0
        items: Iterator[tuple[str, Settings, bytes | None, Told | None]]
        items = ((folder, *self._known(folder)) for folder in rest)
        if remote:
            from ..files.remote import ahead

            whole = self._work.choice.settings.values
            items = ahead(items, lambda item: item[0] if is_remote(item[0]) and not item[3] else None, whole=whole)
        for done, (folder, by, state, known) in enumerate(items, 1):
            if known is None:
                start = time.monotonic()
                known = self._examiner.examine(folder, by)
                spent, examined = spent + time.monotonic() - start, examined + 1
                self._note(folder, state, known)
            yield known
            if self._jobs == AUTO and time.monotonic() - begun > TRIAL and examined:
                each = spent / examined
                if _cores() > 1 and each > LEAST and each * (total - done) > LEAST_LEFT:
                    self._jobs = _cores()
                    return
                begun = time.monotonic()

    def _by_workers(self, rest: Iterator[str]) -> Iterator[Told]:
        from ..verbs.workers import Job, Workers

        by_values = self._work.choice.settings.values
        workers: Workers[Told] = Workers(self._work, self._jobs, SECONDS_OF_VALUES if by_values else SECONDS)
        pending = deque[tuple[Job[Told], bytes | None, bool]]()

        def begin(folder: str) -> None:
            _, state, known = self._known(folder)
            job = Job[Told](folder)
            job.answer = known
            if known is None:
                workers.give(job)
            pending.append((job, state, known is not None))

        try:
            while True:
                for folder in islice(rest, WINDOW * self._jobs - len(pending)):
                    begin(folder)
                if not pending:
                    return
                while not pending[0][0].done:
                    workers.step()
                job, state, was_known = pending.popleft()
                told = self._lost(job) if job.answer is None else job.answer
                if not was_known:
                    self._note(job.task, state, told)
                yield told
        finally:
            workers.close()

    def _known(self, folder: str) -> tuple[Settings, bytes | None, Told | None]:
        by = self._settings(folder)
        if self._journal is None:
            return by, None, None
        from .journal import state

        now = state(folder, by)
        return by, now, self._journal.known(folder, now) if now else None

    def _note(self, folder: str, state: bytes | None, told: Told) -> None:
        if self._journal and state:
            self._journal.note(folder, state, told)

    def _lost(self, job: Job[Told]) -> Told:
        return self._examiner.tell(Report(job.task, error=job.lost))


def lines(told: Iterable[Told], unread: Iterable[Report], codes: set[int]) -> Iterator[str]:
    """The lines, those of paths without an adapter, then the last; `codes` gets the exit code of each adapter."""
    tally, ours = Tally(), Lines()
    for one in told:
        tally.count(one.mark)
        codes.add(one.mark.exit_code)
        yield one.line
    for report in unread:
        tally.add(report)
        yield ours.line(report)
    yield ours.last(tally)


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
