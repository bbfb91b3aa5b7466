"""The verbs: scan an adapter, plan its repair, fix it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from . import __version__, rules  # noqa: F401 - importing the rules declares them
from .adapter import Adapter, AdapterError
from .findings import ERROR, RULES, Finding, Report, verdict
from .layers import layers
from .loader import BIN, SAFETENSORS, load
from .runtimes import PEFT

if TYPE_CHECKING:
    from .writer import Written

RANK_ZERO = ("pad", "prune")
_ORDER = {"accepts": 0, "unknown": 1, "rejects": 2, "misloads": 3}


class Step(NamedTuple):
    """A repair that was made, or refused for a reason."""

    title: str
    codes: tuple[str, ...]
    reason: str | None = None


class Plan(NamedTuple):
    """What a fix would do: the report before, the adapter and its findings after, and each step on the way."""

    before: Report
    after: Adapter
    findings: tuple[Finding, ...]
    done: tuple[Step, ...]
    refused: tuple[Step, ...]

    @property
    def fixed(self) -> bool:
        """Whether no error remains."""
        return not any(finding.severity == ERROR for finding in self.findings)


def judge(adapter: Adapter) -> tuple[Finding, ...]:
    """All findings of an adapter."""
    found = layers(adapter)
    return tuple(finding for rule in RULES for finding in rule(adapter, found))


def scan(folder: str) -> Report:
    """Read and judge one adapter. Never raises for what a file holds: `error` says what could not be examined."""
    try:
        adapter = load(folder)
        findings = judge(adapter)
    except (AdapterError, OSError) as error:
        return Report(folder, error=str(error))
    except Exception as error:
        return Report(folder, error=f"{folder}: ckpt-doctor failed ({type(error).__name__}: {error}); please report it")
    report = Report(folder, None, adapter, layers(adapter), findings)
    if not any(f.severity == ERROR or f.code == "CD201" for f in findings):
        return report
    healed = {code for step in plan(report).done for code in step.codes}
    return report._replace(findings=tuple(f._replace(fixable=f.code in healed) for f in findings))


def plan(report: Report, *, rank_zero: str = "pad", weights: str = "safetensors") -> Plan:
    """Repair to a fixed point: each step heals a finding and makes no release's verdict worse.

    `weights` is the format to be written: "safetensors", "bin" or "same".
    """
    from .repairs import Refused, Repair
    from .repairs import config as of_config
    from .repairs import rank as of_rank

    assert report.adapter is not None  # noqa: S101 - callers ask scan first
    prune = rank_zero == "prune"
    title = "prune rank-0 layers" if prune else "pad rank-0 layers with zeros"
    repairs = [
        Repair(title, frozenset({"CD101"}), of_rank.prune if prune else of_rank.pad_adalora),
        Repair(title, frozenset({"CD102"}), of_rank.prune if prune else of_rank.pad_lora),
        Repair("set total_step for inference", frozenset({"CD302"}), of_config.schedule),
        Repair("spell each bias key both ways", frozenset({"CD304"}), of_config.both_bias_spellings),
        Repair("drop config keys without meaning", frozenset({"CD201"}), of_config.drop_neutral_keys),
    ]
    adapter = written_as(report.adapter, weights)
    findings = judge(adapter)
    done: list[Step] = []
    if len(report.adapter.weights) > 1:
        done.append(Step("write the shards as one file", ("CD015",)))
    refused: dict[str, Step] = {}
    while True:
        for repair in repairs:
            codes = tuple(f.code for f in findings if f.code in repair.heals)
            if not codes or any(step.title == repair.title and step.codes == codes for step in done):
                continue
            try:
                candidate = repair.function(adapter, layers(adapter))
                after = judge(candidate)
                _no_worse(findings, after)
            except Refused as error:
                refused[repair.title] = Step(repair.title, codes, str(error))
                continue
            refused.pop(repair.title, None)
            done.append(Step(repair.title, codes))
            adapter, findings = candidate, after
            break
        else:
            return Plan(report, adapter, findings, tuple(done), tuple(refused.values()))


def written_as(adapter: Adapter, weights: str) -> Adapter:
    """The adapter as it will lie in a new folder: one file of weights, in the format asked for."""
    kind = (adapter.format or "safetensors") if weights == "same" else weights
    name = BIN if kind == "bin" else SAFETENSORS
    files = (*(file for file in adapter.files if not file.startswith("adapter_model.")), name)
    return adapter._replace(format=kind, weights=(name,) if adapter.weights else (), files=files)


def _no_worse(before: tuple[Finding, ...], after: tuple[Finding, ...]) -> None:
    """Refuse a repair that would turn a loud rejection into a silent change, or into a doubt."""
    from .repairs import Refused
    from .runtimes import ranges

    if any(f.code == "CD901" for f in after) and not any(f.severity == ERROR for f in before):
        raise Refused(next(f.message for f in after if f.code == "CD901") + ", so its keys stay")
    worse = [id_ for id_ in PEFT if _ORDER[verdict(id_, after)] > _ORDER[verdict(id_, before)]]
    if worse:
        why = next((f.message for f in after if f.misloaded_by & set(worse)), "it would load less well")
        raise Refused(f"{ranges(worse)} would then load it and compute something else, in silence: {why}")


def fix(the_plan: Plan, out: str, *, force: bool = False, copy_all: bool = False) -> Written:
    """Write a plan's adapter to `out`, read back before it takes its place. Raises AdapterError."""
    from .writer import write

    before = the_plan.before.adapter
    assert before is not None  # noqa: S101 - a plan has one
    record: dict[str, Any] = {
        "schema_version": 1,
        "tool": {"name": "ckpt-doctor", "version": __version__},
        "saved_by": saved_by(before),
        "purpose": "for inference",
        "repairs": [{"title": step.title, "codes": list(step.codes)} for step in the_plan.done],
    }
    return write(the_plan.after, before, out, record, force=force, copy_all=copy_all)


def saved_by(adapter: Adapter) -> str | None:
    """The PEFT release that saved the adapter, where the config or an earlier record says so."""
    said = (adapter.config or {}).get("peft_version")
    if not said and adapter.record:
        said = adapter.record.get("saved_by")
    return said if isinstance(said, str) else None


def same_place(a: str, b: str) -> bool:
    """Whether two paths are one folder, or one lies in the other."""
    first, second = os.path.realpath(a), os.path.realpath(b)
    return first == second or os.path.commonpath([first, second]) in (first, second)
