"""Rules about what is saved beside the factors: modules that were trained whole, biases, and parts that options add."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter.codes import ADAPTER_NAME, BIAS_SPELLING, MISSING_SAVED, UNAPPLIED_TENSOR, UNSAVED_MODULE
from ..adapter.findings import THE_BASE, Code, Finding, several
from ..adapter.runtimes import NEWEST_SERIES, PEFT, between, since, upto
from ..facts.config_keys import knows
from ..facts.layers import module_of
from ..facts.lookup import PREFIX
from ..facts.methods import LORAS
from ..facts.record import NONE
from ..facts.subject import Subject
from ..facts.targets import targeted
from .declared import rule
from .heads import CLASSIFIERS, HEADS, heads, without_other_head


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
    biases = [key for key in subject.tensors if key.endswith(".bias") and not key.startswith(whole or "*")]
    named = {module_of(key) for key in biases if ".lora_" not in key}
    new = {name.removesuffix(".base_layer.bias") for name in named if name.endswith(".base_layer.bias")}
    old = {name.removesuffix(".bias") for name in named} - {name + ".base_layer" for name in new}
    missing = frozenset[str]()
    if bias not in ("all", "lora_only") and subject.base is not None:
        new, old = new & subject.base.biases, old & subject.base.biases  # others have no place in any release
    if subject.base is not None and not new and not old and subject.base.biases.isdisjoint(subject.layers):
        return
    if not new & subject.layers.keys() and not old & subject.layers.keys():
        if bias not in ("all", "lora_only"):
            return
        # the layers of 0.6 – 0.9 have no bias of their own, so these trained none (tuners_utils.py: BaseTunerLayer)
        if bias == "lora_only" and not subject.saved_by <= between("0.6", "0.9"):
            missing = PEFT
    else:
        # what is not adapted keeps the plain name of its bias in every release
        wrapped = {m for m in new | old if m in subject.layers or targeted(config, m, NEWEST_SERIES)}
        missing |= upto("0.6") if new - old else frozenset()
        missing |= since("0.7") if (old - new) & wrapped or (new - old) - wrapped else frozenset()
    if missing:
        keys = tuple(key for key in subject.tensors if key.endswith(".bias"))
        lost = "no bias is in the file" if missing == PEFT else "the biases are named for one side of PEFT 0.7 only"
        yield BIAS_SPELLING(f"bias is {bias!r}, and {lost}", tensors=keys, keys=("bias",), misloads=missing)


@rule
def missing_tokens(subject: Subject) -> Iterator[Finding]:
    """A KeyError from 0.15 on (utils/save_and_load.py: set_peft_model_state_dict)."""
    there = any("trainable_tokens" in key and not subject.unread.get(key, NONE) >= PEFT for key in subject.tensors)
    if subject.method in LORAS and subject.config.get("trainable_token_indices") and subject.tensors and not there:
        message = "trainable_token_indices is set, and the file has no such tensors"
        yield MISSING_SAVED(message, keys=("trainable_token_indices",), rejects=since("0.15"))


@rule
def missing_modules(subject: Subject) -> Iterator[Finding]:
    """Modules in modules_to_save, or parameters of theirs, that are not in the file: a KeyError from 0.15 on
    (utils/save_and_load.py: set_peft_model_state_dict), where the base model has them. Up to 0.14 they stay as they
    are in the base model, and nothing tells whether they were trained.

    For a classifier PEFT 0.13 and newer write both names that its head may have, of which a model has one
    (peft_model.py: PeftModelForSequenceClassification, PeftModelForTokenClassification; huggingface/peft#2027). Its
    head is new, so that one which is not in the file was lost.
    """
    config = subject.config
    saved, keys = config.get("modules_to_save"), ("modules_to_save",)
    names = [name for name in saved if isinstance(name, str)] if isinstance(saved, list) else []
    if not names or not subject.tensors or not subject.method:
        return
    code = MISSING_SAVED if subject.method in LORAS else UNSAVED_MODULE
    known = knows(subject.method, "modules_to_save")
    raising, silent = known & since("0.15"), known & upto("0.14")
    factors = {key for layer in subject.layers.values() for key in layer.factors.values()}
    beside = [key for key in subject.tensors if key not in factors and ".lora_" not in key]
    there = [f".{key}" for key in beside if not subject.unread.get(key, NONE) >= PEFT]
    astray = [
        key for key in beside
        if f".{key}" not in there and any(f".{name}." in f".{key}" for name in names)
        and not any(key.endswith(other) for other in there)
    ]  # fmt: skip
    if astray:
        message = f"{several(astray)} are of a module in modules_to_save, and no release finds them"
        yield code(message, keys=keys, tensors=astray, rejects=raising, misloads=silent)
    lost = [name for name in names if not any(f".{name}." in key for key in there)]
    if {*HEADS} <= {*lost} and config.get("task_type") in CLASSIFIERS and subject.layers:
        message = f"the head of the classifier ({' or '.join(HEADS)}) is not in the file"
        yield code(message, keys=keys, rejects=raising, misloads=silent)
        return
    yield from _incomplete(subject, code, known, names, there)
    lost = without_other_head(subject, names, lost)
    if subject.base is not None:
        lost = [name for name in lost if _has(subject, name) is not False]
    if lost:
        stays = _has(subject, lost[0])
        message = f"modules_to_save names {lost[0]}, which the file has no tensors for"
        if stays:
            yield code(message, keys=keys, rejects=raising, undecided=silent, needs="what the module was in training")
        else:
            needs = THE_BASE if subject.base is None else "the class that was adapted"
            yield code(message, keys=keys, undecided=known, needs=needs)


def _has(subject: Subject, name: str) -> bool | None:
    """Whether the model that was adapted has a module of this name, None where nothing tells. An lm_head that is tied
    to the embedding is in no file, and in every class for language modelling.
    """
    if subject.base is None:
        return None
    if any(f".{parameter}".startswith(f".{name}.") or f".{name}." in f".{parameter}"
           for parameter in subject.base.parameters):  # fmt: skip
        return True
    if name != "lm_head":
        return False
    task = subject.config.get("task_type")
    if task in LANGUAGE_TASKS:
        saved_as = subject.base.config.get("architectures")
        named = isinstance(saved_as, list) and any(str(kind).endswith(LANGUAGE_CLASSES) for kind in saved_as)
        return True if named or subject.base.config.get("tie_word_embeddings") is True else None
    return False if task else None


LANGUAGE_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM")
LANGUAGE_CLASSES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How transformers names the classes that such tasks are for."""


def _incomplete(
    subject: Subject, code: Code, known: frozenset[str], names: list[str], there: list[str]
) -> Iterator[Finding]:
    """Modules that are in the file, and a parameter of theirs is not: the base model has it, or a bias alone is there,
    or the weight alone of a head that is an nn.Linear in every class of transformers.
    """
    parts: dict[str, set[str]] = {}
    for key in there:
        module, _, part = key.removeprefix(f".{PREFIX}").rpartition(".")
        if any(f".{module}.".endswith(f".{name}.") for name in names):
            parts.setdefault(module, set()).add(part)
    base = subject.base.parameters if subject.base is not None else {}
    lost = [
        f"{module}.{part}" for module, present in parts.items() for part in ("weight", "bias")
        if part not in present and (f"{module}.{part}" in base or present == {"bias"})
    ]  # fmt: skip
    keys = ("modules_to_save",)
    if lost:
        message = f"{several(lost)} of a module in modules_to_save is not in the file"
        yield code(message, keys=keys, rejects=known & since("0.15"), misloads=known & upto("0.14"))
    doubted = [
        f"{module}.bias" for module, present in parts.items()
        if module.rpartition(".")[2] in WITH_BIAS and present == {"weight"}
    ]  # fmt: skip
    if doubted and not lost:
        message = f"{several(doubted)} is not in the file, which such a head has in transformers"
        yield code(message, keys=keys, undecided=known, needs="the class that was adapted")


WITH_BIAS = ("classifier", "qa_outputs")
"""Heads that have a bias in every class of transformers."""


@rule
def unapplied(subject: Subject) -> Iterator[Finding]:
    """Tensors of an option that the config does not set, which no release then applies: DoRA's magnitudes, trained
    tokens. They are left out when the names are mapped (utils/save_and_load.py: set_peft_model_state_dict).
    """
    if subject.method != "LORA":
        return
    for key, part, what in (
        ("use_dora", ".lora_magnitude_vector", "DoRA's magnitudes"),
        ("trainable_token_indices", "trainable_tokens_", "trained tokens"),
    ):
        tensors = [name for name in subject.tensors if part in name]
        if tensors and not subject.config.get(key):
            message = f"{len(tensors)} tensors are {what} ({tensors[0][:120]}), and {key} is not set: they are ignored"
            if key == "use_dora" and len(tensors) < len(subject.layers):  # PEFT gives every layer one
                needs = "what these tensors are"
                yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=(key,), undecided=PEFT, needs=needs)
            else:
                yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=(key,), misloads=PEFT)


_IN_MEMORY = re.compile(r"\.modules_to_save\.(?:[^.]+\.(?=[^.]+$))?")


@rule
def kept_as_in_memory(subject: Subject) -> Iterator[Finding]:
    """Modules that are saved whole, by their names in memory, `<module>.modules_to_save.<adapter>.weight`: ignored up
    to 0.14, and a KeyError from 0.15 on, which looks for the plain name (utils/save_and_load.py:
    set_peft_model_state_dict). Heads that are adapted as well have a rule of their own.
    """
    if subject.method not in LORAS or heads(subject):
        return
    tensors = [key for key in subject.tensors if ".modules_to_save." in key and ".lora_" not in key]
    plain = {key: _IN_MEMORY.sub(".", key) for key in tensors}  # bias "all" saves those of the copies as well
    tensors = [key for key in tensors if plain[key] not in subject.tensors]
    if tensors:
        message = f"{len(tensors)} keys of whole modules are named as in memory ({tensors[0][:120]})"
        saved = subject.config.get("modules_to_save")
        raising = since("0.15") if isinstance(saved, list) and saved else frozenset[str]()
        yield UNAPPLIED_TENSOR(message, tensors=tensors, rejects=raising, misloads=PEFT - raising)


@rule
def named_like_a_factor(subject: Subject) -> Iterator[Finding]:
    """A module that is saved whole, with "lora_" in its name: up to 0.20 its tensors are taken for factors, and dropped
    (utils/save_and_load.py: set_peft_model_state_dict). Loaded in 8 releases.
    """
    saved = subject.config.get("modules_to_save")
    names = [name for name in saved if isinstance(name, str) and "lora_" in name] if isinstance(saved, list) else []
    tensors = [key for key in subject.tensors if any(f".{name}." in f".{key}" for name in names)]
    if tensors and subject.method in LORAS:
        message = f"modules_to_save names {names[0]}, whose tensors are taken for factors and dropped"
        yield UNAPPLIED_TENSOR(message, tensors=tensors, keys=("modules_to_save",), misloads=upto("0.20"))


@rule
def name_of_the_adapter(subject: Subject) -> Iterator[Finding]:
    """A name with a dot is no name of a module to torch. One that is a module's in modules_to_save is replaced in every
    key (up to 0.14; utils/save_and_load.py: set_peft_model_state_dict), and is looked for within the copy. Loaded on
    Mistral in 18 releases.
    """
    name, saved = subject.question.adapter_name, subject.config.get("modules_to_save")
    if subject.method not in LORAS:
        return
    if "." in name:
        yield ADAPTER_NAME(f"the name {name!r} has a dot, which torch refuses", rejects=PEFT)
    elif isinstance(saved, list) and name in saved:
        ignoring = between("0.8", "0.14")
        message = f"loaded under the name {name!r}, which modules_to_save has as well"
        yield ADAPTER_NAME(message, keys=("modules_to_save",), rejects=PEFT - ignoring, misloads=ignoring)
