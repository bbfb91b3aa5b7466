"""Where a finding is: the file and the line that formats with locations point to."""

from __future__ import annotations

import json
import os
import re

from ..adapter.findings import Finding
from ..files.loader import CONFIG, is_remote
from ..verbs.report import Report

_TOKEN = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}\[\]]', re.DOTALL)


def relative(path: str) -> str:
    """A path from $GITHUB_WORKSPACE where it lies in that, else from the working directory, with `/`.

    A path on another drive stays whole.
    """
    location = path
    if is_remote(path):
        return path
    for root in (os.environ.get("GITHUB_WORKSPACE"), os.curdir):
        if root:
            try:
                location = os.path.relpath(path, root)
            except ValueError:
                continue
            if location.split(os.sep)[0] != os.pardir:
                break
    return location.replace(os.sep, "/")


def places(report: Report) -> dict[Finding, tuple[str, int]]:
    """The file and the 1-based line of each finding that is told.

    The file is adapter_config.json, else the first file of weights, else the folder; the line that of the first of the
    finding's config keys that is in the file, else 1.
    """
    adapter, findings = report.adapter, report.shown
    names = (CONFIG,) if adapter and CONFIG in adapter.files else adapter.weights if adapter else ()
    file = relative(os.path.join(report.path, *names[:1]))
    at = _lines(report) if any(finding.config_keys for finding in findings) else {}
    return {f: (file, next((at[key] for key in f.config_keys if key in at), 1)) for f in findings}


def _lines(report: Report) -> dict[str, int]:
    """The top-level keys of adapter_config.json, with their lines; {} where it cannot be read."""
    if report.adapter is None or report.adapter.config is None:
        return {}
    numbers: dict[str, int] = {}
    depth, line, last = 0, 1, 0
    try:
        with open(os.path.join(report.adapter.folder, CONFIG), encoding="utf-8", newline="") as file:
            text = file.read()
        for token in _TOKEN.finditer(text):
            if token[1] is None:
                depth += 1 if token[0] in "{[" else -1
            elif token[2] and depth == 1:
                line += text.count("\n", last, token.start())
                last = token.start()
                numbers[json.loads(token[1])] = line
    except (OSError, ValueError):
        return {}
    return numbers
