"""Rules about what is saved beside the factors: modules that were trained whole, biases, and parts that options add."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter.codes import ADAPTER_NAME, BIAS_SPELLING, UNAPPLIED_TENSOR
from ..adapter.findings import THE_BASE, Finding, counted, several, spelled
from ..adapter.runtimes import NEWEST_SERIES, PEFT, between, since, upto
from ..facts.embeddings import ADAPTED, HEAD, SAVED
from ..facts.layers import module_of
from ..facts.methods import LORAS
from ..facts.names import PREFIX, Names, is_all_linear
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..facts.tasks import HEADS, WITH_BIAS
from .declared import rule
from .heads import heads


@rule
def bias_spelling(subject: Subject) -> Iterator[Finding]:
    """0.7 and newer call the bias of an adapted module `.base_layer.bias`, older ones `.bias`. One that is named so is
    loaded whatever `bias` says, as the state dict is not strict (loaded in 18 releases on OPT).
    """
    config = subject.config
    bias = config.get("bias", "none")
    if subject.method not in LORAS or config.get("target_modules") is None:
        return
    whole = tuple(f"{head}." for head, _ in heads(subject))  # a head has its own bias, whatever is trained beside it
    inside = [
        f".{name}." for name in (*subject.saved_whole, *HEADS.get(subject.task, ()))
    ]  # so has what is saved whole
    biases = subject.tensors_where(lambda key: key.endswith(".bias") and not key.startswith(whole or "*"))
    named = {module_of(key) for key in biases if ".lora_" not in key and not any(name in key for name in inside)}
    new = {name.removesuffix(".base_layer.bias") for name in named if name.endswith(".base_layer.bias")}
    old = {name.removesuffix(".bias") for name in named} - {name + ".base_layer" for name in new}
    missing, unsaved = frozenset[str](), False
    if bias not in ("all", "lora_only") and subject.base is not None:
        new, old = new & subject.base.biases, old & subject.base.biases  # others have no place in any release
    if not new and not old and not may_have_biases(subject):
        return
    if not new & subject.layers.keys() and not old & subject.layers.keys():
        if bias not in ("all", "lora_only"):
            return
        # the layers of 0.6 – 0.9 have no bias of their own, so these trained none (tuners_utils.py: BaseTunerLayer)
        if bias == "lora_only" and not subject.saved_by <= between("0.6", "0.9"):
            missing, unsaved = PEFT, True
    else:
        missing |= upto("0.6") if new - old else frozenset()
        for era in subject.eras:  # what a release does not adapt keeps the plain name of its bias there
            wrapped = {m for m in new | old if m in subject.layers or targeted(config, m, era.release)}
            missing |= era.ids & since("0.7") if (old - new) & wrapped or (new - old) - wrapped else frozenset()
    if unsaved and may_lack_biases(subject):
        message = f"bias is {spelled(bias)}, and no bias is in the file, as the model may have none"
        yield BIAS_SPELLING(message, keys=("bias",), undecided=PEFT, needs=THE_BASE)
    elif missing:
        keys = tuple(key for key in subject.tensors if key.endswith(".bias"))
        lost = "no bias is in the file" if missing == PEFT else "the biases are named for one side of PEFT 0.7 only"
        remedy = 'set bias to "none", if none was trained: trained ones are lost' if missing == PEFT else ""
        message = f"bias is {spelled(bias)}, and {lost}"
        yield BIAS_SPELLING(message, tensors=keys, keys=("bias",), misloads=missing, remedy=remedy)


_WITH_BIASES = re.compile(
    r"(?:.+\.)?(?:"
    r"encoder\.layer\.\d+\.(?:attention\.(?:self|attention)\.(?:query|value)"
    r"|(?:attention\.output|output|intermediate)\.dense)"
    r"|decoder\.layers\.\d+\.(?:(?:self|encoder)_attn\.(?:q|v|out)_proj|fc[12])"
    r"|gpt_neox\.layers\.\d+\..+|h\.\d+\.attn\.c_attn|(?:[qkv]|out)_lin|lin[12]"
    rf"|{'|'.join(WITH_BIAS)})"
)
"""Layers that have a bias in every class of transformers that calls them so: those of BERT and its kin, of OPT and
BART, of GPT-NeoX, GPT-2, DistilBERT and XLM, and heads."""


def _unseen(subject: Subject) -> Names:
    """The adapted layers of which no weight of the base model tells whether they have a bias; a tied head has none."""
    weights = subject.base.weights if subject.base else {}
    return [module for module in subject.layers if module not in weights and module != HEAD]


def may_have_biases(subject: Subject) -> bool:
    """Whether an adapted layer may have a bias to train: one of which the base model does not tell may."""
    return subject.base is None or not subject.base.biases.isdisjoint(subject.layers) or bool(_unseen(subject))


def may_lack_biases(subject: Subject) -> bool:
    """Whether the adapted layers may have no bias to train, as far as the base model or else their names tell."""
    if subject.base is not None and not subject.base.biases.isdisjoint(subject.layers):
        return False
    return not any(map(_WITH_BIASES.fullmatch, _unseen(subject)))


@rule
def unapplied(subject: Subject) -> Iterator[Finding]:
    """Tensors of an option that the config does not set, which no release then applies: DoRA's magnitudes, trained
    tokens, lora_B's biases. They are left out when the names are mapped (utils/save_and_load.py:
    set_peft_model_state_dict).
    """
    if subject.method not in LORAS:
        return
    for key, part, what in (
        ("use_dora", ".lora_magnitude_vector", "DoRA's magnitudes"),
        ("trainable_token_indices", "trainable_tokens_", "trained tokens"),
        ("lora_bias", ".lora_B.bias", "biases of lora_B"),
    ):
        tensors = _tensors_with(subject, part)
        if tensors and not subject.config.get(key):
            count = counted(len(tensors), "tensor")
            message = f"{key} is not set, and the file has {what} ({count}, {tensors[0][:120]}): they are ignored"
            if key == "use_dora" and len(tensors) < len(subject.layers):  # PEFT gives every layer one
                needs = "what these tensors are"
                yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=(key,), undecided=PEFT, needs=needs)
            else:
                remedy = f"set {key} to true in adapter_config.json"
                if key == "trainable_token_indices":
                    remedy = f"set {key} to the ids of the tokens that were trained: the file does not tell which"
                yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=(key,), misloads=PEFT, remedy=remedy)


def _tensors_with(subject: Subject, part: str) -> list[str]:
    return subject.tensors_where(lambda key: part in key)


@rule
def weights_of_the_base(subject: Subject) -> Iterator[Finding]:
    """The weight that a layer adapts: 0.7 and newer load it over the model's, older ones ignore it, as their layers
    have no `base_layer` (tuners/tuners_utils.py: BaseTunerLayer). PEFT saves those of embeddings and heads alone, which
    are the model's own unless its vocabulary was resized. Loaded on Mixtral and Whisper in 6 releases.
    """
    if subject.method not in LORAS or heads(subject):
        return
    beside = [key for key in subject.others if key.endswith(ADAPTED)]
    modules = {key: key.removeprefix(PREFIX).removesuffix(ADAPTED) for key in beside}
    layers = {key: subject.layers[module] for key, module in modules.items() if module in subject.layers}
    tensors = [
        key for key, layer in layers.items()
        if not re.search(SAVED, modules[key])
        and not any("embedding" in factor for factor in layer.factors)
    ]  # fmt: skip
    if not tensors:
        return
    message = f"weights that layers adapt are in the file, and replace the model's from 0.7 on: {several(tensors)}"
    loading = since("0.7")
    if subject.saved_by <= loading:
        yield UNAPPLIED_TENSOR(message, tensors=tensors, misloads=PEFT - loading)
    elif subject.saved_by <= PEFT - loading:
        yield UNAPPLIED_TENSOR(message, tensors=tensors, misloads=loading)
    else:
        yield UNAPPLIED_TENSOR(message, tensors=tensors, undecided=PEFT, needs="which release saved it")


@rule
def targets_saved_whole(subject: Subject) -> Iterator[Finding]:
    """The plain weight of a module that the config targets, and does not name in modules_to_save: 0.7 and newer look
    for `base_layer.weight` there, so that it is ignored, beside a layer that computes nothing; older ones load it.
    """
    whole = tuple(subject.saved_whole)
    if subject.method not in LORAS or heads(subject):
        return
    if subject.config.get("ensure_weight_tying") or is_all_linear(subject.config.get("target_modules")):
        return  # a head that is tied to an embedding is no target of its own, and all-linear takes neither
    keys = [
        key for key in subject.tensors_where(lambda key: key.endswith(".weight") and ".lora_" not in key)
        if (module := module_of(key).removesuffix(".weight")) not in subject.layers
        and not (whole and module.endswith(whole))
        and not module.endswith(HEADS.get(subject.task, "*")) and targeted(subject.config, module, NEWEST_SERIES)
    ]  # fmt: skip
    if keys:
        message = f"whole weights of modules that the config targets, which 0.7 and newer ignore: {several(keys)}"
        yield UNAPPLIED_TENSOR(message, tensors=keys, misloads=since("0.7"))


def _plain(key: str) -> tuple[str, str]:
    """The plain name of a parameter in a copy, by a key without the adapter's name and by one with it."""
    module, _, inside = key.partition(".modules_to_save.")
    return f"{module}.{inside}", f"{module}.{inside.partition('.')[2]}"


@rule
def kept_as_in_memory(subject: Subject) -> Iterator[Finding]:
    """Modules that are saved whole, by their names in memory, `<module>.modules_to_save.<adapter>.weight`: ignored up
    to 0.14, and a KeyError from 0.15 on, which looks for the plain name (utils/save_and_load.py:
    set_peft_model_state_dict). Heads that are adapted as well have a rule of their own.
    """
    if not subject.is_named or heads(subject):
        return
    inside = set(subject.others)
    tensors = [key for key in subject.tensors_where(lambda key: ".modules_to_save." in key) if key in inside]
    # bias "all" saves those of the copies as well
    tensors = [key for key in tensors if not any(name in subject.tensors for name in _plain(key))]
    if tensors:
        message = f"modules_to_save stands inside {counted(len(tensors), 'key')}, as in memory ({tensors[0][:120]})"
        looked_for = subject.saved_whole or subject.task in HEADS
        raising = since("0.15") if looked_for else frozenset[str]()
        yield UNAPPLIED_TENSOR(message, tensors=tensors, rejects=raising, misloads=PEFT - raising)


@rule
def named_like_a_factor(subject: Subject) -> Iterator[Finding]:
    """A module that is saved whole, with "lora_" in its name: up to 0.20 its tensors are taken for factors, and dropped
    (utils/save_and_load.py: set_peft_model_state_dict). Loaded in 8 releases.
    """
    names = [name for name in subject.saved_whole if "lora_" in name]
    if not names or subject.method not in LORAS:
        return
    tensors = subject.tensors_where(lambda key: any(f".{name}." in f".{key}" for name in names))
    if tensors:
        message = f"modules_to_save names {names[0]}, whose tensors are taken for factors and dropped"
        yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=("modules_to_save",), misloads=upto("0.20"))


@rule
def name_of_the_adapter(subject: Subject) -> Iterator[Finding]:
    """A name with a dot is no name of a module to torch. One that is a module's in modules_to_save is replaced in every
    key (up to 0.14; utils/save_and_load.py: set_peft_model_state_dict), and is looked for within the copy. Loaded on
    Mistral in 18 releases.
    """
    name = subject.question.adapter_name
    if subject.method not in LORAS:
        return
    if "." in name:
        yield ADAPTER_NAME(f"the name {name!r} has a dot, which torch refuses", rejects=PEFT)
    elif name in subject.saved_whole:
        ignoring = between("0.8", "0.14")
        message = f"loaded under the name {name!r}, which modules_to_save has as well"
        yield ADAPTER_NAME(message, keys=("modules_to_save",), rejects=PEFT - ignoring, misloads=ignoring)
