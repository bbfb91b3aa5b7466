"""Rules about config values and what goes with them in the tensors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

from ..adapter.codes import (
    ALL_LINEAR,
    BASE_CHANGING_INIT,
    IMPOSSIBLE_VALUE,
    LAYERS_OPTIONS,
    NO_LAYERS,
    NO_TARGET,
    NON_FINITE,
    TASK_OF_TEXT,
    UNKNOWN_INIT,
    UNPROVEN_OPTION,
    UNSUPPORTED_TARGET,
)
from ..adapter.findings import THE_BASE, THE_TRANSFORMERS, Finding, counted, several, spelled
from ..adapter.runtimes import NEWEST_SERIES, NONE, PEFT, SERVERS, between, minor, since, upto
from ..facts.config_keys import CHANGES_BASE, is_spelled, knows, refusing_bias
from ..facts.methods import LORAS
from ..facts.names import PREFIX, is_all_linear, named, tails, targets
from ..facts.replication import NO_CACHE, is_repeated
from ..facts.subject import Subject
from ..facts.targets import lora_reading, of_parameter, targeted
from ..facts.tasks import (
    CLASSES,
    GENERATING,
    HEADS,
    NO_EMBEDDINGS,
    NO_EMBEDDINGS_ONCE,
    OTHER_INPUT,
    OTHER_INPUT_ONCE,
    has_head,
    is_bare,
    is_one_of,
)
from .declared import rule
from .rank import common_rank
from .remedies import targets_of


@rule
def base_changing_init(subject: Subject) -> Iterator[Finding]:
    """0.6 and older take any string as true; from 0.7 an unknown one raises (LoraLayer.reset_lora_parameters)."""
    init = subject.config.get("init_lora_weights")
    if subject.method != "LORA" or not isinstance(init, str) or not init.lower().startswith(CHANGES_BASE):
        return
    if init == "lora_ga":
        yield _lora_ga(subject)
        return
    known = {"pissa": "0.11", "olora": "0.12"}
    first = next((release for name, release in known.items() if init.lower().startswith(name)), None)
    changing = since(first) if first else frozenset[str]()
    keeping, saved = upto("0.6"), subject.saved_by
    misloaded = frozenset[str]()
    undecided = misloaded
    if "_niter_" in init.lower() and not (saved and saved <= keeping):
        # torch.svd_lowrank draws at each load (tuners/lora/layer.py: LoraLayer.pissa_init)
        misloaded = changing | (keeping if saved and not saved & keeping else frozenset())
        undecided = keeping - misloaded
    elif saved and (saved <= keeping or (changing and not saved & changing)):  # it was true, or written by another hand
        misloaded = changing
    elif saved and not saved & keeping:
        misloaded = keeping
    else:
        undecided = keeping | changing
    message = f"init_lora_weights {init!r} changes the base weights at load, which PEFT 0.6 and older do not"
    pattern = subject.config.get("alpha_pattern")
    alphas = (subject.config.get("lora_alpha"), *(pattern.values() if isinstance(pattern, dict) else ()))
    if first == known["pissa"] and 0 in alphas:  # LoraLayer.pissa_init divides by it
        message += ", and divides by a scale that is 0: no output is a number"
        misloaded, undecided = misloaded | changing, undecided - changing
    yield BASE_CHANGING_INIT(
        message,
        keys=("init_lora_weights",),
        rejects=PEFT - keeping - changing,
        misloads=misloaded,
        undecided=undecided,
        needs="the release that saved it",
    )


def _lora_ga(subject: Subject) -> Finding:
    """A load has no gradients, and leaves the base as it is (tuners/lora/layer.py: LoraLayer.lora_ga_init). Training
    that had them started from another base, which the files do not tell: an adapter trained so in 0.19 and 0.21, on the
    base as it was, computes something else in every release that takes it, and one trained without them the same.
    """
    taking = upto("0.6") | since("0.19")
    message = "init_lora_weights is lora_ga, which PEFT 0.7 – 0.18 do not know"
    undecided = taking if subject.changes_base else frozenset[str]()
    if undecided:
        message += ", and with which training may have started from another base than the one that is loaded"
    needs = "whether training had gradients, and the base that it left"
    keys = ("init_lora_weights",)
    return BASE_CHANGING_INIT(message, keys=keys, rejects=PEFT - taking, undecided=undecided, needs=needs)


BACK_TO_TRUE = "set init_lora_weights to true in adapter_config.json: what is loaded takes its place"


@rule
def unknown_init(subject: Subject) -> Iterator[Finding]:
    """LoraLayer.reset_lora_parameters: from 0.7 it raises, though it matters to no loaded adapter. eva and orthogonal
    are compared as they are, the others in lower case (tuners/lora/layer.py: LoraLayer.update_layer), and a convolution
    knows neither (_ConvNd.update_layer). mica raises where the rank is above a size of the layer (LoraLayer.mica_init),
    orthogonal where it is odd (LoraLayer.orthogonal_init).
    """
    init = subject.config.get("init_lora_weights")
    if subject.method != "LORA" or not isinstance(init, str):
        return
    if init.lower().startswith(CHANGES_BASE) and is_spelled(init):
        return
    if init.lower() == "gaussian":
        return
    mica = init.lower() == "mica"
    known = since("0.20" if mica else {"eva": "0.14", "orthogonal": "0.16"}.get(init, "99.0"))
    message = f"init_lora_weights is {init!r}, which {'not every' if known else 'no'} PEFT release knows"
    doubt = known if mica else frozenset[str]()
    keys = ("init_lora_weights",)
    yield UNKNOWN_INIT(message, keys=keys, rejects=since("0.7") - known, undecided=doubt, needs="a load")
    layers = [layer for layer in subject.sample.values() if "lora_A" in layer.factors]  # an embedding starts as ever
    flat = [layer for layer in layers if len(subject.forms[layer.factors["lora_A"]][1]) <= 2]
    odd = [layer for layer in flat if (layer.rank or 0) % 2]
    if init == "orthogonal" and odd:
        message = f"init_lora_weights is {init!r}, which takes even ranks, and {odd[0].module} has {odd[0].rank}"
        yield UNKNOWN_INIT(message, keys=keys, rejects=known, remedy=BACK_TO_TRUE)
    if known and not mica and len(flat) < len(layers):
        message = f"init_lora_weights is {init!r}, which no convolution knows"
        yield UNKNOWN_INIT(message, keys=keys, rejects=known, remedy=BACK_TO_TRUE)


@rule
def impossible_value(subject: Subject) -> Iterator[Finding]:
    """Values with which PEFT fails while the model is built. True and false are 1 and 0 to it where it only computes
    with a number (tuners/lora/layer.py: LoraLayer.update_layer), and no size of a tensor.
    """
    config = subject.config
    if subject.method not in LORAS:
        return
    rank = "r" if subject.method == "LORA" else "init_r"
    impossible = impossible_numbers(subject)
    absent = tuple(key for key in ("lora_alpha", "lora_dropout") if key not in config)
    if absent:
        message = f"{' and '.join(absent)} is absent, which PEFT 0.3 and older read as null"
        yield IMPOSSIBLE_VALUE(message, keys=absent, rejects=upto("0.3"))
    bias = config.get("bias", "none")
    if bias not in ("none", "all", "lora_only"):
        message = f'bias is {spelled(bias)}: LoRA knows "none", "all" and "lora_only"'
        there = any(key.endswith(".bias") for key in subject.names)
        remedy = "set bias to the value of the training" if there else 'set bias to "none": the file has no bias'
        rejected = refusing_bias(bias)
        yield IMPOSSIBLE_VALUE(
            message, keys=("bias",), rejects=rejected, undecided=PEFT - rejected, needs="what was trained",
            remedy=remedy,
        )  # fmt: skip
    for key in impossible:
        kind = "whole number" if key == rank else "number"
        that = " that a model can be built with" if type(config[key]) in (int, float) else ""
        message = f"{key} is {spelled(config[key])}, and PEFT needs a {kind}{that}"
        yield IMPOSSIBLE_VALUE(message, keys=(key,), rejects=PEFT, remedy=_number(subject, key))
    for key in ("rank_pattern", "alpha_pattern"):
        if subject.method == "LORA" and not isinstance(config.get(key, {}), (dict, type(None))):
            yield IMPOSSIBLE_VALUE(f"{key} is not an object", keys=(key,), rejects=since("0.6"))
    nulls = {"rank_pattern": since("0.6"), "alpha_pattern": since("0.6"), "loftq_config": between("0.7", "0.18")}
    null = [key for key in nulls if key in config and config[key] is None and subject.method == "LORA"]
    for rejected in dict.fromkeys(nulls[key] for key in null):
        keys = tuple(key for key in null if nulls[key] == rejected)
        message = f"{' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} null, and PEFT needs an object"
        remedy = f"set {' and '.join(keys)} to {{}} in adapter_config.json"
        yield IMPOSSIBLE_VALUE(message, keys=keys, rejects=rejected, remedy=remedy)
    orth = config.get("orth_reg_weight", 0.5)
    if subject.method == "ADALORA" and (not isinstance(orth, (int, float)) or orth < 0):
        # compared with 0 while the config is read (tuners/adalora/config.py: AdaLoraConfig.__post_init__), before in a
        # training step alone
        message = f"orth_reg_weight is {spelled(orth)}, which PEFT 0.20 and newer refuse"
        yield IMPOSSIBLE_VALUE(message, keys=("orth_reg_weight",), rejects=since("0.20"))


def impossible_numbers(subject: Subject) -> list[str]:
    """The keys of a LoRA or AdaLoRA whose values no release can build a model with."""
    config, impossible = subject.config, []
    rank = "r" if subject.method == "LORA" else "init_r"
    if type(config.get(rank, 8)) is not int:
        impossible.append(rank)
    alpha = config.get("lora_alpha", 8)
    if not isinstance(alpha, (int, float)) or (type(alpha) is int and alpha.bit_length() > 1023):  # OverflowError
        impossible.append("lora_alpha")
    dropout = config.get("lora_dropout", 0)
    if not isinstance(dropout, (int, float)) or dropout > 1:
        impossible.append("lora_dropout")
    return impossible


def _number(subject: Subject, key: str) -> str:
    """Which number a key should have, as far as anything tells."""
    value, rank = subject.config[key], common_rank(subject)
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        return f"set {key} to {value}, without quotes, in adapter_config.json"
    if key == "r" and rank:
        return f"set r to {rank}, the rank of the tensors, in adapter_config.json"
    return f"set {key} in adapter_config.json to the value of the training: the files do not tell it"


@rule
def non_finite_scale(subject: Subject) -> Iterator[Finding]:
    """lora_alpha is Infinity or NaN, which JSON has not and Python's json reads: so is what the layer's delta is
    multiplied with, and infinity times the zeros of an untrained factor is NaN (loaded in 0.9.0 and 0.21.2).
    """
    config, pattern = subject.config, subject.config.get("alpha_pattern")
    values = {**config, **pattern} if isinstance(pattern, dict) else config
    keys = tuple(key for key, value in values.items() if type(value) is float and not isfinite(value))
    if not keys:
        return
    wrong = [
        name for name, layer in subject.layers.items() if layer.scaling is not None and not isfinite(layer.scaling)
    ]
    if wrong:
        where = f"{counted(len(wrong), 'layer')} ({several(wrong)})"
        message = f"the scale of {where} is no finite number, and neither are the outputs"
        keys = tuple(dict.fromkeys(key if key in config else "alpha_pattern" for key in keys))
        remedy = f"set {keys[0]} in adapter_config.json to the value of the training: the files do not tell it"
        servers = SERVERS & (subject.question.runtimes or NONE)
        yield NON_FINITE(message, keys=keys, misloads=PEFT | servers, remedy=remedy)


@rule
def layers_options(subject: Subject) -> Iterator[Finding]:
    """tuners/lora/config.py: LoraConfig.__post_init__: beside a regex from 0.6 (AdaLoRA, whose own one does not ask
    up to 0.10: 0.11), a layers_pattern alone from 0.14.
    """
    config = subject.config
    if subject.method not in LORAS:
        return
    to, pattern = config.get("layers_to_transform"), config.get("layers_pattern")  # 0 is no layer to PEFT either
    rejected = frozenset[str]()
    if isinstance(config.get("target_modules"), str):
        first = "0.6" if subject.method == "LORA" else "0.11"
        if to is not None:
            rejected |= since(first)
        if pattern is not None:
            rejected |= since(first) if subject.method == "LORA" else between(first, "0.13")
    if pattern and not to:
        rejected |= since("0.14") if to is None else between("0.14", "0.20")
    if rejected:
        message = "layers_pattern is set without layers_to_transform"
        if isinstance(config.get("target_modules"), str):
            which = [key for key in ("layers_to_transform", "layers_pattern") if config.get(key) is not None]
            message = f"target_modules is a regex, beside which PEFT takes no {' and no '.join(which)}"
        keys = ("layers_to_transform", "layers_pattern")
        yield LAYERS_OPTIONS(message, keys=keys, rejects=rejected)


@rule
def all_linear(subject: Subject) -> Iterator[Finding]:
    """Known from 0.8 on, and before 0.15 for transformers models only
    (tuners_utils.py: _maybe_include_all_linear_layers).
    """
    config = subject.config
    target = config.get("target_modules")
    if not subject.layers or target is None or subject.method == "ADAPTION_PROMPT":  # it counts layers, see CD509
        return
    if is_all_linear(target):
        message = "target_modules is all-linear, which PEFT 0.7 and older do not know"
        rejected, undecided = upto("0.7"), between("0.8", "0.14")
        is_of = of_transformers(subject)
        if is_of is not None:
            rejected |= frozenset() if is_of else undecided
            undecided = frozenset()
        yield ALL_LINEAR(message, keys=("target_modules",), rejects=rejected, undecided=undecided, needs=THE_BASE)
    elif subject.method not in LORAS and not any(targets(target, module) for module in subject.layers):
        message = f"target_modules ({str(target)[:60]}) matches none of the layers in the file"
        yield NO_TARGET(message, keys=("target_modules",), rejects=PEFT)


def of_transformers(subject: Subject) -> bool | None:
    """Whether the base is a transformers model, where something tells: PEFT writes the name that those have, and
    without a task the library of the class (peft_model.py: save_pretrained).
    """
    config = subject.config
    if subject.base is not None:
        return bool(subject.base.config.get("model_type"))
    mapping = config.get("auto_mapping")
    library = str(mapping.get("parent_library", "")) if isinstance(mapping, dict) else ""
    if config.get("task_type") or library.startswith("transformers."):
        return True
    if config.get("base_model_name_or_path", "") is None:
        return False
    return None


TAKING_NO = (
    (OTHER_INPUT, "input_ids", False), (OTHER_INPUT_ONCE, "input_ids", True),
    (NO_EMBEDDINGS, "inputs_embeds", False), (NO_EMBEDDINGS_ONCE, "inputs_embeds", True),
)  # fmt: skip
"""Types of models, what they are called with and do not take, and whether that is so in older transformers alone."""


@rule
def task_of_text(subject: Subject) -> Iterator[Finding]:
    """The classes for tasks call the model with input_ids, inputs_embeds and labels (peft_model.py:
    PeftModelForSeq2SeqLM.forward and others).
    """
    if subject.task not in (*CLASSES, "FEATURE_EXTRACTION"):
        return
    message, needs = "", THE_TRANSFORMERS
    of = subject.adapted_class
    for models, argument, once in TAKING_NO:
        if not message and is_one_of(models, subject.model_type, of):
            message = f"the model takes no {argument}{' in transformers 4.46 and older' if once else ''}"
            needs = needs if once else "how the model is called"
    if not message and subject.task in CLASSES and is_bare(of):
        message = f"{of} has no head, so that most such classes take no labels"
    elif not message and subject.task in GENERATING and (other := _of_another_task(subject)):
        message = f"{other} generates nothing, which transformers 4.50 and newer mind"
    if message:
        message = f"task_type is {subject.task}, and {message}"
        yield TASK_OF_TEXT(message, keys=("task_type",), undecided=PEFT, needs=needs)


def _of_another_task(subject: Subject) -> str:
    """What the model is that was adapted, where its class or a head in the file says that it is for another task than
    to generate; else "".
    """
    of = subject.adapted_class
    if has_head(of) and not of.endswith(CLASSES["CAUSAL_LM"]):
        return f"a {of}"
    modules = (name.removeprefix(PREFIX).partition(".")[0] for name in subject.others)
    head = next((module for module in modules if any(module in heads for heads in HEADS.values())), "")
    return f"a model with a {head}" if head else ""


@rule
def without_layers(subject: Subject) -> Iterator[Finding]:
    """What PEFT does where no layer is in the file, or the config names no target, depends on the base model."""
    config = subject.config
    if subject.method not in LORAS or not subject.tensors or subject.adapter.config is None:
        return
    target = config.get("target_modules")
    if target == [] and not config.get("target_parameters"):
        message = "target_modules is empty, so no layer is adapted"
        remedy = targets_of(subject.layers) if subject.layers else ""
        if subject.layers:
            message += f", and the file has {counted(len(subject.layers), 'layer')}"
        yield NO_LAYERS(message, keys=("target_modules",), rejects=PEFT, remedy=remedy)
    elif not subject.layers and subject.base is not None:
        hit = [module for module in subject.base.weights if targeted(config, module, NEWEST_SERIES)]
        message = f"the file has no factors of any layer, and the config targets {len(hit)} of the base model"
        none, some = (frozenset(), PEFT) if hit else (PEFT, frozenset[str]())
        yield NO_LAYERS(message, keys=("target_modules",), rejects=none, misloads=some)
    elif not subject.layers:
        message = "the file has no factors of any layer"
        yield NO_LAYERS(message, undecided=PEFT, needs=THE_BASE)


UNPROVEN = ("use_qalora", "kasa_config", "monteclora_config", "velora_config", "arrow_config")
"""Options whose tensors or arithmetic changed between releases, or hang on the base model."""


@rule
def unproven_option(subject: Subject) -> Iterator[Finding]:
    """A saved arrow_config never loads (AttributeError: 'dict' object has no attribute 'top_k')."""
    config = subject.config
    if subject.method not in LORAS:
        return
    replicated = config.get("layer_replication") and subject.layers
    if replicated and (of_transformers(subject) is False or not any(map(is_repeated, subject.sample))):
        message = "layer_replication is set, which works on models with layers, encoder.layer or h alone"
        yield UNPROVEN_OPTION(message, keys=("layer_replication",), rejects=since("0.10"))
    elif replicated and subject.model_type in NO_CACHE:
        kind, first = subject.model_type, NO_CACHE[subject.model_type]
        message = (
            f"layer_replication is set, and transformers {first} and newer keep no cache for more layers of a {kind}"
        )
        doubted = since("0.10")
        yield UNPROVEN_OPTION(message, keys=("layer_replication",), undecided=doubted, needs=THE_TRANSFORMERS)
    if config.get("target_parameters"):
        yield from _parameters(subject)
        yield from _packed_parameters(subject)
        yield from _wrapped_twice(subject)
    if config.get("use_bdlora") == {}:  # which names neither A nor B of any layer
        message, known = "use_bdlora is empty, and names no layers", knows(subject.method, "use_bdlora")
        yield UNPROVEN_OPTION(message, keys=("use_bdlora",), undecided=known, needs="a load in that release")
    for key in UNPROVEN:
        if config.get(key) not in (None, False):  # an empty object is a config of defaults
            known = knows(subject.method, key)
            rejected = known if key == "arrow_config" else frozenset[str]()
            saved = subject.saved_by
            alike = saved if len({minor(id_.removeprefix("peft==")) for id_ in saved}) == 1 else frozenset()
            if key == "kasa_config" and not subject.tensors_where(lambda name: "lora_diag" in name):
                alike = frozenset()  # which is drawn at random (tuners/lora/variants.py: KasaLinearVariant)
            message = f"{key} is set; only the release that saved it is known to read it alike"
            undecided = known - alike - rejected
            yield UNPROVEN_OPTION(
                message, keys=(key,), rejects=rejected, undecided=undecided, needs="a load in that release"
            )


def _packed_parameters(subject: Subject) -> Iterator[Finding]:
    """A parameter that the base model's files hold packed, as GPT-OSS' in mxfp4: whether there is one of that name and
    shape hangs on what transformers unpacks at load (integrations/mxfp4.py).
    """
    names = subject.config["target_parameters"]
    there = subject.base.parameters if subject.base is not None else {}
    owners = (parameter.removesuffix("_blocks") for parameter in there if parameter.endswith("_blocks"))
    packed = named(names if isinstance(names, list) else [], (owner.partition(".")[2] for owner in owners))
    if packed:
        message = f"target_parameters names {packed[0]}, which the base model's files hold in a packed form"
        needs = "a load of that model"
        yield UNPROVEN_OPTION(message, keys=("target_parameters",), undecided=since("0.17"), needs=needs)


def _wrapped_twice(subject: Subject) -> Iterator[Finding]:
    """Modules that are adapted, and whose weight is to be as well: "Trying to wrap an `nn.Parameter` of layer …, which
    is not a valid target" (tuners/tuners_utils.py: BaseTuner._inject_parameters). Of `all-linear` nothing is said.
    """
    target, names = subject.config.get("target_modules"), subject.config["target_parameters"]
    if not target or not isinstance(names, list) or is_all_linear(target):
        return
    listed = {name for name in names if isinstance(name, str)}
    twice = [
        module for module in subject.layers
        if not listed.isdisjoint(tails(f"{module}.weight")) and targeted(subject.config, module, NEWEST_SERIES)
    ]  # fmt: skip
    if twice:
        message = f"target_parameters names the weight of {several(twice)}, which target_modules names as well"
        yield UNSUPPORTED_TARGET(message, keys=("target_modules", "target_parameters"), rejects=since("0.17"))


def _parameters(subject: Subject) -> Iterator[Finding]:
    """The sides of the factors of a parameter were swapped in 0.19 (tuners/lora/layer.py: ParamWrapper): what the other
    releases saved is a size mismatch, unless both sides are of one size. One of two dimensions was not swapped.
    Loaded on GPT-OSS in 18 releases, on Llama and T5 in 8.
    """
    older, newer = between("0.17", "0.18"), since("0.19")
    saved, keys = subject.saved_by, ("target_parameters",)
    of_parameters = [
        layer for module, layer in subject.layers.items()
        if of_parameter(module, subject.config["target_parameters"]) and {"lora_A", "lora_B"} <= layer.factors.keys()
    ]  # fmt: skip
    # of a stack of matrices A has the rank for each
    stacked = [
        layer for layer in of_parameters if layer.rank != lora_reading(subject.config, layer.module, (0, 19)).rank
    ]
    if of_parameters and not stacked:
        return
    other = frozenset[str]()
    if saved:
        other = newer if saved <= older else older if saved <= newer else other
    sides = [
        (subject.tensors[layer.factors["lora_A"]].shape[1:], subject.tensors[layer.factors["lora_B"]].shape[:1])
        for layer in stacked
    ]  # fmt: skip
    if other and any(a != b for a, b in sides):
        message = "target_parameters is set, and PEFT 0.19 and newer have the sides of its factors the other way round"
        yield UNPROVEN_OPTION(message, keys=keys, rejects=other)
        return
    message = "target_parameters is set, whose factors have their sides the other way round from PEFT 0.19 on"
    yield UNPROVEN_OPTION(message, keys=keys, undecided=other or older | newer, needs="a load in that release")
