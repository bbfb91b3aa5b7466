"""Stages of a load that read files and the config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ...adapter import codes
from ...adapter.findings import several, spelled
from ...adapter.runtimes import minor
from ...facts.config_keys import table
from ...facts.merging import MERGED, NEVER_MERGED
from ...facts.servers.record import ANY, REJECTS, TAKES, UNKNOWN, Outcome, Server, outcome
from ...facts.subject import Subject
from ..files import ASK_FOR_SAFETENSORS, DAMAGE
from ..rank import common_rank
from ..remedies import targets_of
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
        elif fault.name in ("no-weights", codes.OTHER_NAME.name):
            needs = "the file under a known name"
            yield Cause(codes.SERVER_FILES, fault.message, of_others, needs=needs, remedy=fault.remedy)
        elif fault.name == codes.OTHER_FORMAT.name:  # which some server may take, llama.cpp a .gguf
            needs = "a load of that format there"
            yield Cause(codes.SERVER_FILES, fault.message, lambda _: UNKNOWN, needs=needs, remedy=fault.remedy)
        else:
            remedy = ASK_FOR_SAFETENSORS if fault.name == codes.PICKLE_WITH_CODE.name else ""
            remedy = remedy or codes.CODES[DAMAGE[fault.name].number].remedy
            yield Cause(
                codes.SERVER_FILES, fault.message, lambda server: REJECTS if server.files else UNKNOWN, remedy=remedy
            )
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
    for key in NEEDED:
        if key not in values and not (key in OF_LORA and _is_of_another_method(subject)):
            message = f"the config has no {key}"
            yield Cause(code, message, Field("missing", key), keys=(key,), remedy=_set(subject, key))
    r, alpha = values.get("r", 8), values.get("lora_alpha", 8)
    for key, value, kind in (("r", r, _kind_of_rank(r)), ("lora_alpha", alpha, _kind_of_alpha(alpha))):
        remedy = "" if kind in ("int", "float", "fraction") else _set(subject, key)
        yield Cause(code, f"{key} is {spelled(value)}", Field(key, kind), keys=(key,), remedy=remedy)
    bias, saved = values.get("bias", "none"), values.get("modules_to_save")
    if bias != "none":
        there = any(key.endswith(".bias") for key in subject.tensors)
        remedy = MERGE if there else 'set bias to "none", if none was trained: the file has no bias'
        yield Cause(codes.SERVER_BIAS, f"bias is {spelled(bias)}", Field("bias"), keys=("bias",), remedy=remedy)
    if saved:
        for group in alike("saved_modules", map(str, saved if isinstance(saved, list) else [saved])):
            message = f"modules_to_save names {several(group)}"
            answer, keys = Field("saved_modules", *group), ("modules_to_save",)
            yield Cause(codes.SERVER_MODULES_TO_SAVE, message, answer, keys=keys, remedy=MERGE)
    odd = _odd_ranks(values)
    if odd and not _is_of_another_method(subject):
        name, value = next(iter(odd.items()))
        message = f"rank_pattern gives {name} {spelled(value)}, no whole number above 0"
        yield Cause(code, message, Field("odd_rank_pattern"), keys=("rank_pattern",))


MERGE = "merge the adapter into the model"
"""As the page of CD614 has it, so that both are one."""
NEEDED = ("r", "lora_alpha", "target_modules", "peft_type")
OF_LORA = ("r", "lora_alpha", "target_modules")
"""Keys that another method may well not have: that it is another is the cause."""


def _is_of_another_method(subject: Subject) -> bool:
    return subject.method not in (None, "LORA") and bool(subject.tensors)


def _odd_ranks(values: Mapping[str, object]) -> dict[str, object]:
    """The entries of rank_pattern that are no rank; AdaLoRA's are lists."""
    pattern = values.get("rank_pattern")
    listed = pattern.items() if isinstance(pattern, dict) else ()
    return {key: value for key, value in listed if type(value) is not int or value <= 0}


def _set(subject: Subject, key: str) -> str:
    """What to set a key to that is missing, or has no number."""
    value, rank = subject.config.get(key), common_rank(subject)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        return f"set {key} to {value[:20]}, without quotes, in adapter_config.json"
    if key == "r" and rank:
        return f"set r to {rank}, the rank of the tensors, in adapter_config.json"
    if key == "target_modules" and subject.layers:
        return targets_of(subject.layers)
    if key == "peft_type":
        return 'set peft_type to "LORA" in adapter_config.json, if it is one'
    return f"set {key} in adapter_config.json to the value of the training: the files do not tell it"


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

    missing = [key for key in OF_LORA if key not in values] if subject.method else []
    odd = bool(_odd_ranks(values))

    def answer(server: Server) -> Outcome:
        without = (outcome(server.missing, key) for key in missing)
        return worst((of_others(server), *without, *((server.odd_rank_pattern,) if odd else ())))

    remedy = MERGE if kind in MERGED else f"serve it with PEFT: no server has {kind}"
    message = f"peft_type is {kind}, and servers take LoRA alone"
    if not subject.method:
        message, remedy = "the config has no peft_type, and servers take LoRA alone", _set(subject, "peft_type")
    about = "missing" if missing else "odd_rank_pattern" if odd else ""
    yield Cause(codes.NOT_LORA, message, answer, keys=("peft_type",), about=about, remedy=remedy)


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
        yield Cause(codes.SERVER_OPTION, "use_dora is set", Field("options", entry), keys=("use_dora",), remedy=MERGE)
    experts = any(module.endswith((".experts", ".experts.base_layer")) for module in subject.layers)
    for key in SWITCHES:
        if values.get(key) not in (None, False, []):
            entry = "target_parameters without experts" if key == "target_parameters" and not experts else key
            remedy = f"serve it with PEFT: no merge has {key}" if key in NEVER_MERGED else MERGE
            yield Cause(codes.SERVER_OPTION, f"{key} is set", Field("options", entry), keys=(key,), remedy=remedy)
    init = str(values.get("init_lora_weights")).lower()
    for changed in CHANGED_BASES:
        if init.startswith(changed):
            answer = Field("options", f"init_lora_weights={changed}")
            message, keys = f"init_lora_weights is {init}", ("init_lora_weights",)
            yield Cause(codes.SERVER_OPTION, message, answer, keys=keys, remedy=MERGE)


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
            yield Cause(code, f"target_modules names {several(group)}", Field("target_names", *group), keys=key)
    if subject.method == "LORA":
        for group in alike("modules", map(leaf, subject.layers)):
            names = {*group}
            tensors = subject.keys_of([module for module in subject.layers if leaf(module) in names])
            yield Cause(code, f"{several(group)} of the model are adapted", Field("modules", *group), tensors)
