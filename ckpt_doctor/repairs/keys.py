"""Repairs of names: prefixes, adapter names in keys, and AdaLoRA's pattern rebuilt from the tensors."""

from __future__ import annotations

import re

from ..adapter import Adapter
from ..layers import WRAPPERS, Layer, module_of, pattern_module
from ..rules.rank import pruned
from . import Refused, with_config
from .config import full_targets

PREFIX = "base_model.model."
_NAME = re.compile(r"(\.lora_(?:embedding_)?[ABE])\.(?!weight$)[^.]+((?:\.weight)?)$")


def peft_names(adapter: Adapter, layers: dict[str, Layer]) -> Adapter:
    """Keys as PEFT looks for them: wrappers' prefixes and the adapter's name go, PEFT's own prefix comes."""
    starts = ("module.", PREFIX + "module.")
    wrapped = any(key.startswith(starts) or any(name in key for name in WRAPPERS) for key in adapter.tensors)
    named = any(_NAME.search(key) for key in adapter.tensors)
    if adapter.base is not None and layers.keys() <= adapter.base.weights.keys():
        wrapped = True  # the base model has these modules by the names that are left without any prefix
    if not wrapped and not named:
        raise Refused("nothing tells under which names the base model has these layers")
    names = {}
    for key in adapter.tensors:
        names[key] = _NAME.sub(r"\1\2", PREFIX + module_of(key) if wrapped else key)
    if len(set(names.values())) != len(names):
        raise Refused("two tensors would get one name")
    return adapter._replace(tensors={names[key]: info for key, info in adapter.tensors.items()})


def rebuilt_pattern(adapter: Adapter, layers: dict[str, Layer]) -> Adapter:
    """AdaLoRA's rank_pattern as the tensors have it: on load it only sizes the layers, so where its trues stand does
    not matter. What the adapter computes hangs on the tensors and init_r alone. A layer without tensors, which the old
    pattern leaves no triplet, is no target any more: without its entry it would be as it is initialised.
    """
    init_r = (adapter.config or {}).get("init_r", 12)
    if adapter.peft_type != "ADALORA" or type(init_r) is not int:
        raise Refused("init_r is not a rank")
    old = (adapter.config or {}).get("rank_pattern")
    for key, mask in old.items() if isinstance(old, dict) else ():
        if isinstance(mask, list) and len(mask) != init_r:
            raise Refused(f"init_r is {init_r}, and rank_pattern has {len(mask)} triplets for {key}")
        if pattern_module(key) not in layers and (not isinstance(mask, list) or any(mask)):
            raise Refused(f"rank_pattern gives {pattern_module(key)} a rank, and its tensors are gone")
    pattern = {}
    for module, layer in layers.items():
        if layer.rank is None or layer.rank > init_r or set(layer.factors) != {"lora_A", "lora_B", "lora_E"}:
            raise Refused(f"the tensors of {module} do not tell a rank of at most init_r")
        pattern[f"{module}.lora_E"] = [True] * layer.rank + [False] * (init_r - layer.rank)
    rebuilt = with_config(adapter, rank_pattern=pattern)
    return full_targets(rebuilt, layers) if pruned(adapter) - layers.keys() else rebuilt
