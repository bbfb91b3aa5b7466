"""The load in transformers: integrations/peft.py: load_adapter, with the renaming of conversion_mapping.py, and PEFT's
own of experts (peft/utils/transformers_weight_conversion.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ...names import PREFIX, as_number, is_all_linear, named, numbered
from ...patterns import ends as ends_so
from ...patterns import is_pattern, whole
from ..architectures import line
from ..record import MISLOADS, REJECTS, UNKNOWN, Outcome, Server
from .load import TRANSPOSED, Fate, Load, Pair, plain, several
from .names import Tree, tree
from .sizes import compared

FUSED = {"mixtral": ("w1", "w3", "w2"), "qwen2_moe": ("gate_proj", "up_proj", "down_proj")}
"""How a model is converted → gate, up and down of an expert, which PEFT puts together (_MOE_TARGET_MODULE_MAPPING)."""
TUPLES = {
    "Llama4TextModel": ("router",),
    "Llama4ForCausalLM": ("router",),
    "Llama4ForConditionalGeneration": ("router",),
}
"""Classes with a projection that returns two values, which PEFT's forward cannot take."""
_ONE = re.compile(r"(?P<layer>.*\.experts)\.(?P<number>\d+)\.(?P<name>\w+)$")


def follow(_: Server, load: Load) -> Iterator[Fate]:
    """What becomes of an adapter's factors."""
    known = tree(_generating(load))
    if known is None or load.architecture is None:
        name = load.architecture or load.model.get("model_type") or "this model"
        yield Fate(UNKNOWN, "model", f"transformers' class for {name} is not known", needs="a load in transformers")
        return
    kind = str(load.model.get("model_type"))
    like = str((line("transformers", f":{kind}") or {}).get("like") or kind)
    converted = like if like in FUSED and kind != "qwen2_moe" else None
    fates: dict[tuple[Outcome, str, str], list[str]] = {}
    experts: dict[str, list[str]] = {}
    paths = {module: _path(load, known, module) for module in load.pairs}
    elsewhere = _elsewhere(load, known, paths)
    for module, pair in load.pairs.items():
        path = paths[module]
        one = _ONE.match(path or _renamed(load, module))
        if one and path is None:
            experts.setdefault(one["layer"], []).append(module)
            continue
        if path is None and (module in load.beyond or module in elsewhere):
            continue
        reason = _module(load, known, converted, path, pair)
        if reason:
            fates.setdefault(reason, []).append(module)
        elif path:
            yield from compared(load, "transformers", module, pair, (), path, known.kind(path) == "conv1d")
            yield from _parameters(load, module, pair)
    for (outcome, about, message), modules in fates.items():
        yield Fate(outcome, about, f"{message}: {several(modules)}", tuple(modules))
    yield from _targets(load, known, converted)
    yield from _biases(load)
    if experts:
        yield from _experts(load, converted, experts)


def _biases(load: Load) -> Iterator[Fate]:
    """Trained biases: those of adapted layers are found as `base_layer.bias`, others by the names that the model has;
    OPT, Starcoder2 and Qwen2 compute with them what PEFT does.
    """
    biases = [key for key in load.others if key.endswith(".bias") and ".lora_" not in key]
    if load.base.weights:
        biases = [key for key in biases if plain(key).removesuffix(".bias") in load.base.biases]
    lost = tuple(key for key in biases if plain(key).removesuffix(".bias") in load.pairs)
    if lost:
        yield Fate(MISLOADS, "tensor", "transformers drops such a bias of an adapted layer, with a line in a log", lost)
    elif biases:
        message = "whether transformers has biases of these names shows only in a load"
        yield Fate(UNKNOWN, "tensor", message, tuple(biases), needs="a load in transformers")


def _generating(load: Load) -> dict[str, Any]:
    """The model's config with the class that generates, where it names the bare model of an adapter that does."""
    of_type = line("transformers", f":{load.model.get('model_type')}") or {}
    bare = load.architecture is not None and load.architecture == of_type.get("model")
    causal = load.config.get("task_type") == "CAUSAL_LM" and of_type.get("causal")
    return {**load.model, "architectures": [of_type["causal"]]} if bare and causal else load.model


def _renamed(load: Load, module: str) -> str:
    """A name after what the model's class, and its parts', rename (get_model_conversion_mapping)."""
    name = module
    for at, steps in _steps(load):
        inner = name
        if at:
            head = f"{at}."
            inner = name.removeprefix(head) if name.startswith(head) else name
        for step in steps:
            if step[0] == "rename" and len(step) == 3:
                inner = re.sub(step[1], step[2], inner, count=1)
        name = f"{at}.{inner}" if at and name.startswith(f"{at}.") else inner
    return name


def _steps(load: Load) -> Iterator[tuple[str, list[list[str]]]]:
    """The renaming of the whole, by class or else by type, then of the model within."""
    name, kind = str(load.architecture), str(load.model.get("model_type"))
    whole = line("transformers", f":{name}") or line("transformers", f":{kind}") or {}
    yield "", whole.get("renames") or []
    entry = line("transformers", name) or {}
    inner = str(entry.get("modules", {}).get("", {}).get("model", "")).removeprefix("@")
    part = line("transformers", f":{inner}") if inner else None
    if part:
        yield "model", part.get("renames") or []


def _path(load: Load, known: Tree, module: str) -> str | None:
    """The path of a name in the model, with or without the base's prefix; None where there is none."""
    if PREFIX in _bare(load.pairs[module].keys[0]):
        return None
    prefix = known.prefix
    renamed = _renamed(load, module)
    names = [renamed]
    if prefix:
        names += [renamed.removeprefix(f"{prefix}."), f"{prefix}.{renamed}"]
    return next((name for name in names if _exists(load, known, name)), None)


def _bare(key: str) -> str:
    """A key without PEFT's prefix, of which a second goes only before `model.` (transformers_weight_conversion.py:
    build_peft_weight_mapping).
    """
    return key.replace(f"{PREFIX}model.", "model.", 1).replace(PREFIX, "", 1)


def _exists(load: Load, known: Tree, name: str) -> bool:
    layer = re.search(r"\.(?:layers|h|blocks|layer|block)\.(\d+)\.", f".{name}")
    layer = None if load.config.get("layer_replication") else layer
    tower = any(part in name for part in ("vision", "visual", "audio"))
    if layer and not tower and load.layers is not None and as_number(layer[1]) >= load.layers:
        return False
    kind = known.kind(name)
    if kind is None:
        parts = name.rpartition(".")
        inner = name.removesuffix(".base_layer")
        return parts[2] in ("experts", "base_layer") and f"{numbered(inner)}.gate_up_proj" in known.modules
    return kind != "parameter"


def _elsewhere(load: Load, known: Tree, paths: dict[str, str | None]) -> set[str]:
    """The modules that are none of this model, where others of the file are: PEFT drops them as well. `paths` are
    those of the file's in the model.
    """
    targets = load.config.get("target_modules")
    if known.unknown or not isinstance(targets, list) or not any(paths.values()):
        return set()
    ends = {str(name).rpartition(".")[2] for name in (*known.modules, *targets)} | {"experts", "base_layer"}
    return {
        module for module, path in paths.items()
        if path is None and module.rpartition(".")[2] not in ends and _ONE.match(module) is None
    }  # fmt: skip


Reason = tuple[Outcome, str, str]
SQUARE: Reason = (
    UNKNOWN, "module", "merged as B·A, and not transposed as PEFT does it, a square Conv1D computes something else",
)  # fmt: skip
"""Measured: transformers computes what PEFT does, merged or not; the outcomes that were recorded were held against a
merge that does not transpose.
"""
TIED: Reason = (
    UNKNOWN, "module", "PEFT's model computes otherwise merged (the head that is tied changes, too) than not merged",
)  # fmt: skip
"""Measured: transformers computes what PEFT does unmerged."""


def _module(
    load: Load, known: Tree, converted: str | None, path: str | None, pair: Pair
) -> Reason | None:  # fmt: skip
    """What speaks against a module, None for nothing."""
    if path is None:
        return MISLOADS, "place", "transformers finds no module for these, and drops them with a line in a log"
    kind = known.kind(path)
    leaf = path.rpartition(".")[2]
    if kind == "?":
        return UNKNOWN, "place", "whether transformers has these shows only in a load"
    if leaf in TUPLES.get(str(load.architecture), ()):
        return REJECTS, "module", "transformers' class returns two values from these, which PEFT cannot take"
    parameters = load.named("target_parameters")
    alone = kind == "parameter weight" and not (converted and leaf == "gate")
    if alone and not any(name.endswith(f"{leaf}.weight") for name in parameters):
        return REJECTS, "module", 'transformers has no linear layer there (PEFT says "is not supported")'
    if converted and leaf in FUSED[converted] and not parameters and kind != "parameter":
        return MISLOADS, "module", f"PEFT takes targets called {leaf} for experts, and drops others of that name"
    if kind == "conv1d" and pair.sizes and pair.sizes[0] == pair.sizes[1]:
        return SQUARE
    positions = leaf == "wpe" or "position" in leaf
    if pair.embedding and load.tied and not positions and not any("lm_head" in other for other in load.pairs):
        return TIED
    if pair.a is None or pair.b is None:
        return MISLOADS, "factor", "transformers leaves the other factor as it is initialised"
    return None


def _parameters(load: Load, module: str, pair: Pair) -> Iterator[Fate]:
    """The sizes of experts as parameters: rank by experts, then what goes in and out."""
    if not module.endswith((".experts", ".experts.base_layer")):
        return
    hidden, count = load.text.get("hidden_size"), load.experts
    inner = load.text.get("moe_intermediate_size") or load.text.get("intermediate_size")
    if not (pair.a and pair.b and count and isinstance(hidden, int) and isinstance(inner, int)):
        yield Fate(UNKNOWN, "size", f"whether {module} has the model's size is not known", (module,))
        return
    both = any(other.endswith(".base_layer") for other in load.pairs)
    up, down = (2 * inner, hidden), (hidden, inner)
    sizes = {up} if module.endswith("base_layer") else {down} if both else {up, down}
    ours = (pair.b[0], pair.a[-1])
    if load.architecture in TRANSPOSED:
        ours = ours[::-1]
    if ours not in sizes or pair.a[0] % count:
        message = f"{module} is {list(ours)}, and {list(min(sizes))} in the model"
        yield Fate(REJECTS, "size", f"transformers: {message}", (module,))


def _targets(load: Load, known: Tree, converted: str | None) -> Iterator[Fate]:
    """Targets of which the model has none (NoMatchingPeftModuleError)."""
    targets = load.config.get("target_modules")
    if load.config.get("target_parameters") or known.unknown or not targets:
        return
    names = [path.replace("#", "0") for path in known.modules]
    if load.base.weights:  # what depends on the config is not always there
        leaves = {name.rpartition(".")[2] for name in load.base.weights}
        fused = ("experts", "gate", "router", "lm_head")  # a head that is tied, or called otherwise, is in no file
        names = [name for name in names if name.rpartition(".")[2] in leaves or any(part in name for part in fused)]
    if isinstance(targets, str):
        if is_all_linear(targets):
            return
        if not is_pattern(targets):
            return
        found = any(whole(targets, name) for name in names)
        if not found and converted is None:
            yield Fate(REJECTS, "targets", f"no module of the model has a name that {targets} matches")
        return
    if not isinstance(targets, list):
        return
    ends = [re.sub(r"(?<=\.)\d+(?=\.)", "0", str(target)) for target in targets]
    if converted and any(end.rpartition(".")[2] in (*FUSED[converted], "gate") for end in ends):
        return
    if not named(ends, names):
        yield Fate(REJECTS, "targets", f"no module of the model is called {', '.join(ends[:4])}")


def _experts(load: Load, converted: str | None, layers: dict[str, list[str]]) -> Iterator[Fate]:
    """Experts one by one, which PEFT puts together for the models that it knows to convert: run in PEFT 0.21.2 on
    transformers 5.16.1 with Mixtral, Qwen3-MoE and OLMoE (gate and up without down have no effect), and Qwen2-MoE,
    which it does not convert.
    """
    every = tuple(module for modules in layers.values() for module in modules)
    if converted is None:
        message = "transformers has no experts one by one for this model, and drops them with a line in a log"
        yield Fate(MISLOADS, "experts", message, every)
        return
    gate, up, down = FUSED[converted]
    targets = load.config.get("target_modules")
    ends = {str(target).rpartition(".")[2] for target in targets} if isinstance(targets, list) else {gate, up, down}
    if len(ends & {gate, up}) == 1:
        lone = (ends & {gate, up}).pop()
        yield Fate(REJECTS, "experts", f'PEFT cannot convert {lone} alone (it says "without also targeting")')
        return
    if ends & {gate, up} and down not in ends:
        message = (
            f"PEFT finds no place for {gate} and {up} of experts without {down}, and drops them with a line in a log"
        )
        yield Fate(MISLOADS, "experts", message, every)
        return
    if any(ends_so(pattern, module) for pattern in load.patterns for module in every):
        yield Fate(REJECTS, "experts", "PEFT converts experts to one rank, and a pattern gives them others")
        return
    if load.config.get("use_rslora") and ends & {gate, up}:
        yield Fate(MISLOADS, "experts", "PEFT doubles r and alpha of gate and up, which rsLoRA scales otherwise", every)
    count = load.experts
    for layer, modules in layers.items():
        yield from _whole(load, layer, modules, count, (gate, up, down))


def _whole(
    load: Load, layer: str, modules: list[str], count: int | None, names: tuple[str, str, str]
) -> Iterator[Fate]:  # fmt: skip
    by_name: dict[str, set[int]] = {}
    ranks: set[Any] = set()
    for module in modules:
        match = _ONE.match(module)
        if match:
            by_name.setdefault(match["name"], set()).add(as_number(match["number"]))
        pair = load.pairs[module]
        ranks.add(pair.a[0] if pair.a else None)
    if count is None:
        yield Fate(UNKNOWN, "experts", "how many experts a layer has is not known")
    elif any(len(numbers) != count for numbers in by_name.values()) or (names[0] in by_name) != (names[1] in by_name):
        yield Fate(REJECTS, "experts", f"transformers wants all experts of {layer}, and some are missing")
    elif names[0] in by_name and names[2] not in by_name:
        yield Fate(UNKNOWN, "experts", f"what transformers makes of the experts of {layer} without {names[2]}")
    elif len(ranks) > 1 or None in ranks:
        yield Fate(REJECTS, "experts", f"transformers wants one rank for all experts of {layer}")
