"""Tensors → adapted layers: the rank inference. Parses leniently, so that one fault does not hide another."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from .adapter import Adapter

_KEY = re.compile(r"(?P<module>.+?)\.(?P<factor>lora_(?:embedding_)?[ABE])(?:\.(?!weight$)[^.]+)?(?:\.weight)?")
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
_PREFIXES = ("base_model.model.", "module.")

RANK_AXIS = {"lora_A": 0, "lora_B": 1, "lora_E": 0, "lora_embedding_A": 0, "lora_embedding_B": 1}
"""The axis of a factor that counts the rank: A `[r, in]`, B `[out, r]`, E `[r, 1]`, an embedding's A `[r, V]`."""


class Layer(NamedTuple):
    """An adapted module.

    `factors` maps a factor's name to its key in the adapter; `rank` is None where the shapes do not tell it
    (a flattened tensor, factors that disagree); `alpha` and `scaling` are None where the config does not tell them.
    """

    module: str
    factors: dict[str, str]
    rank: int | None
    alpha: float | None
    scaling: float | None


def module_of(key: str) -> str:
    """The name of the module within the base model: without PEFT's, torch's and the launchers' prefixes."""
    for wrapper in _WRAPPERS:
        key = key.replace(wrapper, "")
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            if key.startswith(prefix):
                key, stripped = key[len(prefix) :], True
    return key


def layers(adapter: Adapter) -> dict[str, Layer]:
    """The adapted layers of a LoRA or AdaLoRA adapter, in the order of their tensors, by module."""
    found: dict[str, dict[str, str]] = {}
    for key in adapter.tensors:
        match = _KEY.fullmatch(key)
        if match:
            found.setdefault(module_of(match["module"]), {})[match["factor"]] = key
    return {module: _layer(adapter, module, factors) for module, factors in found.items()}


def _layer(adapter: Adapter, module: str, factors: dict[str, str]) -> Layer:
    config = adapter.config or {}
    ranks = set()
    for factor, key in factors.items():
        shape = adapter.tensors[key].shape
        ranks.add(shape[RANK_AXIS[factor]] if len(shape) >= 2 else None)
    rank = ranks.pop() if len(ranks) == 1 else None
    if adapter.peft_type == "ADALORA":
        alpha = _number(config.get("lora_alpha", 8))
        init_r = _number(config.get("init_r", 12))
        if alpha is None or init_r is None or rank is None:
            return Layer(module, factors, rank, alpha, None)
        # PEFT, tuners/adalora/layer.py: update_layer and forward (ranknum stays init_r after a load)
        return Layer(module, factors, rank, alpha, (alpha if alpha > 0 else float(rank)) / (init_r + 1e-5))
    alpha = _number(pattern_value(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
    if alpha is None or not rank:
        return Layer(module, factors, rank, alpha, None)
    return Layer(module, factors, rank, alpha, alpha / (rank**0.5 if config.get("use_rslora") is True else rank))


def pattern_value(pattern: Any, module: str, default: Any) -> Any:
    """The value of a rank or alpha pattern for a module, as PEFT 0.15 and newer match it (get_pattern_key)."""
    if isinstance(pattern, dict):
        for key, value in pattern.items():
            try:
                if re.match(rf"(.*\.)?({key})$", module):
                    return value
            except re.error:
                continue
    return default


def pattern_module(key: str) -> str:
    """`blocks.0.up.lora_E` (or with an adapter's name behind it) of an AdaLoRA rank_pattern → `blocks.0.up`."""
    head, mark, _ = key.rpartition(".lora_E")
    return head if mark else key


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
