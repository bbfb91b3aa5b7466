"""Many adapters as lines of text, each as soon as those before it are there: from a journal, by workers, or here."""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from itertools import islice, repeat
from operator import length_hint
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files.loader import Glance, glance, is_remote, told_in_part
from ..reports.wording import Mark, Tally, mark
from ..verbs.memory import Memory
from ..verbs.report import Report
from ..verbs.scan import named_model
from .settings import Choice, Settings
from .terminal import show_trace

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from .journal import Journal

AUTO = 0
"""Workers where they help, as many as there are cores."""
SECONDS, SECONDS_OF_VALUES = 60, 3600
"""That one adapter may take a worker."""
TRIAL = 0.5
"""Seconds whose adapters show whether workers help: not those of the first, as what is the first of its kind takes
longer than all that are like it.
"""
LEAST, LEAST_LEFT = 0.0005, 5.0
"""Seconds of an adapter, and of all that are left, from which on workers help: less is what it takes to hand one over,
and to start them.
"""
REMOTE_LEFT = 1.0
"""The same of remote adapters, where others judge for the process that asks."""
BESIDE = 2
"""Processes that judge remote adapters at the most: what one asks for keeps no more of them busy."""
FEW, WITH_IT, BEGUN = 16, 3, 6
"""Remote adapters that are handed over together; how many times so many are with each process that judges, and how many
times so many are not told of for each.
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

    def __call__(self, folder: str, seen: Glance | None = None) -> Told:
        """One adapter, or what a glance has read of it."""
        by = self._choice.of(folder)
        return self.tell(by.settle(self._memory.examine(folder, by.question, seen)))

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
            self._jobs, self._dask = 1, None  # what takes long of them is on the way at once, and needs no process
        try:
            if self._jobs < 2 and not self._dask:
                yield from self._here(rest, len(folders), remote)
            if self._jobs > 1 or self._dask:
                yield from self._by_workers(rest, length_hint(rest))
        finally:
            if self._journal:
                self._journal.close()

    def _here(self, rest: Iterator[str], total: int, remote: bool) -> Iterator[Told]:
        """Until all are done, or it shows that workers help."""
        items: Iterator[_Item] = ((folder, *self._known(folder)) for folder in rest)
        if not remote:
            yield from self._one_by_one(items, total, remote)
            return
        from ..files.remote import ahead

        whole, held = self._choice.settings.values, FEW * (BEGUN * _judges() + 1)
        with ahead(items, _to_ask_for, whole=whole, held=held) as coming:
            yield from self._one_by_one(coming, total, remote)

    def _one_by_one(self, items: Iterator[_Item], total: int, remote: bool) -> Iterator[Told]:
        begun, spent, examined, warm = time.monotonic(), 0.0, 0, False
        clock, least_left = (time.thread_time, REMOTE_LEFT) if remote else (time.monotonic, LEAST_LEFT)
        may_help = _cores() > 1 and (self._jobs == AUTO or (remote and not self._choice.settings.values))
        for done, (folder, state, known) in enumerate(items, 1):
            if known is None:
                start = clock()
                known = self._examiner(folder)
                spent, examined = spent + clock() - start, examined + 1
                self._note(folder, state, known)
            yield known
            if may_help and time.monotonic() - begun > TRIAL and examined:
                each = spent / examined
                if warm and each > LEAST and each * (total - done) > least_left:
                    if remote:
                        yield from self._judged_beside(items)
                    else:
                        self._jobs = _cores()
                    return
                begun, spent, examined, warm = time.monotonic(), 0.0, 0, True

    def _judged_beside(self, items: Iterator[_Item]) -> Iterator[Told]:
        """Remote adapters, judged by processes of their own, as this one has its hands full with asking for them; what
        more than a glance has to be read of, what comes while those have enough, and what they are lost with, is judged
        here.
        """
        from ..verbs.workers import Workers

        work = pickle.dumps(partial(Examiner, self._choice, self._format))
        begun: deque[tuple[list[tuple[_Item, bool]], Future[list[Told | None]]]] = deque()
        count = _judges()
        with Workers(count, SECONDS) as workers:
            while True:
                few = [(item, _glance(item)) for item in islice(items, FEW)]
                if few:
                    given = [(folder, seen) for (folder, _, _), seen in few if seen]
                    enough = sum(not future.done() for _, future in begun) >= WITH_IT * count
                    future = self._judged_here(given) if enough else workers.submit(judged, work, given)
                    begun.append(([(item, seen is not None) for item, seen in few], future))
                elif not begun:
                    return
                while begun and (not few or begun[0][1].done() or len(begun) > BEGUN * count):
                    yield from self._judged(*begun.popleft())

    def _judged_here(self, given: list[tuple[str, Glance]]) -> Future[list[Told | None]]:
        from concurrent.futures import Future

        future: Future[list[Told | None]] = Future()
        future.set_result([self._examiner(folder, seen) for folder, seen in given])
        return future

    def _judged(self, few: list[tuple[_Item, bool]], future: Future[list[Told | None]]) -> Iterator[Told]:
        answers: Iterator[Told | None]
        try:
            answers = iter(future.result())
        except Exception:  # it was lost, or does not start
            answers = repeat(None)
        for (folder, state, known), given in few:
            told = known or (next(answers) if given else None) or self._examiner(folder)
            if not known:
                self._note(folder, state, told)
            yield told

    def _by_workers(self, rest: Iterator[str], total: int) -> Iterator[Told]:
        from ..verbs.batches import Batches, Job

        states = deque[tuple[bytes | None, bool]]()

        def jobs() -> Iterator[Job[Told]]:
            for folder in rest:
                state, known = self._known(folder)
                states.append((state, known is not None))
                yield Job(folder, known)

        with self._executor() as (executor, width):
            work = partial(Examiner, self._choice, self._format)
            batches = Batches(executor, work, width, total, apart=not self._dask)
            for job in batches.told(jobs()):
                told = job.answer or self._examiner.tell(Report(job.task, error=job.lost))
                state, was_known = states.popleft()
                if not was_known:
                    self._note(job.task, state, told)
                yield told

    @contextmanager
    def _executor(self) -> Iterator[tuple[Executor, Callable[[], int]]]:
        """What examines, and how many at a time. Raises AdapterError where it cannot be had."""
        if self._dask:
            from .cluster import cluster

            with cluster(self._dask) as found:
                yield found
            return
        from ..verbs.workers import Workers

        with Workers(self._jobs, SECONDS_OF_VALUES if self._choice.settings.values else SECONDS) as workers:
            yield workers, lambda: self._jobs

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


def _to_ask_for(item: _Item) -> str | None:
    folder, _, known = item
    return folder if is_remote(folder) and not known else None


def _glance(item: _Item) -> Glance | None:
    """What a glance reads of an adapter that another process may judge by it: one without a secret in its address."""
    folder, _, known = item
    return None if known or told_in_part(folder) else glance(folder)


def judged(work: bytes, few: list[tuple[str, Glance]]) -> list[Told | None]:
    """What is told of adapters by what a glance has read, in a process that asks for nothing; None of one of which more
    has to be read.
    """
    from ..files import remote
    from ..verbs.batches import made

    remote.seal()
    every: list[Told | None] = []
    for folder, seen in few:
        told: Told = made(work)(folder, seen)
        if remote.wanted_more():
            made.cache_clear()  # with what it may have remembered of it
            every.append(None)
        else:
            every.append(told if told.mark.outcome else None)
    return every


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


def _judges() -> int:
    """Processes that judge remote adapters, beside the one that asks for them."""
    return max(1, min(BESIDE, _cores() - 1))


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
