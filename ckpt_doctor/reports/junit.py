"""JUnit's XML, as CI servers read it: a test case an adapter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from ..adapter.findings import Finding
from ..verbs.report import Report
from .text import clean
from .wording import Tally, sentence, start_lines


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """The document, in one piece. A case fails by its findings at or above `fail_on`; the others are its output.
    How servers are started for all adapters is the suite's: the lines as properties, what forces each option as output.
    """
    kept = list(reports)
    counts = {
        "tests": str(len(kept)),
        "failures": str(sum(bool(report.failing) for report in kept)),
        "errors": str(sum(bool(report.error) for report in kept)),
        "skipped": "0",
    }
    root = ET.Element("testsuites", {"name": "ckpt-doctor", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": "ckpt-doctor", **counts})
    starts = Tally(kept).starts
    if starts:
        properties = ET.SubElement(suite, "properties")
        for name, start in starts.items():
            ET.SubElement(properties, "property", {"name": clean(name), "value": clean(start.line)})
    for report in kept:
        _case(suite, report)
    if starts:
        said = (clean(line) for name, start in starts.items() for line in start_lines(name, start))
        ET.SubElement(suite, "system-out").text = "\n".join(said)
    ET.indent(root)
    yield '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _case(suite: ET.Element, report: Report) -> None:
    case = ET.SubElement(suite, "testcase", {"classname": "ckpt-doctor", "name": clean(report.path)})
    if report.error:
        message = clean(report.error)
        ET.SubElement(case, "error", {"type": "not-examined", "message": message}).text = message
        return
    failing = report.failing
    if failing:
        more = f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
        attributes = {"type": failing[0].code, "message": _line(failing[0]) + more}
        ET.SubElement(case, "failure", attributes).text = "\n".join(map(_line, failing))
    fails = set(failing)
    others = [finding for finding in report.shown if finding not in fails]
    if others:
        ET.SubElement(case, "system-out").text = "\n".join(map(_line, others))


def _line(finding: Finding) -> str:
    return f"{finding.severity} {finding.code} {finding.name}: {sentence(finding)}"
