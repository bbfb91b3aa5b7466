"""What people and programs do to adapters: one function an edit, from a config and tensors to others.

An edit changes both in place; it says False where the adapter has nothing to edit. `UNSAID` are those of which the files
hold no trace ("always"), or of which the base model alone tells ("base"): a key that no release knows may mean anything.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Config = dict[str, Any]
Tensors = dict[str, np.ndarray[Any, Any]]
Edit = Callable[[Random, Config, Tensors], "bool | None"]

NEWER = (
    "peft_version", "alora_invocation_tokens", "arrow_config", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "lora_bias", "qalora_group_size", "target_parameters", "trainable_token_indices", "use_qalora",
    "layer_replication", "use_dora", "use_rslora", "loftq_config", "megatron_config", "megatron_core", "kasa_config",
    "runtime_config", "lora_ga_config", "monteclora_config", "velora_config", "use_bdlora", "rank_pattern",
    "alpha_pattern", "init_weights", "use_effective_conv2d", "inference_mode",
)  # fmt: skip
NAMES = re.compile(
    r"\.(lora_(?:[ABE]|embedding_[AB]|magnitude_vector)|ia3_l|hada_\w+|lokr_\w+|b?oft_\w+|vera_lambda_\w)\b"
)
FACTORS = re.compile(r"(lora_[ABE]|hada_w\d_[ab]|lokr_w\d|ia3_l)(?=\.|$)")
"""Those behind whose names PEFT puts the adapter's in a model."""
OTHERS = ("nosuch_proj", "o_proj", "dense", "v_proj", "out_proj", "lm_head")


def _layers(tensors: Tensors) -> list[str]:
    """The layers that have factors."""
    return sorted({NAMES.split(name)[0] for name in tensors if NAMES.search(name)})


def _renamed(tensors: Tensors, change: Callable[[str], str]) -> bool:
    before = list(tensors)
    moved = {change(name): tensor for name, tensor in tensors.items()}
    tensors.clear()
    tensors.update(moved)
    return list(moved) != before


def _taken_out(tensors: Tensors, names: list[str]) -> bool:
    for name in names:
        del tensors[name]
    return bool(names) and bool(tensors)


def layer_dropped(rng: Random, _: Config, tensors: Tensors) -> bool:
    layers = _layers(tensors)
    gone = f"{rng.choice(layers)}." if layers else "?"
    return _taken_out(tensors, [name for name in tensors if name.startswith(gone)])


def half_dropped(rng: Random, _: Config, tensors: Tensors) -> bool:
    """The second factor of a layer is lost."""
    halves = sorted(name for name in tensors if re.search(r"lora_(embedding_)?B|_b\b|_w2$|lambda_b", name))
    return bool(halves) and _taken_out(tensors, [rng.choice(halves)])


def factor_dropped(rng: Random, _: Config, tensors: Tensors) -> bool:
    """A tensor that is not all that a layer has: without those the layer is gone (`layer_dropped`)."""
    counts = Counter(NAMES.split(name)[0] for name in tensors if NAMES.search(name))
    names = sorted(name for name in tensors if counts[NAMES.split(name)[0]] != 1 or not NAMES.search(name))
    return bool(names) and _taken_out(tensors, [rng.choice(names)])


def second_block_dropped(_: Random, __: Config, tensors: Tensors) -> bool:
    return _taken_out(tensors, [name for name in tensors if re.search(r"\.1\.", name)])


def prefix_doubled(_: Random, __: Config, tensors: Tensors) -> bool:
    return _renamed(tensors, lambda name: f"base_model.model.{name}")


def prefix_stripped(_: Random, __: Config, tensors: Tensors) -> bool:
    return _renamed(tensors, lambda name: name.removeprefix("base_model.model."))


def wrapped(rng: Random, _: Config, tensors: Tensors) -> bool:
    """The names of a model that a trainer wrapped."""
    wrapper = rng.choice(("module.", "_orig_mod.", "_fsdp_wrapped_module."))
    return _renamed(tensors, lambda name: name.replace("base_model.model.", f"base_model.model.{wrapper}"))


def level_lost(_: Random, __: Config, tensors: Tensors) -> bool:
    """The adapter of a class without a head, for one with it."""
    return _renamed(tensors, lambda name: re.sub(r"^(base_model\.model)\.[^.]+\.", r"\1.", name))


def adapter_name_left(rng: Random, _: Config, tensors: Tensors) -> bool:
    name = rng.choice(("default", "default", "other"))
    return _renamed(tensors, lambda key: FACTORS.sub(rf"\1.{name}", key))


def state_dict_of_the_model(_: Random, __: Config, tensors: Tensors) -> bool:
    """The names of modules that were saved whole, as the model has them in training."""

    def whole(name: str) -> str:
        return name if NAMES.search(name) else re.sub(r"\.(\w+)$", r".modules_to_save.default.\1", name)

    return bool(_layers(tensors)) and _renamed(tensors, whole)


def base_layer_added(rng: Random, _: Config, tensors: Tensors) -> bool:
    layers = [layer for layer in _layers(tensors) if f"{layer}.lora_B.weight" in tensors]
    if layers:
        layer = rng.choice(layers)
        shape = (tensors[f"{layer}.lora_B.weight"].shape[0], tensors[f"{layer}.lora_A.weight"].shape[-1])
        tensors[f"{layer}.base_layer.weight"] = np.zeros(shape, np.float32)
    return bool(layers)


def transposed(rng: Random, _: Config, tensors: Tensors) -> bool:
    flat = sorted(name for name, tensor in tensors.items() if tensor.ndim == 2 and len({*tensor.shape}) == 2)
    if flat:
        name = rng.choice(flat)
        tensors[name] = np.ascontiguousarray(tensors[name].T)
    return bool(flat)


def rank_cut(rng: Random, _: Config, tensors: Tensors) -> bool:
    """The factors of one layer have a rank that the config does not tell."""
    layers = [layer for layer in _layers(tensors) if len(tensors.get(f"{layer}.lora_A.weight", ())) > 1]
    if layers:
        layer = rng.choice(layers)
        tensors[f"{layer}.lora_A.weight"] = tensors[f"{layer}.lora_A.weight"][:1]
        tensors[f"{layer}.lora_B.weight"] = np.ascontiguousarray(tensors[f"{layer}.lora_B.weight"][:, :1])
    return bool(layers)


def half_precision(_: Random, __: Config, tensors: Tensors) -> bool:
    for name, tensor in tensors.items():
        if tensor.dtype == np.float32:
            tensors[name] = tensor.astype(np.float16)
    return bool(tensors)


def targets_shortened(rng: Random, config: Config, _: Tensors) -> bool:
    targets = config.get("target_modules")
    if not isinstance(targets, list) or len(targets) < 2:
        return False
    config["target_modules"] = rng.sample(targets, len(targets) - 1)
    return True


def targets_extended(rng: Random, config: Config, _: Tensors) -> bool:
    targets = config.get("target_modules")
    if isinstance(targets, list):
        config["target_modules"] = [*targets, rng.choice(OTHERS)]
    return isinstance(targets, list)


def targets_regex(rng: Random, config: Config, _: Tensors) -> bool:
    targets = config.get("target_modules")
    if isinstance(targets, list):
        form = rng.choice((r".*\.({})", r".*({}).*", r"(.*\.)?({})$", r"({})"))
        config["target_modules"] = form.format("|".join(map(re.escape, targets)))
    return isinstance(targets, list)


def targets_word(_: Random, config: Config, __: Tensors) -> bool:
    """One name, which is a regular expression of the whole name where it is no list."""
    targets = config.get("target_modules")
    if isinstance(targets, list):
        config["target_modules"] = targets[0]
    return isinstance(targets, list)


def targets_full(_: Random, config: Config, tensors: Tensors) -> bool:
    layers = [layer.removeprefix("base_model.model.") for layer in _layers(tensors)]
    config["target_modules"] = layers
    return bool(layers) and "target_modules" in config


def saved_added(rng: Random, config: Config, _: Tensors) -> bool:
    config["modules_to_save"] = [rng.choice(("lm_head", "classifier", "embed_tokens", "nosuch", "score", "pooler"))]
    return True


def rank_wrong(_: Random, config: Config, __: Tensors) -> bool:
    config["r"] = 2 * config["r"] if isinstance(config.get("r"), int) else 8
    return "r" in config


def newer_removed(_: Random, config: Config, __: Tensors) -> bool:
    return bool([config.pop(key) for key in NEWER if key in config])


def task_other(rng: Random, config: Config, _: Tensors) -> bool:
    config["task_type"] = rng.choice(("CAUSAL_LM", "SEQ_CLS", "FEATURE_EXTRACTION", "TOKEN_CLS", "causal_lm"))
    return True


def _set(key: str, *values: Any) -> Edit:
    """Another value of a key that the config has."""

    def edit(rng: Random, config: Config, _: Tensors) -> bool:
        others = [value for value in values if key in config and config[key] != value]
        if others:
            config[key] = rng.choice(others)
        return bool(others)

    edit.__name__ = f"{key}_set"
    return edit


def _nulled(key: str) -> Edit:
    def edit(_: Random, config: Config, __: Tensors) -> bool:
        had = bool(config.get(key))
        config[key] = {} if isinstance(config.get(key), dict) else None
        return had

    edit.__name__ = f"{key}_nulled"
    return edit


def _added(key: str, value: Any) -> Edit:
    def edit(_: Random, config: Config, __: Tensors) -> None:
        config[key] = value

    edit.__name__ = f"{key}_added"
    return edit


NAMES_OF_TENSORS = (
    layer_dropped, half_dropped, factor_dropped, second_block_dropped, prefix_doubled, prefix_stripped, wrapped, level_lost,
    adapter_name_left, state_dict_of_the_model, base_layer_added, transposed, rank_cut, half_precision,
)  # fmt: skip
TARGETS = (targets_shortened, targets_extended, targets_regex, targets_word, targets_full, _nulled("target_modules"))
VALUES = (
    saved_added, _nulled("modules_to_save"), rank_wrong, newer_removed, _nulled("task_type"), task_other,
    _set("bias", "none"), _set("use_rslora", True, False), _set("use_dora", True, False),
    _set("lora_alpha", 0, 64), _set("init_lora_weights", False, "gaussian", "pissa"), _set("fan_in_fan_out", True, False),
    _set("layers_to_transform", None, [0], [1], 5), _set("layers_pattern", "layers", "nosuch"), _nulled("rank_pattern"),
    _nulled("alpha_pattern"), _nulled("layers_to_transform"), _nulled("exclude_modules"), _nulled("feedforward_modules"),
    _set("r", None, 0, "4"), _set("exclude_modules", ["q_proj"], ".*0.*"), _set("inference_mode", False),
    _nulled("peft_type"), _added("lora_scale", 1.0), _added("training", True), _set("is_prompt_learning", True),
    _set("peft_type", "lora"), _set("num_virtual_tokens", 3), _set("trainable_token_indices", [1]),
    _nulled("trainable_token_indices"), _nulled("target_parameters"),
)  # fmt: skip
EDITS: dict[str, Edit] = {edit.__name__: edit for edit in (*NAMES_OF_TENSORS, *TARGETS, *VALUES)}
UNSAID = {
    "layer_dropped": "always", "second_block_dropped": "always", "factor_dropped": "base", "level_lost": "base",
    "base_layer_added": "always", "lora_scale_added": "always", "training_added": "always", "saved_added": "base", "target_modules_nulled": "base",
    "layers_to_transform_nulled": "base",
}  # fmt: skip

EDITED = 0.6
"""How many of the adapters have an edited copy beside them."""
WEIGHTS = "adapter_model.safetensors"


def edited(adapters: Path, seed: str, made: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Put edited copies beside some of the adapters of a folder; the row of each copy, as those of `made`, by its name."""
    copies = {}
    for name, row in made.items():
        rng = Random(f"{seed}-{name}-edit")
        if rng.random() < EDITED and (adapters / name / WEIGHTS).exists():
            for edit in rng.sample(sorted(EDITS), len(EDITS)):
                if _copied(adapters / name, adapters / f"{name}+{edit}", edit, rng):
                    copies[f"{name}+{edit}"] = {**row, "edit": edit}
                    break
    return copies


def _copied(folder: Path, copy: Path, edit: str, rng: Random) -> bool:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / WEIGHTS)
    if EDITS[edit](rng, config, tensors) is False:
        return False
    copy.mkdir()
    (copy / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(tensors, copy / WEIGHTS, {"format": "pt"})
    return True
