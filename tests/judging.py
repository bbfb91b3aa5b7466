"""The only door of the net and the cases to the package: configs and shapes in, findings and verdicts out.

When the rooms of the package move, this file follows, and no other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from ckpt_doctor import adapter as adapter_types
from ckpt_doctor import rules
from ckpt_doctor.adapter import Adapter, Base, Fault, Question, runtimes, zeros
from ckpt_doctor.adapter import codes as rule_codes
from ckpt_doctor.adapter.findings import SEVERITIES, Finding, severity, verdict
from ckpt_doctor.facts import config_keys as keys
from ckpt_doctor.facts import forms, methods, targets
from ckpt_doctor.facts import layers as layers_of_names
from ckpt_doctor.facts.patterns import TooCostly
from ckpt_doctor.facts.subject import Subject
from ckpt_doctor.files import base as base_model
from ckpt_doctor.files import loader
from ckpt_doctor.rules import servers, values
from ckpt_doctor.rules.declared import RULES
from ckpt_doctor.rules.methods import values as method_values
from ckpt_doctor.rules.methods.review import reviewed

for _late in ("weights", "training"):  # which are imported where values are read, and where training is told
    import_module(f"ckpt_doctor.rules.{_late}")
PEFT = runtimes.PEFT
NEWEST = runtimes.NEWEST
SERVERS = frozenset(runtimes.RAN.values())
"""The servers whose outcomes were recorded."""


def codes() -> dict[str, str]:
    """Every code and its name."""
    return {code.number: code.name for code in rule_codes.CODES.values()}


def ids(specs: str | Iterable[str]) -> frozenset[str]:
    """The runtimes that specifiers name, divided by blanks or in a list: `peft>=0.8,<0.10 vllm`; none for ""."""
    return runtimes.ids(specs.split() if isinstance(specs, str) else specs)


def specs(ids: Iterable[str]) -> list[str]:
    """Specifiers that name just these runtimes."""
    return runtimes.specs(ids)


def adapter(
    config: dict[str, Any] | None, tensors: Mapping[str, str], *, file_format: str | None = "safetensors",
    weights: Iterable[str] | None = None, files: Iterable[str] | None = None, faults: Iterable[str] = (),
    bin_agrees: bool | None = None, adapter_name: str = "default", base: Base | None = None,
    max_rank: int | None = None, trained: tuple[int, int] | None = None,
) -> Subject:  # fmt: skip
    """An adapter as the loader would give it, without files. A tensor is its dtype and shape: `F32 4 8`.

    `weights` are the files with the tensors and `files` all of the folder; what is not given is as PEFT saves it.
    """
    one = {"safetensors": (loader.SAFETENSORS,), "bin": (loader.BIN,), None: ()}[file_format]
    weights = one if weights is None else tuple(weights)
    files = (*((loader.CONFIG,) if config is not None else ()), *weights) if files is None else files
    shaped = {name: (tensor.split()[0], tuple(map(int, tensor.split()[1:]))) for name, tensor in tensors.items()}
    made = Adapter(
        "adapter", "adapter", config, {name: zeros(*form) for name, form in shaped.items()}, file_format, weights,
        tuple(files), tuple(Fault(name, "") for name in faults), None, bin_agrees, trained=trained,
    )  # fmt: skip
    return Subject(made, Question(None, adapter_name, base, max_rank))


def read(
    folder: str, *, adapter_name: str = "default", base: Base | None = None, max_rank: int | None = None,
    values: bool = False,
) -> Subject:  # fmt: skip
    """The adapter in a folder."""
    return Subject(loader.load(folder), Question(None, adapter_name, base, max_rank, values=values))


def described(folder: str) -> dict[str, Any]:
    """What the loader finds in a folder, as the arguments of `adapter`; what is as PEFT saves it is left out."""
    checkpoint = loader.load(folder)
    arguments = {
        "file_format": checkpoint.format, "weights": checkpoint.weights, "files": checkpoint.files,
        "faults": [fault.name for fault in checkpoint.faults], "bin_agrees": checkpoint.bin_agrees,
        "config": checkpoint.config,
        "tensors": {key: " ".join((info.dtype, *map(str, info.shape))) for key, info in checkpoint.tensors.items()},
    }  # fmt: skip
    return {
        key: value for key, value in arguments.items() if key not in ("faults", "bin_agrees") or value not in ([], None)
    }


def base(parameters: Mapping[str, Iterable[int]], config: dict[str, Any]) -> Base:
    """A base model: parameter → its shape, and its config.json."""
    return Base({name: tuple(shape) for name, shape in parameters.items()}, config, *base_model.origin("", config))


def described_base(path: str) -> dict[str, Any]:
    """What is known of the base model in a folder, as the arguments of `base`."""
    model = base_model.load_base(path)
    return {"parameters": model.parameters, "config": model.config}


def judge(subject: Subject, asked: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """All findings; about servers only where they are asked for."""
    return rules.judge(_asked(subject, asked))


def apart(set_: Callable[[object, str, object], None]) -> None:
    """Have no two names be alike, so that each layer is a kind of its own; `set_` is that of a monkeypatch."""
    set_(adapter_types, "NUMBER", re.compile("(?!)"))
    # these remember what names were alike
    set_(layers_of_names, "_parted", layers_of_names._part)
    set_(targets, "_missing", targets._missing.__wrapped__)


def _asked(subject: Subject, asked: frozenset[str]) -> Subject:
    return Subject(subject.adapter, subject.question._replace(runtimes=asked))


def severities(findings: Iterable[Finding], asked: frozenset[str] = frozenset()) -> dict[str, str]:
    """Code → the gravest severity of its findings, as a scan shows it."""
    gravest: dict[str, str] = {}
    for f in findings:
        ours = severity(f.code, f.rejected_by, f.misloaded_by, f.undecided_for, asked) if asked else f.severity
        gravest[f.code] = max(gravest.get(f.code, ours), ours, key=SEVERITIES.index)
    return gravest


Stopped = tuple[frozenset[str], frozenset[str], frozenset[str]]
"""Whom findings stop: who rejects, who misloads, for whom it is undecided."""


def stopped(findings: Iterable[Finding]) -> dict[str, Stopped]:
    """Code → whom its findings stop together."""
    by_code: dict[str, Stopped] = {}
    for f in findings:
        before = by_code.get(f.code, (frozenset(), frozenset(), frozenset()))
        by_code[f.code] = (before[0] | f.rejected_by, before[1] | f.misloaded_by, before[2] | f.undecided_for)
    return by_code


def verdicts(runtimes: Iterable[str], findings: Iterable[Finding]) -> dict[str, str]:
    """Runtime → accepts, rejects, misloads or unknown."""
    findings = tuple(findings)
    return {id_: verdict(id_, findings) for id_ in runtimes}


def rule_names() -> tuple[str, ...]:
    """The names of all rules, as `by_rule` has them."""
    return (*(_name(rule) for rule in (*RULES, *servers.STAGES)), "servers.follow.fates")


def _name(rule: Any) -> str:
    return f"{rule.__module__.removeprefix('ckpt_doctor.rules.')}.{rule.__name__}"


def judgement(server: Any, subject: Subject) -> tuple[dict[str, Stopped], str]:
    """What a server's record alone says of an adapter: code → whom it stops, and the verdict."""
    findings = tuple(servers.judge(subject, (server,)))
    return stopped(findings), verdict(server.id, findings)


def by_rule(subject: Subject, asked: frozenset[str] = frozenset()) -> dict[str, tuple[Finding, ...]]:
    """The findings of `judge`, by the rule that makes them; rules without one are left out. That of a pattern which is
    too costly to follow is no rule's, and has the name "".
    """
    made: dict[str, tuple[Finding, ...]] = {}
    costly: dict[str, TooCostly] = {}
    for rule in RULES:
        found: list[Finding] = []
        try:
            found += rule(_asked(subject, asked))
        except TooCostly as error:
            costly[error.pattern] = error
        made[_name(rule)] = tuple(found)
    if costly:
        made[""] = (rules.not_followed(subject, costly.values(), PEFT | (asked & runtimes.SERVERS)),)
    elif asked & runtimes.SERVERS:
        records = [server for server in servers.SERVERS if server.id in asked]
        inside = {server.peft: server.id for server in records if server.peft}
        into = servers.followed(subject, records)
        within = any(server.peft for server in into)
        made = {name: tuple(rules.also(f, inside, within) for f in findings) for name, findings in made.items()}
        made |= {_name(stage): tuple(servers.findings(stage, subject, records, into)) for stage in servers.STAGES}
        made["servers.follow.fates"] = tuple(servers.fates(subject, into)) if into else ()
    return {name: findings for name, findings in made.items() if findings}


def _row_names() -> dict[int, str]:
    """The name of each row of a method: the method, what is asked, the code. What methods share is one row."""
    return {
        id(row): f"{method} {row.when.__name__} {row.code.name}"
        for method in reversed(methods_with_record()) for row in _record(method).rows
    }  # fmt: skip


def method_rows() -> dict[str, bool]:
    """The rows of all methods by name, and whether each is said to be read alone."""
    names = _row_names()
    assert len({*names.values()}) == len(names)
    return {names[id(row)]: row.read for method in methods_with_record() for row in _record(method).rows}


def by_row(subject: Subject) -> dict[str, tuple[Finding, ...]]:
    """The findings that rows of methods make, by row."""
    method = subject.record
    if method is None:
        return {}
    names = _row_names()
    made = {names[id(row)]: tuple(reviewed(f, method) for f in row.findings(subject)) for row in method.rows}
    return {name: findings for name, findings in made.items() if findings}


def has_record(subject: Subject) -> bool:
    """Whether the adapter is of a method of which there is a record."""
    return subject.record is not None


def methods_with_record() -> tuple[str, ...]:
    """The methods of which there is a record."""
    return tuple(sorted(methods.names()))


def config_keys(method: str, id_: str) -> dict[str, Any]:
    """The config keys of a method in a release, each with its default."""
    return {key: default for key, (_, _, default) in keys.table(method).items() if id_ in keys.knows(method, key)}


def all_keys(method: str) -> set[str]:
    """The config keys of a method in any release."""
    return set(keys.table(method))


def common_keys() -> frozenset[str]:
    """The keys that rules about all methods follow, or that say where an adapter comes from."""
    return method_values.FOLLOWED | method_values.HARMLESS


def _record(method: str) -> Any:
    record = methods.record(method)
    assert record is not None
    return record


def reasons(method: str) -> dict[str, str]:
    """The keys whose value may be any, and why: where it differs by release, a row says so."""
    by_release = {key: row.says for row in _record(method).rows if hasattr(row, "computes") for key in row.keys}
    common = dict.fromkeys(method_values.HARMLESS, "where the adapter comes from")
    return {**common, **by_release, **_record(method).harmless, **_record(method).alike}


def row_keys(method: str) -> set[str]:
    """The keys that rows of a method name."""
    return {key for row in _record(method).rows for key in row.keys}


def words(method: str, key: str) -> tuple[Any, ...]:
    """What a value may be beside its default."""
    return tuple(_record(method).words.get(key, ()))


def kinds(method: str, key: str) -> tuple[type, ...]:
    """The types of a key whose default is null."""
    return {**method_values.KINDS, **_record(method).kinds}.get(key, ())


def tensors_of(method: str, config: dict[str, Any], prefix: str) -> dict[str, str]:
    """The tensors that the record of a method says that a config has, with one layer; free sizes are 16."""
    known = _record(method)
    sizes = forms.Sizes(config, {key: row[2] for key, row in keys.table(method).items()}, {})
    made = {}
    for lines, start in ((known.tensors, prefix), (known.shared, "")):
        for group in filter(sizes.active, forms.parse(lines)):
            for factor, (shape, _) in sizes.spread(group.ways[-1 if method == "OFT" else 0], 9).items():
                numbers = [sizes.of(word, "") for word in shape if word != "..."]
                whole = (16 if not isinstance(number, int) else number for number in numbers)
                made[start + factor] = " ".join(("F32", *map(str, whole)))
    return made


def forget_review(patch: Any, method: str, id_: str) -> None:
    """From here on a method was not reviewed in a release."""
    less = _record(method)._replace(reviewed=_record(method).reviewed - {id_})
    patch.setattr(methods, "_record", lambda name: less if name == method else _record(name))


def forget_lora_review(patch: Any, id_: str) -> None:
    """From here on LoRA and AdaLoRA were not reviewed in a release."""
    patch.setattr(values, "REVIEWED", values.REVIEWED - {id_})
