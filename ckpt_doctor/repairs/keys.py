"""Repairs of names: prefixes, adapter names in keys, and AdaLoRA's pattern rebuilt from the tensors."""

from __future__ import annotations

import re

from ..adapter import Adapter
from ..facts.layers import WRAPPERS, module_of
from ..facts.names import PREFIX
from ..facts.subject import Subject
from . import Refused, check_rank, with_config
from .config import full_targets

_NAME = re.compile(r"(\.lora_(?:embedding_)?[ABE])\.(?!weight$)[^.]+((?:\.weight)?)$")


def peft_names(subject: Subject) -> Adapter:
    """Keys as PEFT looks for them: wrappers' prefixes and the adapter's name go, PEFT's own prefix comes."""
    starts = ("module.", PREFIX + "module.")
    wrapped = any(key.startswith(starts) or any(name in key for name in WRAPPERS) for key in subject.tensors)
    named = any(_NAME.search(key) for key in subject.tensors)
    if subject.question.base is not None and subject.layers.keys() <= subject.question.base.weights.keys():
        wrapped = True  # the base model has these modules by the names that are left without any prefix
    if not wrapped and not named:
        raise Refused("nothing tells under which names the base model has these layers")
    names = {}
    for key in subject.tensors:
        names[key] = _NAME.sub(r"\1\2", PREFIX + module_of(key) if wrapped else key)
    if len(set(names.values())) != len(names):
        raise Refused("two tensors would get one name")
    return subject.adapter._replace(tensors={names[key]: info for key, info in subject.tensors.items()})


def check_gone(subject: Subject) -> None:
    """Raises Refused where AdaLoRA's rank_pattern says that tensors are gone: what was trained is not in the file."""
    if subject.gone:
        raise Refused(f"rank_pattern gives {subject.gone[0]} a rank, and its tensors are gone")


def rebuilt_pattern(subject: Subject) -> Adapter:
    """AdaLoRA's rank_pattern as the tensors have it: on load it only sizes the layers, so where its trues stand does
    not matter. What the adapter computes hangs on the tensors and init_r alone. A layer without tensors, which the old
    pattern leaves no triplet, is no target any more: without its entry it would be as it is initialised.
    """
    init_r = subject.config.get("init_r", 12)
    if subject.method != "ADALORA" or type(init_r) is not int:
        raise Refused("init_r is not a rank")
    check_rank(subject, init_r)
    old = subject.config.get("rank_pattern")
    for key, mask in old.items() if isinstance(old, dict) else ():
        if isinstance(mask, list) and len(mask) != init_r:
            raise Refused(f"init_r is {init_r}, and rank_pattern has {len(mask)} triplets for {key}")
    check_gone(subject)
    pattern = {}
    for module, layer in subject.layers.items():
        if layer.rank is None or layer.rank > init_r or set(layer.factors) != {"lora_A", "lora_B", "lora_E"}:
            raise Refused(f"the tensors of {module} do not tell a rank of at most init_r")
        pattern[f"{module}.lora_E"] = [True] * layer.rank + [False] * (init_r - layer.rank)
    rebuilt = with_config(subject.adapter, rank_pattern=pattern)
    return full_targets(subject.changed(rebuilt)) if subject.pruned - subject.layers.keys() else rebuilt
