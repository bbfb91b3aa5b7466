"""Stages of a load that read files and the config."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from ...adapter import codes
from ...adapter.findings import several
from ...adapter.runtimes import minor
from ...facts.config_keys import table
from ...facts.servers.record import ANY, REJECTS, TAKES, UNKNOWN, Outcome, Server, outcome
from ...facts.subject import Subject
from .cause import Cause, Field, alike, worst
from .kinds import FACTOR, copies, leaf


def files(subject: Subject) -> Iterator[Cause]:
    """The files with the weights, by their names; and those that are damaged, for whoever would read them."""

    def of_file(server: Server, name: str) -> Outcome:
        pattern = next((pattern for pattern in server.files if fnmatchcase(name, pattern)), ANY)
        return outcome(server.files, pattern)

    def of_weights(server: Server) -> Outcome:
        gravest = worst(of_file(server, name) for name in subject.adapter.weights)
        return server.shards if gravest == TAKES and len(subject.adapter.weights) > 1 else gravest

    def of_others(server: Server) -> Outcome:
        reads = any(of_file(server, name) in (TAKES, UNKNOWN) for name in subject.adapter.files)
        return UNKNOWN if reads else outcome(server.files, ANY)

    for fault in subject.adapter.faults:
        if fault.name == "no-tensors":
            yield Cause(codes.SERVER_FILES, "the file holds no tensor", Field("no_tensors"))
        elif fault.name == "no-weights":
            yield Cause(codes.SERVER_FILES, fault.message, of_others, needs="the file under a known name")
        else:
            yield Cause(codes.SERVER_FILES, fault.message, lambda server: REJECTS if server.files else UNKNOWN)
    if subject.adapter.weights:
        yield Cause(
            codes.SERVER_FILES,
            f"the weights are in {several(list(subject.adapter.weights))}",
            of_weights,
            about="files",
        )


def config(subject: Subject) -> Iterator[Cause]:
    """What is read of the config: keys that are needed, the kinds of their values, and keys that are refused."""
    values = subject.adapter.config
    if values is None:
        return
    code = codes.SERVER_CONFIG
    known = table("LORA")
    newer = [key for key in values if key not in known or minor(known[key][0]) > (0, 4)]
    if newer:
        needs = "the PEFT that it has inside"
        yield Cause(
            code, f"PEFT 0.4 does not know {several(newer)}", Field("newer_keys"), keys=tuple(newer), needs=needs
        )
    for key in ("r", "lora_alpha", "target_modules", "peft_type"):
        if key not in values:
            yield Cause(code, f"{key} is missing", Field("missing", key), keys=(key,))
    r, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    yield Cause(code, f"r is {r!r}", Field("r", _kind_of_rank(r)), keys=("r",))
    yield Cause(code, f"lora_alpha is {alpha!r}", Field("lora_alpha", _kind_of_alpha(alpha)), keys=("lora_alpha",))
    bias, saved, pattern = (values.get(key) for key in ("bias", "modules_to_save", "rank_pattern"))
    if values.get("bias", "none") != "none":
        yield Cause(codes.SERVER_BIAS, f"bias is {bias!r}", Field("bias"), keys=("bias",))
    if saved:
        for group in alike("saved_modules", map(str, saved if isinstance(saved, list) else [saved])):
            message = f"modules_to_save has {several(group)}"
            yield Cause(
                codes.SERVER_MODULES_TO_SAVE, message, Field("saved_modules", *group), keys=("modules_to_save",)
            )
    if isinstance(pattern, dict) and any(type(value) is not int or value <= 0 for value in pattern.values()):
        message = "a value of rank_pattern is no whole number above 0"
        yield Cause(code, message, Field("odd_rank_pattern"), keys=("rank_pattern",))


def _kind_of_rank(value: Any) -> str:
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0 and value > 0
    return type(value).__name__ if whole else "other"


def _kind_of_alpha(value: Any) -> str:
    if value is None or isinstance(value, str):
        return "null" if value is None else "text"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "other"
    if value % 1 or value < 0:
        return "fraction"
    return type(value).__name__


def method(subject: Subject) -> Iterator[Cause]:
    """The method: servers take LoRA only, and see another by its name or by its tensors."""
    values, kind = subject.adapter.config, subject.method or "no method"
    if values is None or not subject.tensors:
        return
    lora = all("lora_E" not in layer.factors for layer in subject.layers.values()) and bool(subject.layers)
    if kind == "LORA":
        yield Cause(codes.NOT_LORA, "peft_type is LORA", Field("methods", kind), keys=("peft_type",))
        if not lora:
            yield Cause(codes.NOT_LORA, "there are no factors of LoRA", Field("no_factors"))
        return
    strange = any(not FACTOR.search(key) for key in subject.tensors if not copies(key))
    pruned = any(layer.rank != values.get("init_r", 12) for layer in subject.layers.values())

    def of_others(server: Server) -> Outcome:
        by_name = outcome(server.methods, kind)
        if by_name != TAKES:
            return by_name
        if server.peft is None:
            return outcome(server.keys, "other end") if strange else UNKNOWN
        if kind == "ADALORA":
            return server.pruned if pruned else UNKNOWN
        return TAKES if subject.layers else UNKNOWN

    yield Cause(codes.NOT_LORA, f"{kind} is not LoRA", of_others, keys=("peft_type",))


CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of init_lora_weights under which training started from another base."""
SWITCHES = (
    "lora_bias", "alora_invocation_tokens", "layer_replication", "trainable_token_indices", "use_bdlora", "use_qalora",
    "target_parameters", "kasa_config", "monteclora_config",
)  # fmt: skip
"""Config keys of LoRA that change what is computed, if they are set."""


def options(subject: Subject) -> Iterator[Cause]:
    """Options of LoRA that a server refuses, or ignores in silence."""
    values = subject.config
    if values.get("use_dora"):
        magnitudes = any("lora_magnitude_vector" in key for key in subject.tensors)
        entry = "lora_magnitude_vector" if magnitudes else "use_dora"
        yield Cause(codes.SERVER_OPTION, "use_dora is set", Field("options", entry), keys=("use_dora",))
    experts = any(module.endswith((".experts", ".experts.base_layer")) for module in subject.layers)
    for key in SWITCHES:
        if values.get(key):
            entry = "target_parameters without experts" if key == "target_parameters" and not experts else key
            yield Cause(codes.SERVER_OPTION, f"{key} is set", Field("options", entry), keys=(key,))
    init = str(values.get("init_lora_weights")).lower()
    for changed in CHANGED_BASES:
        if init.startswith(changed):
            answer = Field("options", f"init_lora_weights={changed}")
            yield Cause(codes.SERVER_OPTION, f"init_lora_weights is {init}", answer, keys=("init_lora_weights",))


def targets(subject: Subject) -> Iterator[Cause]:
    """The form of target_modules and the names in it, and the modules that are adapted."""
    values, code = subject.config, codes.SERVER_TARGETS
    target, key = values.get("target_modules", []), ("target_modules",)
    if isinstance(target, str):
        form = "all-linear" if target in ("all", "all-linear") else "regex"
    else:
        form = "list" if isinstance(target, list) else "null" if target is None else "other"
    yield Cause(
        code, f"target_modules is {target if form != 'list' else 'a list'}", Field("target_forms", form), keys=key
    )
    if isinstance(target, list):
        for group in alike("target_names", (leaf(str(name)) for name in target)):
            yield Cause(code, f"target_modules has {several(group)}", Field("target_names", *group), keys=key)
    if subject.method == "LORA":
        for group in alike("modules", map(leaf, subject.layers)):
            tensors = subject.keys_of([module for module in subject.layers if leaf(module) in group])
            yield Cause(code, f"{several(group)} of the model are adapted", Field("modules", *group), tensors)
