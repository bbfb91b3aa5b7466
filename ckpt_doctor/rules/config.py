"""Rules about config values and what goes with them in the tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator

from ..adapter import Adapter
from ..codes import (
    ADALORA_CONVOLUTION,
    ADALORA_OPTION,
    ADALORA_SCHEDULE,
    ADALORA_UNSUPPORTED,
    ALL_LINEAR,
    BASE_CHANGING_INIT,
    BIAS_SPELLING,
    DEFAULT_TARGETS,
    GROUPED_CONVOLUTION,
    IMPOSSIBLE_VALUE,
    LAYER_KIND,
    LAYERS_OPTIONS,
    MISSING_PART,
    MISSING_SAVED,
    NO_LAYERS,
    NO_TARGET,
    UNKNOWN_INIT,
    UNPROVEN_OPTION,
)
from ..findings import THE_BASE, Finding, rule
from ..layers import Layer, groups_of, module_of
from ..runtimes import NEWEST_SERIES, PEFT, between, minor, since, upto
from ..targets import OUT_PROJ, targeted
from .heads import HEADS, heads
from .keys import CHANGES_BASE, knows, savers, table
from .rank import keys_of


@rule
def adalora_unsupported(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """0.3 and 0.4: lora_dropout_layer is no Module where lora_dropout is 0; AdaLoraModel.forward, which a class for a
    task calls, reads trainable_adapter_name, which a load never sets.
    """
    if adapter.peft_type == "ADALORA" and adapter.config:
        dropout, task = adapter.config.get("lora_dropout", 0), adapter.config.get("task_type")
        old = upto("0.2") if dropout else upto("0.4")
        message = "PEFT 0.2 has no AdaLoRA" + ("" if dropout else ", and 0.3 and 0.4 need a lora_dropout above 0")
        if task is not None:
            message += ("" if dropout else ",") + " and 0.3 and 0.4 cannot run it with a task_type"
            # 0.3 has no class for the others, and takes the one without a task
            old |= between("0.4" if task in ("QUESTION_ANS", "FEATURE_EXTRACTION") else "0.3", "0.4")
        yield ADALORA_UNSUPPORTED(message, keys=("peft_type",), rejects=old)


@rule
def schedule(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """tuners/adalora/config.py: __post_init__."""
    config = adapter.config or {}
    if adapter.peft_type != "ADALORA":
        return
    total, first, last = (config.get(key, 0) for key in ("total_step", "tinit", "tfinal"))
    numbers = all(isinstance(value, (int, float)) for value in (total, first, last))
    if total is None or not numbers or total <= 0 or first >= total - last:
        message = f"the schedule (total_step {total}, tinit {first}, tfinal {last}) is none that a newer PEFT accepts"
        keys = ("total_step", "tinit", "tfinal")
        yield ADALORA_SCHEDULE(message, keys=keys, rejects=since("0.15"))


@rule
def base_changing_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """0.6 and older take any string as true; from 0.7 an unknown one raises (LoraLayer.reset_lora_parameters)."""
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type != "LORA" or not isinstance(init, str) or not init.lower().startswith(CHANGES_BASE):
        return
    known = {"pissa": "0.11", "olora": "0.12", "lora_ga": "0.19"}
    first = next((release for name, release in known.items() if init.lower().startswith(name)), None)
    changing = since(first) if first else frozenset[str]()
    keeping, saved = upto("0.6"), savers(adapter)
    misloaded = frozenset[str]()
    undecided = misloaded
    if saved and saved <= keeping:
        misloaded = changing
    elif saved and not saved & keeping:
        misloaded = keeping
    else:
        undecided = keeping | changing
    message = f"init_lora_weights {init!r} changes the base weights at load, which PEFT 0.6 and older do not"
    yield BASE_CHANGING_INIT(
        message,
        keys=("init_lora_weights",),
        rejects=PEFT - keeping - changing,
        misloads=misloaded,
        undecided=undecided,
        needs="the release that saved it",
    )


@rule
def unknown_init(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """LoraLayer.reset_lora_parameters: from 0.7 it raises, though it matters to no loaded adapter."""
    init = (adapter.config or {}).get("init_lora_weights")
    if adapter.peft_type != "LORA" or not isinstance(init, str) or init.lower().startswith(CHANGES_BASE):
        return
    known = {"gaussian": "0.2", "eva": "0.14", "orthogonal": "0.16"}
    first = known.get(init.lower())
    if first != "0.2":
        rejected = since("0.7") - since(first) if first else since("0.7")
        message = f"init_lora_weights is {init!r}, which {'no' if first is None else 'not every'} PEFT release knows"
        yield UNKNOWN_INIT(message, keys=("init_lora_weights",), rejects=rejected)


@rule
def impossible_value(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """Values with which PEFT fails while the model is built."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    rank = "r" if adapter.peft_type == "LORA" else "init_r"
    impossible = []
    if type(config.get(rank, 8)) is not int:
        impossible.append(rank)
    alpha = config.get("lora_alpha", 8)
    if not _number(alpha) or (type(alpha) is int and alpha.bit_length() > 1023):  # OverflowError
        impossible.append("lora_alpha")
    dropout = config.get("lora_dropout", 0)
    if not _number(dropout) or dropout > 1:
        impossible.append("lora_dropout")
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        impossible.append("bias")  # tuners/lora/model.py: NotImplementedError
    if adapter.peft_type == "ADALORA" and not _number(config.get("orth_reg_weight", 0.5)):
        impossible.append("orth_reg_weight")
    absent = tuple(key for key in ("lora_alpha", "lora_dropout") if key not in config)
    if absent:
        message = f"{' and '.join(absent)} is absent, which PEFT 0.3 and older read as null"
        yield IMPOSSIBLE_VALUE(message, keys=absent, rejects=upto("0.3"))
    for key in impossible:
        message = f"{key} is {json.dumps(config[key])[:40]}, with which no release builds the model"
        yield IMPOSSIBLE_VALUE(message, keys=(key,), rejects=PEFT)
    for key in ("rank_pattern", "alpha_pattern"):
        if adapter.peft_type == "LORA" and not isinstance(config.get(key, {}), (dict, type(None))):
            yield IMPOSSIBLE_VALUE(f"{key} is not an object", keys=(key,), rejects=since("0.6"))
    nulls = {"rank_pattern": since("0.6"), "alpha_pattern": since("0.6"), "loftq_config": between("0.7", "0.18")}
    for key, rejected in nulls.items():
        if key in config and config[key] is None and (key == "loftq_config" or adapter.peft_type == "LORA"):
            yield IMPOSSIBLE_VALUE(f"{key} is null", keys=(key,), rejects=rejected)
    if adapter.peft_type == "ADALORA" and _number(config.get("orth_reg_weight")) and config["orth_reg_weight"] < 0:
        message = "orth_reg_weight is negative, which PEFT 0.15 and newer refuse"
        yield IMPOSSIBLE_VALUE(message, keys=("orth_reg_weight",), rejects=since("0.15"))


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@rule
def layers_options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """LoraConfig.__post_init__: beside a regex from 0.7 (AdaLoRA: 0.11), a layers_pattern alone from 0.14."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    to, pattern = config.get("layers_to_transform"), config.get("layers_pattern")  # 0 is no layer to PEFT either
    rejected = frozenset[str]()
    if isinstance(config.get("target_modules"), str):
        first = "0.7" if adapter.peft_type == "LORA" else "0.11"
        if to is not None:
            rejected |= since(first)
        if pattern is not None:
            rejected |= since(first) if adapter.peft_type == "LORA" else between(first, "0.13")
    if pattern and not to:
        rejected |= since("0.14") if to is None else between("0.14", "0.20")
    if rejected:
        message = "layers_to_transform and layers_pattern do not go with each other, or with a regex in target_modules"
        keys = ("layers_to_transform", "layers_pattern")
        yield LAYERS_OPTIONS(message, keys=keys, rejects=rejected)


@rule
def adalora_and_lora_options(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """AdaLoraConfig.__post_init__, from 0.11 on."""
    config = adapter.config or {}
    if adapter.peft_type == "ADALORA":
        if config.get("use_dora"):
            message = "use_dora is set, which AdaLoRA does not have"
            yield ADALORA_OPTION(message, keys=("use_dora",), rejects=since("0.11"))
        if config.get("loftq_config"):
            message = "loftq_config is set, which AdaLoRA does not have"
            yield ADALORA_OPTION(message, keys=("loftq_config",), rejects=between("0.11", "0.13"))


@rule
def all_linear(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Known from 0.8 on, and before 0.15 for transformers models only
    (tuners_utils.py: _maybe_include_all_linear_layers).
    """
    config = adapter.config or {}
    target = config.get("target_modules")
    if not layers or target is None or adapter.peft_type == "ADAPTION_PROMPT":  # it counts layers, see CD509
        return
    if isinstance(target, str) and target.lower() == "all-linear":
        message = "target_modules is all-linear, which PEFT 0.7 and older do not know"
        rejected, undecided = upto("0.7"), between("0.8", "0.14")
        of_transformers = _of_transformers(adapter)
        if of_transformers is not None:
            rejected |= frozenset() if of_transformers else undecided
            undecided = frozenset()
        yield ALL_LINEAR(message, keys=("target_modules",), rejects=rejected, undecided=undecided, needs=THE_BASE)
    elif adapter.peft_type not in ("LORA", "ADALORA") and not any(targets(target, module) for module in layers):
        message = f"target_modules ({str(target)[:60]}) matches none of the layers in the file"
        yield NO_TARGET(message, keys=("target_modules",), rejects=PEFT)


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
    """0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`."""
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
        if bias == "lora_only" and not savers(adapter) <= between("0.6", "0.9"):
            missing = PEFT
    else:
        # what is not adapted keeps the plain name of its bias in every release
        wrapped = {m for m in new | old if m in layers or targeted(config, m, NEWEST_SERIES)}
        missing |= upto("0.6") if new - old else frozenset()
        missing |= since("0.7") if (old - new) & wrapped or (new - old) - wrapped else frozenset()
    if missing:
        keys = tuple(key for key in adapter.tensors if key.endswith(".bias"))
        lost = "no bias is in the file" if missing == PEFT else "the biases are named for one side of PEFT 0.7 only"
        yield BIAS_SPELLING(f"bias is {bias!r} and {lost}", tensors=keys, keys=("bias",), misloads=missing)


DORA_SINCE = {"Embedding": "0.13", 3: "0.16", 4: "0.12", 5: "0.14"}
CONV_SINCE = {3: "0.15", 4: "0.4", 5: "0.14"}
"""First releases of a convolution by the dimensions of its factors (tuners/lora/layer.py: dispatch_default), and of
DoRA on what is not Linear (tuners/lora/dora.py)."""


@rule
def layer_kind(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """tuners/lora/layer.py: dispatch_default, "Target module … is not supported"."""
    config = adapter.config or {}
    if adapter.peft_type != "LORA":
        return
    rejected: dict[str, frozenset[str]] = {}
    dora = bool(config.get("use_dora"))
    if config.get("fan_in_fan_out") is True and layers:  # PEFT saves false for a Linear
        rejected["a Conv1D (fan_in_fan_out)"] = upto("0.2")
        if dora:
            rejected["DoRA on a Conv1D"] = between("0.9", "0.10")
    for layer in layers.values():
        if "lora_embedding_A" in layer.factors or "lora_embedding_B" in layer.factors:
            rejected["an Embedding"] = upto("0.2")
            if dora:
                rejected["DoRA on an Embedding"] = since("0.9") - since(DORA_SINCE["Embedding"])
            if config.get("lora_bias"):
                rejected["lora_bias on an Embedding"] = since("0.14")
            continue
        if layer.module.endswith(OUT_PROJ):
            rejected["a MultiheadAttention"] = upto("0.14")
        for key in layer.factors.values():
            dimensions = len(adapter.tensors[key].shape)
            if dimensions > 2:
                name = f"Conv{dimensions - 2}d"
                rejected[f"a {name}"] = PEFT - since(CONV_SINCE.get(dimensions, "99.0"))
                if dora:
                    rejected[f"DoRA on a {name}"] = since("0.9") - since(DORA_SINCE.get(dimensions, "99.0"))
    yield from _grouped(adapter, layers)
    for what, ids in rejected.items():
        if ids:
            yield LAYER_KIND(f"{what} is among the layers", rejects=ids)
    if dora or config.get("lora_bias"):
        factor = "lora_magnitude_vector" if dora else "lora_B.bias"
        without = [m for m, layer in layers.items() if not _beside(adapter, layer, factor)]
        if without:
            message = f"{factor} is missing for {without[0]}: it stays as it was initialised"
            yield MISSING_PART(message, misloads=since("0.9" if dora else "0.14"))
        elif dora and any(key.endswith("lora_magnitude_vector.weight") for key in adapter.tensors):
            message = "magnitudes are named as PEFT 0.12 and newer do in memory: older ones ignore them"
            yield MISSING_PART(message, misloads=between("0.9", "0.11"))


def _grouped(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A convolution in groups: its B has other sizes from 0.16 on, and up to 0.6 none that fit."""
    wide = [module for module, layer in layers.items() if groups_of(adapter, layer.factors) > 1]
    if wide:
        message = f"{wide[0]} is a convolution in groups, with a lora_B as PEFT 0.16 and newer have it"
        yield GROUPED_CONVOLUTION(message, tensors=keys_of(layers, wide[:1]), rejects=upto("0.15"))
    saved = savers(adapter)
    if saved and saved <= since("0.16"):
        return
    for module, layer in layers.items():
        shapes = [adapter.tensors[key].shape for key in layer.factors.values()]
        if module in wide or len(shapes) != 2 or any(len(shape) < 3 for shape in shapes):
            continue
        a, b = (adapter.tensors[layer.factors[name]].shape for name in sorted(layer.factors))
        weight = adapter.base.weights.get(module) if adapter.base else None
        if math.gcd(a[1], b[0]) == 1 or (weight and weight[1:2] == a[1:2]):
            continue
        other = upto("0.6") | since("0.16")
        what = "is" if weight else "may be"
        message = f"{module} {what} a convolution in groups, whose lora_B is another from 0.16 on"
        tensors = keys_of(layers, [module])
        if weight:
            yield GROUPED_CONVOLUTION(message, tensors=tensors, rejects=other)
        else:
            yield GROUPED_CONVOLUTION(message, tensors=tensors, undecided=other, needs=THE_BASE)
        return


def _beside(adapter: Adapter, layer: Layer, factor: str) -> bool:
    """Whether a layer has a part beside its factors A and B."""
    stems = {key.rsplit(".lora_", 1)[0] for key in layer.factors.values()}
    return any(f"{stem}.{factor}{end}" in adapter.tensors for stem in stems for end in ("", ".weight"))


@rule
def adalora_convolution(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """A Conv2d has tensors like a Linear's (tuners/adalora/layer.py): the shapes do not tell which."""
    if adapter.peft_type != "ADALORA":
        return
    if adapter.base is not None:
        convolutions = [module for module in layers if len(adapter.base.weights.get(module, ())) > 2]
        if convolutions:
            message = f"{convolutions[0]} is a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
            yield ADALORA_CONVOLUTION(message, rejects=upto("0.19"))
        return
    saved = savers(adapter)
    if saved and not saved & since("0.20"):
        return
    if not saved and not set(adapter.config or {}) - _keys_of_017():
        return
    like = [module for module in layers if "conv" in module.rpartition(".")[2].lower()]
    if like:
        message = f"{like[0]} may be a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
        yield ADALORA_CONVOLUTION(message, undecided=upto("0.19"), needs=THE_BASE)


def _keys_of_017() -> set[str]:
    return {key for key, row in table("ADALORA").items() if since(row[0]) & upto("0.17")}


@rule
def without_layers(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """What PEFT does where no layer is in the file, or the config names no target, depends on the base model."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA") or not adapter.tensors or adapter.config is None:
        return
    target = config.get("target_modules")
    if target == []:
        message = "target_modules is empty, so no layer is adapted"
        yield NO_LAYERS(message, keys=("target_modules",), rejects=PEFT)
    elif not layers and adapter.base is not None:
        hit = [module for module in adapter.base.weights if targeted(config, module, NEWEST_SERIES)]
        message = f"the file has no factors of any layer, and the config targets {len(hit)} of the base model"
        none, some = (frozenset(), PEFT) if hit else (PEFT, frozenset[str]())
        yield NO_LAYERS(message, keys=("target_modules",), rejects=none, misloads=some)
    elif not layers:
        message = "the file has no factors of any layer"
        yield NO_LAYERS(message, undecided=PEFT, needs=THE_BASE)
    elif target is None and not config.get("target_parameters"):
        message = "target_modules is null: each release then looks the base model up in a table of its own"
        none = PEFT if _of_transformers(adapter) is False else frozenset[str]()  # "Please specify `target_modules`"
        yield DEFAULT_TARGETS(message, keys=("target_modules",), rejects=none, undecided=PEFT - none, needs=THE_BASE)


@rule
def missing_parts(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A KeyError from 0.15 on (utils/save_and_load.py: set_peft_model_state_dict), if the base model has the module.

    For a classifier PEFT 0.13 and newer write both names that its head may have, of which a model has one
    (peft_model.py: PeftModelForSequenceClassification, PeftModelForTokenClassification; huggingface/peft#2027).
    """
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA") or not adapter.tensors:
        return
    if config.get("trainable_token_indices") and not any("trainable_tokens" in key for key in adapter.tensors):
        message = "trainable_token_indices is set, and the file has no such tensors"
        yield MISSING_SAVED(message, keys=("trainable_token_indices",), rejects=since("0.15"))
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
        yield MISSING_SAVED(
            message,
            keys=("modules_to_save",),
            rejects=since("0.15") if known else frozenset(),
            undecided=PEFT - since("0.15") if known else PEFT,
            needs="what the module was" if known else THE_BASE,
        )


UNPROVEN = ("target_parameters", "use_qalora", "kasa_config", "monteclora_config", "velora_config", "arrow_config")
"""Options whose tensors or arithmetic changed between releases, or hang on the base model."""


@rule
def unproven_option(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:  # noqa: ARG001
    """A saved arrow_config never loads (AttributeError: 'dict' object has no attribute 'top_k')."""
    config = adapter.config or {}
    if adapter.peft_type not in ("LORA", "ADALORA"):
        return
    if config.get("layer_replication") and _of_transformers(adapter) is False:
        message = "layer_replication is set, which works on a few transformers models only"
        yield UNPROVEN_OPTION(message, keys=("layer_replication",), rejects=since("0.10"))
    for key in UNPROVEN:
        if config.get(key):
            known = knows(adapter.peft_type, key)
            rejected = known if key == "arrow_config" else frozenset[str]()
            saved = savers(adapter)
            alike = saved if len({minor(id_.removeprefix("peft==")) for id_ in saved}) == 1 else frozenset()
            message = f"{key} is set; only the release that saved it is known to read it alike"
            undecided = known - alike - rejected
            yield UNPROVEN_OPTION(
                message, keys=(key,), rejects=rejected, undecided=undecided, needs="a load in that release"
            )
