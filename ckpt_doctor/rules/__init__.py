"""One function a rule, one file a family. `judge` asks them all."""

from __future__ import annotations

from ..adapter.findings import Finding
from ..adapter.runtimes import SERVERS
from ..facts.methods import LORAS
from ..facts.subject import Subject
from . import (  # noqa: F401
    adalora,
    base,
    config,
    defaults,
    files,
    heads,
    imports,
    keys,
    kinds,
    rank,
    reading,
    saved,
    tensors,
    values,
    whole,
)
from .declared import RULES

COMMON_TASKS = (None, "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""Tasks that every release takes, so that no rule has to be asked."""


def judge(subject: Subject) -> tuple[Finding, ...]:
    """All findings of an adapter; about servers only where one is asked for."""
    if subject.method not in LORAS or subject.config.get("task_type") not in COMMON_TASKS:
        from . import methods  # noqa: F401 - importing the rules declares them
    findings = tuple(finding for rule in RULES for finding in rule(subject))
    asked = (subject.question.runtimes or frozenset()) & SERVERS
    if not asked:
        return findings
    from . import servers

    records = [server for server in servers.SERVERS if server.id in asked]
    inside = {server.peft: server.id for server in records if server.peft}
    return (*(also(finding, inside) for finding in findings), *servers.judge(subject, records))


def also(finding: Finding, inside: dict[str, str]) -> Finding:
    """A finding that stops the servers, too, which have a PEFT inside that it stops."""

    def grown(ids: frozenset[str]) -> frozenset[str]:
        return ids | {server for peft, server in inside.items() if peft in ids}

    return finding._replace(
        rejected_by=grown(finding.rejected_by), misloaded_by=grown(finding.misloaded_by),
        undecided_for=grown(finding.undecided_for),
    )  # fmt: skip
