"""Repairs for servers: zero pairs where a module is missing, targets by their ends, options without meaning."""

from __future__ import annotations

import re

from ..adapter import Adapter, Layer, TensorInfo, zeros
from ..adapter.runtimes import between
from ..facts.subject import Subject
from ..facts.targets import targeted
from ..rules.servers.tensors import siblings
from . import Refused, meant, with_config
from .cuts import ending


def fused_pairs(subject: Subject) -> Adapter:
    """Zero pairs for the modules that a server fuses with those that are there (q without v, up without gate)."""
    adapter, layers = subject.adapter, dict(subject.layers)
    while True:
        missing = siblings(layers)
        if not missing:
            return adapter
        for module, beside in missing.items():
            adapter, layers = _with_pair(subject, adapter, layers, module, layers[beside])
            if not all(targeted(adapter.config or {}, module, release) for release in ((0, 5), (0, 21))):
                adapter = listed_targets(subject.changed(adapter))
                return fused_pairs(subject.changed(adapter))


def listed_targets(subject: Subject) -> Adapter:
    """target_modules as a list of the ends of names; each layer gets zero pairs for what it lacks of them.

    Without them the list would name modules that have no tensors. Whether the base model has more modules of those
    names shows only with it.
    """
    adapter, layers = subject.adapter, dict(subject.layers)
    if meant(subject).keys() != layers.keys():
        raise Refused("some layers have tensors that the release which saved them ignores, and a list would name them")
    target = subject.config.get("target_modules")
    stems: dict[str, set[str]] = {}
    for module in layers:
        match = re.match(r"(.*?\.\d+)\.(.*)$", module)
        stems.setdefault(match[1] if match else "", set()).add(match[2] if match else module)
    stems.pop("", None)
    for tail in sorted(set().union(*stems.values())) if stems else []:
        for stem in stems:
            if f"{stem}.{tail}" not in layers:
                like = next(layer for module, layer in layers.items() if module.endswith(f".{tail}"))
                adapter, layers = _with_pair(subject, adapter, layers, f"{stem}.{tail}", like)
    ends = sorted({module.rpartition(".")[2] for module in layers})
    chosen = ("exclude_modules", "layers_to_transform", "layers_pattern")
    kept = {key: value for key, value in (adapter.config or {}).items() if key not in chosen}
    listed = isinstance(target, list) and sorted(target) == ends
    return with_config(adapter._replace(config=kept), target_modules=target if listed else ends)


def regex_targets(subject: Subject) -> Adapter:
    """target_modules as a regex that names the same, which SGLang rejects (srt/lora/utils.py:
    get_normalized_target_modules), and the others read like the list: for what SGLang would take and then drop.
    """
    targets = subject.config.get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(name, str) for name in targets):
        raise Refused("target_modules is no list of names")
    return with_config(subject.adapter, target_modules=ending(sorted(targets)))


NOWHERE = "layers_of_another_model"
"""A target that no model has, so that PEFT rejects the adapter (tuners/tuners_utils.py: inject_adapter), and
transformers by it."""


def no_target(subject: Subject) -> Adapter:
    """An adapter for one server, which reads no targets: what transformers' model has not, it then does not drop
    without a word, but rejects.
    """
    return with_config(subject.adapter, target_modules=[NOWHERE])


def opened(subject: Subject) -> Adapter:
    """The adapter with every layer that it has among its targets."""
    return with_config(subject.adapter, target_modules=sorted({name.rpartition(".")[2] for name in subject.layers}))


def _with_pair(
    subject: Subject, adapter: Adapter, layers: dict[str, Layer], module: str, beside: Layer
) -> tuple[Adapter, dict[str, Layer]]:
    """The adapter with a zero pair for a module, sized like the same module of another layer, or by the base model."""
    base = subject.question.base
    end = module.rpartition(".")[2]
    stem = module.rpartition(".")[0]
    same = next((layer for name, layer in layers.items() if name.endswith(f".{end}")), None)
    key_a, key_b = beside.factors.get("lora_A"), beside.factors.get("lora_B")
    if key_a is None or key_b is None or beside.rank is None:
        raise Refused(f"{beside.module} has not both factors, so nothing tells the size of {module}")
    a, b = adapter.tensors[key_a], adapter.tensors[key_b]
    twin = {"v_proj": "k_proj", "k_proj": "v_proj", "gate_proj": "up_proj", "up_proj": "gate_proj"}.get(end)
    if same is not None and {"lora_A", "lora_B"} <= same.factors.keys():
        a, b = adapter.tensors[same.factors["lora_A"]], adapter.tensors[same.factors["lora_B"]]
        out = b.shape[0]
    elif base is not None and module in base.weights:
        out = base.weights[module][0]
    elif twin is not None and f"{stem}.{twin}" in layers and "lora_B" in layers[f"{stem}.{twin}"].factors:
        out = adapter.tensors[layers[f"{stem}.{twin}"].factors["lora_B"]].shape[0]
    else:
        raise Refused(f"nothing tells the output size of {module}: name the base model with --base")
    rank = beside.rank
    pair = {"lora_A": zeros(a.dtype, (rank, a.shape[1])), "lora_B": zeros(b.dtype, (out, rank))}
    keys = {name: key.replace(beside.module, module) for name, key in (("lora_A", key_a), ("lora_B", key_b))}
    if set(keys.values()) & adapter.tensors.keys():
        raise Refused(f"{module} has tensors already")
    tensors: dict[str, TensorInfo] = {**adapter.tensors, **{keys[name]: info for name, info in pair.items()}}
    target = (adapter.config or {}).get("target_modules")
    if isinstance(target, list) and not any(module == name or module.endswith(f".{name}") for name in target):
        adapter = with_config(adapter, target_modules=[*target, module if beside.module in target else end])
    new = Layer(module, keys, rank, beside.alpha, beside.scaling)
    return adapter._replace(tensors=tensors), {**layers, module: new}


def no_bias(subject: Subject) -> Adapter:
    """Bias "none" where the file has no bias and none was lost: nothing was trained that it would say."""
    if any(key.endswith(".bias") and ".lora_" not in key for key in subject.tensors):
        raise Refused("the adapter has trained biases")
    base = subject.question.base
    none = subject.saved_by <= between("0.6", "0.9") or (base and base.biases.isdisjoint(subject.layers))
    if subject.config.get("bias") == "lora_only" and not none:
        raise Refused(
            "the biases of these layers were trained and not saved, if they have any: name the model with --base"
        )
    return with_config(subject.adapter, bias="none")


def no_modules_to_save(subject: Subject) -> Adapter:
    """modules_to_save null where the file has none of their tensors."""
    if any(f".{name}." in key for name in subject.saved_whole for key in subject.tensors):
        raise Refused("the adapter has modules that were trained whole, which no low-rank pair can say")
    return with_config(subject.adapter, modules_to_save=None)
