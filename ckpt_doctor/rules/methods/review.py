"""How rules about methods are declared: what one finds holds for the releases in which its method was reviewed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import wraps

from ...adapter.findings import Finding
from ...facts.record import Method
from ...facts.subject import Subject
from ..declared import Rule, rule


def of_methods(check: Callable[[Subject, Method], Iterable[Finding]]) -> Rule:
    """Declare a rule about methods with a record; it is not asked about a method that was reviewed in no release."""

    @rule
    @wraps(check)
    def within(subject: Subject) -> Iterator[Finding]:
        method = subject.record
        if method is not None and method.reviewed:
            yield from (reviewed(finding, method) for finding in check(subject, method))

    return within


def reviewed(finding: Finding, method: Method) -> Finding:
    """A finding, of the releases alone in which the method was reviewed."""
    return finding._replace(
        rejected_by=finding.rejected_by & method.reviewed, misloaded_by=finding.misloaded_by & method.reviewed,
        undecided_for=finding.undecided_for & method.reviewed,
    )  # fmt: skip
