"""For a person at a terminal: a few adapters as a block each, many as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

import click

from ..adapter import Adapter
from ..adapter.codes import SAFETENSORS_ONLY
from ..adapter.findings import ERROR, LEFT, NOTE, Finding, accepted, counted, undecided, verdict
from ..adapter.runtimes import order, ranges
from ..verbs.report import Report, named_release
from ..verbs.ways import CONVERT, DROP, HAND, NOTHING, REFUSED, Way, by_hand
from . import Style
from .json import changes
from .text import clean, columns, command_lines, cut_lines, lines, shortened
from .wording import Tally, of_question, outcomes, proved, sentence_of, start_lines, verdict_phrases

if TYPE_CHECKING:
    from ..files.writer import Written
    from ..verbs.compare import Comparison
    from ..verbs.plan import Plan
    from ..verbs.prove import Proof
    from ..verbs.ranks import Ranks, Run
    from ..verbs.together import Together
    from ..verbs.verify import Verified

SHOWN = 10
"""Rows of a comparison."""
FEW = 3
"""Adapters that have a block each; more are rows of a table."""
MOST_LINES = 6
"""Of a block, unless more is asked for."""
VERDICTS = {"same": "green", "different": "red", "cannot tell": "yellow"}
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def scan(reports: Iterable[Report], style: Style) -> Iterator[str]:
    """A few adapters as blocks, more as a table whose rows come as they are found; then what they amount to."""
    tally, rest = Tally(), iter(reports)
    first = list(islice(rest, FEW + 1))
    every = chain(first, rest)
    if len(first) <= FEW or style.level > 0 or style.layers:
        shown = False
        for report in every:
            tally.add(report)
            if style.level >= 0 or report.failing or report.error:
                yield "\n".join([*([""] if shown and style.level > 0 else []), *block(report, style)])
                shown = True
        footer = _footer(tally, style)
    else:
        from .rows import Rows

        rows = Rows(style)
        for report in every:
            tally.add(report)
            yield from rows.row(report)
        footer = chain(rows.steps(), _causes_of(tally, style), _footer(tally, style))
    if tally.adapters > 1:
        yield from footer


def _causes_of(tally: Tally, style: Style) -> Iterator[str]:
    if tally.causes:
        yield from lines(tally.causes_line, 0, style)


def _footer(tally: Tally, style: Style) -> Iterator[str]:
    yield from lines(str(tally), 0, style)
    if style.level < 0:
        return
    for name, start in tally.starts.items():
        first, *rest = start_lines(name, start)
        yield from lines(first, 0, style)
        for line in rest:
            yield from lines(line, 2, style)


def block(report: Report, style: Style) -> Iterator[str]:
    """The lines of one adapter: no more than a few, unless more is asked for."""
    if report.adapter is None:
        text = f"{report.path} · could not be examined: {report.error}"
        yield from lines(text, 0, style, {clean(report.path): "bold"})
        return
    if style.level > 0:
        yield from _whole(report, report.adapter, style)
        return
    ways = report.next
    steps = [] if ways[0].kind == NOTHING else list(_next(ways, style))
    whole = lines(" · ".join(head_of(report, style)), 0, style, {clean(report.path): "bold"})
    head = cut_lines(whole, 2 if len(steps) < MOST_LINES - 3 else 1, style)
    yield from head
    yield from _causes(report, max(MOST_LINES - len(head) - len(steps), 1), style)
    if style.layers and report.layers:
        from .layers import layer_lines

        yield from layer_lines(report.layers, style)
    yield from steps


def head_of(report: Report, style: Style) -> Iterator[str]:
    """What an adapter is and who takes it, in phrases, the one that matters most first."""
    yield clean(report.path)
    yield from verdict_phrases(report)
    yield from rank_flags(report)
    yield described(report)
    budget = report.budget
    if budget is not None:
        from .layers import budget_line

        yield budget_line(budget)
    if report.numbers:
        yield numbers_line(report)
    notes = len(report.shown) - len(of_question(report))
    if notes and report.asked is None and style.level >= 0:
        yield f"{counted(notes, 'note')} (-v)"
    if report.passed:
        yield f"{counted(len(report.passed), 'finding')} let pass"
    if report.base_found is not None:
        yield f"judged by {report.base_found.name} of the local cache"


def rank_flags(report: Report) -> Iterator[str]:
    """The --max-lora-rank of the vLLM that was asked for and takes the adapter, where its default is too small."""
    taking = [id_ for id_ in report.servers if id_.startswith("vllm==") and report.verdicts[id_] == "accepts"]
    if report.subject and taking and report.layers:
        from ..rules.servers.ranks import VLLM_DEFAULT, largest_rank, needed_flag

        flag = needed_flag(largest_rank(report.subject), min(taking))
        if flag is None:
            yield "no --max-lora-rank of vLLM is large enough"
        elif flag > VLLM_DEFAULT:
            yield f"serve with --max-lora-rank {flag}"


def described(report: Report) -> str:
    """Method, layers and ranks."""
    ranks = sorted(layer.rank for layer in report.layers.values() if layer.rank is not None)
    method = (report.adapter.peft_type if report.adapter else None) or "unknown method"
    count = len(report.layers)
    text = f"{method}, {counted(count, 'layer')}"
    if ranks:
        text += f" of rank {ranks[0]}" + (f" – {ranks[-1]}" if ranks[-1] != ranks[0] else "")
        text += f", {ranks.count(0)} at 0" if ranks.count(0) else ""
    return text


def numbers_line(report: Report) -> str:
    """The largest number of the weights, where their values were read."""
    return f"numbers up to {max(one.largest for one in report.numbers.values()):.3g}"


def _causes(report: Report, room: int, style: Style) -> Iterator[str]:
    """Findings about what was asked, in so many lines: the gravest in up to three, of the others one each."""
    found = of_question(report)
    for at, finding in enumerate(found):
        left = len(found) - at - 1
        last = room <= 3
        more = f" (and {left} more, -v)" if left and last else ""
        whom = ", ".join(outcomes(finding, report.asked))
        whom = f", {whom}" if whom and (report.asked is None or len(report.asked) > 1) else ""
        text = f"{finding.severity} {finding.code} {finding.name}{more}{whom}: {finding.message}"
        shown = cut_lines(lines(text, 2, style, {finding.severity: COLOURS[finding.severity]}), min(room, 3), style)
        yield from shown
        room -= len(shown)
        if last or room < 1:
            return


_JOINED = {CONVERT: "", REFUSED: "and "}
"""What stands before a way that is not the first."""


def _next(every: tuple[Way, ...], style: Style) -> Iterator[str]:
    """The best way out, and another; what is no command stands on the line of the next."""
    start = "next: "
    for at, way in enumerate(every if style.level > 0 else every[:2]):
        start += (_JOINED.get(way.kind, "or ") if at else "") + sentence_of(way)
        if way.command or at + 1 == len(every) or style.level <= 0 < at:
            yield from way_lines(way._replace(text=start), 2, style)
            start = ""
        else:
            start += ", "


def way_lines(way: Way, indent: int, style: Style) -> Iterator[str]:
    """A way out: its sentence, and its command on lines of its own where both do not fit on one."""
    whole = f"{way.text}: {way.command}" if way.command else way.text
    mark = {"next:": "cyan"}
    if not way.command or style.width is None or indent + columns(clean(whole)) <= style.width:
        yield from lines(whole, indent, style if not way.command else style._replace(width=None), mark)
        return
    yield from lines(f"{way.text}:", indent, style, mark)
    yield from command_lines(way.command, indent + 2, style)


def _whole(report: Report, adapter: Adapter, style: Style) -> Iterator[str]:
    """Everything that is known of one adapter."""
    yield click.style(clean(report.path), bold=True)
    version = named_release(adapter)
    parts = [described(report), f"saved by PEFT {version}" if version else "saved by an unnamed PEFT"]
    yield from lines(" · ".join(parts), 2, style)
    budget = report.budget
    if budget is not None:
        from .layers import budget_line

        yield from lines(budget_line(budget), 2, style)
    if report.numbers:
        yield from lines(numbers_line(report), 2, style)
    base = report.base_found
    if base is not None:
        found = f"judged by {base.name} at {base.revision[:12]}, found in the local cache of the Hub"
        yield from lines(found, 2, style)
    if report.asked is not None:
        for phrase in (*verdict_phrases(report), *rank_flags(report)):
            yield from lines(phrase, 2, style)
    yield from lines(f"accepted by {ranges(accepted(report.findings))}", 2, style)
    unknown = undecided(report.findings)
    if unknown:
        yield from lines(f"unknown for {ranges(unknown)}", 2, style)
    if report.passed:
        yield f"  {len(report.passed)} findings are not shown: ignored, not selected, or known to the baseline"
    for finding in report.shown:
        yield from finding_lines(finding, style)
    if report.layers:
        from .layers import layer_lines

        yield from layer_lines(report.layers, style)
    yield from _next(report.next, style)


def finding_lines(finding: Finding, style: Style) -> Iterator[str]:
    """One finding: what is wrong, and which runtimes it stops."""
    text = f"{finding.severity} {finding.code} {finding.name}: {finding.message}"
    yield from lines(text, 2, style, {finding.severity: COLOURS[finding.severity]})
    for outcome in outcomes(finding):
        yield from lines(outcome, 6, style)
    if style.level > 0:
        if finding.severity == NOTE and finding.remedy:  # of what stops something `next` says it
            yield from lines(f"what to change: {finding.remedy}", 6, style)
        for what, names in (("config keys", finding.config_keys), ("tensors", finding.tensors)):
            if names:
                yield from lines(f"{what}: {', '.join(names)}", 6, style)


def fix(plan: Plan, out: str | None, written: Written | None, dry_run: bool, style: Style) -> Iterator[str]:
    """The lines of one adapter; `out` is None where it is repaired in place."""
    failed = not plan.fixed and not written
    if style.level < 0 and not failed:
        return
    yield from done(plan, out, written, dry_run, style)
    if dry_run and not failed:
        yield from diff(plan)


def done(plan: Plan, out: str | None, written: Written | None, dry_run: bool, style: Style) -> Iterator[str]:
    """What was or would be done to an adapter, what was refused, who takes it then; without the difference itself."""
    failed = not plan.fixed and not written
    yield click.style(clean(plan.before.path if out is None else f"{plan.before.path} → {out}"), bold=True)
    blocker = next((f for f in plan.in_the_way if plan.done and f.severity != NOTE), None)
    if blocker and not failed:
        text = f"in the way: {blocker.severity} {blocker.code} {blocker.name}: {blocker.message}"
        yield from lines(text, 2, style, {"in the way": COLOURS[blocker.severity]})
    verb = "would" if dry_run else "done:" if written else "could"
    for step in plan.done if not failed or style.level > 0 or plan.optioned else ():
        codes = f" ({', '.join(step.codes)})" if step.codes else ""
        yield from lines(f"{verb} {step.title}{codes}", 2, style, {verb: "green"})
    if plan.dropped and not failed:
        yield from lines(f"not the same function: {plan.loss}", 2, style, {"not the same function": "yellow"})
    elif not plan.done and plan.fixed:
        yield "  nothing to repair"
    open_codes = {finding.code for finding in plan.left}
    for step in plan.refused:
        if style.level <= 0 and (plan.fixed or open_codes.isdisjoint(step.codes)):
            continue
        text = f"refused {step.title} ({', '.join(step.codes)}): {step.reason}"
        yield from lines(text, 2, style, {"refused": "yellow"})
    for finding in plan.left:
        if failed or finding.code not in LEFT:
            yield from finding_lines(finding, style)
    if failed:
        text = "nothing was written: what remains cannot be repaired without changing what is computed"
        if plan.before.adapter and plan.before.adapter.faults:
            text = "nothing was written: the files are not those of an adapter that can be read"
        from ..verbs.reach import ways_beside

        elsewhere = ways_beside(plan)
        if elsewhere and plan.asked is None:
            text = "nothing was written: it is repaired where a release is named"
        if any(way.kind == DROP for way in elsewhere):
            text += "; --drop leaves out what the server has no place for"
        elif plan.optioned and (plan.done or plan.dropped):
            text += "; --best-effort writes it for a server that is started as said above"
        yield from lines(text, 2, style)
        for way in elsewhere:
            by_whom = "by hand: " if way.kind == HAND else ""
            yield from way_lines(way._replace(text=by_whom + way.text), 2, style)
        # a doubt is no blocker where something stops what was asked for
        blocking = [f for f in plan.left if f.severity == ERROR] or plan.left
        for way in by_hand(blocking) if not elsewhere else ():
            yield from lines(f"by hand: {way.text}", 2, style)
        return
    yield from _outcome(plan, written, style)
    from ..verbs.commands import conversion

    for command in conversion(out or plan.before.path, plan.after, plan.findings):
        text = "then serve it" if command.purpose == "serve" else f"convert it for {command.server}"
        yield from way_lines(Way(command.purpose, text, command.text), 2, style)


def _outcome(plan: Plan, written: Written | None, style: Style) -> Iterator[str]:
    """Who takes it before and after, how it was proved, and what is to be heeded."""
    for text in (*_verdicts(plan), *_proof(plan, written), *_to_heed(plan, written)):
        yield from lines(text, 2, style)


def _verdicts(plan: Plan) -> Iterator[str]:
    """`vllm 0.33.0: rejects → accepts` for what was asked; else `accepted by: PEFT ≥ … → …`; and who is lost."""
    before, after = accepted(plan.before.findings), accepted(plan.findings)
    if plan.tool:
        return
    if plan.asked is None:
        yield f"accepted by: {ranges(before)}" + (f" → {ranges(after)}" if after != before else "")
    changes_: dict[str, list[str]] = {}
    for id_ in order(plan.asked or ()):
        was, is_ = verdict(id_, plan.was), verdict(id_, plan.findings)
        changes_.setdefault(f"{was} → {is_}" if was != is_ else is_, []).append(id_)
    for change, ids in changes_.items():
        yield f"{ranges(ids)}: {change}"
    if plan.before.adapter and plan.before.adapter.format == "bin" and plan.after.adapter.format == "safetensors":
        lost = (before - after) & accepted(f for f in plan.findings if f.code != SAFETENSORS_ONLY.number)
        reads = f": {ranges(lost)} can no longer read it (--weights same keeps it)" if lost else ""
        yield f"adapter_model.bin became adapter_model.safetensors{reads}"
        before -= lost
    if before - after:
        yield f"no longer accepted by {ranges(before - after)}: the form is the server's own"


def _proof(plan: Plan, written: Written | None) -> Iterator[str]:
    if written and plan.done:
        worst = written.proof["largest_relative_difference"]
        same = "what is left is the same function" if plan.dropped else "same function"
        same = f"read back, {same}" if plan.tool else same
        yield f"{same}: within {worst:.2g} of each delta's norm" if worst else f"{same}: bit-exact"
    loaded: dict[str, list[str]] = {}
    for id_, word in (written.proof.get("runtimes", {}) if written else {}).items():
        loaded.setdefault(word, []).append(id_)
    for word, ids in loaded.items():
        yield f"loaded on a skeleton in {ranges(ids)}: {word}"


def _to_heed(plan: Plan, written: Written | None) -> Iterator[str]:
    from ..adapter.findings import OF_NUMBERS, UNSEEN, hits

    for finding in plan.findings:
        if finding.code in OF_NUMBERS and (plan.asked is None or hits(finding, plan.asked)):
            yield f"as before, {finding.code} {finding.name}: {finding.message}"
    if plan.asked is not None and not plan.fixed:
        missed = {id_ for id_ in plan.asked if verdict(id_, plan.findings) != "accepts"}
        yield f"best effort: not accepted by {ranges(missed)}"
    if plan.asked is not None and any(finding.code == UNSEEN for finding in plan.findings):
        yield "whether names and sizes fit the model was not looked at: name it with --base"
    if plan.untried:
        yield f"{ranges(plan.untried)} was not run on a model of that family: load it once and compare"
    if plan.done and plan.purpose == "for inference" and plan.after.method == "ADALORA":
        yield "for inference: training is not to be resumed from it (--for-training)"
    if plan.unseen:
        yield f"what {ranges(plan.unseen)} makes of it hangs on the model: name it with --base"
    if plan.silent:
        yield f"not for {ranges(plan.silent)}: it would be loaded there and compute something else, in silence"
    if written and written.left_out:
        yield f"left out: {', '.join(written.left_out)}"
    if written and written.backups:
        yield f"originals kept as {', '.join(written.backups)}"


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


def prove(path: str, proof: Proof, style: Style) -> Iterator[str]:
    """The lines of one adapter: what the runtime made of it, and where the facts say otherwise."""
    if style.level < 0 and proof.verdict in ("accepts", "unknown") and proof.agrees:
        return
    colour = {"accepts": "green", "unknown": "yellow"}.get(proof.verdict, "red")
    said = f"{ranges((proof.runtime,))}: {proof.verdict}"
    proved = " (proved)" if proof.verdict != "unknown" else ""
    yield f"{click.style(clean(path), bold=True)} · {click.style(said, fg=colour)}{proved}"
    if proof.why:
        yield from lines(proof.why, 2, style)
    shown = proof.layers if style.level > 0 else ()
    for module, relative in shown:
        yield from lines(f"{module}: differs by {relative:.2g} of what it gives", 4, style)
    if not proof.agrees:
        text = f"ckpt-doctor says {proof.predicted}, which is wrong: please send what --format json has as `report`"
        yield from lines(text, 2, style, {"ckpt-doctor says": "red"})


ANSWERS = {"accepts": "yes", "rejects": "no", "misloads": "wrong", "unknown": "unknown"}
"""What a verdict is called where the question is whether something can be done; wrong: it is done, and computes
something else."""
MARKS = {"yes": "green", "no": "red", "wrong": "red", "unknown": "yellow"}


def together(paths: Iterable[str], found: Iterable[Together], style: Style) -> Iterator[str]:
    """For each runtime a line a use: whether it is open, why not, and what would help; uses that are alike are one."""
    yield from lines(" + ".join(map(clean, paths)), 0, style)
    for one in found:
        yield click.style(ranges((one.runtime,)), bold=True)
        if one.models:
            yield from lines(f"they name several models: {clean(', '.join(one.models))}", 2, style)
        alike: dict[tuple[str, str, str], list[str]] = {}
        for answer in one.answers:
            alike.setdefault(answer[1:], []).append(answer.use)
        for (verdict_, reason, way), uses in alike.items():
            said = ANSWERS[verdict_]
            names = ", ".join([uses[0], *(use.removeprefix("merged by ") for use in uses[1:])])
            yield from lines(
                f"{said}: {names}" + (f": {clean(reason)}" if reason else ""), 2, style, {said: MARKS[said]}
            )
            if way:
                yield from lines(f"→ {clean(way)}", 4, style)
        if one.options:
            yield from lines(f"start: {one.options}", 2, style)


def ranks(found: Iterable[Ranks | Run], style: Style) -> Iterator[str]:
    """The maps of adapters, and the runs over their steps."""
    from .maps import seen

    yield from seen(found, style)


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
