"""What is said of a finding and of an adapter, for formats that want sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from ..adapter.findings import ERROR, NOTE, Finding, accepted, counted, hits, several, verdict
from ..adapter.runtimes import NEWEST, bounds, order, ranges
from ..verbs.report import OUTCOMES, Report
from .text import clean

if TYPE_CHECKING:
    from ..facts.subject import Subject
    from ..verbs.start import Start, Starts
    from ..verbs.verify import Record
    from ..verbs.ways import Way

STOPPED = ("rejected", "misloaded")
"""Outcomes that a repair may change."""
MOST_CAUSES = 10
"""Of a run, that are told."""
LONGEST = 500
"""Characters of a message; what a rule says is shorter, but names from a file may be of any length."""


def cut(text: str, longest: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def outcomes(finding: Finding, asked: frozenset[str] | None = None) -> Iterator[str]:
    """Which runtimes a finding stops or leaves undecided, of those asked for, a phrase for each outcome."""
    phrases = (
        ("rejected by", finding.rejected_by),
        ("misloaded by", finding.misloaded_by),
        ("undecided for", finding.undecided_for),
    )
    for how, stopped in phrases:
        ids = stopped if asked is None else stopped & asked
        if ids:
            needs = f" (needs {finding.needs})" if how == "undecided for" and finding.needs else ""
            yield f"{how} {ranges(ids)}{needs}"


def sentence(finding: Finding) -> str:
    """A finding on one line, without its code: what is wrong, whom it stops, and whether a fix repairs it."""
    repair = ("ckpt-doctor fix repairs it",) if finding.fixable else ()
    return clean("; ".join((cut(finding.message, LONGEST), *outcomes(finding), *repair)))


def proved(record: Record) -> str:
    """What the record of a fix says of it: whether the result computes the same, how far, and what was done."""
    exact = f"within {record.worst:.2g}, relative" if record.worst else "bit-exact"
    kept = (
        f"the original without {several(record.dropped)}, and else the same function"
        if record.dropped
        else "same function as the original"
    )
    done = ", ".join(record.repairs)
    return f"{kept}: {exact}; " + (f"repaired: {done}" if done else "nothing was repaired")


class Mark(NamedTuple):
    """What one adapter adds to a tally: its outcome ("" where it could not be examined), whether it fails, whether a
    fix repairs it and leaves nothing out, and its causes.
    """

    outcome: str
    failing: bool
    repairable: bool
    causes: tuple[tuple[str, str, str], ...]
    """Each a code, its name, and what became of the adapter for its sake: rejected, misloaded or undecided."""

    @property
    def exit_code(self) -> int:
        """That of a scan which found no other."""
        return int(self.failing) if self.outcome else 2


_MARKS: WeakKeyDictionary[Subject, tuple[tuple[Finding, ...], str, Mark]] = WeakKeyDictionary()


def mark(report: Report) -> Mark:
    """What a report adds to a tally. Of one subject it is the same wherever it lies."""
    subject, shown = report.subject, report.shown
    if subject is None:
        return _mark(report)
    known = _MARKS.get(subject)
    if known is None or known[0] != shown or known[1] != report.fail_on:
        _MARKS[subject] = known = shown, report.fail_on, _mark(report)
    return known[2]


def _mark(report: Report) -> Mark:
    outcome = report.outcome
    causes = {(f.code, f.name, how): None for f in report.shown if (how := _stops(f, report.asked, outcome))}
    repairable = outcome in STOPPED and report.repairable
    return Mark(outcome, bool(report.failing), repairable, tuple(causes))


def _stops(finding: Finding, asked: frozenset[str] | None, outcome: str) -> str:
    """What a finding makes of what was asked for, as `Report.outcome` has it; "" where it stops none."""
    if asked is None:
        if finding.severity == ERROR:
            return "rejected" if finding.rejected_by else "misloaded"
        asked = frozenset((NEWEST,)) if outcome == "undecided" else frozenset[str]()
    by = (("rejected", finding.rejected_by), ("misloaded", finding.misloaded_by), ("undecided", finding.undecided_for))
    return next((how for how, ids in by if ids & asked), "")


class Tally:
    """How many adapters there are and what became of them and why, and how servers are started for them."""

    def __init__(self, reports: Iterable[Report] = ()) -> None:
        self.adapters = self.failing = self.unread = 0
        self.outcomes = Counter[str]()
        self.repairable = Counter[str]()
        self.causes: dict[tuple[str, str], Counter[str]] = {}
        self._starts: Starts | None = None
        for report in reports:
            self.add(report)

    def add(self, report: Report) -> None:
        """Count one more."""
        self.count(mark(report))
        if report.servers:
            if self._starts is None:
                from ..verbs.start import Starts

                self._starts = Starts()
            self._starts.add(report)

    def count(self, one: Mark) -> None:
        """Count one more, of which no more is told, and so not how a server is started for it."""
        self.adapters += 1
        self.failing += one.failing
        self.unread += not one.outcome
        self.outcomes[one.outcome] += 1
        self.repairable[one.outcome] += one.repairable
        for code, name, how in one.causes:
            self.causes.setdefault((code, name), Counter())[how] += 1

    @property
    def by_cause(self) -> list[tuple[str, str, Counter[str]]]:
        """The codes that stop adapters in what was asked, or leave them undecided, with their names and how many become
        what for their sake; the most frequent first.
        """
        causes = sorted(self.causes.items(), key=lambda item: (-item[1].total(), item[0]))
        return [(code, name, counts) for (code, name), counts in causes]

    @property
    def causes_line(self) -> str:
        """The same as one line, "" where nothing is stopped."""
        every = self.by_cause
        named = [f"{code} {name} {counts.total()}" for code, name, counts in every[:MOST_CAUSES]]
        more = [f"{len(every) - MOST_CAUSES} more"] if len(every) > MOST_CAUSES else []
        return f"by cause: {', '.join(named + more)}" if named else ""

    @property
    def starts(self) -> dict[str, Start]:
        """How each server is started for the adapters that it then takes; nothing where no server was asked for."""
        return self._starts.named() if self._starts else {}

    def __str__(self) -> str:
        counts = []
        for outcome in OUTCOMES.values():
            if self.outcomes[outcome]:
                healed = self.repairable[outcome]
                counts.append(f"{self.outcomes[outcome]} {outcome}" + (f" ({healed} repairable)" if healed else ""))
        if self.unread:
            counts.append(f"{self.unread} could not be examined")
        return f"{counted(self.adapters, 'adapter')}: {', '.join(counts) or 'none'}"


def start_lines(name: str, start: Start) -> Iterator[str]:
    """How a server is started: the options on one line, then what forces each, and what matters beside them."""
    yield f"{name} for {start.adapters} of them: {start.line}"
    for option in start.options():
        yield f"{option.name} {option.value}".strip() + f": {option.forced_by}"
    yield from start.together()


def verdict_phrases(report: Report) -> Iterator[str]:
    """What each runtime asked for makes of it; without any, where it loads."""
    if report.asked is None:
        taken = bounds(accepted(report.findings))
        yield f"loads in PEFT {taken}" if taken else "loads in no release that is known"
        return
    by_verdict: dict[str, list[str]] = {}
    for id_ in order(report.asked):
        by_verdict.setdefault(verdict(id_, report.findings), []).append(id_)
    proved = {proof.runtime for proof in report.proofs if proof.verdict != "unknown"}
    for said, ids in by_verdict.items():
        yield f"{ranges(ids)}: {said}" + (" (proved)" if proved.issuperset(ids) else "")


def of_question(report: Report) -> list[Finding]:
    """The findings about what was asked, or about the adapter alone, most severe first; without a question those graver
    than a note, and where there is none what keeps the newest PEFT from taking it.
    """
    if report.asked is not None:
        shown, asked = report.shown, report.asked
        return [f for f in shown if hits(f, asked) or (f.severity != NOTE and not f.concerned)]
    grave = [finding for finding in report.shown if finding.severity != NOTE]
    return grave or [finding for finding in report.shown if hits(finding, frozenset((NEWEST,)))]


def sentence_of(way: Way) -> str:
    """A way out without its command, with the option that it takes."""
    return f"{way.text} (--base)" if way.kind == "base" else way.text


def way_text(way: Way) -> str:
    """A way out as one line."""
    return f"{way.text}: {way.command}" if way.command else sentence_of(way)


def next_step(report: Report) -> str:
    """The ways out as one sentence, the best first; a command that is too long for it is left out."""
    texts = (sentence_of(way) if len(way.command) > LONGEST else way_text(way) for way in report.next)
    return clean(cut("next: " + ", or ".join(cut(text, LONGEST) for text in texts), 2 * LONGEST))
