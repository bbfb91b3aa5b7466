"""The findings that a project knows and lets pass, in a file of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import NamedTuple

from ..adapter import AdapterError
from ..adapter.findings import SEVERITIES, Finding, fingerprints
from ..files.loader import content, is_remote
from ..verbs.report import Report

SCHEMA_VERSION = 1


class Known(NamedTuple):
    """A finding that was there when the baseline was written; `path` is its adapter, from the file's folder."""

    path: str
    code: str
    name: str
    severity: str
    fingerprint: str


class Baseline:
    """What is known, and which of it was found again."""

    def __init__(self, path: str) -> None:
        """Read the file. Raises AdapterError."""
        self.folder = os.path.dirname(os.path.abspath(path))
        try:
            document: object = json.loads(content(path).decode())
            self.entries = _entries(document)
        except AdapterError as error:
            raise AdapterError(f"{error}; --write-baseline makes it") from None
        except (ValueError, RecursionError):
            raise AdapterError(f"{path} is not a baseline that ckpt-doctor wrote") from None
        self._known = {(entry.path, entry.fingerprint): entry for entry in self.entries}
        self._again: set[Known] = set()
        self._examined: set[str] = set()

    def known(self, report: Report) -> frozenset[Finding]:
        """The findings of a report that are known; one that has become more severe is not."""
        place = _place(report, self.folder)
        self._examined.add(place)
        findings = set()
        for finding, fingerprint in fingerprints(place, report.findings).items():
            entry = self._known.get((place, fingerprint))
            if entry:
                self._again.add(entry)
                if SEVERITIES.index(finding.severity) <= SEVERITIES.index(entry.severity):
                    findings.add(finding)
        return frozenset(findings)

    def gone(self) -> list[Known]:
        """What was not found again, of the adapters that were examined or are no longer there."""
        left = [entry for entry in self.entries if entry not in self._again]
        return [entry for entry in left if entry.path in self._examined or not _exists(entry, self.folder)]


def _entries(document: object) -> list[Known]:
    """The entries of a file. Raises ValueError for what ckpt-doctor did not write."""
    match document:
        case {"findings": list(entries)}:
            return [_known(entry) for entry in entries]
    raise ValueError


def _known(entry: object) -> Known:
    match entry:
        case {
            "path": str(path), "code": str(code), "name": str(name), "severity": str(severity),
            "fingerprint": str(fingerprint), **others,
        } if severity in SEVERITIES and "\0" not in path and not others:  # fmt: skip
            return Known(path, code, name, severity, fingerprint)
    raise ValueError


def document(path: str, reports: Iterable[Report], earlier: Iterable[Known]) -> str:
    """The baseline that lets pass what the reports tell now, as JSON to be written to `path`.

    Of `earlier` entries it keeps those of adapters that are there and that no report is about.
    """
    folder = os.path.dirname(os.path.abspath(path))
    by_place: dict[str, list[Known]] = {}
    for report in reports:
        place = _place(report, folder)
        named = fingerprints(place, report.findings)
        by_place[place] = [Known(place, f.code, f.name, f.severity, named[f]) for f in report.shown]
    entries = [entry for entry in earlier if entry.path not in by_place and _exists(entry, folder)]
    entries += [entry for of_one in by_place.values() for entry in of_one]
    return json.dumps(
        {"schema_version": SCHEMA_VERSION, "findings": [entry._asdict() for entry in sorted(entries)]},
        indent=2, ensure_ascii=False,
    )  # fmt: skip


def _exists(entry: Known, folder: str) -> bool:
    return is_remote(entry.path) or os.path.exists(os.path.join(folder, entry.path))


def _place(report: Report, folder: str) -> str:
    return report.path if is_remote(report.path) else os.path.relpath(report.path, folder).replace(os.sep, "/")
