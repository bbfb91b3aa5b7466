"""One JSON object a line and adapter, as soon as it is examined."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from ..verbs.report import Report
from .json import head, report_object


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """A line a report: what is in `reports` of the JSON document, with the schema's version and the tool."""
    for report in reports:
        yield json.dumps({**head(), **report_object(report)}, ensure_ascii=False)
