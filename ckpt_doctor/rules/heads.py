"""Rules about heads: modules that are saved whole, and that target_modules names as well."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

from ..adapter.codes import HEAD_AMONG_TARGETS, TARGET_WITHIN_SAVED
from ..adapter.findings import Finding, several
from ..adapter.runtimes import PEFT, between, since, upto
from ..facts.layers import module_of
from ..facts.methods import LORAS
from ..facts.names import targets
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..facts.tasks import HEADS
from .declared import rule

_COPY = ".modules_to_save."
_IN_HEAD = r"(?P<head>.+?)\.modules_to_save\.(?P<inner>.*?)\.?lora_"
_IN_COPY = r"(?P<head>.+?)\.modules_to_save\.(?P<inner>[^.]+(?:\.[^.]+){0,9})\.[^.]+"


def heads(subject: Subject) -> set[tuple[str, str]]:
    """The modules that are adapted and saved whole, each as the name of the whole and that of the part in it, or ""."""
    inside = subject.tensors_where(lambda key: ".modules_to_save." in key)
    return {(place["head"], place["inner"]) for key in inside if (place := re.match(_IN_HEAD, key))}


@rule
def head_among_targets(subject: Subject) -> Iterator[Finding]:
    """PEFT wraps such a module twice, and writes its factors under three names. Up to 0.6 the module's own weight is
    `<module>.weight`, then `<module>.base_layer.weight`; from 0.13 a wrapped head is no module that modules_to_save
    takes (utils/other.py: ModulesToSaveWrapper.check_module), from 0.15 the names that a load asks for are others
    (utils/save_and_load.py: set_peft_model_state_dict). Loaded in 18 releases on BERT, RoBERTa and Qwen2 with a
    classifier.
    """
    places = heads(subject)
    if not places or subject.method not in LORAS:
        return
    config = subject.config
    head, inner = min(places)
    weight = ".".join(part for part in (head, inner, "weight") if part)
    if weight in subject.tensors:
        taken = upto("0.6")
        rejected = between("0.15", "0.15") if inner else between("0.13", "0.15")
        rejected |= since("0.16") if not inner and config.get("task_type") == "TOKEN_CLS" else frozenset()
    elif any(head.endswith(name) for name in subject.saved_whole):
        taken, rejected = frozenset[str](), (between("0.6", "0.13") if inner else frozenset()) | since("0.15")
    else:
        taken = between("0.7", "0.14" if inner else "0.12")
        rejected = since("0.15" if inner else "0.13")
    doubted = frozenset[str]()
    misloaded = PEFT - taken - rejected
    if subject.method == "ADALORA":  # loaded with LoRA only
        doubted, taken, rejected, misloaded = PEFT, frozenset(), frozenset(), frozenset()
    what = module_of(f"{head}.{inner}" if inner else head)
    message = f"{what} is adapted by LoRA and saved whole as well, which releases read differently"
    yield HEAD_AMONG_TARGETS(
        message, tensors=(key for key in subject.tensors if key.startswith(f"{head}.")), keys=("target_modules",),
        rejects=rejected, misloads=misloaded, undecided=doubted, needs="a load in that release",
    )  # fmt: skip


@rule
def head_of_a_method(subject: Subject) -> Iterator[Finding]:
    """The same with another method: PEFT 0.13 and newer may refuse to wrap a head twice, and what others make of it was
    looked at with LoRA alone, but for a part of a head (huggingface/peft#2326; IA3, LoHa and OFT of 0.14.0 loaded on
    RoBERTa in 0.14.0, 0.15.2, 0.17.1, 0.19.1 and 0.21.2).
    """
    if subject.record is None:
        return
    heads = {*HEADS.get(subject.task, ()), "modules_to_save"}
    twice = [module for module in subject.layers if heads & {*module.split(".")}]
    if twice:
        message = f"{several(twice)} is adapted and saved whole as well, which releases read differently"
        # whose own weights PEFT 0.14 and older did not save, and newer ones ask for by name: KeyError
        inside = [re.fullmatch(_IN_COPY, key) for key in subject.tensors_where(lambda key: _COPY in key)]
        lost = [
            place for place in inside if place and f"{place['head']}.{place['inner']}.weight" not in subject.tensors
        ]
        rejected = since("0.15") if lost else frozenset[str]()
        yield HEAD_AMONG_TARGETS(
            message, keys=("target_modules",), rejects=rejected, undecided=PEFT - rejected,
            needs="a load in that release",
        )  # fmt: skip


@rule
def targets_within_saved(subject: Subject) -> Iterator[Finding]:
    """0.6 – 0.13 wrap the module and then look for the part in the wrapper (tuners/tuners_utils.py: inject_adapter);
    older ones adapt and then save it, newer ones leave it to the copy. Loaded with LoRA in 18 releases, with IA3 in
    6.
    """
    if not subject.method or not subject.layers or not subject.saved_whole:
        return
    wholes = tuple(f".{name}." for name in subject.saved_whole)
    parts = {module_of(key).rpartition(".")[0] for key in subject.tensors_where(lambda key: ".lora_" not in key)}
    within = [part for part in parts if any(whole in f".{part}" for whole in wholes)]
    target = subject.config.get("target_modules")
    of_lora = subject.method in LORAS
    hit = [m for m in within if (targeted(subject.config, m, (0, 13)) if of_lora else targets(target, m))]
    if hit:
        message = f"target_modules also names {several(sorted(hit))}, a part of a module in modules_to_save"
        keys = ("target_modules", "modules_to_save")
        yield TARGET_WITHIN_SAVED(message, keys=keys, rejects=between("0.6", "0.13"))


@rule
def saved_within_saved(subject: Subject) -> Iterator[Finding]:
    """modules_to_save is held against the ends of names, and no dot (utils/other.py: _set_trainable), so that a name
    may be of a module and of one in it: `embeddings` of BERT's word_embeddings. 0.6 – 0.13 look for the part in the
    wrapper, 0.14 copies both, which may compute the same, and 0.15 and newer look for its tensors twice. Loaded on
    XLNet and a plain model in 8 releases.
    """
    names = tuple(subject.saved_whole)
    if subject.method not in LORAS or not names:
        return
    for key in subject.others:
        module = module_of(key).rpartition(".")[0]
        wrapped = [outer for outer in accumulate(module.split("."), "{}.{}".format) if outer.endswith(names)]
        if len(wrapped) > 1 and {"original_module", "modules_to_save", "base_layer"}.isdisjoint(module.split(".")):
            message = f"modules_to_save names {wrapped[0][:120]} and {wrapped[1][:120]}, which is in it"
            yield TARGET_WITHIN_SAVED(
                message, keys=("modules_to_save",), rejects=between("0.6", "0.13") | since("0.15"),
                undecided=between("0.14", "0.14") | upto("0.5"), needs="a load in that release",
                remedy="save it again with modules_to_save that names the outer module alone, in full",
            )  # fmt: skip
            return
