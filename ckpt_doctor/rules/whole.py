"""Rules about modules that were trained whole, and that the file lacks, or a parameter of which it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..adapter import NUMBER
from ..adapter.codes import MISSING_SAVED, OTHER_SIZE, READ_MODULE, UNSAVED_MODULE
from ..adapter.findings import THE_BASE, Code, Finding, several
from ..adapter.runtimes import NONE, PEFT, Ids, since, upto
from ..facts.config_keys import knows
from ..facts.embeddings import HEAD
from ..facts.layers import module_of
from ..facts.methods import LORAS
from ..facts.names import PREFIX
from ..facts.patterns import once, pay
from ..facts.subject import Subject
from ..facts.targets import ends
from ..facts.tasks import CLASSES, CLASSIFIER_HEADS, HEADS, OTHER_HEADS, WITH_BIAS
from ..facts.wrapped import READ
from .declared import rule

KEYS = ("modules_to_save",)


@rule
def missing_tokens(subject: Subject) -> Iterator[Finding]:
    """A KeyError from 0.15 on (utils/save_and_load.py: set_peft_model_state_dict)."""
    tokens = subject.tensors_where(lambda key: "trainable_tokens" in key)
    there = any(not subject.unread.get(key, NONE) >= PEFT for key in tokens)
    indices = subject.config.get("trainable_token_indices")
    is_set = indices is not None and indices != {}  # an empty list is one of an embedding
    if subject.method in LORAS and is_set and subject.tensors and not there:
        message = "trainable_token_indices is set, and the file has no such tensors"
        yield MISSING_SAVED(message, keys=("trainable_token_indices",), rejects=since("0.15"))


@rule
def missing_modules(subject: Subject) -> Iterator[Finding]:
    """Modules that are trained whole, or parameters of theirs, that are not in the file: a KeyError from 0.15 on
    (utils/save_and_load.py: set_peft_model_state_dict), where the base model has them. Up to 0.14 they stay as they
    are in the base model, and nothing tells whether they were trained.

    For a task PEFT 0.13 and newer write all names that its head may have into modules_to_save, of which a model has one
    (huggingface/peft#2027). It is new, so that one which is not in the file was lost.
    """
    named, known = subject.saved_whole, knows(subject.method or "", "modules_to_save")
    heads = HEADS.get(subject.task, ()) if subject.layers else ()
    if not subject.layers and subject.method:  # a prompt, beside which the head of its task is saved
        known = PEFT
        heads = tuple(
            head for head in HEADS.get(subject.task, ()) if any(f".{head}." in key for key in subject.tensors)
        )
    if heads and _calls_it_otherwise(subject):
        named, heads = [name for name in named if name not in heads], ()
    if not (named or heads) or not subject.tensors or not subject.method:
        return
    code = MISSING_SAVED if subject.method in LORAS else UNSAVED_MODULE
    raising, silent = known & since("0.15"), known & upto("0.14")
    beside = [key for key in subject.others if not re.search(r"\.lora_(?:[ABE]|embedding|magnitude)", key)]
    there = {key for key in beside if not subject.unread.get(key, NONE) >= PEFT}
    twins = {module_of(key) for key in there}  # the same by the name that is looked for
    astray = [
        key for key in beside
        if key not in there and any(f"{name}." in key for name in (*named, *heads)) and module_of(key) not in twins
    ]  # fmt: skip
    if astray:
        message = f"no release finds what is of a module that is saved whole: {several(astray)}"
        yield code(message, keys=KEYS, tensors=astray, rejects=raising, misloads=silent)
    if heads and not any(f".{head}." in f".{key}" for head in heads for key in there):
        message = f"the head that the task trains ({' or '.join(heads)}) is not in the file"
        # a model with two stacks may call its own otherwise
        if subject.base is None and any("decoder" in module for module in subject.layers):
            yield code(message, keys=KEYS, undecided=known, needs=THE_BASE)
        else:
            yield code(message, keys=KEYS, rejects=raising, misloads=silent)
        return
    yield from _incomplete(subject, code, (*named, *heads), there, known)
    lost = [name for name in named if name not in heads and not any(f"{name}." in key for key in there)]
    lost = [name for name in lost if subject.base is None or has_module(subject, name) is not False]
    if lost:
        message = f"modules_to_save names {lost[0]}, which the file has no tensors for"
        if has_module(subject, lost[0]):
            yield code(message, keys=KEYS, rejects=raising, undecided=silent, needs="what the module was in training")
        else:
            needs = THE_BASE if subject.base is None else "the class that was adapted"
            yield code(message, keys=KEYS, undecided=known, needs=needs)


def _calls_it_otherwise(subject: Subject) -> bool:
    """Whether the class that was adapted has no head by the names that PEFT knows."""
    of_the_task = subject.adapted_class.endswith(CLASSES.get(subject.task, ()))
    return subject.model_type in OTHER_HEADS or bool(subject.adapted_class and not of_the_task)


def has_module(subject: Subject, name: str) -> bool | None:
    """Whether the model that was adapted has a module of this name, None where nothing tells. An lm_head that is tied
    to the embedding is in no file, and in every class for language modelling.
    """
    if subject.base is None:
        return None
    parameters = subject.base.parameters
    pay(name, len(parameters) >> 3)  # a text is searched faster than names are held against a pattern
    if f"{name}." in once(parameters, "text", lambda: "\n".join(parameters)):
        return True
    if name in CLASSIFIER_HEADS and "Classification" in subject.adapted_class:
        # a head that is new is in no file, that of the class which the model was saved as is
        return False if subject.adapted_class in subject.saved_as else None
    of_language = CLASSES["CAUSAL_LM"]
    if name != HEAD or (subject.adapted_class and not subject.adapted_class.endswith(of_language)):
        return False
    if subject.task in ("CAUSAL_LM", "SEQ_2_SEQ_LM"):
        named = any(kind.endswith(of_language) for kind in subject.saved_as)
        return True if named or subject.base.config.get("tie_word_embeddings") is True else None
    return False if subject.task else None


def _incomplete(subject: Subject, code: Code, names: tuple[str, ...], there: set[str], known: Ids) -> Iterator[Finding]:
    """Modules that are in the file, and a parameter of theirs is not: the base model has it, or a bias alone is there,
    or the weight alone of a head that is an nn.Linear in every class of transformers, or one that the same module of
    another block has.
    """
    parts: dict[str, set[str]] = {}
    is_named = ends(names)
    for key in there:
        module, _, part = key.removeprefix(PREFIX).rpartition(".")
        if is_named(module):
            parts.setdefault(module, set()).add(part)
    base = subject.base.parameters if subject.base else {}
    lost = [f"{module}.weight" for module, present in parts.items() if present == {"bias"}]
    # of another head that the base model was saved with the class that was adapted has nothing
    tops = {module.partition(".")[0] for module in (*parts, *subject.sample)}
    alone = {*lost}
    lost += [
        name for name in base
        if parts and is_named(name.rpartition(".")[0]) and f"{PREFIX}{name}" not in there and name not in alone
        and name.partition(".")[0] in tops
    ]  # fmt: skip
    if lost:
        message = f"of a module that is saved whole the file lacks {several(lost)}"
        yield code(message, keys=KEYS, rejects=known & since("0.15"), misloads=known & upto("0.14"))
    doubted = [
        f"{module}.bias" for module, present in parts.items()
        if module.rpartition(".")[2] in WITH_BIAS and present == {"weight"}
    ]  # fmt: skip
    if doubted and not lost:
        message = f"the file lacks what such a head has in transformers: {several(doubted)}"
        yield code(message, keys=KEYS, undecided=known, needs="the class that was adapted")
    alike: dict[str, set[str]] = {}
    for module, present in parts.items():
        alike.setdefault(NUMBER.sub("0", module), set()).update(present)
    unlike = [
        f"{module}.{part}" for module, present in parts.items()
        for part in sorted(alike[NUMBER.sub("0", module)] - present)
    ]  # fmt: skip
    if unlike and not (lost or base):
        message = f"the file lacks what the same module of another block has: {several(unlike)}"
        yield code(message, keys=KEYS, undecided=known, needs=THE_BASE)


@rule
def torn_heads(subject: Subject) -> Iterator[Finding]:
    """A head whose weight has another number of rows than its bias: it is an nn.Linear in every class of transformers,
    so that one of them is a size mismatch in each release that looks for it (load_state_dict).
    """
    torn = [
        key for key in subject.others
        if key.endswith(tuple(f".{head}.weight" for head in WITH_BIAS)) and (info := subject.tensors[key]).shape
        and (bias := subject.tensors.get(f"{key.removesuffix('weight')}bias")) and bias.shape != info.shape[:1]
    ]  # fmt: skip
    if torn and subject.method:
        yield OTHER_SIZE(f"{torn[0]} does not have the rows that its bias has", tensors=torn, rejects=PEFT)


@rule
def read_modules(subject: Subject) -> Iterator[Finding]:
    """Modules that are saved whole, of which the model reads an attribute that a release's wrapper does not have."""
    whole = tuple(subject.saved_whole)
    modules = {module_of(key).rpartition(".")[0] for key in subject.others} if whole and subject.method else set()
    for read in READ:
        found = [name for name in modules if f".{name}".endswith(f".{read.module}") and name.endswith(whole)]
        if not found:
            continue
        lacking = knows(subject.method or "", "modules_to_save") - read.had
        what = f"the {read.attribute} of {min(found)}, which is saved whole"
        if not read.types or subject.model_type in read.types:
            yield READ_MODULE(f"the model reads {what}", keys=KEYS, rejects=lacking)
        elif not subject.model_type:
            yield READ_MODULE(f"the model may read {what}", keys=KEYS, undecided=lacking, needs=THE_BASE)
