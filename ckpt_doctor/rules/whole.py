"""Rules about modules that were trained whole, and that the file lacks, or a parameter of which it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..adapter import NUMBER
from ..adapter.codes import MISSING_SAVED, OTHER_SIZE, READ_MODULE, UNSAVED_MODULE
from ..adapter.findings import THE_BASE, Code, Finding, several
from ..adapter.runtimes import NONE, PEFT, Ids, since, upto
from ..facts.config_keys import knows
from ..facts.embeddings import HEAD
from ..facts.layers import module_of
from ..facts.methods import LORAS
from ..facts.names import IN_BLOCK, PREFIX, Names, stack
from ..facts.patterns import once, pay
from ..facts.subject import Subject
from ..facts.targets import ends
from ..facts.tasks import (
    CALLED_OTHERWISE,
    CLASSES,
    CLASSIFIER_HEADS,
    HEADS,
    POOLER,
    WITH_BIAS,
    has_head,
    heads_of,
    is_bare,
)
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
        heads = HEADS.get(subject.task, ())
        if not any(f".{head}." in key for head in heads for key in subject.tensors):
            heads = ()
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
        otherwise = CALLED_OTHERWISE.get(subject.task, "decoder")
        if not subject.model_type and any(re.search(otherwise, module) for module in subject.layers):
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
    of_the_model = heads_of(subject.task, subject.model_type)
    return not of_the_model or bool(subject.adapted_class and not of_the_task)


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
    of_heads = bool(subject.saved_as) and not any(map(is_bare, subject.saved_as))
    if name.endswith(POOLER) and of_heads and not has_head(subject.adapted_class) and subject.task not in CLASSES:
        return None
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
    lost = [
        f"{module}.weight" for module, present in parts.items()
        if present == {"bias"} and (f"{module}.weight" in base or not _holds(module, there))
    ]  # fmt: skip
    # of another head that the base model was saved with the class that was adapted has nothing
    tops = {module.partition(".")[0] for module in (*parts, *subject.sample)}
    alone = {*lost}
    lost += [
        name for name in base
        if parts and is_named(name.rpartition(".")[0]) and f"{PREFIX}{name}" not in there and name not in alone
        and name.partition(".")[0] in tops
    ]  # fmt: skip
    there_are = {"", *map(stack, (*parts, *subject.sample))}
    missing = [name for name in lost if stack(name) in there_are]
    if missing:
        message = f"of a module that is saved whole the file lacks {several(missing)}"
        yield code(message, keys=KEYS, rejects=known & since("0.15"), misloads=known & upto("0.14"))
    elif lost:
        message = f"of a module that is saved whole the file lacks {several(lost)}, if its class has these blocks"
        yield code(message, keys=KEYS, undecided=known, needs="the class that was adapted")
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
    blocks = _blocks((*subject.layers, *parts)) if any(map(_in_block, parts)) else {}
    unlike += [module for module in _of_other_blocks(parts, blocks) if is_named(module)]
    lone = [
        module for module in parts
        if (of := _in_block(module)) and len(blocks[of[1]]) == 1 and is_named(f"{of[1]}.{of[2]}0.{of[3]}"[1:])
    ]  # fmt: skip
    if unlike and not (lost or base):
        message = f"the file lacks what the same module of another block has: {several(unlike)}"
        yield code(message, keys=KEYS, undecided=known, needs=THE_BASE)
    elif lone and not (lost or base):
        message = f"the file has what is of one block alone, and a model mostly has more: {several(lone)}"
        yield code(message, keys=KEYS, undecided=known, needs=THE_BASE)


def _in_block(module: str) -> re.Match[str] | None:
    return IN_BLOCK.fullmatch(f".{module}")


def _blocks(modules: Iterable[str]) -> dict[str, dict[str, None]]:
    """The numbers of the blocks that modules are in, by what these are in."""
    blocks: dict[str, dict[str, None]] = {}
    for module in modules:
        if of := _in_block(module):
            blocks.setdefault(of[1], {})[of[2]] = None
    return blocks


def _of_other_blocks(modules: Iterable[str], blocks: dict[str, dict[str, None]]) -> Names:
    """What modules are called in the blocks that there are, where it is none of them."""
    found = {module: of for module in modules if (of := _in_block(module))}
    others = {f"{of[1]}.{number}.{of[3]}"[1:]: None for of in found.values() for number in blocks[of[1]]}
    return [module for module in others if module not in found]


def _holds(module: str, there: Iterable[str]) -> bool:
    """Whether a module holds others, so that a bias of its own need not come with a weight (transformers:
    modeling_bert.py: BertLMPredictionHead).
    """
    inside = f"{PREFIX}{module}."
    return any(key.startswith(inside) and "." in key.removeprefix(inside) for key in there)


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
    """Modules that are saved whole or adapted, of which the model reads an attribute: the wrapper of a release has none
    but its own, and that of a layer has weight alone of what is read (tuners/tuners_utils.py: BaseTunerLayer).
    """
    whole = tuple(subject.saved_whole)
    saved = {module_of(key).rpartition(".")[0] for key in subject.others} if whole and subject.method else set()
    any_of_them = tuple(read.module for read in READ)
    if not any(name.endswith(any_of_them) for name in (*saved, *subject.sample)):
        return
    for read in READ:
        end, lacking = f".{read.module}", knows(subject.method or "", "modules_to_save") - read.had
        found = [name for name in saved if f".{name}".endswith(end) and name.endswith(whole)]
        what, keys = "saved whole", KEYS
        if not found and read.attribute != "weight":
            found = [name for name in subject.sample if f".{name}".endswith(end)]
            what, keys, lacking = "adapted", ("target_modules",), PEFT
        if found:
            told = f"the {read.attribute} of {min(found)}, which is {what}"
            if not read.types or subject.model_type in read.types:
                yield READ_MODULE(f"the model reads {told}", keys=keys, rejects=lacking)
            elif not subject.model_type:
                yield READ_MODULE(f"the model may read {told}", keys=keys, undecided=lacking, needs=THE_BASE)
