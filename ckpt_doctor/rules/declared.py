"""How rules are declared, and all that are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..adapter.findings import Finding
from ..facts.subject import Subject

Rule = Callable[[Subject], Iterable[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Declare a rule: a function from a subject to findings. Its docstring cites what shows it."""
    RULES.append(function)
    return function
