"""Read and judge an adapter."""

from __future__ import annotations

from ..adapter import NOTHING_ASKED, Adapter, AdapterError, NotRead, Question, unforeseen
from ..adapter.codes import REPAIRED_UNASKED, UNCLEAR_TARGET
from ..adapter.findings import ERROR, in_the_way, verdict, weighed
from ..adapter.runtimes import NEWEST
from ..facts.names import PREFIX
from ..facts.patterns import TooCostly, new_adapter
from ..facts.subject import Subject
from ..files.loader import Glance, load, reading
from ..rules import judge
from .report import Report

USUAL = (".lora_A.weight", ".lora_B.weight", ".lora_A", ".lora_B", ".lora_E", "embedding_A", "embedding_B", "vector")
"""How the factors of PEFT end where the name of the adapter is not in them."""


def examine(
    folder: str, question: Question = NOTHING_ASKED, *, repairs: bool = True, seen: Glance | None = None
) -> Report:
    """Read and judge one adapter, or what a glance has read of it; of several in one file the first.

    Never raises for what a file holds: `error` says what could not be examined.
    Of the runtimes that matter, a finding that stops one is an error, one that leaves it undecided a warning, any other
    a note. With `repairs` each finding says whether a repair heals it: of several in one file a repair of all.
    """
    first, *others = examine_all(folder, question, repairs=repairs, seen=seen)
    if others:
        kept = tuple(reach for reach in first.reaches if all(_reaches(other, reach.asked) for other in others))
        refused = next((other.refused for other in (first, *others) if other.refused), "")
        first = first._replace(reaches=kept, refused=refused)
    return first


def _reaches(report: Report, asked: frozenset[str] | None) -> bool:
    return any(reach.asked == asked for reach in report.reaches)


def examine_all(
    folder: str,
    question: Question = NOTHING_ASKED,
    *,
    repairs: bool = True,
    seen: Glance | None = None,
    config: str = "",
) -> list[Report]:
    """As `examine`, of each adapter that a file of another tool may hold several of; at least one report. `config` is
    the file that the user names as the config of an adapter inside a model.
    """
    new_adapter()
    try:
        adapter = load(folder, seen)
        if not config and _is_peft(adapter):
            return [_examined(folder, Subject(adapter, question), repairs)]
        from .conversion import parts

        found = parts(adapter, question.base, config)
        return [_examined(folder, Subject(x, question), repairs)._replace(part=part) for part, x in found]
    except NotRead:  # what would help hangs on numbers of a remote file
        with reading(folder):
            return examine_all(folder, question, repairs=repairs, config=config)
    except AdapterError as error:
        return [Report(folder, error=str(error))]
    except OSError as error:
        return [Report(folder, error=f"{folder}: {error}")]
    except Exception as error:
        from traceback import format_exc

        return [Report(folder, error=unforeseen(folder, error), trace=format_exc())]


def _is_peft(adapter: Adapter) -> bool:
    """Whether an adapter is surely not what another tool wrote, as its faults or its first tensor tell."""
    if adapter.faults:
        return not any(fault.tool for fault in adapter.faults)
    first = next(iter(adapter.tensors), "")
    return not first or (first.startswith(PREFIX) and (".lora_" not in first or first.endswith(USUAL)))


def _examined(folder: str, subject: Subject, repairs: bool) -> Report:
    report = _with_base(Report(folder, None, subject, judge(subject)))
    report = _with_repairs(report) if repairs else report
    return _weighed(report)


def examined(folder: str, question: Question, *, repairs: bool = True) -> Report:
    """As `examine`; raises AdapterError where the adapter could not be examined."""
    report = examine(folder, question, repairs=repairs)
    if report.error:
        raise AdapterError(report.error)
    return report


def with_values(report: Report) -> Report:
    """The report of the same adapter with its numbers read, as before something is made of it. Raises AdapterError."""
    subject = report.subject
    if subject is None or subject.question.values:
        return report
    subject = Subject(subject.adapter, subject.question._replace(values=True), subject.saved_by)
    return _weighed(report._replace(subject=subject, findings=judge(subject)))


def _weighed(report: Report) -> Report:
    """The report with findings as grave as they are for what was asked."""
    if report.asked is None:
        return report
    return report._replace(findings=tuple(f._replace(severity=weighed(f, report.asked)) for f in report.findings))


def named_model(subject: Subject) -> tuple[str, str] | None:
    """The id on the Hub and the revision of the model that the config of an adapter names; None where it names none."""
    name, revision = (subject.config.get(key) for key in ("base_model_name_or_path", "revision"))
    if not isinstance(name, str):
        return None
    return name, revision if isinstance(revision, str) and revision else "main"


def _with_base(report: Report) -> Report:
    """The report by the model that the adapter's config names, where something that was asked for is undecided and the
    local cache of the Hub has it.
    """
    subject = report.subject
    wanted = subject.question.look_up if subject else frozenset()
    if subject is None or not wanted or subject.question.base is not None:
        return report
    model = named_model(subject)
    if model is None:
        return report
    asked = subject.question._replace(runtimes=wanted)
    same = asked == subject.question
    findings = report.findings if same else judge(Subject(subject.adapter, asked, subject.saved_by, subject.original))
    if all(verdict(id_, findings) != "unknown" for id_ in wanted):
        return report
    from ..files.hub import cached_base

    found = cached_base(*model)
    if found is None:
        return report
    subject = Subject(subject.adapter, subject.question._replace(base=found), subject.saved_by, subject.original)
    return report._replace(subject=subject, findings=judge(subject))


def _with_repairs(report: Report) -> Report:
    """The report with the fixes that lead where they should. None is planned where what was asked for accepts the
    adapter, or without a question the newest PEFT does and no error was found: there the catalogue says what is healed.
    """
    asked = report.asked
    if asked is not None:
        open_ = any(in_the_way(finding, asked) for finding in report.findings)
    else:
        grave = any(f.severity == ERROR or f.code == UNCLEAR_TARGET.number for f in report.findings)
        open_ = grave or verdict(NEWEST, report.findings) in ("rejects", "misloads")
    if open_:
        from .reach import reached

        try:
            return reached(report)
        except TooCostly:  # the report says which pattern is
            return report
    findings = tuple(f._replace(fixable=True) if f.code in REPAIRED_UNASKED else f for f in report.findings)
    return report._replace(findings=findings)
