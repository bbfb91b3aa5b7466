"""One JSON object a line and adapter, as soon as it is examined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

from ..adapter.findings import Finding
from ..facts.subject import Subject
from ..verbs.report import Report
from .json import commands, head, layers, place, report_object, steps, written

OWN = ("path", "commands", "next")
"""Keys that have the path in them."""


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """A line a report: what is in `reports` of the JSON document, with the schema's version and the tool.

    Of one subject the same is said wherever it lies: only the path is another, and the commands that have it.
    """
    start = written(head())[:-1]
    said: WeakKeyDictionary[Subject, tuple[tuple[Finding, ...], str]] = WeakKeyDictionary()
    for report in reports:
        shown, text = said.get(report.subject, ((), "")) if report.subject else ((), "")
        if not text or shown != report.shown:
            fields = report_object(report)
            own = {key: fields.pop(key) for key in OWN}
            del fields["layers"]  # which `layers` writes
            text = "".join(('"layers": ', layers(report), ", ", written(fields)[1:]))
            if report.subject:
                said[report.subject] = report.shown, text
        else:
            own = {"path": place(report.path), "commands": commands(report), "next": steps(report)}
        yield f"{start}, {written(own)[1:-1]}, {text}"
