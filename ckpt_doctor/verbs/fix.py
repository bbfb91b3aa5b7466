"""Repair an adapter: plan, write, prove, swap in."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__
from ..adapter import Adapter, NotExactError
from ..adapter.findings import ERROR, verdict
from ..adapter.runtimes import PEFT, order
from ..files.loader import is_remote, load, told
from .plan import REPAIRED, How, Plan, plan
from .planner import Step
from .report import Report
from .scan import examined, with_values

if TYPE_CHECKING:
    from ..facts.subject import Subject
    from ..files.writer import Layout, Prove, Written
    from .compare import Comparison
    from .prove import Proof


Loaded = Callable[[Report], "tuple[Proof, ...]"]
"""What real releases make of an adapter (`prove.proved`)."""


class Fixed(NamedTuple):
    """What became of a fix: what was planned, and what was written, None where nothing was."""

    plan: Plan
    written: Written | None


def fix(
    report: Report, out: str | None, asked: frozenset[str] | None, how: How = REPAIRED, *, tolerance: float = 1e-6,
    best_effort: bool = False, copy_all: bool = False, dry_run: bool = False, force: bool = False,
    load: Loaded | None = None,
) -> Fixed:  # fmt: skip
    """Write the adapter of a report to the folder `out` so that the runtimes asked for take it.

    It is proved that the result computes the same, but for what was dropped where that was asked for; otherwise, and
    where not all is reached, nothing is written, unless `best_effort`. What holds NaN or infinity computes nothing, and
    is refused. Without `out` the adapter is repaired where it is, if it has an error. `load` has real releases load
    what is staged: one that rejects or misloads it stops the fix. Raises AdapterError where `out` cannot be written,
    NotExactError where the result would compute something else.
    """
    subject = report.subject
    assert subject is not None  # noqa: S101 - callers examine it first
    if out is None and not how.changes_form and not any(finding.severity == ERROR for finding in report.findings):
        return Fixed(Plan(report, subject, report.findings, (), ()), None)
    the_plan = plan(with_values(report), asked, how)
    if how.tool and the_plan.fixed:
        exported(the_plan)  # or it is refused, also where nothing is to be written
        title = f"write it in the form of {_name(how.tool)}"
        the_plan = the_plan._replace(done=(*the_plan.done, Step(title, ())))
    if dry_run or not (the_plan.fixed or (best_effort and the_plan.done)):
        return Fixed(the_plan, None)
    return Fixed(the_plan, carry_out(the_plan, out, force=force, copy_all=copy_all, tolerance=tolerance, load=load))


def _name(of: str) -> str:
    from ..conversions import tool

    return tool(of).name


def carry_out(
    the_plan: Plan, out: str | None, *, force: bool = False, copy_all: bool = False, tolerance: float = 1e-6,
    load: Loaded | None = None,
) -> Written:  # fmt: skip
    """Write a plan's adapter to `out`: read back, and proved to compute the same, before it takes its place.

    Without `out` that is the place of the old one. What goes to a store is made here first. Raises AdapterError.
    """
    from ..files.writer import OF_PEFT, write, write_in_place

    if out is not None and is_remote(out):
        from ..files.upload import uploaded

        with uploaded(out) as here:
            written = carry_out(the_plan, here, copy_all=copy_all, tolerance=tolerance, load=load)
        return written._replace(out=told(out))
    before, record, prove = _evidence(the_plan, out or the_plan.before.path, tolerance, load)
    if out is None:
        return write_in_place(the_plan.after.adapter, before, record, prove)
    adapter, layout = the_plan.after.adapter, OF_PEFT
    if the_plan.tool:
        adapter, layout = exported(the_plan)
    return write(adapter, before, out, record, prove, force=force, copy_all=copy_all, layout=layout)


def exported(the_plan: Plan) -> tuple[Adapter, Layout]:
    """What the folder of another tool is to hold. Raises NotExactError for what has no exact counterpart there."""
    from ..conversions import Refused, tool
    from ..files.writer import Layout

    of = tool(the_plan.tool)
    assert of.from_peft is not None  # noqa: S101 - only such are asked for
    try:
        foreign = of.from_peft(the_plan.after)
    except Refused as error:
        raise NotExactError(f"{the_plan.before.path} has no counterpart in {of.name}: {error}") from None
    adapter = the_plan.after.adapter._replace(config=foreign.config, tensors=foreign.tensors)
    return adapter, Layout(of.config, of.weights, foreign.metadata)


def _evidence(
    the_plan: Plan, out: str, tolerance: float, load_in: Loaded | None
) -> tuple[Adapter, dict[str, object], Prove]:
    """The adapter before, what is recorded of its repair, and the proof that the result computes the same."""
    from ..files.writer import SCHEMA
    from .compare import compare, proof

    before, after = the_plan.before.subject, the_plan.after
    assert before is not None  # noqa: S101 - a plan has one
    read = the_plan.read or before
    if read.adapter.faults:  # before a writer reads what cannot be read
        fault = f"{read.adapter.path}: {read.adapter.faults[0].message}"
        raise NotExactError(f"{out} is not written, as it is not proved the same: {fault}")
    record: dict[str, object] = {
        "schema_version": SCHEMA,
        "tool": {"name": "ckpt-doctor", "version": __version__},
        "saved_by": sorted(id_.removeprefix("peft==") for id_ in before.saved_by),
        "purpose": the_plan.purpose,
        "repairs": [{"title": step.title, "codes": list(step.codes)} for step in the_plan.done],
        "dropped": list(the_plan.dropped),
        "silent": order(the_plan.silent),
    }

    # what stops the others is known; those that take the result have to make of it what the original means
    takers = frozenset(id_ for id_ in PEFT if verdict(id_, the_plan.findings) == "accepts")
    takers = takers if the_plan.asked is None else takers & the_plan.asked

    def exact(start: Subject, end: Subject, *how: frozenset[str]) -> Comparison:
        comparison = compare(start, end, tolerance, *how)
        if comparison.verdict != "same":
            worst = comparison.largest
            error = f"; the largest relative error is {worst.relative:.2g}, --tolerance allows it" if worst else ""
            raise NotExactError(f"{out} is not written, as it is not proved the same: {comparison.reasons[0]}{error}")
        return comparison

    def prove(stage: str) -> dict[str, Any]:
        start = read
        for cut in the_plan.cuts:
            exact(start, cut.before)
            start = cut.after
        if the_plan.tool:
            return proof(exact(start, _read_back(stage, after)))
        kept = frozenset(key for key, info in after.tensors.items() if before.tensors.get(key) == info)
        proved = proof(exact(start, after.changed(load(stage)), kept, takers))
        if load_in is not None:
            proved["runtimes"] = _loaded(stage, out, the_plan, load_in)
        if not the_plan.dropped:
            return proved
        return {**proved, "verdict": "different", "reason": f"not the same function: {the_plan.loss}"}

    return before.adapter, record, prove


def _read_back(stage: str, after: Subject) -> Subject:
    """What was staged in the form of another tool, read as any other file of it. Raises NotExactError."""
    from .conversion import parts

    first, *others = parts(load(stage), after.question.base)
    if others or first.adapter.origin is None:
        faults = "; ".join(fault.message for fault in first.adapter.faults)
        raise NotExactError(f"what was written does not read back as one adapter: {faults}")
    return after.changed(first.adapter)


def _loaded(stage: str, out: str, the_plan: Plan, load_in: Loaded) -> dict[str, str]:
    """What real releases make of what is staged. Raises NotExactError where one does not accept it, AdapterError."""
    question = the_plan.after.question._replace(runtimes=the_plan.asked)
    found = load_in(examined(stage, question, repairs=False))
    for one in found:
        if one.verdict in ("rejects", "misloads"):
            raise NotExactError(f"{out} is not written: {one.runtime} itself {one.verdict} it: {one.why}")
    return {one.runtime: one.verdict for one in found}


def same_place(a: str, b: str) -> bool:
    """Whether two paths are one folder, or one lies in the other."""
    if is_remote(a) or is_remote(b):
        first, second = f"{told(a).rstrip('/')}/", f"{told(b).rstrip('/')}/"
        return is_remote(a) and is_remote(b) and (first.startswith(second) or second.startswith(first))
    first, second = os.path.realpath(a), os.path.realpath(b)
    return first == second or os.path.commonpath([first, second]) in (first, second)
