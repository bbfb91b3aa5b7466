"""The path from which a runtime can load an adapter: its own, or that of a repaired copy in the cache."""

from __future__ import annotations

import os
from typing import NamedTuple

from .. import __version__
from ..adapter import AdapterError, Question
from ..adapter.findings import THE_BASE, THE_WEIGHTS, Finding, verdict
from ..adapter.runtimes import PEFT_RELEASES, ids, installed, ranges, unreviewed
from ..files import cache
from ..files.loader import CONFIG, RECORD
from .fix import Loaded, carry_out
from .plan import Plan, plan
from .report import Report
from .scan import examine, examined, with_values


class AdapterRejected(AdapterError):  # noqa: N818 - what the runtime does, as the verdict is called
    """A runtime that was asked for does not take the adapter, or takes it wrong, and no repair changes that.

    `report` is all that is known of the adapter, `findings` are those that are in the way.
    """

    def __init__(self, message: str, report: Report, findings: tuple[Finding, ...]) -> None:
        super().__init__(message)
        self.report = report
        self.findings = findings


class Ready(NamedTuple):
    """A path to load from, and what is not known about that, as a sentence."""

    path: str
    doubt: str | None = None


def ready(folder: str, question: Question, *, strict: bool, load: Loaded | None = None) -> Ready:
    """Where the runtimes asked for can load the adapter in `folder` from; without any, the PEFT installed here.

    `load` has real releases load what is to be loaded, and what they do wins. Raises AdapterRejected where no repair
    makes it load, and under `strict` where that is not known; AdapterError where it cannot be examined,
    UnknownRuntimeError where no PEFT is installed.
    """
    release = installed() if question.runtimes is None else None
    if release and release not in PEFT_RELEASES:
        report = examined(folder, question, repairs=False)
        doubt = f"what PEFT {release} makes of {folder} is not known; the newest that is known is {PEFT_RELEASES[-1]}"
        return _doubted(folder, doubt, report, (), strict)
    asked = ids("installed") if question.runtimes is None else question.runtimes
    question = question._replace(runtimes=asked)
    report = examined(folder, question, repairs=False)
    findings = report.findings
    path = folder
    if _against(findings, asked):
        the_plan = plan(with_values(report), asked)
        findings = the_plan.findings
        if _against(findings, asked):
            raise AdapterRejected(_refusal(folder, the_plan, asked), report, _against(findings, asked))
        path = _copy(the_plan)
    if load is not None:
        for proof in load(examined(path, question, repairs=False)):
            if proof.verdict in ("rejects", "misloads"):
                raise AdapterRejected(f"{proof.runtime} itself {proof.verdict} {path}: {proof.why}", report, ())
    undecided = {id_ for id_ in asked if verdict(id_, findings) == "unknown"}
    if not undecided:
        return Ready(path)
    open_ = tuple(finding for finding in findings if finding.undecided_for & undecided)
    strange = unreviewed(undecided)
    if strange.keys() == undecided:
        return _doubted(path, f"{folder}: {'; '.join(strange.values())}", report, open_, strict)
    wanted = dict.fromkeys(finding.needs for finding in open_ if finding.needs)
    needs = ", ".join(f"{need} (--base)" if need in (THE_BASE, THE_WEIGHTS) else need for need in wanted)
    doubt = f"whether {ranges(undecided)} takes {folder} is not known" + (f" without {needs}" if needs else "")
    return _doubted(path, doubt, report, open_, strict)


def _doubted(path: str, doubt: str, report: Report, findings: tuple[Finding, ...], strict: bool) -> Ready:
    if strict:
        raise AdapterRejected(doubt, report, findings)
    return Ready(path, doubt)


def _against(findings: tuple[Finding, ...], asked: frozenset[str]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if asked & (finding.rejected_by | finding.misloaded_by))


def _refusal(folder: str, the_plan: Plan, asked: frozenset[str]) -> str:
    against = _against(the_plan.findings, asked)
    stopped = asked & frozenset().union(*(finding.rejected_by | finding.misloaded_by for finding in against))
    why = "; ".join(f"{finding.code} {finding.message}" for finding in against)
    reasons = "".join(f"; no repair: {step.reason}" for step in the_plan.refused)
    return f"{folder} cannot be loaded by {ranges(stopped)}: {why}{reasons}"


def _copy(the_plan: Plan) -> str:
    """The repaired copy in the cache; made where there is none, or where it was damaged."""
    from ..files.writer import carried

    adapter = the_plan.before.adapter
    assert adapter is not None  # noqa: S101 - a plan has one
    names = [name for name in (CONFIG, RECORD, *adapter.weights, *carried(adapter)) if name in adapter.files]
    question = the_plan.after.question
    base = question.base and (sorted(question.base.parameters.items()), sorted(question.base.config.items()))
    asked = question.runtimes or frozenset()
    values = (__version__, sorted(asked), question.adapter_name, question.max_rank, base)

    def good(folder: str) -> bool:
        if not os.path.isdir(folder):
            return False
        report = examine(folder, question, repairs=False)
        return not report.error and not _against(report.findings, asked)

    return cache.once(
        cache.key(adapter.folder, names, values), good, lambda folder: carry_out(the_plan, folder, force=True)
    )
