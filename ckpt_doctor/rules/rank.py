"""Rules about ranks: zero, lost, or not what the config says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..adapter import Adapter
from ..codes import ADALORA_PATTERN_MISMATCH, ADALORA_RANK_ZERO, LORA_RANK_ZERO, UNGATHERED
from ..findings import Finding, rule
from ..layers import RANK_AXIS, Layer, pattern_module
from ..runtimes import PEFT, between, upto


def names(modules: list[str]) -> str:
    """`a, b, c and 4 more` for a sentence."""
    shown = ", ".join(modules[:3])
    return f"{shown} and {len(modules) - 3} more" if len(modules) > 4 else ", ".join(modules)


def has_zero_factor(adapter: Adapter, layer: Layer) -> bool:
    """Whether a factor of the layer has no row (or column) on its rank axis."""
    shapes = [(adapter.tensors[key].shape, RANK_AXIS[factor]) for factor, key in layer.factors.items()]
    return any(len(shape) >= 2 and shape[axis] == 0 for shape, axis in shapes)


def keys_of(layers: dict[str, Layer], modules: list[str]) -> tuple[str, ...]:
    """The names of the factors of modules."""
    return tuple(key for module in modules if module in layers for key in layers[module].factors.values())


def masks(adapter: Adapter) -> dict[str, Any]:
    """AdaLoRA's rank_pattern: module → which triplets it kept, a true or false for each."""
    pattern = (adapter.config or {}).get("rank_pattern")
    return {pattern_module(key): mask for key, mask in pattern.items()} if isinstance(pattern, dict) else {}


def is_mask(adapter: Adapter, mask: object) -> bool:
    """Whether a value of rank_pattern has a true or false for each triplet."""
    init_r = (adapter.config or {}).get("init_r", 12)
    return isinstance(mask, list) and len(mask) == init_r and all(type(kept) is bool for kept in mask)


def pruned(adapter: Adapter) -> set[str]:
    """The modules that rank_pattern leaves no triplet."""
    return {module for module, mask in masks(adapter).items() if isinstance(mask, list) and mask and not any(mask)}


@rule
def adalora_rank_zero(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """PEFT 0.8.0 – 0.9.0 raise "`r` should be a positive integer value but the value passed is 0" in
    resize_modules_by_rank_pattern (huggingface/peft#1539); 0.5 – 0.7 and 0.10 and newer load it exactly.
    """
    if adapter.peft_type != "ADALORA":
        return
    zero = [module for module, layer in layers.items() if has_zero_factor(adapter, layer)]
    zero += sorted(pruned(adapter) - set(zero))
    if zero:
        message = f"{len(zero)} of {len(layers.keys() | set(zero))} layers were pruned to rank 0: {names(zero)}"
        tensors, rejects = keys_of(layers, zero), between("0.8", "0.9")
        yield ADALORA_RANK_ZERO(message, tensors=tensors, keys=("rank_pattern",), rejects=rejects)


@rule
def lora_rank_zero(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """PEFT 0.6.0 and newer raise on r <= 0, in rank_pattern as well; 0.3 – 0.5 skip the layer in silence; zero-sized
    factors under a positive r are a size mismatch in every release.
    """
    if adapter.peft_type != "LORA":
        return
    config = adapter.config or {}
    r, pattern = config.get("r", 8), config.get("rank_pattern")
    zero = [module for module, layer in layers.items() if has_zero_factor(adapter, layer)]
    listed = pattern.items() if isinstance(pattern, dict) else ()
    entries = [key for key, value in listed if isinstance(value, (int, float)) and value <= 0]
    if type(r) is int and r <= 0:
        message = f"the config says r: {r}, so no layer has a rank"
        misloaded = between("0.3", "0.5")
        yield LORA_RANK_ZERO(
            message, tensors=keys_of(layers, zero), keys=("r",), rejects=PEFT - misloaded, misloads=misloaded
        )
    elif zero or entries:
        where = zero or entries
        message = f"{len(where)} of {len(layers)} layers have rank 0: {names(where)}"
        old = upto("0.5")
        config_keys = ("rank_pattern",) if entries else ()
        rejected, misloaded = (PEFT, frozenset[str]()) if zero else (PEFT - old, old)
        keys = keys_of(layers, zero)
        yield LORA_RANK_ZERO(message, tensors=keys, keys=config_keys, rejects=rejected, misloads=misloaded)


@rule
def ungathered(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """huggingface/peft#1443, huggingface/peft#3251. Rank 0 is different: it is two-dimensional."""
    if adapter.peft_type not in ("LORA", "ADALORA"):  # others have vectors too: CD505 says where they should not
        return
    flat = [key for layer in layers.values() for key in layer.factors.values() if len(adapter.tensors[key].shape) < 2]
    if flat:
        message = (
            f"{len(flat)} factors have one dimension: saved under ZeRO-3 or FSDP without gathering, their weights are "
            "lost; save again with the parameters gathered"
        )
        yield UNGATHERED(message, tensors=tuple(flat), rejects=PEFT)


@rule
def pattern_mismatch(adapter: Adapter, layers: dict[str, Layer]) -> Iterator[Finding]:
    """Every release sizes the modules by the pattern (tuners/adalora/model.py: resize_modules_by_rank_pattern). What it
    makes of those that have no tensors is in `reading.py`.
    """
    if adapter.peft_type != "ADALORA":
        return
    init_r, said = (adapter.config or {}).get("init_r", 12), masks(adapter)
    misfits = [module for module, mask in said.items() if module not in layers and not is_mask(adapter, mask)]
    for module, layer in layers.items():
        mask = said.get(module)
        fits = layer.rank == init_r if mask is None else is_mask(adapter, mask) and sum(mask) == layer.rank
        if not fits and layer.rank is not None:
            misfits.append(module)
    if misfits:
        message = f"rank_pattern does not fit the tensors of {names(misfits)}"
        yield ADALORA_PATTERN_MISMATCH(message, tensors=keys_of(layers, misfits), keys=("rank_pattern",), rejects=PEFT)
