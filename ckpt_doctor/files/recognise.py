"""What lies where no PEFT adapter does, by the names of files and of tensors: headers only, and no more than a few."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import islice
from shlex import quote

from ..adapter import AdapterError, DamagedFile, Fault, clean
from ..adapter.codes import OTHER_NAME
from . import foreign
from .foreign import BY_FILES, NO_WEIGHTS, TRAINER, Form
from .loader import BIN, CONFIG, SAFETENSORS, WEIGHTS, is_within, listed, read_weights, walk

MOST_FILES = 4
"""Weights files of one folder that are looked into."""
MOST_FOLDERS = 10_000
"""Folders below a path that are looked at."""


def recognised(folder: str, names: Sequence[str]) -> Fault | None:
    """What the files `names` of a folder are, where they are no adapter of PEFT; None where nothing tells."""
    files = [name for name in names if name.endswith(WEIGHTS) and not NO_WEIGHTS.match(name)]
    for name in files[:MOST_FILES]:
        try:
            found = of_tensors(name, read_weights(os.path.join(folder, name), nested=True))
        except (AdapterError, DamagedFile, OSError):
            continue
        if found is not None:
            return found
    forms = BY_FILES if CONFIG in names else (*BY_FILES, TRAINER)
    found_by_name = ((form, name) for form in forms for name in names if form.pattern.match(name))
    return next((_fault(form, name, folder) for form, name in found_by_name), None)


def of_tensors(file: str, tensors: Iterable[str]) -> Fault | None:
    """What a file is by the names of its tensors; None where they tell nothing."""
    form = foreign.of_tensors(tensors)
    return _fault(form, file) if form else None


def _fault(form: Form, name: str, folder: str = "") -> Fault:
    """What a file or folder called `name` is; `folder` is where it lies."""
    inner = os.path.join(folder, name)
    place = inner if name.startswith("pytorch_model_fsdp") and os.path.isdir(inner) else folder
    typed = quote(place) if place and clean(place) == place and not place.startswith("-") else "CHECKPOINT"
    way = form.way.replace("{place}", typed)
    if form.code == OTHER_NAME:
        _, end = os.path.splitext(name)
        way = f"rename it to {SAFETENSORS if end == '.safetensors' else BIN}, beside its {CONFIG}"
    return Fault(form.code.name, f"{name} is {form.what}", way, form.tool, name)


def fault_at(place: str) -> Fault | None:
    """As `recognised`, of all that is in a folder, or of a file; None where it cannot be read."""
    try:
        if os.path.isfile(place):
            folder, name = os.path.split(place)
            return recognised(folder or ".", [name])
        return recognised(place, listed(place))
    except (AdapterError, OSError):
        return None


def said(path: str) -> str:
    """What was recognised at or below a path, for the end of a sentence; "" where nothing was."""
    found = next(map(fault_at, below(path)), None)
    return f": {found.message}" if found else ""


def below(path: str) -> list[str]:
    """The folders at and below a path in which something was recognised, or the file itself; sorted, and none below
    another.
    """
    if os.path.isfile(path):
        return [path] if fault_at(path) else []
    found: list[str] = []
    for folder, entries in islice(walk(path), MOST_FOLDERS):
        if entries is None or isinstance(entries, OSError) or (found and is_within(folder, found[-1])):
            continue
        if recognised(folder, sorted(entry.name for entry in entries)):
            found.append(folder)
    return sorted(found)
