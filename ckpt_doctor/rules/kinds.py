"""Rules about the kinds of modules that are adapted: convolutions, embeddings, attention."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ..adapter import Layer
from ..adapter.codes import (
    ADALORA_CONVOLUTION,
    GROUPED_CONVOLUTION,
    LAYER_KIND,
    MISSING_PART,
    OTHER_SCALE,
    RENAMED_MODEL,
    UNSUPPORTED_TARGET,
)
from ..adapter.findings import THE_BASE, THE_TRANSFORMERS, Finding, counted, several
from ..adapter.runtimes import NONE, PEFT, between, since, upto
from ..facts.config_keys import table
from ..facts.embeddings import POSITIONS, SCALED_TABLE, scales
from ..facts.layers import groups_of
from ..facts.methods import LORAS
from ..facts.subject import Subject
from ..facts.targets import OUT_PROJ
from ..facts.wrapped import BIAS_READ_OUTSIDE, IN_MAMBA, MAMBAS, READ_BY_KERNELS, READ_BY_TORCH
from .declared import rule

CONV_SINCE = {3: "0.15", 4: "0.4", 5: "0.14"}
"""First releases of a convolution, by the dimensions of its factors (tuners/lora/layer.py: dispatch_default)."""

DORA_SINCE = {"Embedding": "0.13", 3: "0.16", 4: "0.10", 5: "0.14"}
"""First releases of DoRA on what is not Linear: on a Conv2d in tuners/lora/layer.py: Conv2d._apply_dora, from 0.12 on
in tuners/lora/dora.py, which computes the same."""


@rule
def layer_kind(subject: Subject) -> Iterator[Finding]:
    """tuners/lora/layer.py: dispatch_default, "Target module … is not supported"."""
    config = subject.config
    if subject.method != "LORA":
        return
    rejected: dict[str, frozenset[str]] = {}
    dora, convolved, positions = bool(config.get("use_dora")), False, []
    if config.get("fan_in_fan_out") is True and subject.layers:  # PEFT saves false for a Linear
        rejected["a Conv1D (fan_in_fan_out)"] = upto("0.2")
        if dora:
            rejected["DoRA on a Conv1D"] = between("0.9", "0.10")
    for layer in subject.sample.values():
        if "lora_embedding_A" in layer.factors or "lora_embedding_B" in layer.factors:
            rejected["an Embedding"] = upto("0.2")
            if dora:
                rejected["DoRA on an Embedding"] = since("0.9") - since(DORA_SINCE["Embedding"])
            if config.get("lora_bias"):
                rejected["lora_bias on an Embedding"] = since("0.14")
            if layer.module.rpartition(".")[2] == POSITIONS:
                positions.append(layer.module)
            continue
        if layer.module.endswith(OUT_PROJ):
            rejected["a MultiheadAttention"] = upto("0.14")
        for key in layer.factors.values():
            dimensions = len(subject.forms[key][1])
            if dimensions > 2:
                convolved = True
                name = f"Conv{dimensions - 2}d"
                rejected[f"a {name}"] = PEFT - since(CONV_SINCE.get(dimensions, "99.0"))
                if dora:
                    rejected[f"DoRA on a {name}"] = since("0.9") - since(DORA_SINCE.get(dimensions, "99.0"))
    if convolved:
        yield from _grouped(subject)
    for what, ids in rejected.items():
        if ids:
            yield LAYER_KIND(f"{what} is among the layers", rejects=ids)
    if positions:  # tuners/lora/layer.py: Embedding.forward takes no more than ids, and looks them up by itself
        message = f"{positions[0]} mostly has a forward of its own, which LoRA's calls from 0.7 on only"
        yield LAYER_KIND(message, undecided=between("0.3", "0.6"), needs="the class of that module")
    # without one they all start at zero
    biased = config.get("lora_bias") and any(key.endswith(".lora_B.bias") for key in subject.names)
    if dora or biased:
        factor = "lora_magnitude_vector" if dora else "lora_B.bias"
        without = [m for m, layer in subject.layers.items() if not _beside(subject, layer, factor)]
        if without:
            key = "use_dora" if dora else "lora_bias"
            count = f"{counted(len(without), 'layer')} of {len(subject.layers)}"
            message = f"{key} is set, and {count} lack {factor}, which stays as it was initialised ({without[0]})"
            remedy = f"set {key} to false in adapter_config.json, if it was trained without"
            if len(without) < len(subject.layers):
                remedy = "fetch the whole file, or save the adapter again: what is missing is lost"
            yield MISSING_PART(message, keys=(key,), misloads=since("0.9" if dora else "0.14"), remedy=remedy)
        elif dora and any(key.endswith("lora_magnitude_vector.weight") for key in subject.tensors):
            message = "magnitudes are named as PEFT 0.12 and newer do in memory: older ones ignore them"
            yield MISSING_PART(message, misloads=between("0.9", "0.11"))


@rule
def scaled_embedding(subject: Subject) -> Iterator[Finding]:
    """A table of words that scales what it gives: from 0.18 on what is trained of it is scaled as well
    (tuners/tuners_utils.py: BaseTunerLayer._get_embed_scale, in tuners/lora/layer.py: Embedding.forward and
    tuners/trainable_tokens/layer.py). Loaded on Gemma 3, M2M-100, PLBart and XGLM in 0.14 – 0.21.
    """
    if subject.method not in ("LORA", "TRAINABLE_TOKENS"):
        return
    tables = subject.layers_where(
        lambda layer: (
            any("embedding" in factor for factor in layer.factors) and bool(re.fullmatch(SCALED_TABLE, layer.module))
        )
    )
    tokens = subject.tensors_where(lambda key: "trainable_tokens_" in key)
    if not tables and not tokens:
        return
    how = scales(subject.question.base.config) if subject.question.base else ""
    named = (subject.config.get("base_model_name_or_path"), subject.adapted_class)
    two_stacks = any(re.search(r"\bencoder(?:\.|_attn)|\bshared$", module) for module in subject.sample)
    unsure = not subject.model_type and (
        any(re.search("(?i)gemma-?3", str(name)) for name in named)
        # of the models with an encoder and a decoder T5 alone scales nothing
        or (bool(tables) and two_stacks and not any(".block." in module for module in subject.sample))
    )
    if not how and not unsure:
        return
    saved, older, newer = subject.saved_by, upto("0.17"), since("0.18")
    other = older if saved and saved <= newer else newer if saved and saved <= older else PEFT
    message = f"{several(tables or tokens)}: what is trained of a table that scales is scaled as well from PEFT 0.18 on"
    tensors, keys = subject.keys_of(tables) or tokens, ("target_modules" if tables else "trainable_token_indices",)
    if how == "always" and other != PEFT:
        remedy = f"use PEFT {'0.17 or older' if other == newer else '0.18 or newer'}, as it was trained with"
        yield OTHER_SCALE(message, tensors=tensors, keys=keys, misloads=other, remedy=remedy)
    elif how == "by release":  # where transformers is older, the model scales all that the table gives
        doubted = older if other == older else PEFT
        yield OTHER_SCALE(message, tensors=tensors, keys=keys, undecided=doubted, needs=THE_TRANSFORMERS)
    else:
        needs = "which release saved it" if how else THE_BASE
        yield OTHER_SCALE(message, tensors=tensors, keys=keys, undecided=other, needs=needs)


def _grouped(subject: Subject) -> Iterator[Finding]:
    """A convolution in groups: its B has other sizes from 0.16 on, and up to 0.6 none that fit."""
    wide = subject.layers_where(lambda layer: groups_of(subject.forms, layer.factors) > 1)
    if wide:
        message = f"{wide[0]} is a convolution in groups, with a lora_B as PEFT 0.16 and newer have it"
        rejects = upto("0.15") & subject.found(wide)
        yield GROUPED_CONVOLUTION(message, tensors=subject.keys_of(wide[:1]), rejects=rejects)
    saved = subject.saved_by
    if saved and saved <= since("0.16"):
        return
    for module, layer in (subject.layers if subject.base else subject.sample).items():
        shapes = [*subject.shapes(layer).values()]
        if module in wide or len(shapes) != 2 or any(len(shape) < 3 for shape in shapes):
            continue
        a, b = (subject.tensors[layer.factors[name]].shape for name in sorted(layer.factors))
        weight = subject.base.weights.get(module) if subject.base else None
        if math.gcd(a[1], b[0]) == 1 or (weight and weight[1:2] == a[1:2]):
            continue
        other = (upto("0.6") | since("0.16")) & subject.found([module])
        what = "is" if weight else "may be"
        message = f"{module} {what} a convolution in groups, whose lora_B is another from 0.16 on"
        tensors = subject.keys_of([module])
        if weight:
            yield GROUPED_CONVOLUTION(message, tensors=tensors, rejects=other)
        else:
            yield GROUPED_CONVOLUTION(message, tensors=tensors, undecided=other, needs=THE_BASE)
        return


def _beside(subject: Subject, layer: Layer, factor: str) -> bool:
    """Whether a layer has a part beside its factors A and B."""
    stems = {key.rsplit(".lora_", 1)[0] for key in layer.factors.values()}
    return any(f"{stem}.{factor}{end}" in subject.tensors for stem in stems for end in ("", ".weight"))


def _converting(subject: Subject) -> frozenset[str]:
    """The releases that put the single experts of an adapter together for transformers 5, where nothing is lost: run
    with eight models on transformers 5.16.1, where 0.19.1 calls WeightConverter with what that does not take.
    """
    from ..facts.servers.loads import Load, follow
    from ..facts.servers.transformers import TRANSFORMERS

    if subject.method != "LORA" or subject.question.base is None:
        return NONE
    load = Load(subject.config, subject.tensor_shapes, subject.question.base)
    return NONE if follow(TRANSFORMERS, load) else since("0.20")


_EXPERT = r"\.experts\.\d+\."


@rule
def fused_experts(subject: Subject) -> Iterator[Finding]:
    """Transformers 5 makes one parameter of the experts of a layer (core_model_loading.py), so that LoRA of single ones
    finds no module, and is ignored in silence. A model that an older one saved is mostly loaded by an older one. PEFT
    0.20 and newer put single experts together there, as transformers' own load_adapter does
    (utils/transformers_weight_conversion.py: convert_peft_config_for_transformers).
    """
    version = str((subject.base.config if subject.base else {}).get("transformers_version") or "")
    experts = subject.layers_where(lambda layer: ".experts." in layer.module and bool(re.search(_EXPERT, layer.module)))
    major = version.partition(".")[0]
    if experts and subject.method in LORAS and major.isdecimal() and major not in ("0", "1", "2", "3", "4"):
        message = f"{experts[0]} is a single expert, for which transformers 5 has no module: its tensors are ignored"
        yield RENAMED_MODEL(
            message, tensors=subject.keys_of(experts), undecided=PEFT - _converting(subject), needs=THE_TRANSFORMERS
        )


def _may_be_in_mamba(module: str) -> bool:
    return ".mixer." in module or ".mamba." in module  # which is told sooner than by the pattern


@rule
def read_by_kernels(subject: Subject) -> Iterator[Finding]:
    """A layer that a model with state spaces does not call: "Module … is incompatible with Mamba-based models". Loaded
    on Mamba in six releases.
    """
    if subject.method not in (*LORAS, "RANDLORA"):
        return
    if subject.model_type not in MAMBAS and not any(map(_may_be_in_mamba, subject.sample)):
        return
    saved = subject.saved_by
    layers = subject.layers_where(lambda layer: re.fullmatch(READ_BY_KERNELS, layer.module) is not None)
    message = f"{several(layers)} of a model with state spaces is adapted, and its kernels read the weight alone"
    tensors, keys = subject.keys_of(layers), ("target_modules",)
    if layers and subject.model_type in MAMBAS:
        remedy = "use PEFT 0.15 or older without the kernels, or train it without these layers"
        yield UNSUPPORTED_TARGET(message, tensors=tensors, keys=keys, rejects=MAMBAS[subject.model_type], remedy=remedy)
    elif not subject.model_type and any(re.fullmatch(IN_MAMBA, module) for module in layers):
        refusing = NONE if saved and saved <= since("0.16") else since("0.16")
        yield UNSUPPORTED_TARGET(message, tensors=tensors, keys=keys, undecided=refusing, needs=THE_BASE)


@rule
def bias_read_outside(subject: Subject) -> Iterator[Finding]:
    """What adapts a layer in 0.7 – 0.9 has no bias of its own for the module around to read: "'Linear' object has no
    attribute 'bias'" (tuners/tuners_utils.py: BaseTunerLayer). nn.TransformerEncoderLayer reads those of linear1 and
    linear2 in it (torch/nn/modules/transformer.py). Loaded on both and WavLM in 6 releases.
    """
    hiding = between("0.7", "0.9")
    if subject.method not in LORAS:
        return
    read = BIAS_READ_OUTSIDE.get(subject.model_type, "").split()
    layers = subject.layers_where(lambda layer: layer.module.rpartition(".")[2] in read) if read else []
    if layers:
        message = f"a {subject.model_type} reads the bias of {several(layers)}, which PEFT 0.7 – 0.9 hide"
        yield LAYER_KIND(message, tensors=subject.keys_of(layers), rejects=hiding)
        return
    layers = subject.layers_where(
        lambda layer: (
            layer.module.endswith(("linear1", "linear2", "_proj"))
            and re.fullmatch(READ_BY_TORCH, layer.module) is not None
        )
    )
    if layers:
        message = f"the module around may read the bias of {several(layers)}, which PEFT 0.7 – 0.9 hide"
        needs = "the class of the module around"
        yield LAYER_KIND(message, tensors=subject.keys_of(layers), undecided=hiding, needs=needs)


@rule
def adalora_convolution(subject: Subject) -> Iterator[Finding]:
    """A Conv2d has tensors like a Linear's (tuners/adalora/layer.py): the shapes do not tell which."""
    if subject.method != "ADALORA":
        return
    if subject.base is not None:
        convolutions = [module for module in subject.layers if len(subject.base.weights.get(module, ())) == 4]
        if convolutions:
            message = f"{convolutions[0]} is a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
            yield ADALORA_CONVOLUTION(message, rejects=upto("0.19"))
        return
    saved = subject.saved_by
    if saved and not saved & since("0.20"):
        return
    if not saved and not set(subject.config) - _keys_of_017():
        return
    like = subject.layers_where(lambda layer: "conv" in layer.module.rpartition(".")[2].lower())
    if like:
        message = f"{like[0]} may be a Conv2d, which AdaLoRA adapts from PEFT 0.20 on"
        yield ADALORA_CONVOLUTION(message, undecided=upto("0.19"), needs=THE_BASE)


def _keys_of_017() -> set[str]:
    return {key for key, row in table("ADALORA").items() if since(row[0]) & upto("0.17")}
