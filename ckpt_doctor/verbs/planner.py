"""Which repairs lead from an adapter to one that is taken: one at a time, each state judged once."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..adapter import Adapter
from ..adapter.findings import OF_NUMBERS, THE_BASE, THE_TRANSFORMERS, Finding, hits, verdict
from ..adapter.runtimes import PEFT, SERVERS, ranges
from ..facts.methods import LORAS
from ..facts.patterns import TooCostly
from ..facts.subject import Subject
from ..repairs import Refused, Repair
from ..rules import judge

ORDER = {"accepts": 0, "unknown": 1, "rejects": 2, "misloads": 3}
MAX_STEPS = 40
"""More than any plan has; that each state is new ends it before."""


class Step(NamedTuple):
    """A repair that was made, or refused for a reason: `harmed` are those that it would harm."""

    title: str
    codes: tuple[str, ...]
    reason: str | None = None
    harmed: frozenset[str] = frozenset()


class State(NamedTuple):
    """A subject on the way, what is found of it, and the verdict of each runtime that counts or is `watched`: a server
    that was not asked for, and that must not come to compute something else without a word.
    """

    subject: Subject
    findings: tuple[Finding, ...]
    verdicts: dict[str, str]
    watched: frozenset[str] = frozenset()

    def changed(self, adapter: Adapter) -> "State":
        """The state that a repair leads to."""
        return state_of(self.subject.changed(adapter), self.watched)


class Outcome(NamedTuple):
    """Where the steps led, and the repairs that were refused, by title."""

    state: State
    done: tuple[Step, ...]
    refused: dict[str, Step]


def state_of(subject: Subject, watched: frozenset[str]) -> State:
    """Judge a subject."""
    findings = judge(subject, watched)
    ids = PEFT | watched | (subject.question.runtimes or frozenset())
    return State(subject, findings, {id_: verdict(id_, findings) for id_ in ids}, watched)


def repaired(original: State, start: State, repairs: Sequence[Repair], asked: frozenset[str] | None) -> Outcome:
    """Apply the first repair that heals something and harms nobody, until there is none.

    One that would harm somebody is tried once more with each other that heals what the harmed then meet. No state
    comes twice, and each is better than the one before (`_weight`), which ends it. `original` is the state before the
    forms that were asked for by name, `start` the one after.
    """
    state, done = start, list[Step]()
    refused: dict[str, Step] = {}
    seen = {_identity(start.subject.adapter)}

    def applied(repair: Repair, to: State, codes: tuple[str, ...]) -> State | None:
        try:
            candidate = repair.function(to.subject)
        except (Refused, TooCostly) as error:
            refused[repair.title] = Step(repair.title, codes, str(error))
            return None
        return None if _identity(candidate) in seen else to.changed(candidate)

    def harmed_by(after: State, *made: Repair) -> frozenset[str]:
        ids = _harmed(state, after, asked)
        if any(repair.narrows for repair in made):
            ids = frozenset(id_ for id_ in ids if id_ in (asked or ()) or after.verdicts[id_] != "rejects")
        return ids | (silenced(original, after) - silenced(original, state))

    def attempt(repair: Repair) -> tuple[State, tuple[Step, ...]] | None:
        if repair.beside:
            return None
        codes = _healed(repair, state.findings, None if repair.always else asked)
        after = applied(repair, state, codes) if codes else None
        if after is None:
            return None
        if not _helps(state, after, codes, None if repair.always else asked):
            refused.update(_in_vain(repair, state, after, asked or frozenset()))
            return None
        step = Step(repair.title, codes)
        harmed = harmed_by(after, repair)
        if not harmed:
            return after, (step,)
        for other in repairs:
            healed = _healed(other, after.findings, harmed) if other.title != repair.title else ()
            steps = (step, Step(other.title, healed)) if other.beside else (Step(other.title, healed), step)
            first = (after if other.beside else applied(other, state, healed)) if healed else None
            both = applied(other if other.beside else repair, first, steps[1].codes) if first else None
            if both and not harmed_by(both, repair, other) and _helps(state, both, codes, asked):
                return both, steps
        refused[repair.title] = Step(repair.title, codes, harm(after, harmed, asked), harmed)
        return None

    while len(done) < MAX_STEPS:
        taken = next((pair for repair in repairs if (pair := attempt(repair)) is not None), None)
        if taken is None:
            break
        state, steps = taken
        done = [*(step for step in done if step not in steps), *steps]
        seen.add(_identity(state.subject.adapter))
        for step in steps:
            refused.pop(step.title, None)
    return Outcome(state, tuple(done), refused)


def with_less_lost(
    state: State, repairs: Sequence[Repair], lost: Callable[[State], Sequence[str]]
) -> tuple[State, tuple[Step, ...]]:
    """The state before something is dropped, after the first repair that leaves less to be dropped, if there is one:
    the names of some layers hide which of them a server has no place for.
    """
    for repair in repairs:
        codes = () if repair.beside else _healed(repair, state.findings, None)
        try:
            candidate = repair.function(state.subject) if codes else state.subject.adapter
        except (Refused, TooCostly):
            continue
        after = state if candidate is state.subject.adapter else state.changed(candidate)
        if len(lost(after)) < len(lost(state)):
            return after, (Step(repair.title, codes),)
    return state, ()


def _helps(before: State, after: State, codes: tuple[str, ...], asked: frozenset[str] | None) -> bool:
    """Whether fewer of the runtimes asked for are hit, or, where none was named, fewer findings are left."""
    better = _weight(after, asked) < _weight(before, asked)
    return better or (asked is None and _count(after, codes) < _count(before, codes))


def _in_vain(repair: Repair, before: State, after: State, asked: frozenset[str]) -> dict[str, Step]:
    """A repair that heals some layers, or all, and leads those asked for to something else that stops them as well."""
    anew = tuple(finding for finding in after.findings if finding not in before.findings)
    hit = frozenset[str]().union(*(hits(finding, asked) for finding in anew))
    codes = _healed(repair, before.findings, hit) if hit else ()
    were, are = (_open(state.findings, codes, hit) for state in (before, after))
    if not codes or (are and sum(len(f.tensors) for f in are) >= sum(len(f.tensors) for f in were)):
        return {}
    return {repair.title: Step(repair.title, codes, harm(after._replace(findings=anew), hit, asked))}


def _open(findings: Iterable[Finding], codes: tuple[str, ...], ids: frozenset[str]) -> list[Finding]:
    """The findings of some codes that concern some runtimes."""
    return [finding for finding in findings if finding.code in codes and hits(finding, ids)]


def _healed(repair: Repair, findings: tuple[Finding, ...], asked: frozenset[str] | None) -> tuple[str, ...]:
    """The codes that a repair would heal, of findings that concern some runtimes; of all, where none was named."""
    healed = (
        finding.code for finding in findings if finding.code in repair.heals and (asked is None or hits(finding, asked))
    )
    return tuple(dict.fromkeys(healed))


def _identity(adapter: Adapter) -> tuple[object, ...]:
    """What a repair can change of an adapter, to be told from other states."""
    return (json.dumps(adapter.config, sort_keys=True), *adapter.tensors.items())


def _weight(state: State, asked: frozenset[str] | None) -> int:
    """How many runtimes are hit, by how many findings."""
    return sum(len(hits(finding, PEFT if asked is None else asked)) for finding in state.findings)


def _count(state: State, codes: tuple[str, ...]) -> int:
    return sum(finding.code in codes for finding in state.findings)


def _harmed(before: State, after: State, asked: frozenset[str] | None) -> frozenset[str]:
    """Whom of PEFT and those asked for a step would harm: those whose verdict gets worse; else those that were not
    asked for and rejected the adapter, if it is not known what they would make of the result. A doubt of one that was
    not asked for does not count that hangs on nothing but the base model, which was not named, or on the release of
    transformers, which an adapter for a server may be in the names of.
    """
    counted = PEFT | (asked or frozenset())
    worse = {id_ for id_ in counted if ORDER[after.verdicts[id_]] > ORDER[before.verdicts[id_]]}
    others = counted - (asked or frozenset())
    worse -= {id_ for id_ in worse & others if after.verdicts[id_] == "unknown" and by_transformers(after, id_)}
    loud = {id_ for id_ in others if before.verdicts[id_] == "rejects"}
    doubted = {id_ for id_ in loud if after.verdicts[id_] == "unknown" and not only_unseen(after, id_)}
    return frozenset(worse or doubted)


def silenced(before: State, after: State) -> frozenset[str]:
    """The runtimes that would compute something else now, without a word, and that rejected or accepted an adapter; a
    server that was not asked for also where it was not known.
    """
    loud = {id_ for id_, word in before.verdicts.items() if word in ("accepts", "rejects")}
    loud |= {id_ for id_ in before.watched if before.verdicts[id_] == "unknown"}
    return frozenset(id_ for id_ in loud if after.verdicts[id_] == "misloads")


def harm(after: State, harmed: frozenset[str], asked: frozenset[str] | None) -> str:
    """What the gravest harm is, as a sentence; of those who were asked for, where it is theirs too."""
    gravest = max((after.verdicts[id_] for id_ in harmed), key=ORDER.__getitem__)
    most = frozenset(id_ for id_ in harmed if after.verdicts[id_] == gravest)
    most = most & (asked or frozenset()) or most
    how = {
        "misloads": "would then load it and compute something else, in silence",
        "rejects": "would then reject it",
        "unknown": "would then load it, and might compute something else",
    }[gravest]
    findings = [finding for finding in after.findings if hits(finding, most)]
    whom = {"misloads": "misloaded_by", "rejects": "rejected_by", "unknown": "undecided_for"}[gravest]
    why = next((finding.message for finding in findings if most & getattr(finding, whom)), findings[0].message)
    return f"{ranges(most)} {how}: {why}"


def by_transformers(state: State, id_: str) -> bool:
    """Whether a runtime is undecided, in a fix for a server, only by the release of transformers."""
    doubts = [finding for finding in state.findings if id_ in finding.undecided_for]
    asked = state.subject.question.runtimes or frozenset()
    return bool(asked & SERVERS and doubts) and all(finding.needs == THE_TRANSFORMERS for finding in doubts)


def only_unseen(state: State, id_: str) -> bool:
    """Whether a runtime is undecided only because the base model was not named, or for a server by transformers, or
    by numbers, which were so before.
    """
    if by_transformers(state, id_):
        return True
    doubts = [f for f in state.findings if id_ in f.undecided_for and f.code not in OF_NUMBERS]
    named = state.subject.question.base is not None or state.subject.method not in LORAS
    return not doubts or (not named and all(finding.needs == THE_BASE for finding in doubts))
