"""What a rule finds, and how rules are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .adapter import Adapter
from .layers import Layer
from .runtimes import PEFT

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (NOTE, WARNING, ERROR)


class Finding(NamedTuple):
    """One cause: what is wrong, where, and which runtimes it stops (ids such as "peft==0.9.0")."""

    code: str
    name: str
    severity: str
    message: str
    tensors: tuple[str, ...] = ()
    config_keys: tuple[str, ...] = ()
    rejected_by: frozenset[str] = frozenset()
    misloaded_by: frozenset[str] = frozenset()
    undecided_for: frozenset[str] = frozenset()
    needs: str | None = None
    fixable: bool = False


class Report(NamedTuple):
    """All that is known of one adapter; `error` is set, and nothing else, where it could not be examined.

    `servers` are the ids of those that were asked for, the only ones that are judged.
    """

    path: str
    error: str | None = None
    adapter: Adapter | None = None
    layers: dict[str, Layer] = {}  # noqa: RUF012 - never changed
    findings: tuple[Finding, ...] = ()
    servers: frozenset[str] = frozenset()


Rule = Callable[[Adapter, dict[str, Layer]], Iterable[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Declare a rule: a function from an adapter and its layers to findings. Its docstring is its page."""
    RULES.append(function)
    return function


def verdict(id_: str, findings: Iterable[Finding]) -> str:
    """accepts, unknown, rejects or misloads: the gravest that any finding says of a runtime, rejection first."""
    worst = "accepts"
    for finding in findings:
        if id_ in finding.rejected_by:
            return "rejects"
        if id_ in finding.misloaded_by:
            worst = "misloads"
        elif id_ in finding.undecided_for and worst == "accepts":
            worst = "unknown"
    return worst


def accepted(findings: Iterable[Finding]) -> frozenset[str]:
    """The PEFT releases that no finding stops."""
    ids = PEFT
    for finding in findings:
        ids = ids - finding.rejected_by - finding.misloaded_by - finding.undecided_for
    return ids


def undecided(findings: Iterable[Finding]) -> frozenset[str]:
    """The PEFT releases for which nothing was found but a doubt."""
    told = list(findings)
    return frozenset(id_ for id_ in PEFT if verdict(id_, told) == "unknown")
