"""A whole model with adapters inside: the files that its tensors are in, and the configs of its adapters."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..adapter import AdapterError, DamagedFile
from .foreign import NO_WEIGHTS
from .loader import CONFIG, WEIGHTS, is_remote, is_there, read_json, read_weights, shards

if TYPE_CHECKING:
    from ..adapter import TensorInfo

MOST_CHECKPOINTS = 100
"""Checkpoints of one run that are looked into."""


class Config(NamedTuple):
    """An adapter_config.json: its path as it is told, and the object in it. `beside` says that it lies with the weights
    that it is for, and not with those of another step.
    """

    path: str
    content: dict[str, object]
    beside: bool


def weights(folder: str, file: str, others: Iterable[str]) -> tuple[tuple[str, ...], Mapping[str, TensorInfo]]:
    """The files of the model that `file` is of, and its tensors: alone, or one of the shards of an index. `others` are
    the names beside it. Raises DamagedFile and AdapterError, also where another model lies there.
    """
    index = re.sub(r"-[0-9]{5}-of-[0-9]{5}(\.\w+)$", r"\1", file) + ".index.json"
    files: tuple[str, ...]
    tensors: Mapping[str, TensorInfo]
    if is_there(os.path.join(folder, index)):
        files, tensors = shards(folder, index, nested=True)
    elif index != f"{file}.index.json":
        raise DamagedFile("broken-index", f"the index of the shards, {index}, is missing")
    else:
        files, tensors = (file,), read_weights(os.path.join(folder, file), nested=True)
    strange = [name for name in others if name.endswith(WEIGHTS) and name not in files and not NO_WEIGHTS.match(name)]
    if strange:
        raise AdapterError(f"{strange[0]} lies beside it: name the file that is meant")
    return files, tensors


def configs(folder: str, adapters: list[str]) -> dict[str, Config]:
    """The configs of the adapters in a file, by name: as PEFT lays them (peft_model.py: save_pretrained: "default", or
    the only one, in the folder itself, others in one of their name), or where a model has one adapter and lies in a
    checkpoint of a Trainer, those of the run and its other checkpoints, if they all say the same. One without a name is
    in no model. Raises AdapterError.
    """
    found = {}
    for name in adapters:
        places = [os.path.join(folder, name, CONFIG)] if re.fullmatch(r"[\w-]+", name) else []
        if name == "default" or len(adapters) == 1:
            places.append(os.path.join(folder, CONFIG))
        config = next((_config(place, beside=True) for place in places if is_there(place)), None)
        if config is None and name and len(adapters) == 1:
            config = _of_run(folder)
        if config is not None:
            found[name] = config
    return found


def _of_run(folder: str) -> Config | None:
    """What the run says that a checkpoint is of (transformers trainer_utils.py: PREFIX_CHECKPOINT_DIR)."""
    parent, name = os.path.split(os.path.abspath(folder))
    if is_remote(folder) or not re.fullmatch(r"checkpoint-[0-9]+", name):
        return None
    places = [os.path.join(parent, CONFIG)]
    places += sorted(glob.glob(os.path.join(glob.escape(parent), "checkpoint-*", CONFIG)))[:MOST_CHECKPOINTS]
    there = [_config(place, beside=False) for place in places if os.path.lexists(place)]
    if any(config.content != there[0].content for config in there):
        raise AdapterError(
            f"{there[0].path} and others of the run say different things: name one with --adapter-config"
        )
    return there[0] if there else None


def _config(path: str, *, beside: bool) -> Config:
    content, wrong = read_json(*os.path.split(path))
    if content is None:
        raise AdapterError(f"{path}: {wrong}")
    return Config(path, content, beside)


def named_config(path: str) -> Config:
    """The config in a file that the user names. Raises AdapterError."""
    if not os.path.isfile(path):
        raise AdapterError(f"{path} is not a file")
    return _config(path, beside=True)
