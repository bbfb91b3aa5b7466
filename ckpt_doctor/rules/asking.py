"""The rule about what is asked, whatever the adapter is."""

from __future__ import annotations

from collections.abc import Iterator

from ..adapter import codes
from ..adapter.findings import Finding
from ..adapter.runtimes import unreviewed
from ..facts.subject import Subject
from .declared import rule


@rule
def not_reviewed(subject: Subject) -> Iterator[Finding]:
    """Releases that no fact covers are undecided; `runtimes.py` has those that were reviewed."""
    strange = unreviewed(subject.question.runtimes or ())
    if strange:
        needs = "a review of that release"
        yield codes.NOT_REVIEWED("; ".join(strange.values()), undecided=frozenset(strange), needs=needs)
