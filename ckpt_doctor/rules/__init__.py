"""One function a rule, one file a family. `judge` asks them all."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import codes
from ..adapter.findings import ERROR, THE_BASE, Finding, numbers
from ..adapter.runtimes import NEWEST, NONE, PEFT, SERVERS
from ..facts.methods import LORAS
from ..facts.patterns import TooCostly
from ..facts.subject import Subject
from . import (  # noqa: F401
    adalora,
    asking,
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
    tokens,
    values,
    whole,
)
from .declared import RULES

COMMON_TASKS = (None, "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""Tasks that every release takes, so that no rule has to be asked."""


def judge(subject: Subject, watched: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """All findings of an adapter; about servers only where one is asked for, or `watched`. Of one that was converted to
    be read, what is found of the file that lies there.
    """
    origin = subject.adapter.origin
    if origin is not None:
        return judge(Subject(origin.adapter, subject.question), watched)
    if subject.method not in LORAS or subject.config.get("task_type") not in COMMON_TASKS:
        from . import methods  # noqa: F401 - importing the rules declares them
    if subject.method == "ADALORA":
        from . import training  # noqa: F401
    if subject.question.values:
        from . import weights  # noqa: F401
    found: list[Finding] = []
    costly: dict[str, TooCostly] = {}
    for rule in RULES:
        try:
            found += rule(subject)
        except TooCostly as error:  # and the other rules say what they say all the same
            costly[error.pattern] = error
    asked = ((subject.question.runtimes or frozenset()) | watched) & SERVERS
    if costly:
        return (*found, not_followed(subject, costly.values(), PEFT | asked))
    findings = tuple(found) if subject.question.runtimes is not None else _graver(found)
    if not asked:
        return findings
    from . import servers

    records = [server for server in servers.SERVERS if server.id in asked]
    inside = {server.peft: server.id for server in records if server.peft}
    try:
        into = bool(servers.followed(subject, [server for server in records if server.peft]))
        followed = [*(also(finding, inside, into) for finding in findings), *servers.judge(subject, records)]
    except TooCostly as error:
        return (*findings, not_followed(subject, [error], asked))
    return tuple(followed)


def _graver(findings: list[Finding]) -> tuple[Finding, ...]:
    """What stops the newest release is an error also where it takes several causes to stop them all: an adapter that no
    release takes is not healthy.
    """
    newest = [finding for finding in findings if NEWEST in finding.rejected_by | finding.misloaded_by]
    if not newest or any(finding.severity == ERROR for finding in findings):
        return tuple(findings)
    if NONE.union(*(finding.rejected_by | finding.misloaded_by for finding in findings)) < PEFT:
        return tuple(findings)
    return tuple(finding._replace(severity=ERROR) if finding in newest else finding for finding in findings)


def not_followed(subject: Subject, errors: Iterable[TooCostly], ids: frozenset[str]) -> Finding:
    """The doubt that patterns leave which are too costly to follow, or are none (facts/patterns.py)."""
    held = {e: [key for key, value in subject.config.items() if _holds(value, e.pattern)] for e in errors}
    first = next(iter(held))
    message = f"the pattern {first.pattern[:60]} of {', '.join(held[first]) or 'the adapter'} {first.why}"
    named = dict.fromkeys(key for names in held.values() for key in names)
    return codes.COSTLY_PATTERN(message, keys=named, undecided=ids, needs=first.needs)


def _holds(value: object, pattern: str) -> bool:
    return value == pattern or (isinstance(value, (list, dict)) and pattern in value)


NAMES = numbers(
    codes.NOT_IN_BASE, codes.FOREIGN_PREFIX, codes.ADAPTER_NAME_IN_KEY, codes.NO_TARGET, codes.OTHER_SIZE,
    codes.BIAS_SPELLING,
)  # fmt: skip
"""What is found of names and sizes. A server that renames them finds otherwise: where the load is followed into it that
decides, and else nothing.
"""


def also(finding: Finding, inside: dict[str, str], into: bool) -> Finding:
    """A finding that stops the servers, too, which have a PEFT inside that it stops."""
    if finding.code in NAMES:
        if into:
            return finding
        stopped = finding.rejected_by | finding.misloaded_by | finding.undecided_for
        doubtful = frozenset(server for peft, server in inside.items() if peft in stopped)
        needs = finding.needs or (THE_BASE if doubtful else None)
        return finding._replace(undecided_for=finding.undecided_for | doubtful, needs=needs)

    def grown(ids: frozenset[str]) -> frozenset[str]:
        return ids | {server for peft, server in inside.items() if peft in ids}

    return finding._replace(
        rejected_by=grown(finding.rejected_by), misloaded_by=grown(finding.misloaded_by),
        undecided_for=grown(finding.undecided_for),
    )  # fmt: skip
