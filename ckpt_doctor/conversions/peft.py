"""PEFT's own tensors under another file's name, or of several adapters in one file."""

from __future__ import annotations

import re

from ..adapter import TensorInfo
from . import Converted, Foreign, Refused, Tool

NAMED = re.compile(r"(.*\.(?:lora_(?:embedding_)?[ABE]|lora_magnitude_vector))\.([^.]+)(\.weight)?")
"""A factor with the name of its adapter, as in memory (tuners/lora/layer.py: LoraLayer.update_layer)."""


def named(key: str) -> str:
    """The name of the adapter in a key, "" where there is none."""
    match = NAMED.fullmatch(key)
    return match[2] if match and match[2] != "weight" else ""


def to_peft(foreign: Foreign) -> list[Converted]:
    """The adapter as it is, or each of several, under the one config that is there. Raises Refused."""
    if not foreign.config:
        raise Refused("its adapter_config.json, which has the scale, is missing")
    names = sorted({name for key in foreign.tensors if (name := named(key))})
    if len(names) < 2:
        return [Converted("", foreign.config, dict(foreign.tensors))]
    found: dict[str, dict[str, TensorInfo]] = {name: {} for name in names}
    for key, info in foreign.tensors.items():
        match = NAMED.fullmatch(key)
        if not match or match[2] not in found:
            raise Refused(f"{key} has not the name of one of the adapters {', '.join(names)}")
        found[match[2]][match[1] + (match[3] or "")] = info
    return [Converted(name, foreign.config, tensors) for name, tensors in found.items()]


TOOL = Tool("PEFT", "adapter_config.json", "adapter_model.safetensors", to_peft)
