"""The verbs: scan an adapter, plan its repair, fix it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from . import __version__, rules  # noqa: F401 - importing the rules declares them
from .adapter import Adapter, AdapterError, Base, NotExactError, unforeseen
from .findings import ERROR, RULES, Finding, Report, verdict, weighed
from .layers import Layer, layers
from .loader import BIN, SAFETENSORS, load
from .planner import Step, harm, hits, repaired, silenced, state_of
from .rules.keys import savers
from .runtimes import PEFT, SERVERS, peft

if TYPE_CHECKING:
    from .settings import Settings
    from .writer import Prove, Written

RANK_ZERO = ("pad", "prune")
LORAS = ("LORA", "ADALORA")
COMMON_TASKS = (None, "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION")
"""Tasks that every release takes, so that no rule has to be asked."""
UNSEEN = "CD690"
"""A server and no base model: the doubt that is left to whoever gives none; a fix says so, and goes ahead."""
UNTRIED = "CD616"
"""A model of a family that a server was not run on: the same."""


class Plan(NamedTuple):
    """What a fix would do: the report before, the adapter and its findings after, and each step on the way."""

    before: Report
    after: Adapter
    findings: tuple[Finding, ...]
    done: tuple[Step, ...]
    refused: tuple[Step, ...]
    asked: frozenset[str] | None = None
    purpose: str = "for inference"

    @property
    def unseen(self) -> frozenset[str]:
        """The releases that rejected the adapter, and of which only the base model would tell what they make of it."""
        told = [id_ for id_ in PEFT if verdict(id_, self.findings) == "unknown"]
        return frozenset(id_ for id_ in told if verdict(id_, self.before.findings) == "rejects")

    @property
    def fixed(self) -> bool:
        """Whether every runtime asked for accepts the result; without any, whether no error remains."""
        if self.asked is None:
            return not any(finding.severity == ERROR for finding in self.findings)
        left = [f._replace(undecided_for=frozenset()) if f.code in (UNSEEN, UNTRIED) else f for f in self.findings]
        return all(verdict(id_, left) == "accepts" for id_ in self.asked)

    @property
    def untried(self) -> frozenset[str]:
        """The runtimes asked for that were not run on a model of that family."""
        return frozenset[str]().union(*(f.undecided_for for f in self.findings if f.code == UNTRIED))


def judge(adapter: Adapter, asked: frozenset[str] | None = None) -> tuple[Finding, ...]:
    """All findings of an adapter; about servers only where one is asked for."""
    config = adapter.config or {}
    if config.get("peft_type") not in LORAS or config.get("task_type") not in COMMON_TASKS:
        from .rules import methods  # noqa: F401 - importing the rules declares them
    found = layers(adapter)
    seen = loaded(adapter, found)
    findings = tuple(finding for rule in RULES for finding in rule(seen, found))
    if not asked or not asked & SERVERS:
        return findings
    from .rules import servers

    records = [server for server in servers.SERVERS if server.id in asked]
    inside = {server.peft: server.id for server in records if server.peft}
    return (*(also(finding, inside) for finding in findings), *servers.judge(adapter, found, records))


def loaded(adapter: Adapter, found: dict[str, Layer]) -> Adapter:
    """The adapter with its base model's modules named as they are once transformers has loaded it."""
    if adapter.base is None:
        return adapter
    from .base import as_loaded

    headless = (adapter.config or {}).get("task_type") in (None, "FEATURE_EXTRACTION")
    return adapter._replace(base=as_loaded(adapter.base, found, headless))


def also(finding: Finding, inside: dict[str, str]) -> Finding:
    """A finding that stops the servers, too, which have a PEFT inside that it stops."""

    def grown(ids: frozenset[str]) -> frozenset[str]:
        return ids | {server for peft, server in inside.items() if peft in ids}

    return finding._replace(
        rejected_by=grown(finding.rejected_by), misloaded_by=grown(finding.misloaded_by),
        undecided_for=grown(finding.undecided_for),
    )  # fmt: skip


def scan(
    folder: str, *, asked: frozenset[str] | None = None, loaded_as: str = "default", base: Base | None = None,
    max_rank: int | None = None, repairs: bool = True,
) -> Report:  # fmt: skip
    """Read and judge one adapter. Never raises for what a file holds: `error` says what could not be examined.

    `asked` are the runtimes that matter: a finding that stops one is an error, one that leaves it undecided a warning,
    any other a note. `loaded_as` is the name under which the adapter will be loaded, `base` the model,
    `max_rank` the limit of the server. With `repairs` each finding says whether a repair heals it.
    """
    try:
        adapter = load(folder)
        adapter = adapter._replace(loaded_as=loaded_as, base=base, max_rank=max_rank, savers=savers(adapter))
        findings = judge(adapter, asked)
        report = Report(folder, None, adapter, layers(adapter), findings, asked)
        if repairs:
            findings = _with_repairs(report)
        if asked is not None:
            findings = tuple(f._replace(severity=weighed(f, asked)) for f in findings)
    except AdapterError as error:
        return Report(folder, error=str(error))
    except OSError as error:
        return Report(folder, error=f"{folder}: {error}")
    except Exception as error:
        from traceback import format_exc

        return Report(folder, error=unforeseen(folder, error), trace=format_exc())
    return report._replace(findings=findings)


def _with_repairs(report: Report) -> tuple[Finding, ...]:
    """The findings, each with whether a repair heals it: by the catalogue where it is a note, by a plan elsewhere."""
    from .repairs import all_of

    asked = report.asked
    weighty = [f for f in report.findings if (hits(f, asked) if asked is not None else f.severity == ERROR)]
    healed = {code for step in plan(report, asked=asked).done for code in step.codes} if weighty else set[str]()
    listed = frozenset[str]().union(*(repair.heals for repair in all_of("pad", asked=None)))
    return tuple(f._replace(fixable=f.code in (healed if f in weighty else listed)) for f in report.findings)


def examine(folder: str, by: Settings, *, repairs: bool = True) -> Report:
    """Read and judge one adapter, as `scan` does, by the settings that hold for it."""
    return scan(folder, asked=by.asked, loaded_as=by.adapter_name, base=by.base, max_rank=by.max_rank, repairs=repairs)


def examined(folder: str, by: Settings, *, repairs: bool = True) -> Report:
    """As `examine`; raises AdapterError where the adapter could not be examined."""
    report = examine(folder, by, repairs=repairs)
    if report.error:
        raise AdapterError(report.error)
    return report


def plan(
    report: Report, *, asked: frozenset[str] | None = None, rank_zero: str = "pad", weights: str | None = None,
    training: bool = False, to_lora: bool = False, trim: bool = False, dtype: str | None = None,
) -> Plan:  # fmt: skip
    """Repair to a fixed point: each step heals a finding, harms no release, and leads to a state that is new.

    `asked` are the runtimes that have to accept the result; None heals what needs no release to be named. `weights` is
    the format to be written: "safetensors", "bin" or "same"; None is the one that the runtimes asked for read.
    `training` gives an AdaLoRA the form that can be trained further, `to_lora` makes plain LoRA of one rank and scale,
    `trim` cuts trailing zeros off the rank, `dtype` (fp32, bf16, fp16) is what factors are written in. Raises
    NotExactError.
    """
    from . import repairs

    assert report.adapter is not None  # noqa: S101 - callers ask scan first
    if weights is None:
        weights = "bin" if asked and asked & peft("0.2", "0.3") else "safetensors"
    adapter = written_as(report.adapter, weights)._replace(savers=savers(report.adapter))
    done: list[Step] = []
    if len(report.adapter.weights) > 1:
        done.append(Step("write the shards as one file", ("CD015",)))
    if report.adapter.beside:
        done.append(Step(f"leave the {BIN} behind that is not read", ("CD010", "CD022")))
    original = state_of(adapter, lambda one: judge(one, asked), asked)
    state, wanted = original, asked
    for title, whole in repairs.forms(adapter, training=training, to_lora=to_lora):
        state = state_of(whole, lambda one: judge(one, asked), asked)
        done.append(Step(title, ()))
    if silenced(original, state):  # by a form that was asked for by name: what then misloads it has to be repaired, too
        wanted = (asked or frozenset()) | silenced(original, state)
    serving = bool(asked and asked & SERVERS)
    choice = repairs.all_of(rank_zero, asked=wanted, training=training, serving=serving)
    state, steps, refused = repaired(state, choice, lambda one: judge(one, asked), wanted)
    done += steps
    if silenced(original, state):
        raise NotExactError(f"{adapter.path}: {harm(state, silenced(original, state))}")
    adapter, findings = state.adapter, state.findings
    for title, whole in repairs.sizes(adapter, trim=trim, dtype=dtype):
        adapter, findings = whole, judge(whole, asked)
        done.append(Step(title, ()))
    open_codes = {f.code for f in findings if asked is None or hits(f, asked)}
    still = tuple(step for step in refused.values() if open_codes & set(step.codes))
    return Plan(report, adapter, findings, tuple(done), still, asked, "for training" if training else "for inference")


def written_as(adapter: Adapter, weights: str) -> Adapter:
    """The adapter as it will lie in a new folder: one file of weights, in the format asked for."""
    kind = (adapter.format or "safetensors") if weights == "same" else weights
    name = BIN if kind == "bin" else SAFETENSORS
    files = (*(file for file in adapter.files if not file.startswith("adapter_model.")), name)
    return adapter._replace(format=kind, weights=(name,) if adapter.weights else (), files=files)


def fix(
    the_plan: Plan, out: str | None, *, force: bool = False, copy_all: bool = False, tolerance: float = 1e-6
) -> Written:
    """Write a plan's adapter to `out`: read back, and proved to compute the same, before it takes its place.

    Without `out` that is the place of the old one. Raises AdapterError.
    """
    from .writer import write, write_in_place

    before, record, prove = _evidence(the_plan, out or the_plan.before.path, tolerance)
    if out is None:
        return write_in_place(the_plan.after, before, record, prove)
    return write(the_plan.after, before, out, record, prove, force=force, copy_all=copy_all)


def _evidence(the_plan: Plan, out: str, tolerance: float) -> tuple[Adapter, dict[str, Any], Prove]:
    """The adapter before, what is recorded of its repair, and the proof that the result computes the same."""
    from .comparison import compare, proof

    before, after = the_plan.before.adapter, the_plan.after
    assert before is not None  # noqa: S101 - a plan has one
    record: dict[str, Any] = {
        "schema_version": 1,
        "tool": {"name": "ckpt-doctor", "version": __version__},
        "saved_by": sorted(id_.removeprefix("peft==") for id_ in savers(before)),
        "purpose": the_plan.purpose,
        "repairs": [{"title": step.title, "codes": list(step.codes)} for step in the_plan.done],
    }

    # what stops the others is known; those that take the result have to make of it what the original means
    takers = frozenset(id_ for id_ in PEFT if verdict(id_, the_plan.findings) == "accepts")
    takers = takers if the_plan.asked is None else takers & the_plan.asked

    def prove(stage: str) -> dict[str, Any]:
        kept = frozenset(key for key, info in after.tensors.items() if before.tensors.get(key) == info)
        found = compare(before, load(stage)._replace(savers=after.savers), tolerance, kept, takers)
        if found.verdict != "same":
            worst = found.largest
            error = f"; the largest relative error is {worst.relative:.2g}, --tolerance allows it" if worst else ""
            raise NotExactError(f"{out} is not written, as it is not proved the same: {found.reasons[0]}{error}")
        return proof(found)

    return before, record, prove


def saved_by(adapter: Adapter) -> str | None:
    """The PEFT release that saved the adapter, where the config or an earlier record says so."""
    said = (adapter.config or {}).get("peft_version")
    if not said and adapter.record:
        said = adapter.record.get("saved_by")
        said = said[0] if isinstance(said, list) and len(said) == 1 else said
    return said if isinstance(said, str) else None


def same_place(a: str, b: str) -> bool:
    """Whether two paths are one folder, or one lies in the other."""
    first, second = os.path.realpath(a), os.path.realpath(b)
    return first == second or os.path.commonpath([first, second]) in (first, second)
