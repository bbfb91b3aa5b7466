"""The only door of the net and the cases to the package: configs and shapes in, findings and verdicts out.

When the rooms of the package move, this file follows, and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckpt_doctor import base as base_model
from ckpt_doctor import doctor, layers, loader, runtimes
from ckpt_doctor.adapter import Adapter, Base, Fault, zeros
from ckpt_doctor.findings import RULES, SEVERITIES, Finding, severity, verdict
from ckpt_doctor.rules import codes as rule_codes
from ckpt_doctor.rules import methods, servers  # noqa: F401 - importing methods declares its rules
from ckpt_doctor.rules.keys import savers

PEFT = runtimes.PEFT
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
    max_rank: int | None = None,
) -> Adapter:  # fmt: skip
    """An adapter as the loader would give it, without files. A tensor is its dtype and shape: `F32 4 8`.

    `weights` are the files with the tensors and `files` all of the folder; what is not given is as PEFT saves it.
    """
    one = {"safetensors": (loader.SAFETENSORS,), "bin": (loader.BIN,), None: ()}[file_format]
    weights = one if weights is None else tuple(weights)
    files = (*((loader.CONFIG,) if config is not None else ()), *weights) if files is None else files
    shaped = {name: (tensor.split()[0], tuple(map(int, tensor.split()[1:]))) for name, tensor in tensors.items()}
    return _asked_about(
        Adapter(
            "adapter", "adapter", config, {name: zeros(*form) for name, form in shaped.items()}, file_format, weights,
            tuple(files), tuple(Fault(name, "") for name in faults), None, bin_agrees,
        ), adapter_name, base, max_rank,
    )  # fmt: skip


def read(
    folder: str, *, adapter_name: str = "default", base: Base | None = None, max_rank: int | None = None
) -> Adapter:
    """The adapter in a folder."""
    return _asked_about(loader.load(folder), adapter_name, base, max_rank)


def _asked_about(adapter: Adapter, adapter_name: str, base: Base | None, max_rank: int | None) -> Adapter:
    adapter = adapter._replace(loaded_as=adapter_name, base=base, max_rank=max_rank)
    return adapter._replace(savers=savers(adapter))


def described(folder: str) -> dict[str, Any]:
    """What the loader finds in a folder, as the arguments of `adapter`; what is as PEFT saves it is left out."""
    found = loader.load(folder)
    told = {
        "file_format": found.format, "weights": found.weights, "files": found.files,
        "faults": [fault.name for fault in found.faults], "bin_agrees": found.bin_agrees, "config": found.config,
        "tensors": {key: " ".join((info.dtype, *map(str, info.shape))) for key, info in found.tensors.items()},
    }  # fmt: skip
    return {key: value for key, value in told.items() if key not in ("faults", "bin_agrees") or value not in ([], None)}


def base(weights: Mapping[str, Iterable[int]], config: dict[str, Any], biases: Iterable[str] = ()) -> Base:
    """A base model: module → shape of its weight, its config.json, and the modules that have a bias."""
    return Base({module: tuple(shape) for module, shape in weights.items()}, config, frozenset(biases))


def described_base(path: str) -> dict[str, Any]:
    """What is known of the base model in a folder, as the arguments of `base`."""
    found = base_model.load_base(path)
    return {"weights": found.weights, "config": found.config, "biases": sorted(found.biases)}


def judge(adapter: Adapter, asked: frozenset[str] = frozenset()) -> tuple[Finding, ...]:
    """All findings; about servers only where they are asked for."""
    return doctor.judge(adapter, asked)


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
    found: dict[str, Stopped] = {}
    for f in findings:
        before = found.get(f.code, (frozenset(), frozenset(), frozenset()))
        found[f.code] = (before[0] | f.rejected_by, before[1] | f.misloaded_by, before[2] | f.undecided_for)
    return found


def verdicts(runtimes: Iterable[str], findings: Iterable[Finding]) -> dict[str, str]:
    """Runtime → accepts, rejects, misloads or unknown."""
    findings = tuple(findings)
    return {id_: verdict(id_, findings) for id_ in runtimes}


def rules() -> tuple[str, ...]:
    """The names of all rules, as `by_rule` has them."""
    return tuple(_name(rule) for rule in (*RULES, *servers.STAGES))


def _name(rule: Any) -> str:
    return f"{rule.__module__.removeprefix('ckpt_doctor.rules.')}.{rule.__name__}"


def said_of(server: Any, adapter: Adapter) -> tuple[dict[str, Stopped], str]:
    """What a server's record alone says of an adapter: code → whom it stops, and the verdict."""
    found = tuple(servers.judge(adapter, layers.layers(adapter), (server,)))
    return stopped(found), verdict(server.id, found)


def by_rule(adapter: Adapter, asked: frozenset[str] = frozenset()) -> dict[str, tuple[Finding, ...]]:
    """The findings of `judge`, by the rule that makes them; rules without one are left out."""
    found = layers.layers(adapter)
    seen = doctor.loaded(adapter, found)
    made = {_name(rule): tuple(rule(seen, found)) for rule in RULES}
    if asked & runtimes.SERVERS:
        records = [server for server in servers.SERVERS if server.id in asked]
        inside = {server.peft: server.id for server in records if server.peft}
        made = {name: tuple(doctor.also(f, inside) for f in findings) for name, findings in made.items()}
        made |= {_name(stage): tuple(servers.findings(stage, adapter, found, records)) for stage in servers.STAGES}
    return {name: findings for name, findings in made.items() if findings}
