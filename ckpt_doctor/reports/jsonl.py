"""One JSON object a line and adapter, as soon as it is examined, and one with what they amount to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

from ..adapter.findings import Finding
from ..facts.subject import Subject
from ..verbs.report import Report
from .json import commands, head, layers, place, report_object, steps, summary, written
from .wording import Tally

OWN = ("path", "commands", "next")
"""Keys that have the path in them."""


class Lines:
    """The lines of reports. Of one subject the same is said wherever it lies: only the path is another, and the
    commands that have it.
    """

    def __init__(self) -> None:
        self._start = written(head())[:-1]
        self._said: WeakKeyDictionary[Subject, tuple[tuple[Finding, ...], str]] = WeakKeyDictionary()

    def line(self, report: Report) -> str:
        """What is in `reports` of the JSON document, with the schema's version and the tool."""
        shown, text = self._said.get(report.subject, ((), "")) if report.subject else ((), "")
        if not text or shown != report.shown:
            fields = report_object(report)
            own = {key: fields.pop(key) for key in OWN}
            del fields["layers"]  # which `layers` writes
            text = "".join(('"layers": ', layers(report), ", ", written(fields)[1:]))
            if report.subject:
                self._said[report.subject] = report.shown, text
        else:
            own = {"path": place(report.path), "commands": commands(report), "next": steps(report)}
        return f"{self._start}, {written(own)[1:-1]}, {text}"


def whole(lines: Iterable[str], tally: Tally) -> Iterator[str]:
    """The lines, then what they amount to, which is the end of a run that was not cut off."""
    yield from lines
    yield f'{written(head())[:-1]}, "summary": {written(summary(tally))}}}'


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """A line a report, then the last."""
    lines, tally = Lines(), Tally()

    def every() -> Iterator[str]:
        for report in reports:
            tally.add(report)
            yield lines.line(report)

    return whole(every(), tally)
