"""The ways out of what was found: what a person can do next, what reaches what was asked for first."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import NOTHING_ASKED, clean
from ..adapter.findings import ERROR, NOTE, THE_BASE, THE_WEIGHTS, Finding, accepted, hits, verdict
from ..adapter.runtimes import NEWEST, PEFT, bounds, ranges, specs, unreviewed
from ..files.loader import is_remote, told_in_part

if TYPE_CHECKING:
    from .report import Reach, Report

NOTHING, LOAD, START, CONVERT, FIX, DROP, MERGE = "nothing", "load", "start", "convert", "fix", "drop", "merge"
BASE, TRY, HAND, REFUSED = "base", "try", "by-hand", "refused"
"""The kinds: nothing is to be done; load it with these releases; start the server with these options; convert it for
the server, which takes it; repair it; repair it without some of its layers; merge it into its model; name the model,
which would decide; try it, as nothing else would tell; mend it by hand; there is no way, for a reason.
"""


MERGING = "merge the adapter into the model"
"""How the pages of codes say it."""


class Way(NamedTuple):
    """One way out: its kind, a sentence, and the command that goes it, "" where none does."""

    kind: str
    text: str
    command: str = ""


def ways(report: Report) -> tuple[Way, ...]:
    """What can be done about an adapter, the best first; at least one."""
    if report.error:
        return (Way(HAND, "mend what the error names, then scan again"),)
    found = tuple(_asked(report) if report.asked is not None else _nothing_asked(report))
    own = tuple(by_hand(finding for finding in report.shown if finding.severity != NOTE and not finding.concerned))
    if own:
        found = (*own, *(way for way in found if way.kind != NOTHING))
    return found or (Way(REFUSED, f"no repair makes it load{_because(report.refused)}"),)


def _nothing_asked(report: Report) -> Iterator[Way]:
    newest = verdict(NEWEST, report.findings)
    grave = [finding for finding in report.shown if finding.severity != NOTE]
    listed = [_fix(report, None, "for older releases, repair it")] if any(f.fixable for f in report.shown) else []
    if newest == "accepts" and not grave:
        yield Way(NOTHING, "nothing to do")
        yield from [] if report.reaches else listed
        return
    taken = bounds(accepted(report.findings))
    if taken:
        yield Way(LOAD, f"load it with PEFT {taken}")
    fixes = [_reached(report, reach) for reach in report.reaches]
    yield from fixes
    if newest == "unknown":
        yield from _undecided(report, frozenset((NEWEST,)))
    errors = [finding for finding in grave if finding.severity == ERROR]
    if not errors and not report.reaches and not report.refused:
        yield from listed
    elif errors and not fixes:
        own = list(by_hand(errors))
        yield from own
        if taken and not own:
            yield Way(REFUSED, f"no repair makes more releases take it{_because(report.refused)}")


def _asked(report: Report) -> Iterator[Way]:
    asked = report.asked or frozenset[str]()
    words = {id_: verdict(id_, report.findings) for id_ in asked}
    converted = list(_converted(report))
    if all(word == "accepts" for word in words.values()):
        yield from converted or [Way(NOTHING, "nothing to do")]
        return
    stops = [finding for finding in report.findings if hits(finding, asked)]
    stopped = frozenset(id_ for id_, word in words.items() if word in ("rejects", "misloads"))
    if not stopped:
        yield from _undecided(report, asked - {id_ for id_, word in words.items() if word == "accepts"})
    yield from _options(report, stops)
    fixes = [_reached(report, reach) for reach in report.reaches]
    yield from fixes
    if asked <= PEFT:
        taken = bounds(accepted(report.findings))
        if taken:
            yield Way(LOAD, f"load it with PEFT {taken}")
    merged = told = False
    if report.servers:
        from .commands import merges, together

        for command in together(merges(report)):
            told = True
            merged = merged or bool(command.text)
            server = command.server
            if command.text:
                text = f"merge it into the model, for {server} (exact in float32; 16 bits round it)"
                yield Way(MERGE, text, command.text)
            else:
                yield Way(REFUSED, f"it is not to be merged into the model for {server}: {command.reason}")
    if stopped:
        yield from _undecided(report, frozenset(id_ for id_, word in words.items() if word == "unknown"))
    if stopped and not any(way.kind in (FIX, DROP) for way in fixes):
        # a doubt beside what stops it is none that a person has to end first
        against = [f for f in stops if stopped & (f.rejected_by | f.misloaded_by) and not f.option]
        own = list(by_hand(against, merging=not told))
        yield from own
        if against and not merged and not own:
            yield Way(REFUSED, f"no repair makes {ranges(stopped)} take it{_because(report.refused)}")
    yield from converted


def _converted(report: Report) -> Iterator[Way]:
    """What to type for llama.cpp, where it was asked for and takes the adapter."""
    if report.servers:
        from .commands import conversion

        for command in conversion(report.path, report.subject, report.findings):
            text = "then serve it" if command.purpose == "serve" else f"convert it for {command.server}"
            yield Way(CONVERT, text, command.text)


def _because(reason: str) -> str:
    return f": {reason}" if reason else " without changing what it computes"


def _options(report: Report, stops: list[Finding]) -> Iterator[Way]:
    """Servers that take it when they are started with an option."""
    asked = report.servers
    options: dict[str, list[str]] = {}
    for id_ in sorted(asked):
        mine = [finding for finding in stops if hits(finding, frozenset((id_,)))]
        if mine and all(finding.option for finding in mine):
            options.setdefault(" ".join(dict.fromkeys(finding.option for finding in mine)), []).append(id_)
    for option, ids in options.items():
        yield Way(START, f"start {ranges(ids)} with {option}")


def _undecided(report: Report, ids: frozenset[str]) -> Iterator[Way]:
    """What would decide, for runtimes of which it is not known."""
    doubts = [finding for finding in report.findings if finding.undecided_for & ids]
    if not doubts:
        return
    needs = dict.fromkeys(finding.needs for finding in doubts if finding.needs)
    question = report.subject.question if report.subject else NOTHING_ASKED
    if THE_BASE in needs and question.base is None:
        yield Way(BASE, "name its base model, which decides")
        return
    if THE_WEIGHTS in needs:
        yield Way(BASE, "name the folder of its base model, whose config alone does not decide")
        return
    strange = unreviewed(ids)
    if strange:
        yield Way(TRY, f"load it once in {ranges(strange)}, which nobody reviewed, and compare")
    open_ = ids - strange.keys()
    if open_ and all(finding.remedy for finding in doubts):
        yield from by_hand(doubts)
    elif open_:
        decides = f": {', '.join(needs)} would decide" if needs else ""
        yield Way(TRY, f"load it once in {ranges(open_)} and compare{decides}")


def by_hand(findings: Iterable[Finding], *, merging: bool = True) -> Iterator[Way]:
    """What can be done about findings: what the rule says, else the page of the code; without `merging`, what it says
    before that, where the merge, or why it is none, was told.
    """
    from ..adapter.codes import CODES

    for remedy in dict.fromkeys(finding.remedy or CODES[finding.code].remedy for finding in findings):
        text = remedy if merging else remedy.partition(MERGING)[0].removesuffix(", or ")
        if text:
            yield Way(HAND, text)


def _reached(report: Report, reach: Reach) -> Way:
    if reach.loss:
        return _fix(report, reach.asked, f"repair it, which changes what it computes ({reach.loss})", drop=True)
    if reach.asked == report.asked and (reach.asked is not None or NEWEST in reach.takes):
        return _fix(report, reach.asked, "repair it")
    if reach.asked is None:
        return _fix(report, None, f"repair it for PEFT {bounds(reach.takes)}" if reach.takes else "repair it")
    return _fix(report, reach.asked, f"repair it for {ranges(reach.asked)}")


def _fix(report: Report, asked: frozenset[str] | None, text: str, *, drop: bool = False) -> Way:
    """The fix as it is typed; one whose path no line can hold is told without."""
    kind = DROP if drop else FIX
    if clean(report.path) != report.path:
        return Way(kind, f"{text} with ckpt-doctor fix, under a name that can be typed")
    if told_in_part(report.path):
        return Way(kind, f"{text} with ckpt-doctor fix, and its address as you have it, with what is not shown here")
    path = f"./{report.path}" if report.path.startswith("-") else report.path
    words = ["ckpt-doctor", "fix", path, free(path), *_question(report, asked), *(["--drop"] if drop else [])]
    return Way(kind, text, shlex.join(words))


def free(path: str) -> str:
    """A place beside a folder where nothing is, `adapter-fixed`, `adapter-fixed-2` …; for a remote one here, by all of
    its address, as what is told of several at once would lead to one place else.
    """
    out = path.rstrip("/")
    if is_remote(path):
        out = out.partition("://")[2].translate(dict.fromkeys(map(ord, "/@:"), "-"))[-200:].lstrip("-")
    if os.path.basename(out) in ("", os.curdir, os.pardir):
        out = os.path.abspath(out)
    first = f"{out}-fixed"
    names = chain((first,), (f"{first}-{number}" for number in range(2, 100)))
    return next((name for name in names if not os.path.lexists(name)), first)


def _question(report: Report, asked: frozenset[str] | None) -> Iterator[str]:
    """What was asked, as options."""
    for spec in specs(asked or ()):
        yield from ("--for", spec)
    question = report.subject.question if report.subject else NOTHING_ASKED
    if question.base is not None and question.base.path:
        yield from ("--base", question.base.path)
    if question.adapter_name != NOTHING_ASKED.adapter_name:
        yield from ("--adapter-name", question.adapter_name)
    if question.max_rank is not None:
        yield from ("--max-rank", str(question.max_rank))
