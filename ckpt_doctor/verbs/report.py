"""What is known of one adapter."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import Adapter, Base, Layer
from ..adapter.findings import ERROR, NEVER, SEVERITIES, Finding, verdict
from ..adapter.runtimes import NEWEST, PEFT, SERVERS, order
from ..facts.subject import Subject

if TYPE_CHECKING:
    from ..facts.budget import Budget
    from ..files.numbers import Numbers
    from .prove import Proof
    from .ways import Way


OUTCOMES = {"accepts": "accepted", "rejects": "rejected", "misloads": "misloaded", "unknown": "undecided"}
"""Verdicts, and what is said of an adapter that has them; the gravest of those that are no acceptance first."""


class Reach(NamedTuple):
    """A fix that leads where it should: `asked` are the runtimes that it is for (None: none is named), `heals` the
    codes that it heals, `takes` the PEFT releases that accept the result, `loss` what it leaves out, as a sentence.
    """

    asked: frozenset[str] | None
    heals: frozenset[str]
    takes: frozenset[str]
    loss: str = ""


class _Last:
    """What was shown of the findings that were asked for last: a line about an adapter asks for them many times."""

    shown: "tuple[tuple[Finding, ...], frozenset[Finding], tuple[Finding, ...]]" = (), frozenset(), ()


class Report(NamedTuple):
    """All that is known of one adapter; `error` is set, and nothing else, where it could not be examined.

    `passed` are the findings that a choice or a baseline lets pass: they are not shown and fail nothing, and still
    decide the verdicts. `fail_on` is the least severity that fails, or "never". `trace` is Python's, of an `error` that
    nothing foresaw. `reaches` are the fixes that lead where they should, the best first; `refused` is why there is none
    for what was asked, as far as a repair said so. `proofs` are what real releases made of it, if asked. `part` names
    the adapter where a file of another tool holds several.
    """

    path: str
    error: str | None = None
    subject: Subject | None = None
    findings: tuple[Finding, ...] = ()
    passed: frozenset[Finding] = frozenset()
    fail_on: str = ERROR
    trace: str | None = None
    reaches: tuple[Reach, ...] = ()
    proofs: "tuple[Proof, ...]" = ()
    refused: str = ""
    part: str = ""

    @property
    def adapter(self) -> Adapter | None:
        """The adapter as it was read."""
        return self.subject.adapter if self.subject else None

    @property
    def layers(self) -> Mapping[str, Layer]:
        """Its adapted layers, by module."""
        return self.subject.layers if self.subject else {}

    @property
    def numbers(self) -> "Mapping[str, Numbers]":
        """What the tensors of a floating type hold, by name, where values were read; else nothing."""
        return self.subject.original.numbers if self.subject else {}

    @property
    def budget(self) -> "Budget | None":
        """How far AdaLoRA pruned it, as far as the files tell; None for another method."""
        if self.subject is None or self.subject.method != "ADALORA":
            return None
        from ..facts.budget import budget

        return budget(self.subject)

    @property
    def asked(self) -> frozenset[str] | None:
        """The ids of the runtimes that matter, None where none was named."""
        return self.subject.question.runtimes if self.subject else None

    @property
    def base_found(self) -> Base | None:
        """The model that was looked up in the local cache of the Hub, where none was named."""
        return self.subject.question.base if self.subject and self.subject.question.look_up else None

    @property
    def servers(self) -> frozenset[str]:
        """The ids of the servers that were asked for, the only ones that are judged."""
        return (self.asked or frozenset()) & SERVERS

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The findings that a reader is shown, most severe first."""
        findings, passed, shown = _Last.shown
        if findings is not self.findings or passed is not self.passed:
            left = [finding for finding in self.findings if finding not in self.passed]
            shown = tuple(sorted(left, key=lambda finding: -SEVERITIES.index(finding.severity)))
            _Last.shown = self.findings, self.passed, shown
        return shown

    @property
    def failing(self) -> tuple[Finding, ...]:
        """The findings at or above `fail_on`."""
        if self.fail_on == NEVER:
            return ()
        least = SEVERITIES.index(self.fail_on)
        return tuple(finding for finding in self.shown if SEVERITIES.index(finding.severity) >= least)

    @property
    def verdicts(self) -> dict[str, str]:
        """Runtime id → accepts, rejects, misloads or unknown: every PEFT release, then the servers asked for, then
        releases asked for that nobody reviewed, of which all is unknown.
        """
        if self.subject is None:
            return {}
        return {id_: verdict(id_, self.findings) for id_ in order(PEFT | (self.asked or frozenset()))}

    @property
    def outcome(self) -> str:
        """accepted, rejected, misloaded or undecided: the gravest verdict of what was asked for, rejection first;
        without a question what an error says, else whether it is known what the newest PEFT makes of it. "" where the
        adapter could not be examined.
        """
        if self.subject is None:
            return ""
        if self.asked is None:
            errors = [finding for finding in self.shown if finding.severity == ERROR]
            if errors:
                return "rejected" if any(finding.rejected_by for finding in errors) else "misloaded"
            return "undecided" if verdict(NEWEST, self.findings) == "unknown" else "accepted"
        words = {verdict(id_, self.findings) for id_ in self.asked}
        return OUTCOMES[next(word for word in (*[*OUTCOMES][1:], "accepts") if word in words)]

    @property
    def repairable(self) -> bool:
        """Whether a fix makes what was asked for accept it, and leaves nothing out."""
        return any(not reach.loss and (self.asked is None or reach.asked == self.asked) for reach in self.reaches)

    @property
    def next(self) -> "tuple[Way, ...]":
        """What can be done, the best first."""
        from .ways import ways

        return ways(self)

    def _summary(self) -> list[tuple[str, str]]:
        from ..adapter.runtimes import ranges
        from ..adapter.summary import first

        if self.adapter is None:
            return [("path", self.path), ("error", self.error or "")]
        release = named_release(self.adapter)
        ranks = {layer.rank for layer in self.layers.values() if layer.rank is not None}
        spread = f", rank {min(ranks)}" + (f" – {max(ranks)}" if len(ranks) > 1 else "") if ranks else ""
        by_verdict: dict[str, list[str]] = {}
        for id_ in order(PEFT if self.asked is None else self.asked):
            by_verdict.setdefault(verdict(id_, self.findings), []).append(id_)
        return [
            ("path", self.path),
            ("method", (self.adapter.peft_type or "unknown") + (f", saved by PEFT {release}" if release else "")),
            ("layers", f"{len(self.layers)}{spread}"),
            *((said, ranges(ids)) for said, ids in by_verdict.items()),
            *first([(f.severity, f"{f.code} {f.name}: {f.message}") for f in self.shown]),
            *first([("next", f"{way.text}: {way.command}" if way.command else way.text) for way in self.next]),
        ]

    def __repr__(self) -> str:
        from ..adapter.summary import text

        return text("Report", self._summary())

    def _repr_html_(self) -> str:
        from ..adapter.summary import html

        return html("Report", self._summary())


def named_release(adapter: Adapter) -> str | None:
    """The PEFT release that saved the adapter, where the config or an earlier record says so."""
    release = (adapter.config or {}).get("peft_version")
    if not release and adapter.record:
        release = adapter.record.get("saved_by")
        release = release[0] if isinstance(release, list) and len(release) == 1 else release
    return release if isinstance(release, str) else None
