"""PEFT's own tensors under another file's name, or of several adapters in one file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..adapter import Adapter, TensorInfo
from ..adapter.findings import several
from ..facts.meaning import taking
from ..facts.subject import Subject
from . import Converted, Foreign, Refused, Tool, Wants

NAMED = re.compile(r"(.*\.(?:lora_(?:embedding_)?[ABE]|lora_magnitude_vector))\.([^.]+)(\.weight)?")
"""A factor with the name of its adapter, as in memory (tuners/lora/layer.py: LoraLayer.update_layer)."""
TELLING = re.compile(r".*\.(?:lora_[AB]\.([^.]+)\.weight|lora_(?:embedding_[AB]|E)\.([^.]+))")
"""Those that tell a name: what stands behind lora_A and ends the key may be a part of a factor (`weight_packed` of one
that is quantised), unless there is an E, as in each layer of AdaLoRA (tuners/adalora/layer.py: AdaLoraLayer)."""
CONFIG = "--adapter-config FILE"
"""What names the config of an adapter, where none lies there, or another's."""
OPTIONS = {"use_dora": ".lora_magnitude_vector", "lora_bias": ".lora_B.bias"}
"""Keys of a LoRA's config, and what of a layer is there where they are true (tuners/lora/layer.py)."""


def named(key: str) -> str:
    """The name of the adapter in a key, "" where that tells none."""
    match = TELLING.fullmatch(key)
    name = (match[1] or match[2]) if match else ""
    return "" if name == "weight" else name


def adapters(tensors: Iterable[str]) -> list[str]:
    """The names of several adapters in one file; one alone, whatever it is called, is ""."""
    names = sorted({name for key in tensors if (name := named(key))})
    return names if len(names) > 1 else [""]


def to_peft(foreign: Foreign) -> list[Converted]:
    """The adapter as it is, or each of several; `foreign.config` has their configs by name. Raises Refused."""
    names = adapters(foreign.tensors)
    if names == [""]:
        if not foreign.config:
            raise Wants(CONFIG, "its adapter_config.json, which has the scale, is missing")
        return [Converted("", foreign.config_of(""), dict(foreign.tensors))]
    found: dict[str, dict[str, TensorInfo]] = {name: {} for name in names}
    for key, info in foreign.tensors.items():
        match = NAMED.fullmatch(key)
        if not match or match[2] not in found:
            raise Refused(f"{key} has not the name of one of the adapters {', '.join(names)}")
        found[match[2]][match[1] + (match[3] or "")] = info
    lost = [name for name in names if name not in foreign.config]
    if lost:
        raise Wants(CONFIG, no_config(lost))
    for name, tensors in found.items():
        hold(foreign.config_of(name), tensors, "ADALORA" if any(key.endswith(".lora_E") for key in tensors) else "LORA")
    return [Converted(name, foreign.config_of(name), tensors) for name, tensors in found.items()]


def no_config(names: list[str]) -> str:
    """Why adapters of several in one file are not told apart from others of their shapes: the sentence."""
    return (
        f"what scales {several(names)} stands in no tensor, and an adapter_config.json beside several in one file is "
        "that of default alone: lay that of each in a folder of its name, or name one that holds for all"
    )


def hold_method(config: Mapping[str, object], method: str) -> None:
    """Raises Wants where a config is of another method."""
    named = config.get("peft_type")
    if named != method:
        raise Wants(CONFIG, f"the adapter_config.json is of {named}, and the tensors are of {method}: it is another's")


def hold(config: dict[str, object], tensors: Mapping[str, TensorInfo], method: str) -> None:
    """Raises Wants where a config is not of these tensors: where it says another method, layers, ranks or parts."""
    hold_method(config, method)
    subject = Subject(Adapter("", "", config, tensors))
    modules_named = config.get("target_parameters") is None and config.get("target_modules") is not None
    if modules_named and subject.is_named:
        hit = max((era.hit for era in subject.eras), key=len, default=frozenset())
        strange = [module for module in subject.layers if module not in hit]
        if strange:
            raise Wants(CONFIG, f"the adapter_config.json does not name {several(strange)}, so it is another adapter's")
        if method == "LORA" and not taking(subject.eras):
            told = "the ranks in adapter_config.json are not those of the tensors: it is another adapter's"
            raise Wants(CONFIG, told)
    for option, factor in OPTIONS.items() if method == "LORA" else ():
        if any(factor in key for key in tensors) != bool(config.get(option)):
            raise Wants(CONFIG, f"{option} in adapter_config.json is not as the tensors are: it is another adapter's")
    if method == "ADALORA":
        first = config.get("init_r", 12)
        wrong = [name for name, layer in subject.layers.items() if name not in subject.masks and layer.rank != first]
        if wrong:
            told = f"init_r is not the rank of {several(wrong)}: the adapter_config.json is another adapter's"
            raise Wants(CONFIG, told)


TOOL = Tool("PEFT", "adapter_config.json", "adapter_model.safetensors", to_peft)
