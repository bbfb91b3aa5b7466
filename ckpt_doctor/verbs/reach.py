"""Which fixes lead where they should: tried as plans, before any is proposed."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter import NotExactError
from ..adapter.findings import verdict
from ..adapter.runtimes import NEWEST, PEFT
from ..facts.subject import Subject
from .plan import REPAIRED, How, Plan, plan
from .report import Reach, Report
from .ways import FIX, LOAD, Way


def reached(report: Report) -> Report:
    """The report with the fixes that lead where they should, and each finding with whether one of them heals it."""
    trials = _Trials(report)
    reaches = tuple(trials.asked(report.asked) if report.asked is not None else trials.nothing_asked())
    healed = frozenset[str]().union(*(reach.heals for reach in reaches))
    findings = tuple(f._replace(fixable=f.code in healed) for f in report.findings)
    return report._replace(findings=findings, reaches=reaches, refused=trials.reason)


def ways_beside(planned: Plan) -> tuple[Way, ...]:
    """The ways out of an adapter that a plan does not repair for what was asked, as a scan that asks it says them;
    without a question the fixes for the releases that one helps.
    """
    before = planned.before
    if planned.asked is None:
        return tuple(way for way in reached(before).next if way.kind == FIX)
    assert before.subject is not None  # noqa: S101 - a plan has one
    question = before.subject.question._replace(runtimes=planned.asked)
    subject = Subject(before.subject.adapter, question, before.subject.saved_by, before.subject.original)
    report = reached(before._replace(subject=subject, findings=planned.was))
    return tuple(way for way in report.next if way.kind != LOAD)


class _Trials:
    """Plans for one report; `reason` is why the last of those that led nowhere did not."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.reason = ""

    def asked(self, asked: frozenset[str]) -> Iterator[Reach]:
        """The fix for what was asked for; else one that leaves something out, and one for PEFT alone."""
        planned = self._tried(asked)
        if planned and planned.fixed:
            yield from _reach(planned, asked)
            return
        reason = self.reason
        if planned and planned.droppable:
            smaller = self._tried(asked, How(drop=True))
            if smaller and smaller.fixed:
                yield from _reach(smaller, asked, drop=True)
        if asked != {NEWEST} and verdict(NEWEST, self.report.findings) in ("rejects", "misloads"):
            newest = self._tried(frozenset((NEWEST,)))
            if newest and newest.fixed:
                yield from _reach(newest, frozenset((NEWEST,)))
        self.reason = reason

    def nothing_asked(self) -> Iterator[Reach]:
        """The fix without a runtime, and where the newest PEFT does not take what it writes, the one for that."""
        planned = self._tried(None)
        usual = list(_reach(planned, None)) if planned and planned.fixed else []
        if not usual or verdict(NEWEST, planned.findings if planned else ()) != "accepts":
            reason, self.reason = self.reason, ""
            newest = self._tried(frozenset((NEWEST,)))
            if newest and newest.fixed:
                yield from _reach(newest, frozenset((NEWEST,)))
            self.reason = self.reason or reason
        yield from usual

    def _tried(self, asked: frozenset[str] | None, how: How = REPAIRED) -> Plan | None:
        try:
            planned = plan(self.report, asked, how)
        except NotExactError as error:
            self.reason = str(error)
            return None
        if not planned.fixed:
            self.reason = next((str(step.reason) for step in planned.refused), "")
        return planned


def _reach(planned: Plan, asked: frozenset[str] | None, *, drop: bool = False) -> Iterator[Reach]:
    """What a plan that is fixed amounts to; nothing where there was nothing to repair."""
    if planned.done:
        takes = frozenset(id_ for id_ in PEFT if verdict(id_, planned.findings) == "accepts")
        heals = frozenset(code for step in planned.done for code in step.codes)
        yield Reach(asked, heals, takes, planned.loss if drop else "")
