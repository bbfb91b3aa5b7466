"""Adapters of other tools ↔ PEFT's: one file a tool, found by its name. Pure functions of configs and tables.

Nothing is written here, and nothing read but a number that PEFT keeps in the config (`images.number`): a factor that is
turned or cut is a view of its file, one that is scaled is computed as it is written. What has no exact counterpart
raises `Refused` and names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from ..adapter import Base, Layer, TensorInfo
from ..facts.config_keys import neutral
from ..facts.layers import module_of
from ..facts.names import PREFIX, numbered
from ..facts.subject import Subject
from ..repairs import Refused as Refused
from ..repairs import meant, only

WRITTEN = ("mlx", "diffusers", "kohya")
"""The tools whose form can be written."""


class Wants(Refused):
    """What is refused as long as an option of `fix` does not say more; `option` is that, with its value."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = option


class Mend(Refused):
    """What is refused as long as the tool's own config says what its own tool cannot do; `remedy` is what to change."""

    def __init__(self, remedy: str, message: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class Foreign(NamedTuple):
    """What a tool's folder holds: the object in its config file, or {}; the metadata of its weights file; its tensors.

    `base` is the model that the user named, None where none was.
    """

    config: dict[str, object]
    metadata: dict[str, str]
    tensors: Mapping[str, TensorInfo]
    base: Base | None = None

    def config_of(self, name: str) -> dict[str, object]:
        """The config of one of several adapters, where those are by name, {} where it has none."""
        found = self.config.get(name)
        return found if isinstance(found, dict) else {}


class Converted(NamedTuple):
    """An adapter of PEFT; `part` names it where one file holds several (unet, text_encoder …), "" where one."""

    part: str
    config: dict[str, object]
    tensors: dict[str, TensorInfo]


class Tool(NamedTuple):
    """How a tool keeps an adapter: its name for a person, the names of its config ("" where it has none) and its
    weights, and both ways. One that is `uniform` has one rank and scale for all layers.

    `to_peft` gives every adapter of a file, `from_peft` (None where its form is not written) what the tool's folder is
    to hold. Both raise Refused, with the reason.
    """

    name: str
    config: str
    weights: str
    to_peft: Callable[[Foreign], list[Converted]]
    from_peft: Callable[[Subject], Foreign] | None = None
    uniform: bool = False


def tool(name: str) -> Tool:
    """The tool that the file `name` of this folder is about."""
    found: Tool = import_module(f".{name}", __name__).TOOL
    return found


def lora(
    modules: Mapping[str, Mapping[str, TensorInfo]], *, r: int, lora_alpha: float, part: str = "", **others: Any
) -> Converted:
    """A LoRA of PEFT, of the factors of each module (`lora_A`, `lora_B` …), with config keys that every release has and
    `others`.

    target_modules are the last names of the modules where all blocks from the first on have each; else just these, as
    what a list would match beside them is missed at the load, though it computes nothing.
    """
    config = {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": None, "inference_mode": True, "r": r,
        "lora_alpha": lora_alpha, "lora_dropout": 0.0, "bias": "none", "fan_in_fan_out": False,
        "modules_to_save": None, "target_modules": _targets(modules),
    }  # fmt: skip
    tensors = {
        f"{PREFIX}{module}.{factor}{'' if 'embedding' in factor or 'vector' in factor else '.weight'}": info
        for module, factors in modules.items()
        for factor, info in factors.items()
    }
    return Converted(part, {**config, **others}, tensors)


def may_be_embedding(module: str) -> bool:
    """Whether a module is called as embeddings are."""
    leaf = module.rpartition(".")[2]
    return any(part in leaf for part in ("emb", "wte", "wpe", "shared"))


def _targets(modules: Collection[str]) -> list[str] | str:
    blocks: dict[str, set[str]] = {}
    for module in modules:
        blocks.setdefault(numbered(module), set()).add(module)
    ends = sorted({kind.rpartition(".")[2] for kind in blocks})
    counts = {len(alike) for kind, alike in blocks.items() if "#" in kind}
    whole = all(kind.replace("#", str(len(alike) - 1)) in alike for kind, alike in blocks.items())
    single = all(kind.count("#") <= 1 for kind in blocks)
    return ends if whole and single and len(counts) <= 1 and "#" not in ends else only(modules)


PLAIN = frozenset((
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "peft_type",
    "peft_version", "r", "rank_pattern", "revision", "runtime_config", "target_modules", "task_type", "use_dora",
    "use_rslora",
))  # fmt: skip
"""Config keys that rank, scale and factors of each layer say all of, or that mean nothing once it is trained. With
init_lora_weights this holds for what does not change the base."""


def check_plain(subject: Subject) -> None:
    """Raises Refused for what the config of a LoRA says beside its layers, their ranks and scales."""
    if subject.changes_base:
        raise Refused("its init_lora_weights takes something off the base weights at load")
    for key, value in subject.chosen.items():
        if key not in PLAIN and value and not neutral("LORA", key, value):
            raise Refused(f"{key} has no counterpart")


def factors(subject: Subject, dimensions: Collection[int] = (2,)) -> dict[str, tuple[Layer, dict[str, TensorInfo]]]:
    """The layers of a LoRA or DoRA and their factors by name, for a tool that has nothing else: A and B of as many
    dimensions, and a magnitude. Raises Refused for what the adapter has beside them.
    """
    if subject.method != "LORA":
        raise Refused(f"{subject.method or 'an adapter of an unknown method'} is no LoRA")
    check_plain(subject)
    layers = meant(subject)
    if layers.keys() != subject.layers.keys():
        raise Refused("some layers have tensors that the release which saved them ignores")
    found: dict[str, tuple[Layer, dict[str, TensorInfo]]] = {}
    for module, layer in layers.items():
        kinds = {factor: subject.tensors[key] for factor, key in layer.factors.items()}
        if len(kinds) != 2 or any(len(info.shape) not in dimensions for info in kinds.values()):
            raise Refused(f"{module} has not two factors of {' or '.join(map(str, dimensions))} dimensions")
        found[module] = layer, kinds
    for key in subject.others:
        module, mark, _ = module_of(key).partition(".lora_magnitude_vector")
        if not mark or module not in found or subject.config.get("use_dora") is not True:
            raise Refused(f"{key} has no counterpart")
        found[module][1]["lora_magnitude_vector"] = subject.tensors[key]
    if not found:
        raise Refused("it has no layer")
    if subject.config.get("use_dora") is True and any(len(kinds) != 3 for _, kinds in found.values()):
        raise Refused("a layer has no magnitude of DoRA")
    return found


def plain(subject: Subject) -> tuple[int, float, dict[str, dict[str, TensorInfo]]]:
    """The one rank and scale of all layers, and the factors of each (`factors`). Raises Refused."""
    found = factors(subject)
    ranks, scales = ({getattr(layer, name) for layer, _ in found.values()} for name in ("rank", "scaling"))
    if len(ranks) != 1 or len(scales) != 1 or None in ranks | scales:
        raise Refused("its layers have not one rank and scale")
    return ranks.pop(), scales.pop(), {module: kinds for module, (_, kinds) in found.items()}
