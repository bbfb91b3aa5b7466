"""What a fix would do to an adapter."""

from typing import NamedTuple

from ..adapter import Adapter, NotExactError, Origin
from ..adapter.findings import (
    ERROR,
    LEFT,
    OF_NUMBERS,
    SEVERITIES,
    UNTRIED,
    Finding,
    hits,
    in_the_way,
    several,
    verdict,
    weighed,
)
from ..adapter.runtimes import PEFT, RAN, SERVERS, peft, specs
from ..facts.subject import Subject
from ..files.foreign import SALVAGE
from ..files.loader import BIN, SAFETENSORS
from ..repairs import Pairs
from ..rules import judge
from .planner import State, Step, harm, repaired, silenced, state_of, with_less_lost
from .report import Report

RANK_ZERO = ("pad", "prune")
WEIGHTS = ("safetensors", "bin", "same")


class Cut(NamedTuple):
    """Modules that were left out on the way, and the subject before and after: all else on the way is exact."""

    modules: tuple[str, ...]
    before: Subject
    after: Subject


class Plan(NamedTuple):
    """What a fix would do: the report before, the subject and its findings after, and each step on the way.

    `droppable` says that layers stand in the way which could be left out; `judged` are the findings before, where
    another question was asked than that of `before`. `tool` is the file of `conversions/` in whose form it is to be
    written, "" for PEFT's. `read` is what the adapter means, where its config was made to say that first.
    """

    before: Report
    after: Subject
    findings: tuple[Finding, ...]
    done: tuple[Step, ...]
    refused: tuple[Step, ...]
    purpose: str = "for inference"
    cuts: tuple["Cut", ...] = ()
    droppable: bool = False
    judged: tuple[Finding, ...] | None = None
    tool: str = ""
    read: Subject | None = None

    @property
    def was(self) -> tuple[Finding, ...]:
        """The findings before, also about the servers asked for."""
        return self.before.findings if self.judged is None else self.judged

    @property
    def in_the_way(self) -> tuple[Finding, ...]:
        """What stood in the way of what was asked for, the gravest first, each as grave as it is for that."""
        return _weighed(self.was, self.asked)

    @property
    def left(self) -> tuple[Finding, ...]:
        """What still does: without a question only errors."""
        return tuple(f for f in _weighed(self.findings, self.asked) if self.asked is not None or f.severity == ERROR)

    @property
    def dropped(self) -> tuple[str, ...]:
        """The modules that were left out, so that the result computes something else."""
        return tuple(module for cut in self.cuts for module in cut.modules)

    @property
    def loss(self) -> str:
        """What was left out, as a sentence."""
        count = len(self.dropped)
        return f"{count} {'layer' if count == 1 else 'layers'} dropped: {several(self.dropped)}"

    @property
    def asked(self) -> frozenset[str] | None:
        """The runtimes that have to accept the result; None where none was named."""
        return self.after.question.runtimes

    @property
    def unseen(self) -> frozenset[str]:
        """The releases that rejected the adapter, and of which only the base model would tell what they make of it."""
        if self.after.question.base is not None:
            return frozenset()
        findings = [finding for finding in self.findings if finding.code not in OF_NUMBERS]
        doubted = [id_ for id_ in PEFT if verdict(id_, findings) == "unknown"]
        return frozenset(id_ for id_ in doubted if verdict(id_, self.before.findings) == "rejects")

    @property
    def fixed(self) -> bool:
        """Whether every runtime asked for accepts the result; without any, whether no error remains."""
        if self.asked is None:
            return not any(finding.severity == ERROR for finding in self.findings)
        left = [f._replace(undecided_for=frozenset()) if f.code in LEFT else f for f in self.findings]
        return all(verdict(id_, left) == "accepts" for id_ in self.asked)

    @property
    def silent(self) -> frozenset[str]:
        """The servers that were read and not run, and not asked for, which rejected or accepted the adapter, and would
        load the result and compute something else. They hold up no repair, as the newest release of a server may want
        what an older one drops (experts one by one in vLLM); but they are named.
        """
        start, asked = self.before.subject, self.asked or frozenset()
        if not (self.done and start and start.question.base and asked & SERVERS):
            return frozenset()
        others = SERVERS - frozenset(RAN.values()) - asked
        before, after = (state_of(subject, others)._replace(watched=frozenset()) for subject in (start, self.after))
        return silenced(before, after) & others

    @property
    def optioned(self) -> bool:
        """Whether options of the servers asked for, which the findings name, would have these take the result."""
        stopping = [finding for finding in self.findings if hits(finding, self.asked or frozenset())]
        return bool(stopping) and all(finding.option for finding in stopping)

    @property
    def untried(self) -> frozenset[str]:
        """The runtimes asked for that were not run on a model of that family."""
        return frozenset[str]().union(*(f.undecided_for for f in self.findings if f.code == UNTRIED))


def _weighed(findings: tuple[Finding, ...], asked: frozenset[str] | None) -> tuple[Finding, ...]:
    mine = [f for f in findings if asked is None or hits(f, asked)]
    mine = [f if asked is None else f._replace(severity=weighed(f, asked)) for f in mine]
    return tuple(sorted(mine, key=lambda finding: -SEVERITIES.index(finding.severity)))


class How(NamedTuple):
    """How a fix should go.

    `rank_zero` is what becomes of rank-0 layers, "pad" or "prune". `weights` is the format to be written, which is
    "safetensors", "bin" or "same"; None is the one that the runtimes asked for read. `training` gives an AdaLoRA the
    form that can be trained further, `to_lora` makes plain LoRA of one rank and scale, `trim` cuts trailing zeros off
    the rank, `dtype` (fp32, bf16, fp16) is what factors are written in, `drop` leaves out what a server that was asked
    for has no place for. `rank` is the one that plain LoRA gets, `modules` are those that it has, each with the shapes
    of its factors. `tool` is the file of `conversions/` in whose form it is written, "" for PEFT's.
    """

    rank_zero: str = "pad"
    weights: str | None = None
    training: bool = False
    to_lora: bool = False
    trim: bool = False
    dtype: str | None = None
    drop: bool = False
    rank: int | None = None
    modules: Pairs | None = None
    tool: str = ""

    @property
    def changes_form(self) -> bool:
        """Whether something is asked for that is no repair."""
        of_peft = self.training or self.to_lora or self.trim or self.dtype or self.modules is not None
        return bool(of_peft or self.tool)


REPAIRED = How()
"""No form is asked for by name."""


def plan(report: Report, asked: frozenset[str] | None = None, how: How = REPAIRED) -> Plan:
    """Repair to a fixed point: each step heals a finding, harms no release, and leads to a state that is new.

    `asked` are the runtimes that have to accept the result; None heals what needs no release to be named, and so do
    releases that nobody reviewed, where no other is asked for. Raises NotExactError.
    """
    from .. import repairs
    from ..repairs import drop

    before = report.subject
    assert before is not None  # noqa: S101 - callers examine it first
    asked = asked if asked is None or asked & (PEFT | SERVERS) else None
    weights = how.weights
    if weights is None:
        weights = "bin" if asked and asked & peft("0.2", "0.3") else "safetensors"
    subject = Subject(
        written_as(before.adapter, weights), before.question._replace(runtimes=asked), before.saved_by, before.original
    )
    done: list[Step] = []
    origin = before.adapter.origin
    if origin is not None:
        stopping = (finding.code for finding in report.findings if finding.severity == ERROR)
        done.append(Step(_reading(origin, report.part), tuple(dict.fromkeys(stopping))))
    elif len(before.adapter.weights) > 1:
        done.append(Step("write the shards as one file", ("CD015",)))
    if before.adapter.beside:
        done.append(Step(f"leave the {BIN} behind that is not read", ("CD010", "CD022")))
    serving = bool(asked and asked & SERVERS)
    watched = frozenset(RAN.values()) if subject.question.base and (serving or how.to_lora) else frozenset[str]()
    for title, heals, read in repairs.readings(subject):
        subject = read
        done.append(Step(title, tuple(dict.fromkeys(f.code for f in report.findings if f.code in heals))))
    meaning = subject
    uniform = False
    if how.tool:
        from ..conversions import tool

        uniform = tool(how.tool).uniform
    original = state_of(subject, watched)
    state, wanted = original, asked
    for title, whole in repairs.forms(
        subject, training=how.training, to_lora=how.to_lora or uniform, rank=how.rank, modules=how.modules
    ):
        state = state_of(whole, original.watched)
        done.append(Step(title, ()))
    if silenced(original, state):  # by a form that was asked for by name: what then misloads it has to be repaired, too
        wanted = (asked or frozenset()) | silenced(original, state)
    choice = repairs.all_of(how.rank_zero, asked=wanted, training=how.training, serving=serving)
    if wanted and not any(in_the_way(finding, wanted) for finding in state.findings):
        choice = []
    if how.tool and not any(finding.severity == ERROR for finding in state.findings):
        choice = []  # what would help some release only is of no use to the tool
    state, steps, refused = repaired(original, state, choice, wanted)
    done += steps
    if wanted and asked is None and not how.tool:  # and then what needs no release to be named
        choice = repairs.all_of(how.rank_zero, asked=None, training=how.training, serving=serving)
        state, steps, refused = repaired(original, state, choice, None)
        done += steps
    cuts: list[Cut] = []
    gone = _lost(state, asked)
    while how.drop and gone:
        state, steps = with_less_lost(state, choice, lambda state: _lost(state, asked))
        done += steps
        gone = _lost(state, asked)
        smaller = state.changed(drop.without(state.subject, gone))
        if not smaller.subject.layers:
            break
        cuts.append(Cut(tuple(drop.modules(gone)), state.subject, smaller.subject))
        state, steps, refused = repaired(original, smaller, choice, wanted)
        done += steps
        gone = _lost(state, asked)
    if silenced(original, state):
        raise NotExactError(f"{before.adapter.path}: {harm(state, silenced(original, state), asked)}")
    subject, findings = state.subject, judge(state.subject)
    for title, whole in repairs.sizes(subject, trim=how.trim, dtype=how.dtype):
        subject, findings = whole, judge(whole)
        done.append(Step(title, ()))
    open_codes = {f.code for f in findings if asked is None or hits(f, asked)}
    still = tuple(step for step in refused.values() if open_codes & set(step.codes))
    if how.drop and gone:
        still = (*still, Step("drop layers", tuple(sorted(open_codes)), "none would be left"))
    elif how.drop:
        still = tuple(_with_a_way(step, report, asked, how) for step in still)
    purpose = "for training" if how.training else "for inference"
    droppable = bool(gone) and not how.drop
    same = asked == before.question.runtimes
    was = None if same else judge(Subject(before.adapter, original.subject.question, before.saved_by, before.original))
    return Plan(report, subject, findings, tuple(done), still, purpose, tuple(cuts), droppable, was, how.tool, meaning)


def _reading(origin: Origin, part: str) -> str:
    """What was done to read a file of another form as an adapter of PEFT."""
    if origin.tool == SALVAGE:
        return f"take the adapter{f' {part}' if part else ''} out of {origin.file}"
    if origin.tool != "peft":
        return f"convert {part or origin.file}{f' of {origin.file}' if part else ''} to PEFT's form"
    if part:
        return f"take {part} out of {origin.file}"
    return f"give {origin.file} the name that PEFT looks for"


def _with_a_way(step: Step, report: Report, asked: frozenset[str] | None, how: How) -> Step:
    """A step refused for servers that were not asked for, and what to ask for where that is a way to drop more."""
    beside = step.harmed & SERVERS - (asked or frozenset())
    if not beside or not plan(report, (asked or frozenset()) | beside, how).fixed:
        return step
    ways = " ".join(f"--for {spec}" for spec in specs(beside))
    return step._replace(reason=f"{step.reason}: add {ways}, and --drop leaves out what that has no place for, too")


def _lost(state: State, asked: frozenset[str] | None) -> list[str]:
    """The tensors of what a server that was asked for has no place for."""
    from ..repairs import drop

    return drop.lost(state.subject, state.findings, asked & SERVERS) if asked and asked & SERVERS else []


def written_as(adapter: Adapter, weights: str) -> Adapter:
    """The adapter as it will lie in a new folder: one file of weights, in the format asked for."""
    kind = (adapter.format or "safetensors") if weights == "same" else weights
    name = BIN if kind == "bin" else SAFETENSORS
    files = (*(file for file in adapter.files if not file.startswith("adapter_model.")), name)
    return adapter._replace(format=kind, weights=(name,) if adapter.weights else (), files=files, origin=None)
