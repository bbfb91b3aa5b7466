"""For a person at a terminal: one block an adapter."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..doctor import UNSEEN, Plan, hits, saved_by
from ..findings import ERROR, NOTE, Finding, Report, accepted, undecided, verdict
from ..runtimes import RAN, ranges, since
from .json import changes

if TYPE_CHECKING:
    from ..writer import Written

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def block(report: Report, with_layers: bool) -> Iterator[str]:
    """The lines of one adapter."""
    from click import style

    yield style(report.path, bold=True)
    if report.error or report.adapter is None:
        yield f"  {style('could not be examined', fg='red')}: {report.error}"
        return
    version = saved_by(report.adapter)
    parts = [
        report.adapter.peft_type or "unknown method",
        f"saved by PEFT {version}" if version else "saved by an unnamed PEFT",
    ]
    ranks = sorted(layer.rank for layer in report.layers.values() if layer.rank is not None)
    parts.append(f"{len(report.layers)} layers")
    if ranks:
        parts.append(f"rank min {ranks[0]}, median {ranks[len(ranks) // 2]}, max {ranks[-1]}, {ranks.count(0)} at 0")
    yield "  " + " · ".join(parts)
    yield f"  accepted by {ranges(accepted(report.findings))}"
    unknown = undecided(report.findings)
    if unknown:
        yield f"  unknown for {ranges(unknown)}"
    if RAN["vllm"] in report.servers and report.layers:
        from ..rules.servers import largest_rank, needed_flag

        flag = needed_flag(largest_rank(report.adapter, report.layers))
        yield f"  serve with --max-lora-rank {flag}" if flag else "  no --max-lora-rank of vLLM is large enough"
    served = {id_ for id_ in report.servers if verdict(id_, report.findings) == "accepts"}
    if report.servers:
        yield f"  served by {ranges(served) if served else 'none of those asked for'}"
    for finding in report.findings:
        yield from _finding(finding)
    if with_layers and report.layers:
        from tabulate import tabulate

        rows = [(layer.module, layer.rank, layer.alpha, layer.scaling) for layer in report.layers.values()]
        yield tabulate(rows, headers=("module", "rank", "alpha", "scaling"), missingval="–", floatfmt=".4g")
    if any(finding.severity != NOTE for finding in report.findings):
        yield from _ways_out(report)


def _finding(finding: Finding) -> Iterator[str]:
    from click import style

    yield f"  {style(finding.severity, fg=COLOURS[finding.severity])} {finding.code} {finding.name}: {finding.message}"
    said = (
        ("rejected by", finding.rejected_by),
        ("misloaded by", finding.misloaded_by),
        ("undecided for", finding.undecided_for),
    )
    for how, ids in said:
        if ids:
            needs = f" (needs {finding.needs})" if how == "undecided for" and finding.needs else ""
            yield f"      {how} {ranges(ids)}{needs}"


def _ways_out(report: Report) -> Iterator[str]:
    first = since(accepted(report.findings))
    yield f"  load it with PEFT ≥ {first}" if first else "  no recent PEFT takes it as it is"
    if any(finding.fixable for finding in report.findings):
        path = shlex.quote(report.path)
        yield f"  or repair it: ckpt-doctor fix {path} {shlex.quote(report.path.rstrip('/') + '-fixed')}"
    elif any(finding.severity == ERROR for finding in report.findings):
        yield "  ckpt-doctor cannot repair it without changing what it computes"


def fix(plan: Plan, out: str, written: Written | None, dry_run: bool) -> Iterator[str]:
    """What a fix did, or would do, or why not."""
    from click import style

    yield style(f"{plan.before.path} → {out}", bold=True)
    verb = "would" if dry_run else "done:" if written else "could"
    for step in plan.done:
        codes = f" ({', '.join(step.codes)})" if step.codes else ""
        yield f"  {style(verb, fg='green')} {step.title}{codes}"
    if not plan.done and plan.fixed:
        yield "  nothing to repair"
    for step in plan.refused:
        yield f"  {style('refused', fg='yellow')} {step.title} ({', '.join(step.codes)}): {step.reason}"
    for finding in plan.findings:
        if finding.severity == ERROR if plan.asked is None else hits(finding, plan.asked):
            yield from _finding(finding)
    if not plan.fixed and not written:
        yield "  nothing was written: what remains cannot be repaired without changing what is computed"
        return
    if plan.asked is not None and not plan.fixed:
        missed = {id_ for id_ in plan.asked if verdict(id_, plan.findings) != "accepts"}
        yield f"  best effort: not accepted by {ranges(missed)}"
    if plan.asked is not None and any(finding.code == UNSEEN for finding in plan.findings):
        yield "  whether names and sizes fit the model was not looked at: name it with --base"
    if plan.done and plan.purpose == "for inference" and plan.after.peft_type == "ADALORA":
        yield "  for inference: training is not to be resumed from it (--for-training)"
    before, after = accepted(plan.before.findings), accepted(plan.findings)
    yield f"  taken by {ranges(before)} before, {ranges(after)} after"
    if before - after:
        yield f"  lost by the change of format: {ranges(before - after)} (--weights same keeps them)"
    if written and written.proof["largest_difference"]:
        relative, absolute = written.proof["largest_relative_difference"], written.proof["largest_difference"]
        yield f"  proved the same: largest error of a delta {absolute:.2g}, relative {relative:.2g}"
    if written and written.left_out:
        yield f"  left out: {', '.join(written.left_out)}"
    if dry_run:
        yield from diff(plan)


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
