"""What an adapter has that servers differ about, by the names that their records have for it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...adapter import Base, Layer
from ...facts.embeddings import ADAPTED, USUAL
from ...facts.names import PREFIX, as_number
from ...facts.servers.loads.sizes import in_files
from ...facts.subject import Subject

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Modules that servers fuse into one (qkv_proj, gate_up_proj)."""

FACTOR = re.compile(r"\.lora_(?:[AB]\.weight|embedding_[AB](?:\.weight)?)$")
"""The end of a factor's key as PEFT saves it."""
_WRAPPED = re.compile(r"(?:^|\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.|^module\.")
_COPIES = tuple(f"{name}{ADAPTED}" for name in USUAL)
_IN_A_LAYER = re.compile(r"\.(\d+)\.")


def raw(key: str) -> str:
    """A key without PEFT's prefix, however often it is there."""
    while key.startswith(PREFIX):
        key = key[len(PREFIX) :]
    return key


def leaf(module: str) -> str:
    """The last part of a module's name."""
    return module.rpartition(".")[2]


def wrapped(name: str) -> bool:
    """Whether a name has the prefix of torch.compile, FSDP, checkpointing or a launcher in it."""
    return bool(_WRAPPED.search(name))


def copies(key: str) -> bool:
    """Whether a tensor is a copy of the base, which servers skip."""
    return key.endswith(_COPIES)


def by_kind(modules: Iterable[str]) -> dict[str, set[str]]:
    """`layers.0.mlp.up_proj` and `layers.1.mlp.up_proj` → mlp.up_proj: {layers.0, layers.1}."""
    layers: dict[str, set[str]] = {}
    for match in filter(None, map(re.compile(r"(.*?\.\d+)\.(.*)").fullmatch, modules)):
        layers.setdefault(match[2], set()).add(match[1])
    return layers


def faults(subject: Subject) -> dict[str, list[str]]:
    """What is wrong with factors → the modules, as `Server.factors` names it."""
    fused = {name for group in GROUPS for name in group}
    modules: dict[str, list[str]] = {}
    for module, layer in subject.layers.items():
        present = {name[-1] for name in layer.factors}
        if any(len(subject.tensors[key].shape) < 2 for key in layer.factors.values()):
            kind = "flat"
        elif present == {"B"}:
            kind = "B alone in a fused group" if leaf(module) in fused else "B alone"
        elif present == {"A"}:
            kind = "A alone"
        elif subject.has_zero_factor(layer):
            kind = "no rows"
        elif layer.rank is None:
            kind = "two ranks"
        else:
            continue
        modules.setdefault(kind, []).append(module)
    return modules


def kinds_of_tensors(subject: Subject) -> dict[tuple[str, ...], list[str]]:
    """Kind → tensors that are no factors, as `Server.tensors` names it; two kinds where only the base would tell.

    Those of an option that is set (DoRA, trainable tokens, lora_bias) are its own.
    """
    config, factors = subject.config, set(subject.keys_of(list(subject.layers)))
    by_kinds: dict[tuple[str, ...], list[str]] = {}
    for key in subject.tensors:
        name = raw(key)
        module, _, part = name.rpartition(".")
        if key in factors or copies(key) or (part == "bias" and ".lora_" in name):
            continue
        kinds: tuple[str, ...]
        if "lora_magnitude_vector" in name:
            kinds = () if config.get("use_dora") else ("magnitude",)
        elif "trainable_tokens" in name:
            kinds = () if config.get("trainable_token_indices") else ("trainable tokens",)
        elif part == "bias":
            kinds = ("bias", "bias of none")
            there = subject.question.base and in_files(subject.question.base, module.removesuffix(".base_layer"))
            if subject.question.base and there is not None:
                kinds = kinds[:1] if there in subject.question.base.biases else kinds[1:]
        else:
            kinds = (_kind(name, leaf(module), part),)
        if kinds:
            by_kinds.setdefault(kinds, []).append(key)
    return by_kinds


def _kind(name: str, module: str, part: str) -> str:
    inside = bool(_IN_A_LAYER.search(name))
    if part == "weight" and ("norm" in module or "ln_" in module):
        return "norm in a layer" if inside else "norm"
    if part == "weight" and module in USUAL:
        return "embedding or head"
    if re.search(r"lora_(?:down|up)", name):
        return "factor of another tool"
    return "tensor of a layer" if inside else "other"


def places(base: Base, layers: Mapping[str, Layer]) -> dict[tuple[str, ...], list[str]]:
    """Kinds → modules that the base has not under the path in the file, as `Server.places` names them."""
    leaves = {leaf(module) for module in base.weights}
    paths = {
        module: raw(next(iter(layer.factors.values()))).rpartition(".lora_")[0] for module, layer in layers.items()
    }  # fmt: skip
    strange = [module for module, path in paths.items() if path not in base.weights]
    unknown = [module for module in strange if leaf(module) not in leaves]
    elsewhere = [module for module in strange if leaf(module) in leaves and not wrapped(paths[module])]
    where = "all elsewhere" if len(elsewhere) == len(layers) else "elsewhere"
    by_kinds: dict[tuple[str, ...], list[str]] = {("unknown module",): unknown}
    by_kinds[(where, "beyond") if _beyond(elsewhere, base) else (where,)] = elsewhere
    return {kinds: modules for kinds, modules in by_kinds.items() if modules}


def _beyond(modules: list[str], base: Base) -> bool:
    """Whether a module's layer number is beyond the model's."""
    last = max((as_number(match[1]) for match in map(_IN_A_LAYER.search, base.weights) if match), default=0)
    return any(as_number(match[1]) > last for match in map(_IN_A_LAYER.search, modules) if match)


def sizes(subject: Subject, base: Base) -> dict[str, list[str]]:
    """A sentence on the first → modules whose size is not the base's, of those that differ in the same way."""
    by_kinds: dict[tuple[bool, ...], tuple[str, list[str]]] = {}
    for module, layer in subject.layers.items():
        weight = base.weights.get(module)
        if weight is None or len(weight) != 2 or layer.rank is None:
            continue
        shapes = {name[-1]: subject.tensors[key].shape for name, key in layer.factors.items()}
        if not {"A", "B"} <= shapes.keys() or any(len(shape) != 2 for shape in shapes.values()):
            continue
        ours = (shapes["B"][0], shapes["A"][1])
        true = weight[::-1] if "lora_embedding_A" in layer.factors else weight
        kinds = tuple(mine != size for mine, size in zip(ours, true, strict=True))
        if any(kinds):
            first = f"{module} is {list(ours)}, and {list(true)} in the model"
            by_kinds.setdefault(kinds, (first, []))[1].append(module)
    return dict(by_kinds.values())
