"""What a rule finds, and how rules are declared."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from .runtimes import NEWEST, PEFT

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (NOTE, WARNING, ERROR)
NEVER = "never"
"""For `Report.fail_on`: nothing fails."""

THE_BASE = "the base model"
"""What a doubt needs that `--base` would decide."""
THE_WEIGHTS = "the model's weights"
"""What a doubt needs that `--base` would decide, where it named a config alone."""
THE_TRANSFORMERS = "the release of transformers"
"""What a doubt needs that no file tells."""

UNSEEN = "CD690"
"""A server and no base model: the doubt that is left to whoever gives none; a fix says so, and goes ahead."""
UNTRIED = "CD616"
"""A model of a family that a server was not run on: the same."""
OF_NUMBERS = ("CD413", "CD414")
"""Doubts about the numbers of the weights, which a repair leaves as they are."""
LEFT = (UNSEEN, UNTRIED, *OF_NUMBERS, "CD902")
"""Doubts that no repair ends, and that hold up none; the last is a release that nobody reviewed."""

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
    # biases that each half of the releases calls otherwise
    "CD304": {NOW: NOTE},
    # no release writes such names, and the newest takes them
    "CD402": {BEFORE: WARNING}, "CD514": {BEFORE: WARNING},
    # what nobody wants to have saved
    "CD411": {BEFORE: WARNING},
    # a healthy adapter does not raise these doubts
    "CD306": _CLEAR_DOUBT, "CD316": _CLEAR_DOUBT, "CD317": _CLEAR_DOUBT, "CD323": _CLEAR_DOUBT, "CD324": _CLEAR_DOUBT,
    "CD330": _CLEAR_DOUBT, "CD331": _CLEAR_DOUBT, "CD406": _CLEAR_DOUBT, "CD413": _CLEAR_DOUBT, "CD508": _CLEAR_DOUBT,
    "CD513": _CLEAR_DOUBT,
}  # fmt: skip
"""Code → whom it stops → the severity that is not the usual one.

A healthy adapter of any release has no error and no warning.
"""


def severity(
    code: str, rejects: frozenset[str], misloads: frozenset[str], undecided: frozenset[str],
    asked: frozenset[str] | None = None,
) -> str:  # fmt: skip
    """The severity of a finding: error, warning or note.

    Where runtimes are `asked` for, what stops one is an error, what leaves one undecided a warning, all else a note,
    unless it stops none at all.
    """
    stopped = rejects | misloads
    if asked is not None and (stopped or undecided):
        return ERROR if asked & stopped else WARNING if asked & undecided else NOTE
    if stopped >= PEFT:
        whom = EVERY
    elif NEWEST in stopped:
        whom = NOW
    else:
        whom = DOUBT if NEWEST in undecided else BEFORE
    return EXCEPTIONS.get(code, USUAL).get(whom, USUAL[whom])


class Finding(NamedTuple):
    """One cause: what is wrong, where, and which runtimes it stops (ids such as "peft==0.9.0").

    `option` is what a server that it stops is started with so as not to be stopped by it, as it is typed; `remedy` what
    a person can do where no repair does, as a short imperative.
    """

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
    option: str = ""
    remedy: str = ""

    @property
    def concerned(self) -> frozenset[str]:
        """The runtimes that it stops or leaves undecided; none, where it is about the adapter alone."""
        return self.rejected_by | self.misloaded_by | self.undecided_for


class Code(NamedTuple):
    """What findings of one cause are called: a number and a name for good, and the page that explains them."""

    number: str
    name: str
    page: str

    @property
    def remedy(self) -> str:
        """What a person can do, as its page says; "" where that is a fix."""
        text = " ".join(self.page.partition("What to do: ")[2].partition("\nReferences:")[0].split())
        return "" if "`fix" in text else text.rstrip(".")

    def __call__(
        self, message: str, *, tensors: Iterable[str] = (), keys: Iterable[str] = (),
        rejects: frozenset[str] = frozenset(), misloads: frozenset[str] = frozenset(),
        undecided: frozenset[str] = frozenset(), needs: str | None = None, option: str = "", remedy: str = "",
    ) -> Finding:  # fmt: skip
        """A finding: a sentence, the tensors and config keys that it is about, and whom it stops.

        `needs` is what would decide it for those that are undecided, `option` that of a server that makes it take the
        adapter, `remedy` what can be done by hand. How grave it is follows from whom it stops.
        """
        return Finding(
            self.number, self.name, severity(self.number, rejects, misloads, undecided), message, tuple(tensors),
            tuple(keys), rejects, misloads, undecided, needs if undecided else None, option=option, remedy=remedy,
        )  # fmt: skip


def several(names: Sequence[str]) -> str:
    """`a, b, c and 4 more` for a sentence."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)


def spelled(value: object) -> str:
    """A value of a config as its JSON has it: `null`, `"4"`, `true`; a list or an object shortened."""
    if isinstance(value, (list, dict)):
        return str(value)[:60]
    from json import dumps

    return dumps(value, ensure_ascii=False)[:60]


def counted(count: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def numbers(*codes: Code) -> frozenset[str]:
    """The numbers of codes."""
    return frozenset(code.number for code in codes)


def weighed(finding: Finding, asked: frozenset[str] | None) -> str:
    """The severity of a finding for whoever asks."""
    return severity(finding.code, finding.rejected_by, finding.misloaded_by, finding.undecided_for, asked)


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


def hits(finding: Finding, asked: frozenset[str]) -> frozenset[str]:
    """The runtimes asked for that a finding says anything of."""
    return asked & finding.concerned


def in_the_way(finding: Finding, asked: frozenset[str]) -> bool:
    """Whether a finding stops one that was asked for, or raises a doubt of one that a repair may end."""
    stops = asked & (finding.rejected_by | finding.misloaded_by)
    return bool(stops or (finding.code not in LEFT and asked & finding.undecided_for))


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
