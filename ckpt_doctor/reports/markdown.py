"""Markdown for a comment on a pull request, or the summary of a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..adapter.findings import SEVERITIES
from ..verbs.report import Report
from .text import clean
from .wording import LONGEST, Tally, cut, of_question, sentence, sentence_of, start_lines, verdict_phrases

MOST = 60_000
"""Characters in all; GitHub takes 65,536."""
MOST_ROWS = 30_000
"""Characters of the table."""
MOST_FINDINGS = 20
"""Findings of an adapter."""
LONGEST_NAME = 200

_SAFE = re.compile(
    r"""["'(]*(?:[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+(?:[.,]\d+)*)[)"',;:.?…]*|[–—≥≤=+…]""",
)
"""Words that neither Markdown nor GitHub reads as anything but words."""


def code(text: str) -> str:
    """A text as a code span, in which nothing is markup, a mention or a link."""
    text = clean(text)
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text[:1] in ("", "`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def words(text: str) -> str:
    """A sentence, with everything in code spans that could be read as more than a word."""
    return " ".join(word if _SAFE.fullmatch(word) else _marked(word) for word in clean(text).split(" "))


def _marked(word: str) -> str:
    """A word in a code span, punctuation around it left outside."""
    inner = word.lstrip("(").rstrip(",;:.)")
    return word.replace(inner, code(cut(inner, LONGEST_NAME)), 1) if inner else word


def row(cells: Iterable[str]) -> str:
    """A row of a table."""
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """The result, a table of adapters, and what to do about those with an error or a warning; the gravest first.

    Ends before GitHub's limit for a comment, and says what is left out.
    """
    kept = sorted(reports, key=gravity)
    tally = Tally(kept)
    size = 0
    for line in overview(kept, tally, MOST_ROWS):
        size += len(line) + 1
        yield line
    for line in starts(tally, MOST_ROWS):
        size += len(line) + 1
        yield line
    grave = [report for report in kept if report.error or of_question(report)]
    for at, report in enumerate(grave):
        section = list(_section(report))
        size += sum(len(line) + 1 for line in section)
        if size > MOST:
            yield ""
            yield f"What was found in {len(grave) - at} more adapters is left out."
            break
        yield from section
    notes = sum(len(report.shown) - len(of_question(report)) for report in kept)
    if notes:
        yield ""
        yield f"{notes} {'note is' if notes == 1 else 'notes are'} not shown."


def overview(reports: Iterable[Report], tally: Tally, most: int) -> Iterator[str]:
    """What the adapters amount to, and a row of each, in so many characters."""
    yield from (f"## ckpt-doctor: {tally}", "", row(("adapter", "verdict", "cause", "next")), row(("---",) * 4))
    for at, report in enumerate(reports):
        line = _row(report)
        most -= len(line) + 1
        if most < 0:
            yield ""
            yield f"{tally.adapters - at} more adapters are not in the table."
            return
        yield line


def starts(tally: Tally, most: int) -> Iterator[str]:
    """How each server is started for several adapters, and what forces each option, in so many characters."""
    named = tally.starts if tally.adapters > 1 else {}
    for at, (name, start) in enumerate(named.items()):
        first, *rest = start_lines(name, start)
        section = ["", f"### {words(cut(first.partition(':')[0], LONGEST_NAME))}", "", code(cut(start.line, LONGEST))]
        section += ["", *(f"- {words(cut(line, LONGEST))}" for line in rest[:MOST_FINDINGS])]
        section += [f"- {len(rest) - MOST_FINDINGS} more"] if len(rest) > MOST_FINDINGS else []
        most -= sum(len(line) + 1 for line in section)
        if most < 0:
            yield ""
            yield f"How servers are started for {len(named) - at} more models is left out."
            return
        yield from section


def _worst(report: Report) -> int:
    """The place of the gravest finding in SEVERITIES, that of an error that kept it from being examined above all."""
    return len(SEVERITIES) if report.error else max((SEVERITIES.index(f.severity) for f in report.shown), default=-1)


def gravity(report: Report) -> tuple[bool, int]:
    """What sorts the gravest first."""
    return not (report.error or report.failing), -_worst(report)


def _row(report: Report) -> str:
    path = code(cut(report.path, LONGEST_NAME))
    if report.error:
        return row((path, "**not examined**", "", ""))
    said = "; ".join(verdict_phrases(report))
    causes = of_question(report)
    cause = f"{causes[0].code} {words(causes[0].name)}" if causes else "–"
    step = words(cut(report.next[0].text, LONGEST))
    return row((path, f"**{words(said)}**" if report.failing else words(said), cause, step))


def _section(report: Report) -> Iterator[str]:
    yield ""
    yield f"### {code(cut(report.path, LONGEST_NAME))}"
    yield ""
    if report.error:
        yield f"- could not be examined: {words(cut(report.error, LONGEST))}"
        return
    grave = of_question(report)
    for finding in grave[:MOST_FINDINGS]:
        yield f"- **{finding.severity}** {finding.code} {finding.name}: {words(sentence(finding))}"
    if len(grave) > MOST_FINDINGS:
        yield f"- {len(grave) - MOST_FINDINGS} more"
    for at, way in enumerate(report.next):
        text = words(cut(f"{'or' if at else 'next:'} {sentence_of(way)}", LONGEST))
        yield f"- {text}: {code(way.command)}" if way.command else f"- {text}"
