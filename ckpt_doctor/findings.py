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
        undecided: frozenset[str] = frozenset(), needs: str | None = None, severity: str | None = None,
    ) -> Finding:  # fmt: skip
        """A finding: a sentence, the tensors and config keys that it is about, and whom it stops.

        `needs` is what would decide it for those that are undecided.
        """
        if severity is None:
            severity = ERROR if NEWEST in rejects | misloads else NOTE
        return Finding(
            self.number, self.name, severity, message, tuple(tensors), tuple(keys), rejects, misloads, undecided, needs
        )  # fmt: skip


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


def fingerprints(place: str, findings: Iterable[Finding]) -> dict[Finding, str]:
    """A name for each finding of the adapter at `place` that outlives changes of its message: hex, 32 digits.

    Made from the code, the place, the tensors and the config keys; and a count, where that is the same twice.
    """
    from hashlib import sha256

    found: dict[Finding, str] = {}
    counts: dict[tuple[object, ...], int] = {}
    for finding in findings:
        identity = (finding.code, place, *sorted(finding.tensors), None, *sorted(finding.config_keys))
        if finding not in found:
            counts[identity] = counts.get(identity, 0) + 1
            found[finding] = sha256(repr((*identity, counts[identity])).encode()).hexdigest()[:32]
    return found
