"""Rules about config values and what goes with them in the tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..findings import ERROR, NOTE, THE_BASE, WARNING, Finding, rule
from ..layers import Layer, groups_of, module_of
from ..runtimes import PEFT, minor, peft
from ..targets import OUT_PROJ, targeted
from .heads import heads
from .keys import knows, savers, table
from .rank import keys_of

CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that write the base weights when an adapter is loaded (LoraLayer.reset_lora_parameters)."""


@rule
def adalora_unsupported(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """PEFT 0.2 has no AdaLoRA; 0.3 and 0.4 fail where lora_dropout is 0 (lora_dropout_layer is not a Module), and with
    a task type, whose class calls AdaLoraModel.forward: that reads a trainable_adapter_name, which a load never sets.
    """
    if adapter.peft_type == "ADALORA" and adapter.config:
        dropout, task = adapter.config.get("lora_dropout", 0), adapter.config.get("task_type")
        old = peft("0.2") - peft("0.3") if dropout else peft("0.2", "0.4")
        message = "PEFT 0.2 has no AdaLoRA" + ("" if dropout else ", and 0.3 and 0.4 need a lora_dropout above 0")
        if task is not None:
            message += ("" if dropout else ",") + " and 0.3 and 0.4 cannot run it with a task_type"
            # 0.3 has no class for the others, and takes the one without a task
            old |= peft("0.4" if task in ("QUESTION_ANS", "FEATURE_EXTRACTION") else "0.3", "0.4")
        yield Finding("CD301", "adalora-unsupported", NOTE, message, (), ("peft_type",), old)


@rule
def schedule(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """AdaLoRA's schedule is not one: PEFT 0.15 and newer raise while the config is read, though a loaded adapter
    never uses it (tuners/adalora/config.py: __post_init__).
    """
    config = adapter.config or {}
    if adapter.peft_type != "ADALORA":
        return
    total, first, last = (config.get(key, 0) for key in ("total_step", "tinit", "tfinal"))
    numbers = all(isinstance(value, (int, float)) for value in (total, first, last))
    if total is None or not numbers or total <= 0 or first >= total - last:
        message = f"the schedule (total_step {total}, tinit {first}, tfinal {last}) is none that a newer PEFT accepts"
        keys = ("total_step", "tinit", "tfinal")
        yield Finding("CD302", "adalora-schedule", ERROR, message, (), keys, peft("0.15"))


@rule
def base_changing_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """init_lora_weights names a method that changes the base weights when the adapter is loaded.

    0.6 and older take any string as true and leave the base as it is; from 0.7 an unknown one raises.
    """
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type != "LORA" or not isinstance(init, str) or not init.lower().startswith(CHANGES_BASE):
        return
    known = {"pissa": "0.11", "olora": "0.12", "lora_ga": "0.19"}
    first = next((release for name, release in known.items() if init.lower().startswith(name)), None)
    changing = peft(first) if first else frozenset[str]()
    keeping, saved = peft("0.2", "0.6"), savers(adapter)
    misloaded = frozenset[str]()
    undecided = misloaded
    if saved and saved <= keeping:
        misloaded = changing
    elif saved and not saved & keeping:
        misloaded = keeping
    else:
        undecided = keeping | changing
    message = f"init_lora_weights {init!r} changes the base weights at load, which PEFT 0.6 and older do not"
    yield Finding(
        "CD303", "base-changing-init", ERROR if "peft==0.21.2" in misloaded else NOTE, message, (),
        ("init_lora_weights",), PEFT - keeping - changing, misloaded, undecided,
        "the release that saved it" if undecided else None,
    )  # fmt: skip


@rule
def unknown_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """init_lora_weights names a method that a release does not know: from 0.7 it raises, though it matters to none."""
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type != "LORA" or not isinstance(init, str) or init.lower().startswith(CHANGES_BASE):
        return
    known = {"gaussian": "0.2", "eva": "0.14", "orthogonal": "0.16"}
    first = known.get(init.lower())
    if first != "0.2":
        rejected = peft("0.7") - peft(first) if first else peft("0.7")
        message = f"init_lora_weights is {init!r}, which {'no' if first is None else 'not every'} PEFT release knows"
        yield Finding("CD305", "unknown-init", NOTE if first else ERROR, message, (), ("init_lora_weights",), rejected)


@rule
def impossible_value(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A config value is null, or of a type or range, with which PEFT fails while the model is built."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    rank = "r" if adapter.peft_type == "LORA" else "init_r"
    wrong = []
    if type(config.get(rank, 8)) is not int:
        wrong.append(rank)
    alpha = config.get("lora_alpha", 8)
    if not _number(alpha) or (type(alpha) is int and alpha.bit_length() > 1023):  # OverflowError
        wrong.append("lora_alpha")
    dropout = config.get("lora_dropout", 0)
    if not _number(dropout) or dropout > 1:
        wrong.append("lora_dropout")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        wrong.append("bias")  # tuners/lora/model.py: NotImplementedError
    if adapter.peft_type == "ADALORA" and not _number(config.get("orth_reg_weight", 0.5)):
        wrong.append("orth_reg_weight")
    absent = tuple(key for key in ("lora_alpha", "lora_dropout") if key not in config)
    if absent:
        message = f"{' and '.join(absent)} is absent, which PEFT 0.3 and older read as null"
        yield Finding("CD306", "impossible-value", NOTE, message, (), absent, peft("0.2", "0.3"))
    for key in wrong:
        message = f"{key} is {json.dumps(config[key])[:40]}, with which no release builds the model"
        yield Finding("CD306", "impossible-value", ERROR, message, (), (key,), PEFT)
    for key in ("rank_pattern", "alpha_pattern"):
        if adapter.peft_type == "LORA" and not isinstance(config.get(key, {}), (dict, type(None))):
            yield Finding("CD306", "impossible-value", ERROR, f"{key} is not an object", (), (key,), peft("0.6"))
    nulls = {"rank_pattern": peft("0.6"), "alpha_pattern": peft("0.6"), "loftq_config": peft("0.7", "0.18")}
    for key, rejected in nulls.items():
        if key in config and config[key] is None and (key == "loftq_config" or adapter.peft_type == "LORA"):
            severity = NOTE if key == "loftq_config" else ERROR
            yield Finding("CD306", "impossible-value", severity, f"{key} is null", (), (key,), rejected)
    if adapter.peft_type == "ADALORA" and _number(config.get("orth_reg_weight")) and config["orth_reg_weight"] < 0:
        message = "orth_reg_weight is negative, which PEFT 0.15 and newer refuse"
        yield Finding("CD306", "impossible-value", ERROR, message, (), ("orth_reg_weight",), peft("0.15"))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@rule
def layers_options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """layers_to_transform and layers_pattern where PEFT refuses them (LoraConfig.__post_init__): beside a regex, from
    0.7 (AdaLoRA: 0.11); a layers_pattern alone, from 0.14.
    """
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    to, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    rejected = frozenset[str]()
    if isinstance(config.get("target_modules"), str):
        first = "0.7" if adapter.peft_type == "LORA" else "0.11"
        if to is not None:
            rejected |= peft(first)
        if pattern is not None:
            rejected |= peft(first) if adapter.peft_type == "LORA" else peft(first, "0.13")
    if pattern and not to:
        rejected |= peft("0.14") if to is None else peft("0.14", "0.17")
    if rejected:
        severity = ERROR if "peft==0.21.2" in rejected else NOTE
        message = "layers_to_transform and layers_pattern do not go with each other, or with a regex in target_modules"
        keys = ("layers_to_transform", "layers_pattern")
        yield Finding("CD313", "layers-options", severity, message, (), keys, rejected)


@rule
def adalora_and_lora_options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Options of LoRA that AdaLoRA refuses from 0.11 on, though it never uses them (AdaLoraConfig.__post_init__)."""
    config = adapter.config or {}
    if adapter.peft_type == "ADALORA":
        if config.get("use_dora"):
            message = "use_dora is set, which AdaLoRA does not have"
            yield Finding("CD307", "adalora-option", ERROR, message, (), ("use_dora",), peft("0.11"))
        if config.get("loftq_config"):
            message = "loftq_config is set, which AdaLoRA does not have"
            yield Finding("CD307", "adalora-option", NOTE, message, (), ("loftq_config",), peft("0.11", "0.13"))


@rule
def all_linear(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """target_modules is "all-linear": unknown before 0.8, and for transformers models only before 0.15."""
    config = adapter.config or {}
    target = config.get("target_modules")
    if not layers or target is None or adapter.peft_type == "ADAPTION_PROMPT":  # it counts layers, see CD509
        return
    if isinstance(target, str) and target.lower() == "all-linear":
        message = "target_modules is all-linear, which PEFT 0.7 and older do not know"
        rejected, undecided = peft("0.2", "0.7"), peft("0.8", "0.14")
        of_transformers = _of_transformers(adapter)
        if of_transformers is not None:
            rejected |= frozenset() if of_transformers else undecided
            undecided = frozenset()
        yield Finding(
            "CD308", "all-linear", NOTE, message, (), ("target_modules",), rejected, undecided_for=undecided,
            needs=THE_BASE if undecided else None,
        )  # fmt: skip
    elif adapter.peft_type not in ("LORA", "ADALORA") and not any(targets(target, module) for module in layers):
        message = f"target_modules ({str(target)[:60]}) matches none of the layers in the file"
        yield Finding("CD309", "no-target", ERROR, message, (), ("target_modules",), PEFT)


def _of_transformers(adapter: Adapter) -> bool | None:
    """Whether the base is a transformers model, where something tells: PEFT writes the name that those have, and
    without a task the library of the class (peft_model.py: save_pretrained).
    """
    config = adapter.config or {}
    if adapter.base is not None:
        return bool(adapter.base.config.get("model_type"))
    library = str((config.get("auto_mapping") or {}).get("parent_library", ""))
    if config.get("task_type") or library.startswith("transformers."):
        return True
    if config.get("base_model_name_or_path", "") is None:
        return False
    return None


def targets(target: object, module: str) -> bool:
    """Whether target_modules names a module (tuners/tuners_utils.py: check_target_module_exists)."""
    if isinstance(target, str):
        try:
            return re.fullmatch(target, module) is not None
        except re.error:
            return False
    return isinstance(target, list) and any(module == name or module.endswith(f".{name}") for name in target)


@rule
def bias_spelling(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Trained biases under the names of one side of PEFT 0.7 only: the other side ignores them in silence.

    0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`.
    """
    config = adapter.config or {}
    bias = config.get("bias", "none")
    if adapter.peft_type not in ("LORA", "ADALORA") or config.get("target_modules") is None:
        return
    if bias not in ("all", "lora_only"):
        return
    whole = tuple(f"{head}." for head, _ in heads(adapter))  # a head has its own bias, whatever is trained beside it
    biases = [key for key in adapter.tensors if key.endswith(".bias") and not key.startswith(whole or "*")]
    named = {module_of(key) for key in biases if ".lora_" not in key}
    new = {name.removesuffix(".base_layer.bias") for name in named if name.endswith(".base_layer.bias")}
    old = {name.removesuffix(".bias") for name in named} - {name + ".base_layer" for name in new}
    missing = frozenset[str]()
    if adapter.base is not None and not new and not old and adapter.base.biases.isdisjoint(layers):
        return
    if not new & layers.keys() and not old & layers.keys():
        # the layers of 0.6 – 0.9 have no bias of their own, so these trained none (tuners_utils.py: BaseTunerLayer)
        if bias == "lora_only" and not savers(adapter) <= peft("0.6", "0.9"):
            missing = PEFT
    else:
        # what is not adapted keeps the plain name of its bias in every release
        wrapped = {m for m in new | old if m in layers or targeted(config, m, (0, 21))}
        missing |= peft("0.2", "0.6") if new - old else frozenset()
        missing |= peft("0.7") if (old - new) & wrapped or (new - old) - wrapped else frozenset()
    if missing:
        keys = tuple(key for key in adapter.tensors if key.endswith(".bias"))
        lost = "no bias is in the file" if missing == PEFT else "the biases are named for one side of PEFT 0.7 only"
        severity = WARNING if missing == PEFT else NOTE
        yield Finding(
            "CD304", "bias-spelling", severity, f"bias is {bias!r} and {lost}", keys, ("bias",), misloaded_by=missing
        )


DORA_SINCE = {"Embedding": "0.13", 3: "0.16", 4: "0.12", 5: "0.14"}
CONV_SINCE = {3: "0.15", 4: "0.4", 5: "0.14"}
"""First releases of a convolution by the dimensions of its factors (tuners/lora/layer.py: dispatch_default), and of
DoRA on what is not Linear (tuners/lora/dora.py)."""


@rule
def layer_kind(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """LoRA on a kind of layer that older releases do not adapt: they raise "Target module … is not supported"."""
    config = adapter.config or {}
    if adapter.peft_type != "LORA":
        return
    rejected: dict[str, frozenset[str]] = {}
    misloaded = frozenset[str]()
    dora = bool(config.get("use_dora"))
    if config.get("fan_in_fan_out") is True and layers:  # PEFT saves false for a Linear
        rejected["a Conv1D (fan_in_fan_out)"] = peft("0.2", "0.2")
        if dora:
            rejected["DoRA on a Conv1D"] = peft("0.9", "0.10")
    for layer in layers.values():
        if "lora_embedding_A" in layer.factors or "lora_embedding_B" in layer.factors:
            rejected["an Embedding"] = peft("0.2", "0.2")
            if dora:
                rejected["DoRA on an Embedding"] = peft("0.9") - peft(DORA_SINCE["Embedding"])
            if config.get("lora_bias"):
                rejected["lora_bias on an Embedding"] = peft("0.14")
            continue
        if layer.module.endswith(OUT_PROJ):
            rejected["a MultiheadAttention"] = peft("0.2", "0.14")
        for key in layer.factors.values():
            dimensions = len(adapter.tensors[key].shape)
            if dimensions > 2:
                name = f"Conv{dimensions - 2}d"
                rejected[f"a {name}"] = PEFT - peft(CONV_SINCE.get(dimensions, "99.0"))
                if dora:
                    rejected[f"DoRA on a {name}"] = peft("0.9") - peft(DORA_SINCE.get(dimensions, "99.0"))
    yield from _grouped(adapter, layers)
    for what, ids in rejected.items():
        if ids:
            severity = ERROR if "peft==0.21.2" in ids else NOTE
            yield Finding("CD314", "layer-kind", severity, f"{what} is among the layers", rejected_by=ids)
    if dora or config.get("lora_bias"):
        factor = "lora_magnitude_vector" if dora else "lora_B.bias"
        without = [m for m, layer in layers.items() if not _beside(adapter, layer, factor)]
        if without:
            message = f"{factor} is missing for {without[0]}: it stays as it was initialised"
            yield Finding("CD404", "missing-part", ERROR, message, misloaded_by=peft("0.9" if dora else "0.14"))
        elif dora and any(key.endswith("lora_magnitude_vector.weight") for key in adapter.tensors):
            message = "magnitudes are named as PEFT 0.12 and newer do in memory: older ones ignore them"
            misloaded = peft("0.9", "0.11")
            yield Finding("CD404", "missing-part", NOTE, message, misloaded_by=misloaded)


def _grouped(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A convolution in groups: its B has other sizes from 0.16 on, and up to 0.6 none that fit."""
    wide = [module for module, layer in layers.items() if groups_of(adapter, layer.factors) > 1]
    if wide:
        message = f"{wide[0]} is a convolution in groups, with a lora_B as PEFT 0.16 and newer have it"
        yield Finding("CD314", "layer-kind", NOTE, message, keys_of(layers, wide[:1]), (), peft("0.2", "0.15"))
    saved = savers(adapter)
    if saved and saved <= peft("0.16"):
        return
    for module, layer in layers.items():
        shapes = [adapter.tensors[key].shape for key in layer.factors.values()]
        if module in wide or len(shapes) != 2 or any(len(shape) < 3 for shape in shapes):
            continue
        a, b = (adapter.tensors[layer.factors[name]].shape for name in sorted(layer.factors))
        weight = adapter.base.weights.get(module) if adapter.base else None
        if math.gcd(a[1], b[0]) == 1 or (weight and weight[1:2] == a[1:2]):
            continue
        other = peft("0.2", "0.6") | peft("0.16")
        ids = (other, frozenset[str](), frozenset[str]()) if weight else (frozenset(), frozenset(), other)
        message = (
            f"{module} {'is' if weight else 'may be'} a convolution in groups, whose lora_B is another from 0.16 on"
        )
        yield Finding(
            "CD314", "layer-kind", NOTE, message, keys_of(layers, [module]), (), *ids,
            needs=None if weight else THE_BASE,
        )  # fmt: skip
        return


def _beside(adapter: Adapter, layer: Layer, factor: str) -> bool:
    """Whether a layer has a part beside its factors A and B."""
    stems = {key.rsplit(".lora_", 1)[0] for key in layer.factors.values()}
    return any(f"{stem}.{factor}{end}" in adapter.tensors for stem in stems for end in ("", ".weight"))


@rule
def adalora_convolution(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """From 0.20 AdaLoRA adapts Conv2d, with tensors like a Linear's: the shapes do not tell which."""
    if adapter.peft_type != "ADALORA":
        return
    if adapter.base is not None:
        found = [module for module in layers if len(adapter.base.weights.get(module, ())) > 2]
        if found:
            message = f"{found[0]} is a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
            yield Finding("CD315", "adalora-convolution", NOTE, message, (), (), peft("0.2", "0.19"))
        return
    saved = savers(adapter)
    if saved and not saved & peft("0.20"):
        return
    if not saved and not set(adapter.config or {}) - _keys_of_017():
        return
    like = [module for module in layers if "conv" in module.rpartition(".")[2].lower()]
    if like:
        message = f"{like[0]} may be a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
        yield Finding("CD315", "adalora-convolution", NOTE, message, undecided_for=peft("0.2", "0.19"), needs=THE_BASE)


def _keys_of_017() -> set[str]:
    return {key for key, row in table("ADALORA").items() if peft(row[0]) & peft("0.2", "0.17")}


@rule
def without_layers(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """No layer is in the file, or the config names no target: what PEFT then does depends on the base model."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA") or not adapter.tensors or adapter.config is None:
        return
    target = config.get("target_modules")
    if target == []:
        message = "target_modules is empty, so no layer is adapted"
        yield Finding("CD316", "no-layers", ERROR, message, (), ("target_modules",), PEFT)
    elif not layers and adapter.base is not None:
        hit = [module for module in adapter.base.weights if targeted(config, module, (0, 21))]
        message = f"the file has no factors of any layer, and the config targets {len(hit)} of the base model"
        none, some = (frozenset(), PEFT) if hit else (PEFT, frozenset[str]())
        yield Finding("CD316", "no-layers", ERROR, message, (), ("target_modules",), none, some)
    elif not layers:
        message = "the file has no factors of any layer"
        yield Finding("CD316", "no-layers", WARNING, message, undecided_for=PEFT, needs=THE_BASE)
    elif target is None and not config.get("target_parameters"):
        message = "target_modules is null: each release then looks the base model up in a table of its own"
        none = PEFT if _of_transformers(adapter) is False else frozenset[str]()  # "Please specify `target_modules`"
        yield Finding(
            "CD317", "default-targets", ERROR if none else WARNING, message, (), ("target_modules",), none,
            undecided_for=PEFT - none, needs=None if none else THE_BASE,
        )  # fmt: skip


HEADS = ("classifier", "score")


@rule
def missing_parts(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """modules_to_save or trainable tokens that the file has no tensors for: a KeyError from 0.15 on
    (utils/save_and_load.py: set_peft_model_state_dict), if the base model has such a module.

    For a classifier PEFT 0.13 and newer write both names that its head may have, of which a model has one
    (peft_model.py: PeftModelForSequenceClassification, PeftModelForTokenClassification; huggingface/peft#2027).
    """
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA") or not adapter.tensors:
        return
    if config.get("trainable_token_indices") and not any("trainable_tokens" in key for key in adapter.tensors):
        message = "trainable_token_indices is set, and the file has no such tensors"
        yield Finding("CD323", "missing-saved", ERROR, message, (), ("trainable_token_indices",), peft("0.15"))
    saved = config.get("modules_to_save")
    names = [name for name in saved if isinstance(name, str)] if isinstance(saved, list) else []
    lost = [name for name in names if not any(f".{name}." in f".{key}" for key in adapter.tensors)]
    if config.get("task_type") in ("SEQ_CLS", "TOKEN_CLS") and len(set(HEADS) & set(names) - set(lost)) == 1:
        lost = [name for name in lost if name not in HEADS]
    if adapter.base is not None:
        have = (*adapter.base.weights, *adapter.base.biases)
        lost = [name for name in lost if any(module == name or module.endswith(f".{name}") for module in have)]
    if lost:
        known = adapter.base is not None
        message = f"modules_to_save names {lost[0]}, which the file has no tensors for"
        yield Finding(
            "CD323", "missing-saved", ERROR if known else WARNING, message, (), ("modules_to_save",),
            peft("0.15") if known else frozenset(), undecided_for=PEFT - peft("0.15") if known else PEFT,
            needs="what the module was" if known else THE_BASE,
        )  # fmt: skip


UNPROVEN = ("target_parameters", "use_qalora", "kasa_config", "monteclora_config", "velora_config", "arrow_config")
"""Options whose tensors or arithmetic changed between releases, or hang on the base model."""


@rule
def unproven_option(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Options that only the release that saved them is known to read alike. A saved arrow_config never loads from 0.18
    (AttributeError: 'dict' object has no attribute 'top_k').
    """
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    if config.get("layer_replication") and _of_transformers(adapter) is False:
        message = "layer_replication is set, which works on a few transformers models only"
        yield Finding("CD318", "unproven-option", ERROR, message, (), ("layer_replication",), peft("0.10"))
    for key in UNPROVEN:
        if config.get(key):
            known = knows(adapter.peft_type, key)
            rejected = known if key == "arrow_config" else frozenset[str]()
            saved = savers(adapter)
            alike = saved if len({minor(id_.removeprefix("peft==")) for id_ in saved}) == 1 else frozenset()
            message = f"{key} is set; only the release that saved it is known to read it alike"
            undecided = known - alike - rejected
            yield Finding(
                "CD318", "unproven-option", NOTE, message, (), (key,), rejected, undecided_for=undecided,
                needs="a load in that release",
            )  # fmt: skip
