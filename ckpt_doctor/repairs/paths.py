"""Names of modules as the model has them: by its class, where they are called otherwise than there, one to one."""

from __future__ import annotations

import re

from ..adapter import Adapter
from ..facts.layers import module_of
from ..facts.names import PREFIX, pattern_value
from ..facts.servers.loads import Load
from ..facts.servers.loads.names import bare, older, tree
from ..facts.subject import Subject
from ..facts.targets import targeted
from . import Refused, with_config
from .cuts import targeting


def renamed(subject: Subject) -> Adapter:
    """Each module that the model has under another path gets that path: with another level (`model.`,
    `language_model.`) at its beginning, or as the file has it that transformers renames. Every size has to be that of
    the model's weight.
    """
    base = subject.question.base
    if subject.method != "LORA" or base is None or not base.config:
        raise Refused("under which names the model has these layers shows only with it: name it with --base")
    load = Load(subject.config, subject.tensor_shapes, base)
    places = _places(load)
    names: dict[str, str] = {}
    for module, pair in load.pairs.items():
        there = places.get(bare(older(load, module_of(module))))
        if there is None:
            names[module] = module
            continue
        path, weight = there
        sizes = pair.sizes if not pair.embedding or pair.sizes is None else pair.sizes[::-1]
        if path != module and (weight is None or sizes != weight):
            raise Refused(f"{module} would be {path}, and nothing shows that it is of its size: --base with weights")
        names[module] = path
    changed = {module: path for module, path in names.items() if module != path}
    if not changed:
        return subject.adapter
    if len({*names.values()}) != len(names):
        raise Refused("two layers would get one name")
    return _under(subject, load, changed)


def _places(load: Load) -> dict[str, tuple[str, tuple[int, ...] | None]]:
    """Name without its beginning → the path that PEFT finds it under, and the shape of its weight. By the file's names
    where the class is not known.
    """
    known = tree(load.model)
    paths = {re.sub(r"(?<=\.)\d+(?=\.)", "#", bare(path)): path for path in known.modules} if known else {}
    found: dict[str, tuple[str, tuple[int, ...] | None]] = {}
    for name, shape in load.base.weights.items():
        key = bare(name)
        path = paths.get(re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "#", key), "")
        begins = path.removesuffix(re.sub(r"(?<=\.)\d+(?=\.)", "#", key))
        found[key] = (begins + key if path else name, shape)
    return found


def _under(subject: Subject, load: Load, names: dict[str, str]) -> Adapter:
    """The adapter with modules renamed, whose rank, alpha and targets stay what the config says of the old names."""
    config = subject.config
    for module, path in names.items():
        for key in ("rank_pattern", "alpha_pattern"):
            if pattern_value(config.get(key), module, None) != pattern_value(config.get(key), path, None):
                raise Refused(f"{key} says of {path} what it does not of {module}")
    keys = {}
    for module, path in names.items():
        for key in load.pairs[module].keys:
            keys[key] = PREFIX + path + key[key.rindex(".lora_") :]
    tensors = {keys.get(key, key): info for key, info in subject.tensors.items()}
    if len(tensors) != len(subject.tensors):
        raise Refused("two tensors would get one name")
    adapter = subject.adapter._replace(tensors=tensors)
    target = config.get("target_modules")
    if isinstance(target, list):
        full = {old: new for old, new in names.items() if old in target}
        adapter = (
            with_config(adapter, target_modules=[full.get(str(name), name) for name in target]) if full else adapter
        )
    now = adapter.config or {}
    left = [path for path in names.values() if not targeted(now, path, (0, 21))]
    return targeting(adapter, left)
