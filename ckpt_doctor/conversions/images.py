"""What the tools for images have in common: layers with ranks and alphas of their own, and components of pipelines."""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ..adapter import Constant, TensorInfo
from ..facts.names import PREFIX
from ..facts.subject import Subject
from ..files.streams import Files, content
from ..repairs import only
from . import Converted, Refused, factors, lora
from .image_modules import classes_with, models, names_of

KERNELS = ("conv", "conv1", "conv2", "conv_in", "conv_out")
"""Convolutions of diffusers' UNet whose kernels are of 3 × 3 (conv_shortcut's are of 1)."""
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,300}")
_FLOATS = {"F64": "<d", "F32": "<f", "F16": "<e"}


class Layer:
    """The factors of a layer by name, its rank, and its alpha: what they give is scaled by alpha / rank."""

    def __init__(self, factors: dict[str, TensorInfo], rank: int, alpha: float) -> None:
        self.factors = factors
        self.rank = rank
        self.alpha = int(alpha) if float(alpha).is_integer() else alpha


def adapter(method: str, part: str, layers: Mapping[str, Layer], **others: Any) -> Converted:
    """An adapter of layers, by module. What most have stands in the config, the rest in its patterns.

    Raises Refused where no pattern can tell the layers apart.
    """
    ranks, alphas = ({module: getattr(layer, name) for module, layer in layers.items()} for name in ("rank", "alpha"))
    r, rank_pattern = _pattern(ranks)
    alpha, alpha_pattern = _pattern(alphas)
    patterns = {"rank_pattern": rank_pattern, "alpha_pattern": alpha_pattern}
    if method == "LORA":
        kinds = {module: layer.factors for module, layer in layers.items()}
        uneven: dict[str, Any] = {key: pattern for key, pattern in patterns.items() if pattern}
        return lora(kinds, r=r, lora_alpha=alpha, part=part, **uneven, **others)
    config = {
        "peft_type": method, "task_type": None, "base_model_name_or_path": None, "inference_mode": True, "r": r,
        "alpha": alpha, "modules_to_save": None, "target_modules": only(layers), **patterns,
    }  # fmt: skip
    tensors = {
        f"{PREFIX}{module}.{factor}": info for module, layer in layers.items() for factor, info in layer.factors.items()
    }
    return Converted(part, {**config, **others}, tensors)


def told_apart(found: list[Converted]) -> list[Converted]:
    """The adapters of a file, each with the name of its component; one alone needs none."""
    return found if len(found) > 1 else [one._replace(part="") for one in found]


MOST_PAIRS = 1_000_000
"""Layers times entries of a pattern that are held against one another."""


def _pattern(values: Mapping[str, object]) -> tuple[Any, dict[str, Any]]:
    """The value that most modules have, and those of the others by name.

    A name in a pattern stands for every module that ends with it, and the first that fits is taken
    (peft/utils/other.py: get_pattern_key): a longer one that it would stand for comes before it. Raises Refused.
    """
    most, _ = Counter(values.values()).most_common(1)[0]
    named = {module: value for module, value in values.items() if value != most}
    if not named:
        return most, named
    longer = {module: value for module, value in values.items() if any(end in named for end in _ends(module))}
    pattern = {module: values[module] for module in sorted({*named, *longer}, key=lambda name: (-len(name), name))}
    if len(pattern) * len(values) > MOST_PAIRS or not all(map(_PLAIN.fullmatch, pattern)):
        raise Refused("its layers have ranks or alphas of their own, too many or under names that no pattern can say")
    regexes = [re.compile(rf"(?:.*\.)?{name}") for name in pattern]  # as PEFT reads them, a dot for any character
    for module, value in values.items():
        first = next((name for name, regex in zip(pattern, regexes, strict=True) if regex.fullmatch(module)), None)
        if (most if first is None else pattern[first]) != value:
            raise Refused(f"no pattern tells {module} from layers with another rank or alpha")
    return most, pattern


def _ends(module: str) -> Iterator[str]:
    """What a name ends with, behind each dot."""
    at = module.find(".")
    while at >= 0:
        yield module[at + 1 :]
        at = module.find(".", at + 1)


def number(name: str, info: TensorInfo) -> float:
    """The one number of a tensor, read from its file. Raises Refused."""
    count = 1
    for size in info.shape:
        count *= size
    if count != 1 or (info.dtype not in _FLOATS and info.dtype not in ("BF16", "I64", "I32")):
        raise Refused(f"{name} is not one number")
    with Files() as files:
        raw = content(info, files)
    if info.dtype == "BF16":
        raw = b"\0\0" + raw
    value: float
    if info.dtype.startswith("I"):
        value = float(int.from_bytes(raw, "little", signed=True))
    else:
        (value,) = struct.unpack(_FLOATS.get(info.dtype, "<f"), raw)
    return value


def constant(value: float) -> TensorInfo:
    """A tensor of one number, in the smaller of two dtypes that keeps it."""
    short = struct.pack("<f", value) if abs(value) < 1e38 else b""
    if short and struct.unpack("<f", short) == (value,):
        return TensorInfo("F32", (), Constant(short))
    return TensorInfo("F64", (), Constant(struct.pack("<d", value)))


def object_of(text: str) -> dict[str, object]:
    """The object that a text in a file's metadata is. Raises Refused."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Refused("lora_adapter_metadata of its header is no JSON object")
    return value


TEXT_MODEL = "text_model."
"""What transformers before 5 puts before the names of CLIPTextModel's modules, and newer only in
CLIPTextModelWithProjection (models/clip/modeling_clip.py)."""
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
WIDTHS = {768: "text_encoder", 1280: "text_encoder_2"}
"""Input of CLIP's layers → which encoder of Stable Diffusion, XL, 3 and Flux that is (CLIP-L, CLIP-bigG; the encoder of
Stable Diffusion 2 is of 1024)."""


def layers_of(subject: Subject) -> dict[str, Layer]:
    """The layers of a LoRA or DoRA of linear layers and convolutions, by module. Raises Refused for any other."""
    layers = {}
    for module, (layer, kinds) in factors(subject, (2, 4)).items():
        if not {"lora_A", "lora_B"} <= kinds.keys() or not layer.rank or layer.scaling is None:
            raise Refused(f"nothing tells the rank and scale of {module}, or it has none")
        if not math.isfinite(layer.scaling * layer.rank):
            raise Refused(f"{module} is scaled by {layer.scaling}")
        layers[module] = Layer(kinds, layer.rank, layer.scaling * layer.rank)
    return layers


def component(subject: Subject, layers: Mapping[str, Layer]) -> tuple[str, list[str]]:
    """The component of a pipeline that an adapter is of, and the classes that have all its modules.

    Of two text encoders the name of its folder tells, or else the width of the layers. Raises Refused.
    """
    for start in ("", TEXT_MODEL):
        classes = classes_with(start + module for module in layers)
        if classes:
            break
    else:
        known = {name: names_of(name) for name in models()}
        missing = min(([m for m in layers if not names.of(m)] for names in known.values()), key=len)
        raise Refused(f"{missing[0]} is a module of no image model whose names are in a table here")
    if subject.adapted_class in classes:
        classes = [subject.adapted_class]
    elif subject.adapted_class not in ("", "CLIPTextModel"):
        raise Refused(f"it is of a {subject.adapted_class}, and no table has its names")
    parts = {models()[name].part for name in classes}
    if len(parts) > 1:
        raise Refused(f"its modules are those of {' and '.join(classes)} alike, and it does not say which it is of")
    part = parts.pop()
    if part != ENCODERS[0]:
        return part, classes
    folder = os.path.basename(os.path.abspath(subject.adapter.folder))
    if folder in WIDTHS.values():
        return folder, classes
    widths = {
        layer.factors["lora_A"].shape[1]
        for module, layer in layers.items()
        if not module.endswith(("fc2", "text_projection"))
    }
    found = {WIDTHS.get(width, "") for width in widths}
    if len(found) != 1 or "" in found:
        raise Refused("nothing tells which text encoder it is of: name its folder text_encoder or text_encoder_2")
    return found.pop(), classes
