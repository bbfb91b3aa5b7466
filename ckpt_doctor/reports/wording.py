"""What is said of a finding and of an adapter, for formats that want sentences."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..adapter import NOTHING_ASKED
from ..adapter.findings import ERROR, Finding, accepted, several
from ..adapter.runtimes import accepted_since, ranges, specs
from ..verbs.report import Report
from .text import clean

if TYPE_CHECKING:
    from ..verbs.start import Start, Starts

LONGEST = 500
"""Characters of a message; what a rule says is shorter, but names from a file may be of any length."""


def cut(text: str, longest: int) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def outcomes(finding: Finding) -> Iterator[str]:
    """Which runtimes a finding stops or leaves undecided, a phrase for each outcome."""
    phrases = (
        ("rejected by", finding.rejected_by),
        ("misloaded by", finding.misloaded_by),
        ("undecided for", finding.undecided_for),
    )
    for how, ids in phrases:
        if ids:
            needs = f" (needs {finding.needs})" if how == "undecided for" and finding.needs else ""
            yield f"{how} {ranges(ids)}{needs}"


def sentence(finding: Finding) -> str:
    """A finding on one line, without its code: what is wrong, whom it stops, and whether a fix repairs it."""
    repair = ("ckpt-doctor fix repairs it",) if finding.fixable else ()
    return clean("; ".join((cut(finding.message, LONGEST), *outcomes(finding), *repair)))


def proved(record: dict[str, Any]) -> str:
    """What the record of a fix says of it: whether the result computes the same, how far, and what was done."""
    worst = record["proof"]["largest_relative_difference"]
    exact = f"within {worst:.2g}, relative" if worst else "bit-exact"
    dropped = record["dropped"]
    kept = (
        f"the original without {several(dropped)}, and else the same function"
        if dropped
        else "same function as the original"
    )
    done = ", ".join(step["title"] for step in record["repairs"])
    return f"{kept}: {exact}; " + (f"repaired: {done}" if done else "nothing was repaired")


class Tally:
    """How many adapters there are, how many of them fail, how many could not be examined, and how servers are started
    for them.
    """

    def __init__(self, reports: Iterable[Report] = ()) -> None:
        self.adapters = self.failing = self.unread = 0
        self._starts: Starts | None = None
        for report in reports:
            self.add(report)

    def add(self, report: Report) -> None:
        """Count one more."""
        self.adapters += 1
        self.failing += bool(report.failing)
        self.unread += bool(report.error)
        if report.servers:
            if self._starts is None:
                from ..verbs.start import Starts

                self._starts = Starts()
            self._starts.add(report)

    @property
    def starts(self) -> dict[str, Start]:
        """How each server is started for the adapters that it then takes; nothing where no server was asked for."""
        return self._starts.named() if self._starts else {}

    def __str__(self) -> str:
        some = f"{self.failing} of {self.adapters} adapters fail"
        failures = some if self.failing else f"none of {self.adapters} adapters fails"
        return failures + (f", {self.unread} could not be examined" if self.unread else "")


def start_lines(name: str, start: Start) -> Iterator[str]:
    """How a server is started: the options on one line, then what forces each, and what matters beside them."""
    yield f"{name} for {start.adapters} of them: {start.line}"
    for option in start.options():
        yield f"{option.name} {option.value}".strip() + f": {option.forced_by}"
    yield from start.together()


def load_with(report: Report) -> str:
    """From which PEFT release on the adapter loads as it is."""
    first = accepted_since(accepted(report.findings))
    return f"load it with PEFT ≥ {first}" if first else "no recent PEFT takes it as it is"


def fix_command(report: Report) -> str | None:
    """The command that repairs the adapter; None where it would not lead there, or a line cannot hold its path."""
    if not report.reached or not any(finding.fixable for finding in report.shown) or clean(report.path) != report.path:
        return None
    import shlex

    path = f"./{report.path}" if report.path.startswith("-") else report.path
    out = path.rstrip("/")
    if os.path.basename(out) in ("", os.curdir, os.pardir):
        out = os.path.abspath(out)
    words = ["ckpt-doctor", "fix", path, f"{out}-fixed", *_options(report)]
    return " ".join(map(shlex.quote, words))


def _options(report: Report) -> Iterator[str]:
    """What was asked, as options."""
    for spec in specs(report.asked or ()):
        yield from ("--for", spec)
    question = report.subject.question if report.subject else NOTHING_ASKED
    if question.base is not None and question.base.path:
        yield from ("--base", question.base.path)
    if question.adapter_name != NOTHING_ASKED.adapter_name:
        yield from ("--adapter-name", question.adapter_name)
    if question.max_rank is not None:
        yield from ("--max-rank", str(question.max_rank))


def cannot_be_fixed(report: Report) -> bool:
    """Whether there is an error and nothing that a fix repairs."""
    findings = report.shown
    return any(f.severity == ERROR for f in findings) and not (report.reached and any(f.fixable for f in findings))
