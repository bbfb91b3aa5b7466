"""What a rule finds, and how rules are declared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from .adapter import Adapter, Layer
from .runtimes import NEWEST, PEFT, SERVERS, order

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (NOTE, WARNING, ERROR)
NEVER = "never"
"""For `Report.fail_on`: nothing fails."""

THE_BASE = "the base model"
"""What a doubt needs that `--base` would decide."""

EVERY, NOW, DOUBT, BEFORE = "every", "now", "doubt", "before"
"""Whom a finding stops: every PEFT release, the newest, it leaves the newest undecided, or none of these."""

USUAL = {EVERY: ERROR, NOW: ERROR, DOUBT: NOTE, BEFORE: NOTE}

_BY_RELEASE = {NOW: NOTE}
_CLEAR_DOUBT = {DOUBT: WARNING}

EXCEPTIONS = {
    # some program runs the code; the user who asks has a release that rejects it
    "CD010": {BEFORE: ERROR}, "CD016": {BEFORE: ERROR, DOUBT: ERROR}, "CD101": {BEFORE: ERROR},
    # the release that saved it takes it, so the adapter is healthy; an error where none takes it
    "CD202": _BY_RELEASE, "CD309": _BY_RELEASE, "CD310": _BY_RELEASE, "CD311": _BY_RELEASE, "CD322": _BY_RELEASE,
    "CD325": _BY_RELEASE, "CD327": _BY_RELEASE, "CD502": _BY_RELEASE, "CD521": _BY_RELEASE, "CD522": _BY_RELEASE,
    "CD524": _BY_RELEASE,
    # the same; and what differs with each load was so in the release that saved it
    "CD526": {EVERY: NOTE, NOW: NOTE},
    # biases that each half of the releases calls otherwise; they were lost where it was saved
    "CD304": {EVERY: WARNING, NOW: NOTE}, "CD517": {EVERY: WARNING},
    # no release writes such names, and the newest takes them
    "CD402": {BEFORE: WARNING}, "CD514": {BEFORE: WARNING},
    # a healthy adapter does not raise these doubts
    "CD306": _CLEAR_DOUBT, "CD316": _CLEAR_DOUBT, "CD317": _CLEAR_DOUBT, "CD323": _CLEAR_DOUBT, "CD324": _CLEAR_DOUBT,
    "CD406": _CLEAR_DOUBT, "CD508": _CLEAR_DOUBT, "CD513": _CLEAR_DOUBT,
}  # fmt: skip
"""Code → whom it stops → the severity that is not the usual one.

A healthy adapter of any release has no error and no warning.
"""


def severity(
    code: str, rejects: frozenset[str], misloads: frozenset[str], undecided: frozenset[str],
    asked: frozenset[str] | None = None,
) -> str:  # fmt: skip
    """The severity of a finding: error, warning or note.

    Where runtimes are `asked` for, what stops one is an error, what leaves one undecided a warning, all else a note.
    """
    stopped = rejects | misloads
    if asked is not None:
        return ERROR if asked & stopped else WARNING if asked & undecided else NOTE
    if stopped >= PEFT:
        whom = EVERY
    elif NEWEST in stopped:
        whom = NOW
    else:
        whom = DOUBT if NEWEST in undecided else BEFORE
    return EXCEPTIONS.get(code, USUAL).get(whom, USUAL[whom])


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


class Code(NamedTuple):
    """What findings of one cause are called: a number and a name for good, and the page that explains them."""

    number: str
    name: str
    page: str

    def __call__(
        self, message: str, *, tensors: Iterable[str] = (), keys: Iterable[str] = (),
        rejects: frozenset[str] = frozenset(), misloads: frozenset[str] = frozenset(),
        undecided: frozenset[str] = frozenset(), needs: str | None = None,
    ) -> Finding:  # fmt: skip
        """A finding: a sentence, the tensors and config keys that it is about, and whom it stops.

        `needs` is what would decide it for those that are undecided. How grave it is follows from whom it stops.
        """
        return Finding(
            self.number, self.name, severity(self.number, rejects, misloads, undecided), message, tuple(tensors),
            tuple(keys), rejects, misloads, undecided, needs if undecided else None,
        )  # fmt: skip


def numbers(*codes: Code) -> frozenset[str]:
    """The numbers of codes."""
    return frozenset(code.number for code in codes)


def weighed(finding: Finding, asked: frozenset[str] | None) -> str:
    """The severity of a finding for whoever asks."""
    return severity(finding.code, finding.rejected_by, finding.misloaded_by, finding.undecided_for, asked)


class Report(NamedTuple):
    """All that is known of one adapter; `error` is set, and nothing else, where it could not be examined.

    `asked` are the ids of the runtimes that matter, None where none was named. `passed` are the findings that a
    choice or a baseline lets pass: they are not told and fail nothing, and still decide the verdicts. `fail_on` is the
    least severity that fails, or "never". `trace` is Python's, of an `error` that nothing foresaw.
    """

    path: str
    error: str | None = None
    adapter: Adapter | None = None
    layers: dict[str, Layer] = {}  # noqa: RUF012 - never changed
    findings: tuple[Finding, ...] = ()
    asked: frozenset[str] | None = None
    passed: frozenset[Finding] = frozenset()
    fail_on: str = ERROR
    trace: str | None = None

    @property
    def servers(self) -> frozenset[str]:
        """The ids of the servers that were asked for, the only ones that are judged."""
        return (self.asked or frozenset()) & SERVERS

    @property
    def told(self) -> tuple[Finding, ...]:
        """The findings that a reader is shown, most severe first."""
        shown = [finding for finding in self.findings if finding not in self.passed]
        return tuple(sorted(shown, key=lambda finding: -SEVERITIES.index(finding.severity)))

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings at or above `fail_on`."""
        if self.fail_on == NEVER:
            return ()
        least = SEVERITIES.index(self.fail_on)
        return tuple(finding for finding in self.told if SEVERITIES.index(finding.severity) >= least)

    @property
    def verdicts(self) -> dict[str, str]:
        """Runtime id → accepts, rejects, misloads or unknown: every PEFT release, then the servers asked for."""
        if self.adapter is None:
            return {}
        return {id_: verdict(id_, self.findings) for id_ in order(PEFT | self.servers)}


Rule = Callable[[Adapter, dict[str, Layer]], Iterable[Finding]]
RULES: list[Rule] = []


def rule(function: Rule) -> Rule:
    """Declare a rule: a function from an adapter and its layers to findings. Its docstring cites what shows it."""
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
    findings = tuple(findings)
    return frozenset(id_ for id_ in PEFT if verdict(id_, findings) == "unknown")


def fingerprints(place: str, findings: Iterable[Finding]) -> dict[Finding, str]:
    """A name for each finding of the adapter at `place` that outlives changes of its message: hex, 32 digits.

    Made from the code, the place, the tensors and the config keys; and a count, where that is the same twice.
    """
    from hashlib import sha256

    names: dict[Finding, str] = {}
    counts: dict[tuple[object, ...], int] = {}
    for finding in findings:
        identity = (finding.code, place, *sorted(finding.tensors), None, *sorted(finding.config_keys))
        if finding not in names:
            counts[identity] = counts.get(identity, 0) + 1
            names[finding] = sha256(repr((*identity, counts[identity])).encode()).hexdigest()[:32]
    return names
