"""What a fix did, or would do, or why not, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from click import style as styled

from ..doctor import UNSEEN, Plan
from ..findings import ERROR, accepted, verdict
from ..planner import hits
from ..runtimes import ranges
from . import Style
from .json import changes
from .table import finding_lines
from .text import clean, lines

if TYPE_CHECKING:
    from ..writer import Written


def fix(plan: Plan, out: str | None, written: Written | None, dry_run: bool, style: Style) -> Iterator[str]:
    """The lines of one adapter; `out` is None where it is repaired in place."""
    failed = not plan.fixed and not written
    if style.level < 0 and not failed:
        return
    yield styled(clean(plan.before.path if out is None else f"{plan.before.path} → {out}"), bold=True)
    verb = "would" if dry_run else "done:" if written else "could"
    for step in plan.done:
        codes = f" ({', '.join(step.codes)})" if step.codes else ""
        yield from lines(f"{verb} {step.title}{codes}", 2, style, {verb: "green"})
    if not plan.done and plan.fixed:
        yield "  nothing to repair"
    for step in plan.refused:
        text = f"refused {step.title} ({', '.join(step.codes)}): {step.reason}"
        yield from lines(text, 2, style, {"refused": "yellow"})
    for finding in plan.findings:
        if finding.severity == ERROR if plan.asked is None else hits(finding, plan.asked):
            yield from finding_lines(finding, style)
    if failed:
        text = "nothing was written: what remains cannot be repaired without changing what is computed"
        yield from lines(text, 2, style)
        return
    yield from _outcome(plan, written, style)
    if dry_run:
        yield from diff(plan)


def _outcome(plan: Plan, written: Written | None, style: Style) -> Iterator[str]:
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
    if before - after:
        texts.append(f"lost by the change of format: {ranges(before - after)} (--weights same keeps them)")
    if written and written.proof["largest_difference"]:
        relative, absolute = written.proof["largest_relative_difference"], written.proof["largest_difference"]
        texts.append(f"proved the same: largest error of a delta {absolute:.2g}, relative {relative:.2g}")
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
