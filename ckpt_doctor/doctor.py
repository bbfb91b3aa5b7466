"""The verbs: scan an adapter, plan its repair, fix it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from . import __version__, rules  # noqa: F401 - importing the rules declares them
from .adapter import NOTHING_ASKED, Adapter, AdapterError, Layer, NotExactError, Question, unforeseen
from .facts.subject import Subject
from .findings import ERROR, NEVER, SEVERITIES, Finding, verdict, weighed
from .loader import BIN, SAFETENSORS, load
from .planner import Step, harm, hits, repaired, silenced, state_of
from .rules import judge
from .runtimes import PEFT, SERVERS, order, peft

if TYPE_CHECKING:
    from .writer import Prove, Written

RANK_ZERO = ("pad", "prune")
UNSEEN = "CD690"
"""A server and no base model: the doubt that is left to whoever gives none; a fix says so, and goes ahead."""
UNTRIED = "CD616"
"""A model of a family that a server was not run on: the same."""


class Report(NamedTuple):
    """All that is known of one adapter; `error` is set, and nothing else, where it could not be examined.

    `passed` are the findings that a choice or a baseline lets pass: they are not shown and fail nothing, and still
    decide the verdicts. `fail_on` is the least severity that fails, or "never". `trace` is Python's, of an `error` that
    nothing foresaw.
    """

    path: str
    error: str | None = None
    subject: Subject | None = None
    findings: tuple[Finding, ...] = ()
    passed: frozenset[Finding] = frozenset()
    fail_on: str = ERROR
    trace: str | None = None

    @property
    def adapter(self) -> Adapter | None:
        """The adapter as it was read."""
        return self.subject.adapter if self.subject else None

    @property
    def layers(self) -> dict[str, Layer]:
        """Its adapted layers, by module."""
        return self.subject.layers if self.subject else {}

    @property
    def asked(self) -> frozenset[str] | None:
        """The ids of the runtimes that matter, None where none was named."""
        return self.subject.question.runtimes if self.subject else None

    @property
    def servers(self) -> frozenset[str]:
        """The ids of the servers that were asked for, the only ones that are judged."""
        return (self.asked or frozenset()) & SERVERS

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The findings that a reader is shown, most severe first."""
        shown = [finding for finding in self.findings if finding not in self.passed]
        return tuple(sorted(shown, key=lambda finding: -SEVERITIES.index(finding.severity)))

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings at or above `fail_on`."""
        if self.fail_on == NEVER:
            return ()
        least = SEVERITIES.index(self.fail_on)
        return tuple(finding for finding in self.shown if SEVERITIES.index(finding.severity) >= least)

    @property
    def verdicts(self) -> dict[str, str]:
        """Runtime id → accepts, rejects, misloads or unknown: every PEFT release, then the servers asked for."""
        if self.subject is None:
            return {}
        return {id_: verdict(id_, self.findings) for id_ in order(PEFT | self.servers)}


class Plan(NamedTuple):
    """What a fix would do: the report before, the subject and its findings after, and each step on the way."""

    before: Report
    after: Subject
    findings: tuple[Finding, ...]
    done: tuple[Step, ...]
    refused: tuple[Step, ...]
    purpose: str = "for inference"

    @property
    def asked(self) -> frozenset[str] | None:
        """The runtimes that have to accept the result; None where none was named."""
        return self.after.question.runtimes

    @property
    def unseen(self) -> frozenset[str]:
        """The releases that rejected the adapter, and of which only the base model would tell what they make of it."""
        told = [id_ for id_ in PEFT if verdict(id_, self.findings) == "unknown"]
        return frozenset(id_ for id_ in told if verdict(id_, self.before.findings) == "rejects")

    @property
    def fixed(self) -> bool:
        """Whether every runtime asked for accepts the result; without any, whether no error remains."""
        if self.asked is None:
            return not any(finding.severity == ERROR for finding in self.findings)
        left = [f._replace(undecided_for=frozenset()) if f.code in (UNSEEN, UNTRIED) else f for f in self.findings]
        return all(verdict(id_, left) == "accepts" for id_ in self.asked)

    @property
    def untried(self) -> frozenset[str]:
        """The runtimes asked for that were not run on a model of that family."""
        return frozenset[str]().union(*(f.undecided_for for f in self.findings if f.code == UNTRIED))


def examine(folder: str, question: Question = NOTHING_ASKED, *, repairs: bool = True) -> Report:
    """Read and judge one adapter. Never raises for what a file holds: `error` says what could not be examined.

    Of the runtimes that matter, a finding that stops one is an error, one that leaves it undecided a warning, any other
    a note. With `repairs` each finding says whether a repair heals it.
    """
    try:
        subject = Subject(load(folder), question)
        report = Report(folder, None, subject, judge(subject))
        findings = _with_repairs(report) if repairs else report.findings
        if question.runtimes is not None:
            findings = tuple(f._replace(severity=weighed(f, question.runtimes)) for f in findings)
    except AdapterError as error:
        return Report(folder, error=str(error))
    except OSError as error:
        return Report(folder, error=f"{folder}: {error}")
    except Exception as error:
        from traceback import format_exc

        return Report(folder, error=unforeseen(folder, error), trace=format_exc())
    return report._replace(findings=findings)


def _with_repairs(report: Report) -> tuple[Finding, ...]:
    """The findings, each with whether a repair heals it: by the catalogue where it is a note, by a plan elsewhere."""
    from .repairs import all_of

    asked = report.asked
    weighty = [f for f in report.findings if (hits(f, asked) if asked is not None else f.severity == ERROR)]
    healed = {code for step in plan(report, asked=asked).done for code in step.codes} if weighty else set[str]()
    listed = frozenset[str]().union(*(repair.heals for repair in all_of("pad", asked=None)))
    return tuple(f._replace(fixable=f.code in (healed if f in weighty else listed)) for f in report.findings)


def examined(folder: str, question: Question, *, repairs: bool = True) -> Report:
    """As `examine`; raises AdapterError where the adapter could not be examined."""
    report = examine(folder, question, repairs=repairs)
    if report.error:
        raise AdapterError(report.error)
    return report


def plan(
    report: Report, *, asked: frozenset[str] | None = None, rank_zero: str = "pad", weights: str | None = None,
    training: bool = False, to_lora: bool = False, trim: bool = False, dtype: str | None = None,
) -> Plan:  # fmt: skip
    """Repair to a fixed point: each step heals a finding, harms no release, and leads to a state that is new.

    `asked` are the runtimes that have to accept the result; None heals what needs no release to be named. `weights` is
    the format to be written: "safetensors", "bin" or "same"; None is the one that the runtimes asked for read.
    `training` gives an AdaLoRA the form that can be trained further, `to_lora` makes plain LoRA of one rank and scale,
    `trim` cuts trailing zeros off the rank, `dtype` (fp32, bf16, fp16) is what factors are written in. Raises
    NotExactError.
    """
    from . import repairs

    before = report.subject
    assert before is not None  # noqa: S101 - callers examine it first
    if weights is None:
        weights = "bin" if asked and asked & peft("0.2", "0.3") else "safetensors"
    subject = Subject(written_as(before.adapter, weights), before.question._replace(runtimes=asked), before.saved_by)
    done: list[Step] = []
    if len(before.adapter.weights) > 1:
        done.append(Step("write the shards as one file", ("CD015",)))
    if before.adapter.beside:
        done.append(Step(f"leave the {BIN} behind that is not read", ("CD010", "CD022")))
    original = state_of(subject)
    state, wanted = original, asked
    for title, whole in repairs.forms(subject, training=training, to_lora=to_lora):
        state = state_of(whole)
        done.append(Step(title, ()))
    if silenced(original, state):  # by a form that was asked for by name: what then misloads it has to be repaired, too
        wanted = (asked or frozenset()) | silenced(original, state)
    serving = bool(asked and asked & SERVERS)
    choice = repairs.all_of(rank_zero, asked=wanted, training=training, serving=serving)
    state, steps, refused = repaired(state, choice, wanted)
    done += steps
    if silenced(original, state):
        raise NotExactError(f"{before.adapter.path}: {harm(state, silenced(original, state))}")
    subject, findings = state.subject, state.findings
    for title, whole in repairs.sizes(subject, trim=trim, dtype=dtype):
        subject, findings = whole, judge(whole)
        done.append(Step(title, ()))
    open_codes = {f.code for f in findings if asked is None or hits(f, asked)}
    still = tuple(step for step in refused.values() if open_codes & set(step.codes))
    return Plan(report, subject, findings, tuple(done), still, "for training" if training else "for inference")


def written_as(adapter: Adapter, weights: str) -> Adapter:
    """The adapter as it will lie in a new folder: one file of weights, in the format asked for."""
    kind = (adapter.format or "safetensors") if weights == "same" else weights
    name = BIN if kind == "bin" else SAFETENSORS
    files = (*(file for file in adapter.files if not file.startswith("adapter_model.")), name)
    return adapter._replace(format=kind, weights=(name,) if adapter.weights else (), files=files)


def fix(
    the_plan: Plan, out: str | None, *, force: bool = False, copy_all: bool = False, tolerance: float = 1e-6
) -> Written:
    """Write a plan's adapter to `out`: read back, and proved to compute the same, before it takes its place.

    Without `out` that is the place of the old one. Raises AdapterError.
    """
    from .writer import write, write_in_place

    before, record, prove = _evidence(the_plan, out or the_plan.before.path, tolerance)
    if out is None:
        return write_in_place(the_plan.after.adapter, before, record, prove)
    return write(the_plan.after.adapter, before, out, record, prove, force=force, copy_all=copy_all)


def _evidence(the_plan: Plan, out: str, tolerance: float) -> tuple[Adapter, dict[str, Any], Prove]:
    """The adapter before, what is recorded of its repair, and the proof that the result computes the same."""
    from .comparison import compare, proof

    before, after = the_plan.before.subject, the_plan.after
    assert before is not None  # noqa: S101 - a plan has one
    record: dict[str, Any] = {
        "schema_version": 1,
        "tool": {"name": "ckpt-doctor", "version": __version__},
        "saved_by": sorted(id_.removeprefix("peft==") for id_ in before.saved_by),
        "purpose": the_plan.purpose,
        "repairs": [{"title": step.title, "codes": list(step.codes)} for step in the_plan.done],
    }

    # what stops the others is known; those that take the result have to make of it what the original means
    takers = frozenset(id_ for id_ in PEFT if verdict(id_, the_plan.findings) == "accepts")
    takers = takers if the_plan.asked is None else takers & the_plan.asked

    def prove(stage: str) -> dict[str, Any]:
        kept = frozenset(key for key, info in after.tensors.items() if before.tensors.get(key) == info)
        found = compare(before, after.changed(load(stage)), tolerance, kept, takers)
        if found.verdict != "same":
            worst = found.largest
            error = f"; the largest relative error is {worst.relative:.2g}, --tolerance allows it" if worst else ""
            raise NotExactError(f"{out} is not written, as it is not proved the same: {found.reasons[0]}{error}")
        return proof(found)

    return before.adapter, record, prove


def saved_by(adapter: Adapter) -> str | None:
    """The PEFT release that saved the adapter, where the config or an earlier record says so."""
    said = (adapter.config or {}).get("peft_version")
    if not said and adapter.record:
        said = adapter.record.get("saved_by")
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
    return said if isinstance(said, str) else None


def same_place(a: str, b: str) -> bool:
    """Whether two paths are one folder, or one lies in the other."""
    first, second = os.path.realpath(a), os.path.realpath(b)
    return first == second or os.path.commonpath([first, second]) in (first, second)
