"""What LoHa and LoKr have in common: tuners/lycoris_utils.py, of which PEFT 0.15 and newer are rid."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ..adapter.runtimes import upto
from .forms import Config
from .names import Names, pattern_value
from .patterns import of_keys, once
from .subject import Subject


def old_config(config: Config, module: str) -> dict[str, Any]:
    """The config with the rank and alpha that a layer gets up to PEFT 0.14.

    tuners/loha/model.py: LoHaModel._create_and_replace: the first key of both patterns together that matches serves
    both, and no group is put around it.
    """
    ranks, alphas = (_pattern(config, key) for key in ("rank_pattern", "alpha_pattern"))
    keys = once(ranks, f"and {id(alphas)}", lambda: ([*ranks, *alphas], alphas))[0]
    key = (of_keys(keys, r"(.*\.)?{}$").first(module) if keys else None) or module.rpartition(".")[2]
    r, alpha = ranks.get(key, config.get("r", 8)), alphas.get(key, config.get("alpha", 8))
    return {**config, "r": r, "alpha": alpha, "rank_pattern": {}, "alpha_pattern": {}}


_NONE: dict[str, Any] = {}
"""One and the same, so that what is made of it is remembered."""


def _pattern(config: Config, key: str) -> dict[str, Any]:
    pattern = config.get(key)
    return pattern if isinstance(pattern, dict) else _NONE


def unscaled(subject: Subject) -> object:
    """The delta as it is."""
    return (1.0,) * len(subject.layers)


def joint(subject: Subject) -> object:
    """Alpha / r, where one key serves both patterns."""
    return _ratios(old_config(subject.config, module) for module in subject.layers)


def apart(subject: Subject) -> object:
    """Alpha / r, each by its own pattern."""
    config = subject.config
    ranks, alphas = config.get("rank_pattern"), config.get("alpha_pattern")
    r, alpha = config.get("r", 8), config.get("alpha", 8)
    return _ratios(
        {"r": pattern_value(ranks, module, r), "alpha": pattern_value(alphas, module, alpha)}
        for module in subject.layers
    )


def _ratios(read: Iterable[Config]) -> tuple[float | None, ...]:
    return tuple(_ratio(config["alpha"], config["r"]) for config in read)


def _ratio(alpha: object, rank: object) -> float | None:
    if not isinstance(alpha, (int, float)) or not isinstance(rank, (int, float)) or not rank:
        return None
    try:
        return alpha / rank
    except OverflowError:  # beyond 1.8e308
        return None


def has_scales(subject: Subject) -> bool:
    """All layers have numbers for their scale."""
    return all(None not in scales for scales in (joint(subject), apart(subject)) if isinstance(scales, tuple))


def conv1d_of_the_base(subject: Subject) -> Names:
    """Layers that are a Conv1d in the base model."""
    weights = subject.base.weights if subject.base else {}
    return [module for module in subject.layers if len(weights.get(module, ())) == 3]


def may_be_conv1d(subject: Subject) -> Names:
    """Layers whose tensors do not show a kernel, and whose name is that of a convolution, as far as the base model does
    not tell; a release that cannot adapt a Conv1d saved none.
    """
    saved, weights = subject.saved_by, subject.base.weights if subject.base else {}
    if saved and saved <= upto("0.17"):
        return []
    plain = subject.having(lambda _, shapes: not any(
        name in shapes and len(shapes[name]) > 2 for name in ("hada_t1", "lokr_t2", "lokr_w2")
    ))  # fmt: skip
    return [m for m in plain if m not in weights and re.search(r"conv_?1d|conv(?!_?[23]d)[^.]*$", m.lower())]


def decomposed_unasked(subject: Subject) -> Names:
    """Layers with a kernel of their own, which the config does not ask for."""
    if subject.value("use_effective_conv2d"):
        return []
    return subject.having(lambda _, shapes: bool({"hada_t1", "lokr_t2"} & shapes.keys()))
