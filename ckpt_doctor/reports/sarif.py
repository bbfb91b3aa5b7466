"""SARIF 2.1.0, within what GitHub's code scanning takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from .. import __version__
from ..adapter.codes import CODES
from ..adapter.findings import NOTE, SEVERITIES, Finding, fingerprints
from ..files.loader import is_remote
from ..verbs.report import Report
from .json import written
from .pages import markdown, paragraphs
from .places import places, relative
from .text import clean
from .wording import Tally, cut, next_step, sentence, start_lines

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MOST_RESULTS = 5000
"""GitHub rejects a run of more than 25,000 results and shows 5,000 of them."""
MOST_TENSORS = 10
LONGEST = 1000
"""Characters of a rule's description; GitHub takes 1,024."""
LONGEST_NAME = 200


def scan(reports: Iterable[Report]) -> Iterator[str]:
    """The log of a scan, in one piece: the most severe findings first, and no more than GitHub shows."""
    kept = list(reports)
    results = [(finding, at) for at, report in enumerate(kept) for finding in dict.fromkeys(report.shown)]
    results.sort(key=lambda pair: -SEVERITIES.index(pair[0].severity))
    shown = results[:MOST_RESULTS]
    levels: dict[str, str] = {}
    for finding, _ in shown:
        levels.setdefault(finding.code, finding.severity)
    order = {code: at for at, code in enumerate(sorted(levels))}
    yield written(
        {
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [
                {
                    "tool": {
                        "driver": {
                            "name": "ckpt-doctor",
                            "version": __version__,
                            "semanticVersion": __version__,
                            "rules": [_rule(code, levels[code]) for code in order],
                        }
                    },
                    "invocations": [_invocation(kept, len(results) - len(shown))],
                    "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The root of the repository."}}},
                    "results": list(_results(shown, kept, order)),
                    "columnKind": "unicodeCodePoints",
                }
            ],
        },
        indent=2,
    )


def _rule(code: str, level: str) -> dict[str, Any]:
    """What GitHub shows of a rule; `level` is the gravest of its findings here."""
    name, parts = CODES[code].name, paragraphs(CODES[code])
    return {
        "id": code,
        "name": name,
        "shortDescription": {"text": cut(f"{name}: {parts[0]}", LONGEST)},
        "fullDescription": {"text": cut("\n\n".join(parts), LONGEST)},
        "help": {"text": "\n\n".join(parts), "markdown": markdown(CODES[code])},
        "defaultConfiguration": {"level": level},
        "properties": {"tags": ["adapter", "server" if code.startswith("CD6") else "peft"]},
    }


def _results(
    findings: Iterable[tuple[Finding, int]], reports: list[Report], order: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """A result for each finding and the number of its report."""
    located: dict[int, dict[Finding, tuple[str, int]]] = {}
    named: dict[int, dict[Finding, str]] = {}
    steps: dict[int, str] = {}
    for finding, at in findings:
        if at not in located:
            steps[at] = next_step(reports[at])
            located[at] = places(reports[at])
            named[at] = fingerprints(relative(reports[at].path), reports[at].findings)
        file, line = located[at][finding]
        step = "" if finding.severity == NOTE else f"; {steps[at]}"
        tensors = dict.fromkeys(cut(clean(name), LONGEST_NAME) for name in finding.tensors[:MOST_TENSORS])
        location = {"physicalLocation": {"artifactLocation": _artifact(file), "region": {"startLine": line}}}
        logical = [{"fullyQualifiedName": name, "kind": "tensor"} for name in tensors]
        yield {
            "ruleId": finding.code,
            "ruleIndex": order[finding.code],
            "level": finding.severity,
            "message": {"text": f"{sentence(finding)}{step}".replace("](", "] (")},  # which would be a link
            "locations": [{**location, "logicalLocations": logical} if logical else location],
            "partialFingerprints": {"ckptDoctor/v1": named[at][finding]},
        }


def _artifact(path: str) -> dict[str, Any]:
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:  # no file has such a name
        raw = clean(path).encode()
    if is_remote(path):
        return {"uri": quote(raw, safe=":/@")}
    return {"uri": quote(raw), "uriBaseId": "%SRCROOT%"}


def _invocation(reports: list[Report], left_out: int) -> dict[str, Any]:
    """Whether everything could be examined, what is not among the results, and how servers are started for them."""
    unread = [report for report in reports if report.error]
    notifications = [
        {
            "level": "error",
            "message": {"text": cut(clean(report.error or ""), LONGEST).replace("](", "] (")},
            "locations": [{"physicalLocation": {"artifactLocation": _artifact(relative(report.path))}}],
        }
        for report in unread[:MOST_RESULTS]
    ]
    if len(unread) > MOST_RESULTS:
        notifications.append(_note("error", f"{len(unread) - MOST_RESULTS} more adapters could not be examined"))
    if left_out:
        notifications.append(
            _note("warning", f"{left_out} findings are left out, none graver than those that are here")
        )
    for name, start in Tally(reports).starts.items():
        said = "; ".join(clean(line) for line in start_lines(name, start)).replace("](", "] (")
        notifications.append(_note("note", cut(said, LONGEST)))
    return {"executionSuccessful": not unread, "toolExecutionNotifications": notifications}


def _note(level: str, text: str) -> dict[str, Any]:
    return {"level": level, "message": {"text": text}}
