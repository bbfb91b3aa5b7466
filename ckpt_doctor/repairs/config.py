"""Repairs of the config, and of the bias keys that it speaks of."""

from __future__ import annotations

from ..adapter import Adapter
from ..layers import Layer, module_of
from ..rules.keys import RAISING, knows, neutral
from . import Refused, with_config


def drop_neutral_keys(adapter: Adapter, layers: dict[str, Layer]) -> Adapter:  # noqa: ARG001
    """Config keys that some release refuses, and that mean nothing here, go."""
    method, config = adapter.peft_type or "", adapter.config or {}
    kept = {k: v for k, v in config.items() if knows(method, k) >= RAISING or not neutral(method, k, v)}
    return adapter._replace(config=kept)


def schedule(adapter: Adapter, layers: dict[str, Layer]) -> Adapter:  # noqa: ARG001
    """total_step becomes the smallest that every release accepts; a loaded adapter never uses it."""
    config = adapter.config or {}
    first, last = config.get("tinit", 0), config.get("tfinal", 0)
    if type(first) is not int or type(last) is not int or first < 0 or last < 0:
        raise Refused("tinit and tfinal are not step counts")
    return with_config(adapter, total_step=first + last + 1)


def both_bias_spellings(adapter: Adapter, layers: dict[str, Layer]) -> Adapter:
    """The bias of each adapted module under both of its names."""
    tensors = dict(adapter.tensors)
    for key, info in adapter.tensors.items():
        if key.endswith(".base_layer.bias"):
            tensors.setdefault(key.replace(".base_layer.bias", ".bias"), info)
        elif key.endswith(".bias") and module_of(key)[: -len(".bias")] in layers:
            tensors.setdefault(key[: -len("bias")] + "base_layer.bias", info)
    if tensors.keys() == adapter.tensors.keys():
        raise Refused("the file has no bias to spell both ways")
    return adapter._replace(tensors=tensors)

