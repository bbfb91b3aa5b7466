"""What a base model's files say of its modules: names and shapes of weights, without reading one."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

from ..adapter import NO_BASE, AdapterError, Base, DamagedFile
from .loader import is_remote, read_json, read_weights, told

CONFIG = "config.json"
"""The config of a model, which says which class a server builds, and in which sizes."""


def load_base(path: str) -> Base:
    """Read a model folder, one of its safetensors files, its index, or its config.json alone: headers and config only.
    Raises AdapterError.
    """
    if is_remote(path):
        raise AdapterError(f"{told(path)} is remote, and a base model is read on a disk: its config.json alone will do")
    if not os.path.exists(path):
        raise AdapterError(f"{path} does not exist")
    if os.path.basename(path) == CONFIG or (os.path.isdir(path) and _config_alone(path)):
        place = os.path.join(path, CONFIG) if os.path.isdir(path) else path
        config = _json(place)
        return Base({}, config, *origin(os.path.dirname(place), config), path)
    folder = path if os.path.isdir(path) else os.path.dirname(path) or "."
    names = sorted(os.listdir(path)) if os.path.isdir(path) else [os.path.basename(path)]
    files = [name for name in names if name.endswith(".safetensors") and not name.startswith("adapter_model")]
    if not files and names and names[0].endswith(".index.json"):
        files = _shards(os.path.join(folder, names[0]))
    if not files:
        raise AdapterError(f"{path} has no config.json and no safetensors file, which are what --base reads")
    shapes: dict[str, tuple[int, ...]] = {}
    for name in files:
        try:
            tensors = read_weights(os.path.join(folder, os.path.basename(name)))
            shapes.update((key, info.shape) for key, info in tensors.items())
        except DamagedFile as error:
            raise AdapterError(f"{os.path.join(folder, name)}: {error.message}") from None
    place = os.path.join(folder, CONFIG)
    config = _json(place) if os.path.isdir(path) and os.path.exists(place) else {}
    return Base(shapes, config, *origin(folder, config), path)


def named_base(path: str) -> Base:
    """The model at a path; NO_BASE for the word none. Raises AdapterError."""
    return NO_BASE if path == "none" else load_base(path)


def origin(folder: str, config: dict[str, object]) -> tuple[str, str]:
    """The id on the Hub of the model in a folder, and the commit: of a folder of the Hub's cache, or the id alone that
    transformers wrote into the config when it saved the model; "" where neither tells.
    """
    cached = re.search(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})/?$", os.path.abspath(folder) + "/")
    if cached:
        return f"{cached[1]}/{cached[2]}", cached[3]
    name = config.get("_name_or_path")
    return (name if isinstance(name, str) and is_hub_id(name) else ""), ""


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of an id on the Hub: an owner and a model."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII) is not None and not name.startswith(".")


def _config_alone(folder: str) -> bool:
    """Whether a folder has the config and no weights, as where only that was fetched."""
    names = os.listdir(folder)
    return CONFIG in names and not any(name.endswith((".safetensors", ".index.json")) for name in names)


def as_loaded(base: Base, modules: Collection[str], headless: bool) -> Base:
    """The base with its modules named as they are once it is loaded: the way that most of `modules` are named.

    transformers adds and strips the base_model_prefix of a class (modeling_utils.py: from_pretrained): in the file of a
    model without a head `bert.` is missing, and one with a head has it though the class without one, which can only
    have been adapted where it is `headless`, has not. A class has modules that are not in the file, as its head.
    """
    prefixes = class_prefixes(base, (*modules, *base.weights))
    candidates = [base, *(_renamed(base, f"{prefix}.", "") for prefix in sorted(prefixes))]
    candidates += [_renamed(base, "", f"{prefix}.") for prefix in sorted(prefixes) if headless]
    if any("visual" in name or "vision" in name for name in base.weights):
        older = {new: old for old, new in LANGUAGE_MODELS.items()}
        candidates += [_mapped(base, LANGUAGE_MODELS), _mapped(base, older)]
    return max(candidates, key=lambda candidate: sum(module in candidate.weights for module in modules))


def class_prefixes(base: Base, names: Iterable[str]) -> set[str]:
    """The first parts of names that a class with a head may put before those of the model."""
    kind = str(base.config.get("model_type", "")).replace("-", "_")
    firsts = {name.partition(".")[0] for name in names}
    return {name for name in firsts if name in ("model", "transformer") or (name and kind.startswith(name))}


LANGUAGE_MODELS = {
    "language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head",
    "model.": "model.language_model.", "visual.": "model.visual.", "vision_tower.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}  # fmt: skip
"""How the files of vision-language models name their parts, and how transformers does from 4.52 on (the
_checkpoint_conversion_mapping of its classes, as of modeling_qwen2_5_vl.py and modeling_llava.py)."""


def _mapped(base: Base, names: dict[str, str]) -> Base:
    """The base with the beginnings of its names replaced; what begins as replaced ones do stays."""

    def mapped(name: str) -> str:
        if name.startswith(tuple(new for old, new in names.items() if new.startswith(old))):
            return name
        old = next((old for old in names if name.startswith(old)), None)
        return name if old is None else names[old] + name[len(old) :]

    return base.renamed(mapped)


def _renamed(base: Base, added: str, removed: str) -> Base:
    return base.renamed(lambda name: added + name.removeprefix(removed))


def _shards(index: str) -> list[str]:
    files = _json(index).get("weight_map")
    if not isinstance(files, dict) or not all(map(_is_name, files.values())):
        raise AdapterError(f"{index} has no weight_map from tensors to files")
    return sorted(set(files.values()))


def _is_name(name: object) -> bool:
    """Whether a value can be the name of a file; half a surrogate pair cannot."""
    if not isinstance(name, str) or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _json(path: str) -> dict[str, object]:
    content, wrong = read_json(*os.path.split(path))
    if content is None:
        raise AdapterError(f"{path} cannot be read: {wrong}")
    return content
