"""Repairs of rank-0 layers: pad with zeros, or prune the module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapter import Adapter, Layer
from ..facts.layers import RANK_AXIS, module_of, pattern_module
from ..facts.names import pattern_value
from ..facts.subject import Subject
from . import Refused, check_rank, meant, only, resized, with_config

if TYPE_CHECKING:
    from ..adapter import TensorInfo


def _zeros(info: TensorInfo, axis: int, rank: int) -> TensorInfo:
    from ..adapter import zeros

    shape = tuple(rank if at == axis else size for at, size in enumerate(info.shape))
    return zeros(info.dtype, shape)


def _sized(subject: Subject, module: str, layer: Layer, rank: int) -> dict[str, TensorInfo]:
    """The layer's factors as zeros of the given rank."""
    if any(len(subject.tensors[key].shape) != 2 for key in layer.factors.values()):
        raise Refused(f"{module} has factors that are not matrices, so nothing tells the size of its zeros")
    new = {}
    for factor, key in layer.factors.items():
        info = _zeros(subject.tensors[key], RANK_AXIS[factor], rank)
        if info.source.length == 0:  # type: ignore[union-attr]
            raise Refused(f"{key} has no size other than its rank")
        new[key] = info
    return new


def pad_adalora(subject: Subject) -> Adapter:
    """Rank-0 layers become rank 1 with zero factors: the delta stays exactly 0, and the pattern says one triplet."""
    config = subject.config
    init_r, pattern = config.get("init_r", 12), config.get("rank_pattern")
    if type(init_r) is not int or init_r < 1 or not isinstance(pattern, dict):
        raise Refused("init_r or rank_pattern is not one, so the pattern cannot be written")
    check_rank(subject, init_r)
    new_tensors, new_pattern = dict(subject.tensors), dict(pattern)
    names = {pattern_module(key): key for key in pattern}
    for module, layer in subject.layers.items():
        if not subject.has_zero_factor(layer):
            continue
        if layer.rank != 0 or set(layer.factors) != {"lora_A", "lora_B", "lora_E"}:
            raise Refused(f"the factors of {module} do not agree that its rank is 0")
        mask = pattern.get(names.get(module, ""))
        if not isinstance(mask, list) or len(mask) != init_r or any(mask):
            raise Refused(f"the pattern of {module} does not say that its rank is 0")
        new_tensors.update(_sized(subject, module, layer, 1))
        new_pattern[names[module]] = [True] + [False] * (init_r - 1)
    return with_config(subject.adapter._replace(tensors=new_tensors), rank_pattern=new_pattern)


def unprune(subject: Subject) -> Adapter:
    """Every AdaLoRA layer at init_r, padded with zeros, and no rank_pattern: the one form that can be trained further.

    With a pattern PEFT shrinks the layers at load, and its allocator then counts triplets that are not there.
    """
    config = subject.config
    init_r = config.get("init_r", 12)
    if subject.method != "ADALORA" or config.get("rank_pattern") is None:
        return subject.adapter
    if type(init_r) is not int or any(layer.rank is None or layer.rank > init_r for layer in subject.layers.values()):
        raise Refused("the tensors do not tell a rank of at most init_r for every layer")
    check_rank(subject, init_r)
    tensors = dict(subject.tensors)
    for layer in subject.layers.values():
        for factor, key in layer.factors.items():
            tensors[key] = resized(tensors[key], RANK_AXIS[factor], init_r)
    return with_config(subject.adapter._replace(tensors=tensors), rank_pattern=None)


def pad_lora(subject: Subject) -> Adapter:
    """Rank-0 layers become zeros at the config's r, and their pattern entry goes: exact in every release."""
    config = subject.config
    r, pattern = config.get("r", 8), config.get("rank_pattern")
    if type(r) is not int or r < 1:
        raise Refused(f"the config says r: {r}, so nothing tells the rank that the zeros should have")
    old = pattern if isinstance(pattern, dict) else {}
    below = [key for key, value in old.items() if isinstance(value, (int, float)) and value < 0]
    if below:
        raise Refused(f"rank_pattern says {old[below[0]]} for {below[0]}, a rank below 0")
    kept = {key: value for key, value in old.items() if value != 0}
    new_tensors = dict(subject.tensors)
    zero = [module for module, layer in subject.layers.items() if subject.has_zero_factor(layer)]
    for key in old.keys() - kept.keys():
        hit = [module for module in subject.layers if pattern_value({key: True}, module, False)]
        if not hit:
            raise Refused(f"rank_pattern says 0 for {key}, which has no tensors to tell its size")
        if set(hit) - set(zero):
            raise Refused(f"rank_pattern says 0 for {key}, which also names a layer whose tensors are not empty")
    for module in zero:
        rank = pattern_value(kept, module, r)
        check_rank(subject, rank)
        new_tensors.update(_sized(subject, module, subject.layers[module], rank))
    new: dict[str, Any] = {"rank_pattern": kept} if isinstance(pattern, dict) else {}
    return with_config(subject.adapter._replace(tensors=new_tensors), **new)


def prune(subject: Subject) -> Adapter:
    """Rank-0 modules go, and target_modules becomes a regex of the full names that stay.

    A list of full names would also match longer names that end with one of them, and those would be initialised at
    random up to PEFT 0.11.1.
    """
    config = subject.config
    gone = {module for module, layer in subject.layers.items() if subject.has_zero_factor(layer)}
    stay = sorted(meant(subject).keys() - gone)
    if any(subject.layers[module].rank != 0 for module in gone):
        raise Refused("factors of a layer do not agree that its rank is 0")
    if not stay:
        raise Refused("every layer has rank 0: pruned, no layer would be left; pad it instead")
    dropped = {key for module in gone for key in subject.layers[module].factors.values()}
    tensors: dict[str, TensorInfo] = {}
    for key, info in subject.tensors.items():
        if key not in dropped:
            if key.endswith(".base_layer.bias") and module_of(key)[: -len(".base_layer.bias")] in gone:
                # a module that is no longer adapted has its bias under its plain name again
                tensors[key.replace(".base_layer.bias", ".bias")] = info
            tensors[key] = info
    values: dict[str, Any] = {"target_modules": only(stay)}
    pattern = config.get("rank_pattern")
    if isinstance(pattern, dict):
        none_left = subject.pruned - subject.layers.keys()  # without tensors, and no target from here on
        values["rank_pattern"] = {
            key: value
            for key, value in pattern.items()
            if (pattern_module(key) not in gone | none_left if subject.method == "ADALORA" else value != 0)
        }
    for key in ("layers_to_transform", "layers_pattern", "exclude_modules"):
        if config.get(key) is not None:
            values[key] = None  # the regex names every module already, and none may come with these
    return with_config(subject.adapter._replace(tensors=tensors), **values)
