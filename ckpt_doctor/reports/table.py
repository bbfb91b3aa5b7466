"""For a person at a terminal: one block an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from ..adapter import Adapter
from ..adapter.codes import SAFETENSORS_ONLY
from ..adapter.findings import ERROR, NOTE, Finding, accepted, hits, undecided, verdict
from ..adapter.runtimes import order, ranges, unreviewed
from ..verbs.report import Report, named_release
from . import Style
from .json import changes
from .text import clean, lines, shortened
from .wording import Tally, cannot_be_fixed, fix_command, load_with, outcomes, proved, start_lines

if TYPE_CHECKING:
    from ..files.writer import Written
    from ..verbs.compare import Comparison
    from ..verbs.plan import Plan
    from ..verbs.verify import Verified

SHOWN = 10
"""Rows of a comparison."""
VERDICTS = {"same": "green", "different": "red", "cannot tell": "yellow"}
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def scan(reports: Iterable[Report], style: Style) -> Iterator[str]:
    """A block an adapter, and what they amount to where there are several."""
    tally = Tally()
    shown = False
    for report in reports:
        tally.add(report)
        if style.level >= 0 or report.failing or report.error:
            yield "\n".join([*([""] if shown else []), *block(report, style)])
            shown = True
    if tally.adapters > 1 and style.level >= 0:
        yield f"\n{tally}"
        for name, start in tally.starts.items():
            first, *rest = start_lines(name, start)
            yield from lines(first, 0, style)
            for line in rest:
                yield from lines(line, 2, style)


def block(report: Report, style: Style) -> Iterator[str]:
    """The lines of one adapter."""
    yield click.style(clean(report.path), bold=True)
    if report.error or report.adapter is None:
        yield from lines(f"could not be examined: {report.error}", 2, style, {"could not be examined": "red"})
        return
    if style.level >= 0:
        yield from _summary(report, report.adapter, style)
    for finding in report.shown if style.level >= 0 else report.failing:
        yield from finding_lines(finding, style)
    if style.layers and report.layers:
        from .layers import layer_lines

        yield from layer_lines(report.layers, style)
    if report.servers:
        from .commands import conversion, said

        for line in said(conversion(report.path, report.subject, report.findings)):
            yield from lines(line, 2, style)
    if any(finding.severity != NOTE and finding.code != "CD902" for finding in report.shown):
        yield from _ways_out(report, style)


def _summary(report: Report, adapter: Adapter, style: Style) -> Iterator[str]:
    version = named_release(adapter)
    parts = [
        adapter.peft_type or "unknown method",
        f"saved by PEFT {version}" if version else "saved by an unnamed PEFT",
    ]
    ranks = sorted(layer.rank for layer in report.layers.values() if layer.rank is not None)
    parts.append(f"{len(report.layers)} layers")
    if ranks:
        parts.append(f"rank min {ranks[0]}, median {ranks[len(ranks) // 2]}, max {ranks[-1]}, {ranks.count(0)} at 0")
    yield from lines(" · ".join(parts), 2, style)
    budget = report.budget
    if budget is not None:
        from .layers import budget_line

        yield from lines(budget_line(budget), 2, style)
    base = report.base_found
    if base is not None:
        yield from lines(
            f"judged by {base.name} at {base.revision[:12]}, found in the local cache of the Hub", 2, style
        )
    yield from lines(f"accepted by {ranges(accepted(report.findings))}", 2, style)
    unknown = undecided(report.findings)
    if unknown:
        yield from lines(f"unknown for {ranges(unknown)}", 2, style)
    vllm = [id_ for id_ in order(report.servers) if id_.startswith("vllm==")]
    if report.subject and vllm and report.layers:
        from ..rules.servers.ranks import largest_rank, needed_flag

        flag = needed_flag(largest_rank(report.subject), vllm[0])
        yield f"  serve with --max-lora-rank {flag}" if flag else "  no --max-lora-rank of vLLM is large enough"
    served = {id_ for id_ in report.servers if verdict(id_, report.findings) == "accepts"}
    if report.servers:
        yield from lines(f"served by {ranges(served) if served else 'none of those asked for'}", 2, style)
    strange = unreviewed(report.asked or ())
    if strange:
        yield from lines(f"unknown for {ranges(strange)}, which nobody reviewed", 2, style)
    if report.passed:
        yield f"  {len(report.passed)} findings are not shown: ignored, not selected, or known to the baseline"


def finding_lines(finding: Finding, style: Style) -> Iterator[str]:
    """One finding: what is wrong, and which runtimes it stops."""
    text = f"{finding.severity} {finding.code} {finding.name}: {finding.message}"
    yield from lines(text, 2, style, {finding.severity: COLOURS[finding.severity]})
    for outcome in outcomes(finding):
        yield from lines(outcome, 6, style)
    if style.level > 0:
        for what, names in (("config keys", finding.config_keys), ("tensors", finding.tensors)):
            if names:
                yield from lines(f"{what}: {', '.join(names)}", 6, style)


def _ways_out(report: Report, style: Style) -> Iterator[str]:
    yield f"  {load_with(report)}"
    command = fix_command(report)
    if command:
        yield f"  or repair it: {command}"
    elif cannot_be_fixed(report):
        yield from lines("ckpt-doctor cannot repair it without changing what it computes", 2, style)
    if report.servers:
        from .commands import merges, said

        for line in said(merges(report)):
            yield from lines(line, 2, style)


def fix(plan: Plan, out: str | None, written: Written | None, dry_run: bool, style: Style) -> Iterator[str]:
    """The lines of one adapter; `out` is None where it is repaired in place."""
    failed = not plan.fixed and not written
    if style.level < 0 and not failed:
        return
    yield click.style(clean(plan.before.path if out is None else f"{plan.before.path} → {out}"), bold=True)
    verb = "would" if dry_run else "done:" if written else "could"
    for step in plan.done:
        codes = f" ({', '.join(step.codes)})" if step.codes else ""
        yield from lines(f"{verb} {step.title}{codes}", 2, style, {verb: "green"})
    if plan.dropped:
        yield from lines(f"not the same function: {plan.loss}", 2, style, {"not the same function": "yellow"})
    elif not plan.done and plan.fixed:
        yield "  nothing to repair"
    for step in plan.refused:
        text = f"refused {step.title} ({', '.join(step.codes)}): {step.reason}"
        yield from lines(text, 2, style, {"refused": "yellow"})
    for finding in plan.findings:
        if finding.severity == ERROR if plan.asked is None else hits(finding, plan.asked):
            yield from finding_lines(finding, style)
    if failed:
        text = "nothing was written: what remains cannot be repaired without changing what is computed"
        yield from lines(
            f"{text}; --drop leaves out what the server has no place for" if plan.droppable else text, 2, style
        )
        return
    yield from _outcome(plan, written, style)
    from .commands import conversion, said

    for line in said(conversion(out or plan.before.path, plan.after, plan.findings)):
        yield from lines(line, 2, style)
    if dry_run:
        yield from diff(plan)


def _outcome(plan: Plan, written: Written | None, style: Style) -> Iterator[str]:
    from ..verbs.plan import UNSEEN

    texts = []
    if plan.asked is not None and not plan.fixed:
        missed = {id_ for id_ in plan.asked if verdict(id_, plan.findings) != "accepts"}
        texts.append(f"best effort: not accepted by {ranges(missed)}")
    if plan.asked is not None and any(finding.code == UNSEEN for finding in plan.findings):
        texts.append("whether names and sizes fit the model was not looked at: name it with --base")
    if plan.untried:
        texts.append(f"{ranges(plan.untried)} was not run on a model of that family: load it once and compare")
    if plan.done and plan.purpose == "for inference" and plan.after.method == "ADALORA":
        texts.append("for inference: training is not to be resumed from it (--for-training)")
    before, after = accepted(plan.before.findings), accepted(plan.findings)
    texts.append(f"taken by {ranges(before)} before, {ranges(after)} after")
    if plan.unseen:
        texts.append(f"what {ranges(plan.unseen)} makes of it hangs on the model: name it with --base")
    format_ = (before - after) & accepted(f for f in plan.findings if f.code != SAFETENSORS_ONLY.number)
    if format_:
        texts.append(f"lost by the change of format: {ranges(format_)} (--weights same keeps them)")
    if before - after - format_:
        texts.append(f"no longer taken by {ranges(before - after - format_)}: the form is the server's own")
    if written and written.proof["largest_difference"]:
        relative, absolute = written.proof["largest_relative_difference"], written.proof["largest_difference"]
        same = "what is left is proved the same" if plan.dropped else "proved the same"
        texts.append(f"{same}: largest error of a delta {absolute:.2g}, relative {relative:.2g}")
    if written and written.left_out:
        texts.append(f"left out: {', '.join(written.left_out)}")
    if written and written.backups:
        texts.append(f"the old files, which git has not got: {', '.join(written.backups)}")
    for text in texts:
        yield from lines(text, 2, style)


def diff(plan: Plan) -> Iterator[str]:
    """Config and tensors, as a diff."""
    for what, difference in changes(plan).items():
        if any(difference.values()):
            yield f"  {what}"
        for key, value in difference["removed"].items():
            yield f"    - {key}: {value}".rstrip(": ")
        for key, value in difference["added"].items():
            yield f"    + {key}: {value}".rstrip(": ")
        for key, (old, new) in difference["changed"].items():
            if isinstance(old, dict) and isinstance(new, dict):
                changed = [k for k in {**old, **new} if old.get(k) != new.get(k)]
                shown = ", ".join(changed[:3]) + (" …" if len(changed) > 3 else "")
                yield f"    ~ {key}: {len(changed)} entries ({shown})"
            else:
                yield f"    - {key}: {old}"
                yield f"    + {key}: {new}"


def verify(path: str, verified: Verified, style: Style) -> Iterator[str]:
    """The lines of one folder: what its record says, or what no longer holds."""
    if style.level < 0 and not verified.faults:
        return
    yield click.style(clean(path), bold=True)
    for fault in verified.faults:
        yield from lines(f"does not hold: {fault}", 2, style, {"does not hold": "red"})
    if not verified.faults:
        yield from lines(f"holds: {proved(verified.record)}", 2, style, {"holds": "green"})


def compare(result: Comparison, style: Style) -> Iterator[str]:
    """The verdict, and the layers and tensors that differ most."""
    from tabulate import tabulate

    rows = sorted((*result.layers, *result.others), key=lambda row: -row.relative)
    largest = max((row.relative for row in rows), default=0.0)
    counts = f"{len(result.layers)} layers and {len(result.others)} other tensors"
    summary = f"{result.verdict}: {counts}, largest relative difference {largest:.2g} (tolerance {result.tolerance:g})"
    yield from lines(summary, 0, style, VERDICTS)
    for reason in result.reasons:
        yield from lines(reason, 2, style)
    widest = max((style.width or 1000) - 34, 10)
    differing = [
        (shortened(clean(row.name), widest), row.norm, row.difference, row.relative)
        for row in rows[:SHOWN]
        if row.difference
    ]
    if differing:
        yield tabulate(differing, headers=("layer or tensor", "norm", "difference", "relative"), floatfmt=".3g")
