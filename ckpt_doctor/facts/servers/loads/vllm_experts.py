"""Experts in vLLM: one by one with all their parts, or as parameters, as the class wants them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...names import as_number, numbered
from ..record import MISLOADS, REJECTS, UNKNOWN
from .load import TRANSPOSED, Fate, Load, Pair
from .vllm_model import Model, name_of

MIXED = "--enable-mixed-moe-lora-format"
INTERLEAVED = ("GptOssForCausalLM",)
"""Classes whose gate and up lie row by row in one parameter: what MIXED makes of single experts there is not known."""
_ONE = re.compile(r"(?P<layer>.*\.experts)\.(?P<number>\d+)\.(?P<name>\w+)$")


def experts(load: Load, model: Model, found: dict[str, str]) -> Iterator[Fate]:
    """Experts: one by one with all their parts, or as parameters, as the class wants them."""
    if "experts" not in model.way:  # they have no LoRA, and their names no meaning
        return
    whole = [m for m in load.pairs if numbered(name_of(model, m)).endswith((".experts", ".experts.base_layer"))]
    single: dict[str, dict[tuple[int, str], Pair]] = {}
    for module, path in found.items():
        match = _ONE.match(path)
        if match and ".experts" in path:
            single.setdefault(match["layer"], {})[as_number(match["number"]), match["name"]] = load.pairs[module]
    whole = [module for module in whole if module in found]
    if not whole and not single:
        return
    ends = {module for module in whole if numbered(name_of(model, module)).endswith(".experts")}
    if model.backend:
        if single or (ends and model.entry["moe"]):  # model_manager.py: _validate_moe_lora_format
            message = f"vLLM runs {model.name} on its Transformers backend, which takes no experts"
            yield Fate(REJECTS, "experts", message, tuple(ends))
        else:
            yield Fate(UNKNOWN, "experts", f"what vLLM's Transformers backend makes of the experts of {model.name}")
        return
    names = model.entry.get("experts")
    if names == "3d":
        yield from _as_parameters(load, model, whole, found)
        return
    if ends:
        message = f"vLLM's {model.name} wants its experts one by one, and they are parameters here"
        option = MIXED if _mixes(load, model, whole, found) else ""
        serve = f": serve with {option}, and load the adapter as is_3d_lora_weight" if option else ""
        yield Fate(REJECTS, "experts", message + serve, tuple(ends), option=option)
    elif whole:
        yield Fate(MISLOADS, "experts", f"vLLM's {model.name} drops the experts without a word", tuple(whole))
    for layer, pairs in single.items():
        yield from _one_by_one(load, layer, pairs, names if isinstance(names, list) else [])


def one_of_whole(model: Model, leaf: str, count: int | None) -> bool:
    """Whether a name is of a single expert's part, in a class whose experts are parameters, and which MIXED makes take
    it (lora/utils.py: process_packed_modules_mapping; run with Qwen3-VL-MoE).
    """
    match = re.fullmatch(r"experts\.(\d+)\.(?:gate|up|down)_proj", leaf)
    known = model.entry.get("experts") == "3d" and model.name not in INTERLEAVED
    return bool(known and match and count and as_number(match[1]) < count)


def of_whole(load: Load, model: Model, modules: list[str]) -> Iterator[Fate]:
    """Single experts in such a class, which even MIXED makes take only with all their parts."""
    layers: dict[str, dict[tuple[int, str], Pair]] = {}
    for module in modules:
        match = _ONE.match(module)
        if match:
            layers.setdefault(match["layer"], {})[as_number(match["number"]), match["name"]] = load.pairs[module]
    if layers:
        yield Fate(
            REJECTS, "experts", f"vLLM's {model.name} wants its experts as parameters, and they are one by one here: "
            f"serve with {MIXED}", tuple(modules), option=MIXED,
        )  # fmt: skip
    for layer, pairs in layers.items():
        yield from _one_by_one(load, layer, pairs, ["gate_proj", "up_proj", "down_proj"])


def _one_by_one(load: Load, layer: str, pairs: dict[tuple[int, str], Pair], names: list[str]) -> Iterator[Fate]:
    count = load.experts
    if count is None:
        yield Fate(UNKNOWN, "experts", "how many experts a layer has is not known")
        return
    every = ((number, name) for number in range(count) for name in names)
    missing = next((part for part in every if part not in pairs), None)
    if missing:
        number, name = missing
        yield Fate(REJECTS, "experts", f"vLLM wants all parts of all experts, and {layer}.{number}.{name} is missing")
    for name in names:
        ranks = {pair.a[0] for (_, part), pair in pairs.items() if part == name and pair.a}
        if len(ranks) > 1:
            yield Fate(REJECTS, "experts", f"vLLM wants one rank for {name} of all experts of {layer}")


def _mixes(load: Load, model: Model, whole: list[str], found: dict[str, str]) -> bool:
    """Whether parameters become experts one by one (model_manager.py: _convert_3d_to_2d_moe_lora): both of a layer, of
    the class's sizes. A class that has them transposed is none of those.
    """
    return model.name not in TRANSPOSED and not list(_as_parameters(load, model, whole, found))


def _as_parameters(load: Load, model: Model, whole: list[str], found: dict[str, str]) -> Iterator[Fate]:
    layers: dict[str, dict[str, Pair]] = {}
    for module in whole:
        path = found[module]
        layers.setdefault(path.removesuffix(".base_layer"), {})["up" if path.endswith("base_layer") else "down"] = (
            load.pairs[module]
        )
    for layer, pairs in layers.items():
        if pairs.keys() == {"down"}:
            yield Fate(REJECTS, "experts", f"vLLM wants gate_up_proj and down_proj of {layer} together")
        elif pairs.keys() == {"up"}:
            yield Fate(MISLOADS, "experts", f"vLLM drops the experts of {layer}, of which only one kind is there")
        count, hidden = load.experts, load.text.get("hidden_size")
        inner = load.text.get("moe_intermediate_size") or load.text.get("intermediate_size")
        for name, pair in pairs.items():
            if not (pair.a and pair.b and count and isinstance(hidden, int) and isinstance(inner, int)):
                yield Fate(UNKNOWN, "experts", f"whether the experts of {layer} fit is not known")
                continue
            sizes = (2 * inner, hidden) if name == "up" else (hidden, inner)
            ours = (pair.b[0], pair.a[-1])
            if pair.a[0] % count:
                yield Fate(REJECTS, "experts", f"the rank of the experts of {layer} is no multiple of {count}")
            elif ours != sizes:
                larger = any(mine > size for mine, size in zip(ours, sizes, strict=True))
                yield Fate(
                    REJECTS if larger else UNKNOWN, "experts",
                    f"{layer} is {list(ours)}, and vLLM's {model.name} wants {list(sizes)}",
                )  # fmt: skip
