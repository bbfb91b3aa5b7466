"""Read and judge an adapter."""

from __future__ import annotations

from ..adapter import NOTHING_ASKED, AdapterError, Question, unforeseen
from ..adapter.codes import REPAIRED_UNASKED
from ..adapter.findings import ERROR, in_the_way, verdict, weighed
from ..adapter.runtimes import NEWEST
from ..facts.patterns import TooCostly, new_adapter
from ..facts.subject import Subject
from ..files.loader import Glance, load
from ..rules import judge
from .report import Report


def examine(
    folder: str, question: Question = NOTHING_ASKED, *, repairs: bool = True, seen: Glance | None = None
) -> Report:
    """Read and judge one adapter, or what a glance has read of it.

    Never raises for what a file holds: `error` says what could not be examined.
    Of the runtimes that matter, a finding that stops one is an error, one that leaves it undecided a warning, any other
    a note. With `repairs` each finding says whether a repair heals it.
    """
    new_adapter()
    try:
        subject = Subject(load(folder, seen), question)
        report = _with_base(Report(folder, None, subject, judge(subject)))
        report = _with_repairs(report) if repairs else report
        if question.runtimes is not None:
            weighted = (f._replace(severity=weighed(f, question.runtimes)) for f in report.findings)
            report = report._replace(findings=tuple(weighted))
    except AdapterError as error:
        return Report(folder, error=str(error))
    except OSError as error:
        return Report(folder, error=f"{folder}: {error}")
    except Exception as error:
        from traceback import format_exc

        return Report(folder, error=unforeseen(folder, error), trace=format_exc())
    return report


def examined(folder: str, question: Question, *, repairs: bool = True) -> Report:
    """As `examine`; raises AdapterError where the adapter could not be examined."""
    report = examine(folder, question, repairs=repairs)
    if report.error:
        raise AdapterError(report.error)
    return report


def _with_base(report: Report) -> Report:
    """The report by the model that the adapter's config names, where something that was asked for is undecided and the
    local cache of the Hub has it.
    """
    subject = report.subject
    wanted = subject.question.look_up if subject else frozenset()
    if subject is None or not wanted or subject.question.base is not None:
        return report
    name, revision = (subject.config.get(key) for key in ("base_model_name_or_path", "revision"))
    if not isinstance(name, str):
        return report
    asked = subject.question._replace(runtimes=wanted)
    same = asked == subject.question
    findings = report.findings if same else judge(Subject(subject.adapter, asked, subject.saved_by))
    if all(verdict(id_, findings) != "unknown" for id_ in wanted):
        return report
    from ..files.hub import cached_base

    found = cached_base(name, revision if isinstance(revision, str) and revision else "main")
    if found is None:
        return report
    subject = Subject(subject.adapter, subject.question._replace(base=found), subject.saved_by)
    return report._replace(subject=subject, findings=judge(subject))


def _with_repairs(report: Report) -> Report:
    """The report with the fixes that lead where they should. None is planned where what was asked for accepts the
    adapter, or without a question the newest PEFT does and no error was found: there the catalogue says what is healed.
    """
    asked = report.asked
    if asked is not None:
        open_ = any(in_the_way(finding, asked) for finding in report.findings)
    else:
        grave = any(finding.severity == ERROR for finding in report.findings)
        open_ = grave or verdict(NEWEST, report.findings) in ("rejects", "misloads")
    if open_:
        from .reach import reached

        try:
            return reached(report)
        except TooCostly:  # the report says which pattern is
            return report
    findings = tuple(f._replace(fixable=True) if f.code in REPAIRED_UNASKED else f for f in report.findings)
    return report._replace(findings=findings)
