"""Config keys and their defaults by method and release (config_keys.json), and what they tell of an adapter."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import Any

from ..adapter.runtimes import PEFT, Ids, between, upto

RAISING = between("0.6", "0.13")
"""The releases that raise TypeError on a key they do not know; older ones ignore it, newer ones drop it."""

WITHOUT_MEANING = {
    "peft_version", "runtime_config", "eva_config", "corda_config", "lora_ga_config", "loftq_config",
    "megatron_config", "megatron_core", "qalora_group_size", "auto_mapping", "inference_mode", "revision",
    "init_lora_weights", "rank_dropout_scale", "generator_seed",
    "random_seed",
}  # fmt: skip
"""Keys that say how an adapter was made or is run, never what a loaded one computes (init methods that change the
base are those of init_lora_weights, QALoRA by use_qalora), nor what only training or a fresh adapter reads."""


@cache
def _text() -> str:
    """The tables of all methods, a key a line (scripts/make_config_keys.py)."""
    with open(os.path.join(os.path.dirname(__file__), "config_keys.json"), encoding="utf-8") as file:
        return file.read()


@lru_cache(64)
def table(method: str) -> dict[str, tuple[str, str | None, Any]]:
    """Config key → first release, last release (None where it still exists) and default, for a method."""
    rows = _text().partition(f"\n {json.dumps(method)}: ")[2]  # no more is parsed than is asked for
    found: dict[str, tuple[str, str | None, Any]] = json.loads(rows[: rows.index("\n }") + 3]) if rows else {}
    return found


@lru_cache(64)
def defaults(method: str) -> Mapping[str, Any]:
    """Config key → default, for a method."""
    return {key: default for key, (_, _, default) in table(method).items()}


@lru_cache(4096)
def knows(method: str, key: str) -> frozenset[str]:
    """The releases whose config of the method has the key."""
    row = table(method).get(key)
    return between(row[0], row[1] or "99.0") if row else frozenset()


@lru_cache(4096)
def lacking(method: str, key: str) -> frozenset[str]:
    """The releases that have the method, whose config does not have the key."""
    there, having = knows(method, "peft_type"), knows(method, key)
    return there - having if having else there  # the same one for all keys that no release has: a tree has any number


CHANGED_DEFAULTS = {
    ("LORA", "lora_alpha"), ("LORA", "lora_dropout"), ("ADALORA", "lora_alpha"), ("ADALORA", "lora_dropout"),
    ("OFT", "r"), ("OFT", "oft_block_size"), ("OSF", "init_weights"),
}  # fmt: skip
"""Keys whose default is not the same in every release that has them, so that none of them can be left out."""


def neutral(method: str, key: str, value: Any) -> bool:
    """Whether a key can go without changing what the adapter computes: no value, the default, or no meaning."""
    row = table(method).get(key)
    if row is None:  # no release reads it for this method; one that is another method's was carried over
        return value is None or f"\n  {json.dumps(key)}: " in _text()
    if (method, key) in CHANGED_DEFAULTS:
        return False
    if value is None or value == row[2] or key in WITHOUT_MEANING:
        return True
    if key in ("enable_lora", "merge_weights", "alpha_pattern", "rank_pattern"):
        return not value
    if key == "target_parameters":  # an empty list names none (tuners/tuners_utils.py: inject_adapter)
        return isinstance(value, list) and not value
    if key in ("use_rslora", "use_dora", "alpha_pattern"):
        return method == "ADALORA"  # AdaLoRA's forward reads none of them (tuners/adalora/layer.py)
    if key == "init_weights":
        return method == "PREFIX_TUNING"
    return False


READ_ELSEWHERE = {
    "rank_pattern", "alpha_pattern", "use_rslora", "exclude_modules", "layers_to_transform", "layers_pattern",
    "arrow_config",
}  # fmt: skip
"""Keys of LoRA and AdaLoRA whose absence in a release `rules/reading.py` follows to what the release then computes. No
release that knows arrow_config loads an adapter that was saved with it, so what the others compute is all there is."""

OTHER_SHAPES = {"use_bdlora", "use_qalora"}
"""Keys that give the factors other shapes: where the key is ignored, they do not fit, which is loud."""


def written_by(method: str, config: Mapping[str, object]) -> frozenset[str]:
    """The releases that write just the config keys that are there, leaving out those that no release has."""
    return _writing(method, frozenset(config.keys() & table(method).keys()))


@lru_cache(256)
def _writing(method: str, keys: frozenset[str]) -> frozenset[str]:
    ids = PEFT
    for key in table(method).keys() - {"runtime_config"}:  # never written
        ids &= knows(method, key) if key in keys else PEFT - knows(method, key)
    return ids


def saved_by(method: str, config: Mapping[str, object], record: Mapping[str, object] | None) -> frozenset[str]:
    """The releases that may have saved an adapter: the one it names, else those whose config has just these keys.

    PEFT writes every key of its config, so the keys date it. Where keys were removed by hand, what is left is every
    release that knows those that are there. `record` is what an earlier fix wrote of the adapter.
    """
    version = config.get("peft_version") or (record or {}).get("saved_by")
    if isinstance(version, list) and version:
        return frozenset(f"peft=={release}" for release in version) & PEFT
    if isinstance(version, str) and version:
        release = version.partition("@")[0].partition(".dev")[0]
        if f"peft=={release}" in PEFT:
            return frozenset((f"peft=={release}",))
        return between(release, release) if re.fullmatch(r"[0-9]{1,9}(?:\.[0-9]{1,9})+", release) else PEFT
    may = knows(method, "peft_type")
    for key in config.keys() & table(method).keys():
        may &= knows(method, key)
    return (may if record else written_by(method, config)) or may  # a fix may have dropped keys


CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Initialisations that write the base weights: when an adapter is loaded (LoraLayer.reset_lora_parameters), lora_ga in
training alone, where that has gradients."""


_AS_COMPARED = re.compile(r"pissa(_niter_[0-9]+)?|corda.*|(?i:olora)|loftq|lora_ga", re.DOTALL)


def is_spelled(init: str) -> bool:
    """Whether an initialisation that would change the base is written as PEFT compares it (tuners/lora/layer.py:
    LoraLayer.update_layer, pissa_init).
    """
    return _AS_COMPARED.fullmatch(init) is not None


def has_no_gradients(config: Mapping[str, object]) -> bool:
    """Whether it is LoRA-GA without its config, which gradients need (tuners/lora/loraga.py: preprocess_loraga; without
    them tuners/lora/layer.py: LoraLayer.lora_ga_init is as true). Where the key is not there, nothing tells.
    """
    return config.get("init_lora_weights") == "lora_ga" and config.get("lora_ga_config", {}) is None


def refusing_bias(word: object) -> Ids:
    """The releases that refuse a bias which is no word of the method, "Requested bias: …, is not implemented".

    Up to 0.17 a method names its words (tuners/lora/model.py: LoraModel._mark_only_adapters_as_trainable); newer ones
    take whatever ends with "_only" (tuners/tuners_utils.py: BaseTuner._mark_only_adapters_as_trainable).
    """
    return upto("0.17") if isinstance(word, str) and word.endswith("_only") else PEFT


DROPOUT = "dropout, which evaluation leaves out"
INIT = "what a layer starts from, before the file is loaded into it"
LAYOUT = "set anew to what the adapted layer is (model.py: _create_new_module)"
SIZE = "a size, or what is read to check one"
