"""Annotations of a GitHub workflow, and what they leave out for the summary of its step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from ..adapter.findings import ERROR, NOTE, SEVERITIES, Finding
from ..verbs.report import Report
from .markdown import code, gravity, overview, row, starts, words
from .places import places, relative
from .text import clean
from .wording import Tally, cut, next_step, sentence

LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
MOST = 10
"""Annotations of a level that GitHub shows of a step."""
LONGEST = 2000
MOST_BYTES = 500_000
"""Of the summary; GitHub takes 1 MiB from all that a step writes."""

Annotation = tuple[Report, Finding | None]
"""A finding of a report, or None for the error that kept it from being examined."""


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """A workflow command for each finding that GitHub shows, and a line that says how many more there are."""
    shown, left_out = _divided(reports)
    for report, finding in shown:
        if finding is None:
            place, title, text = (relative(report.path), 1), "not examined", report.error or ""
        else:
            place = places(report)[finding]
            title, text = f"{finding.code} {finding.name}", f"{report.path}: {sentence(finding)}"
            if finding.severity != NOTE:
                text += f"; {next_step(report)}"
        properties = f"file={_property(place[0])},line={place[1]},title={_property(title)}"
        yield f"::{LEVELS[_severity(finding)]} {properties}::{_data(cut(text, LONGEST))}"
    if left_out:
        where = "in the summary of the step" if os.environ.get("GITHUB_STEP_SUMMARY") else "left out"
        yield f"{len(left_out)} more findings are {where}, as GitHub shows {MOST} of a severity"


def rest(reports: Iterable[Report]) -> Iterator[str]:
    """Markdown for $GITHUB_STEP_SUMMARY: a row for each adapter, findings that have no annotation, and how servers are
    started for several adapters.
    """
    kept = sorted(reports, key=gravity)
    tally = Tally(kept)
    yield from overview(kept, tally, MOST_BYTES // 4)
    yield from _others(_divided(kept)[1])
    yield from starts(tally, MOST_BYTES // 10)


def _others(left_out: list[Annotation]) -> Iterator[str]:
    if not left_out:
        return
    yield ""
    yield f"### {len(left_out)} findings without an annotation"
    yield ""
    yield row(("adapter", "code", "severity", "message"))
    yield row(("---",) * 4)
    size = 0
    for at, (report, finding) in enumerate(left_out):
        cells = (finding.code, sentence(finding)) if finding else ("", cut(report.error or "", LONGEST))
        line = row((code(report.path), cells[0], _severity(finding), words(cells[1])))
        size += len(line.encode()) + 1
        if size > MOST_BYTES:
            yield ""
            yield f"{len(left_out) - at} more are left out."
            return
        yield line


def _divided(reports: Iterable[Report]) -> tuple[list[Annotation], list[Annotation]]:
    """What is annotated, most severe first and what fails before what does not; and the rest in the same order."""
    levels: dict[str, tuple[list[Annotation], list[Annotation]]] = {
        severity: ([], []) for severity in reversed(SEVERITIES)
    }
    for report in reports:
        if report.error:
            levels[ERROR][0].append((report, None))
        failing = set(report.failing)
        for finding in report.shown:
            levels[finding.severity][finding not in failing].append((report, finding))
    ordered = [[*failing, *others] for failing, others in levels.values()]
    return [annotation for level in ordered for annotation in level[:MOST]], [
        annotation for level in ordered for annotation in level[MOST:]
    ]


def _severity(finding: Finding | None) -> str:
    return finding.severity if finding else ERROR


def _data(text: str) -> str:
    """As `escapeData` of GitHub's toolkit (packages/core/src/command.ts)."""
    return clean(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _property(text: str) -> str:
    """As `escapeProperty` there."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
