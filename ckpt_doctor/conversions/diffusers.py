"""diffusers: pytorch_lora_weights.safetensors, with the name of the component before PEFT's names of modules.

A newer file has the LoraConfig of each component in its header (loaders/lora_base.py: LORA_ADAPTER_METADATA_KEY); in
one without, every layer's alpha is its rank, or what its `.alpha` says (utils/peft_utils.py: get_peft_kwargs). Before
PEFT it had names of its own (utils/state_dict_utils.py: UNET_TO_DIFFUSERS, DIFFUSERS_TO_PEFT, DIFFUSERS_OLD_TO_PEFT).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from ..adapter import TensorInfo
from ..facts.names import PREFIX
from ..facts.subject import Subject
from . import Converted, Foreign, Refused, Tool
from .image_modules import names_of
from .images import ENCODERS, Layer, adapter, component, layers_of, number, object_of, told_apart

METADATA = "lora_adapter_metadata"
PARTS = re.compile(r"(unet|transformer(?:_[0-9])?|text_encoder(?:_[23])?|controlnet|prior)\.")
"""Components (loaders/lora_pipeline.py: the names in _lora_loadable_modules)."""
KEY = re.compile(
    r"(?P<module>[^.]+(?:\.[^.]+){0,30}?)\."
    r"(?:lora_(?P<factor>[AB])\.weight|(?P<bias>lora_B\.bias)|(?P<magnitude>lora_magnitude_vector)(?:\.weight)?"
    r"|(?P<old>to_(?:q|k|v|out)_lora)\.(?P<old_way>down|up)\.weight"
    r"|(?:lora|lora_linear_layer)\.(?P<way>down|up)\.weight|(?P<alpha>alpha))"
)
WAYS = {"down": "lora_A", "up": "lora_B"}
OLD = {
    True: {"to_q_lora": "q_proj", "to_k_lora": "k_proj", "to_v_lora": "v_proj", "to_out_lora": "out_proj"},
    False: {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"},
}
"""Whether it is a text encoder → what layers of an attention processor are now."""
FLUX = "FluxTransformer2DModel"
"""The one whose loader reads `.alpha` of layers (loaders/lora_pipeline.py: FluxLoraLoaderMixin.lora_state_dict)."""
ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")

Factors = dict[str, TensorInfo]


def to_peft(foreign: Foreign) -> list[Converted]:
    """An adapter for each component. Raises Refused."""
    found: dict[str, dict[str, Factors]] = {}
    for name, info in foreign.tensors.items():
        part, rest = _part(name)
        module, factor = _factor(name, rest, part)
        factors = found.setdefault(part, {}).setdefault(module, {})
        if factor in factors:
            raise Refused(f"two tensors stand for {factor} of {module}")
        factors[factor] = info
    if "" in found:
        if len(found) > 1:
            raise Refused("some tensors name their component and some do not")
        found = {_bare(found[""]): found[""]}
    text = foreign.metadata.get(METADATA)
    metadata = object_of(text) if text else None
    return told_apart([_converted(part, modules, metadata) for part, modules in found.items()])


def _part(name: str) -> tuple[str, str]:
    match = PARTS.match(name)
    return (match[1], name[match.end() :]) if match else ("", name)


def _factor(name: str, rest: str, part: str) -> tuple[str, str]:
    """The module and the factor that a tensor is. Raises Refused."""
    match = KEY.fullmatch(rest.replace(".processor.", ".")) if len(rest) < 500 else None
    if match is None:
        raise Refused(f"{name} is no tensor of a LoRA in diffusers")
    module = match["module"]
    if match["old"]:
        return f"{module}.{OLD[part in ENCODERS][match['old']]}", WAYS[match["old_way"]]
    if match["way"]:
        return module, WAYS[match["way"]]
    return module, match["bias"] or match["magnitude"] or match["alpha"] or f"lora_{match['factor']}"


def _bare(modules: Mapping[str, Factors]) -> str:
    """The component of a file that does not say it: UNet2DConditionModel.save_attn_procs wrote such. Raises Refused."""
    unet = names_of("UNet2DConditionModel")
    strange = next((module for module in modules if unet.of(module) is None), None)
    if strange is not None:
        raise Refused(f"{strange} names no component, and is no module of a UNet")
    return "unet"


def _converted(part: str, modules: Mapping[str, Factors], metadata: dict[str, object] | None) -> Converted:
    layers = {}
    alphas = {module for module, factors in modules.items() if "alpha" in factors}
    if alphas and (metadata is not None or part != "transformer" or not _is_flux(modules)):
        raise Refused(f"{part}.{min(alphas)}.alpha is read by no loader of diffusers beside these")
    if alphas and alphas != modules.keys():
        raise Refused(f"{min(modules.keys() - alphas)} has no alpha, and gets one of the others' in diffusers")
    dora = ["lora_magnitude_vector" in factors for factors in modules.values()]
    bias = ["lora_B.bias" in factors for factors in modules.values()]
    if any(dora) != all(dora) or any(bias) != all(bias):
        raise Refused(f"some layers of the {part} have a magnitude or bias and some have none")
    for module, factors in modules.items():
        a, b = (factors[name].shape if name in factors else () for name in ("lora_A", "lora_B"))
        if len(a) != len(b) or len(a) not in (2, 4) or a[0] != b[1] or a[0] < 1:
            raise Refused(f"{module} has factors {list(a)} and {list(b)}")
        alpha = number(f"{module}.alpha", factors["alpha"]) if alphas else a[0]
        if not math.isfinite(alpha):
            raise Refused(f"the alpha of {module} is {alpha}")
        kept = {name: info for name, info in factors.items() if name not in ("alpha", "lora_B.bias")}
        layers[module] = Layer(kept, a[0], alpha)
    others: dict[str, Any] = {**({"use_dora": True} if all(dora) else {}), **({"lora_bias": True} if all(bias) else {})}
    one = adapter("LORA", part, layers, **others)
    if all(bias):
        one.tensors.update({f"{PREFIX}{module}.lora_B.bias": modules[module]["lora_B.bias"] for module in modules})
    return one if metadata is None else one._replace(config=_config(part, metadata))


def _is_flux(modules: Mapping[str, Factors]) -> bool:
    return all(names_of(FLUX).of(module) for module in modules)


def _config(part: str, metadata: Mapping[str, object]) -> dict[str, Any]:
    """The config that the header has of a component. Raises Refused."""
    start = f"{part}."
    config = {key.removeprefix(start): value for key, value in metadata.items() if key.startswith(start)}
    if not config.get("target_modules"):
        raise Refused(f"the metadata of its header has no target_modules for the {part}")
    if config.get("peft_type", "LORA") != "LORA":
        raise Refused(f"the metadata of its header says {str(config['peft_type'])[:40]} of the {part}, and not LORA")
    return {"peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True, **config}


def from_peft(subject: Subject) -> Foreign:
    """A file of one component, with its LoraConfig in the header, as diffusers has read it since it knows the key."""
    layers = layers_of(subject)
    part, _ = component(subject, layers)
    if part in ENCODERS and not any(module.endswith(ATTENTION) for module in layers):
        raise Refused("diffusers loads no LoRA of a text encoder that has no layer of attention")
    dora = {"use_dora": True} if subject.config.get("use_dora") is True else {}
    if part in ENCODERS and dora:  # the names that it gives them are not those of the layers (ran, transformers 5.24)
        raise Refused("diffusers loads the DoRA of a text encoder without its magnitudes")
    one = adapter("LORA", part, layers, **dora)
    kept = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "use_dora", "lora_dropout", "bias")
    config = {f"{part}.{key}": one.config[key] for key in kept if key in one.config}
    tensors = {f"{part}.{key.removeprefix(PREFIX)}": info for key, info in one.tensors.items()}
    metadata = {"format": "pt", METADATA: json.dumps(config, indent=2, sort_keys=True)}
    return Foreign({}, metadata, tensors)


TOOL = Tool("diffusers", "", "pytorch_lora_weights.safetensors", to_peft, from_peft)
