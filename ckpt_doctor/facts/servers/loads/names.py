"""The modules of a model as transformers names them, by the class that its config says."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ...names import numbered
from ..architectures import causal, line
from .load import Load

OUTER = ("model", "language_model", "transformer", "bert", "roberta", "gpt_neox", "backbone", "base_model")
"""First parts of a name that files and classes differ in."""

BETWEEN_STACKS = ("GPT2Model", "GPTBigCodeModel")
"""Classes that have crossattention only where the config says add_cross_attention, and q_attn only within it
(modeling_gpt2.py, modeling_gpt_bigcode.py: Block.__init__, Attention.__init__).
"""


class Tree(NamedTuple):
    """Path → kind of module, and the paths below which nothing is known."""

    modules: dict[str, str]
    unknown: tuple[str, ...]
    prefix: str

    def kind(self, module: str) -> str | None:
        """The kind of a module, None where there is none; "?" where nothing is known of its place."""
        path = numbered(module)
        if path in self.modules:
            return self.modules[path]
        return "?" if any(path == part or path.startswith(f"{part}.") for part in self.unknown) else None


def tree(config: dict[str, object]) -> Tree | None:
    """The modules of a model, None where its class is in no table."""
    name = causal(config)
    entry = line("transformers", name) if name else None
    if entry is None or not entry.get("modules"):
        return None
    modules: dict[str, str] = {}
    unknown: list[str] = []
    _expand(entry, str(name), config, "", modules, unknown)
    prefix = entry.get("prefix")
    return Tree(modules, tuple(unknown), prefix if isinstance(prefix, str) else "")


def absent(name: str, config: dict[str, object], path: str) -> bool:
    """Whether a model has not a module that its class may have: a decoder alone attends to no other stack."""
    if name not in BETWEEN_STACKS:
        return False
    return not config.get("add_cross_attention") if "crossattention" in path else path.endswith("q_attn")


def _expand(
    entry: dict[str, Any], name: str, config: dict[str, object], at: str, modules: dict[str, str], unknown: list[str]
) -> None:
    for parent, leaves in entry.get("modules", {}).items():
        for leaf, kind in leaves.items():
            path = ".".join(part for part in (at, parent, leaf) if part)
            if absent(name, config, path):
                continue
            if not kind.startswith("@"):
                modules[path] = kind
                continue
            part, inner = config, kind[1:].partition("|")[0]
            if inner[:1].islower():  # AutoModel.from_config: what a part of the config says
                value = config.get(inner) if inner != "config" else config
                part = value if isinstance(value, dict) else {}
                of_type = line("transformers", f":{part.get('model_type')}")
                inner = str((of_type or {}).get("model") or "")
            other = line("transformers", inner) if inner else None
            if other is None or at.count(".") > 8:
                unknown.append(path)
            else:
                _expand(other, inner, part, path, modules, unknown)


def bare(name: str) -> str:
    """A name without the parts at its beginning in which files and classes differ."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in OUTER:
        parts.pop(0)
    return ".".join(parts)


_PLAIN = re.compile(r"[\w.]+")


def older(load: Load, module: str) -> str:
    """A module by its name in the model's file, where transformers renames it (conversion_mapping.py)."""
    kind = str(load.model.get("model_type"))
    for step in (line("transformers", f":{kind}") or {}).get("renames") or []:
        if step[0] == "rename" and step[2] in f"{module}." and _PLAIN.fullmatch(step[1] + step[2]):
            renamed = f"{module}.".replace(step[2], step[1], 1).removesuffix(".")
            if not load.base.weights or any(name.startswith(_layer(renamed)) for name in load.base.weights):
                return renamed
    return module


def _layer(module: str) -> str:
    """The beginning of a name up to the part after the layer's number."""
    match = re.match(r"(.*?\.\d+\.[^.]+)\.", module)
    return match[1] if match else module


class Known:
    """Which modules a model has: by its weights where they are there, else by its class, as in files or in memory."""

    def __init__(self, load: Load) -> None:
        self.weights = {bare(name) for name in load.base.weights}
        found = None if self.weights else tree(load.model)
        self.tree = found
        paths = found.modules.items() if found else ()
        self.modules = {bare(name): kind for path, kind in paths for name in (path, older(load, path))}
        self.unsure = tuple(bare(path) for path in found.unknown) if found else ()

    def has(self, module: str) -> bool | None:
        """Whether there is a module of that name, None where that is not known."""
        name = bare(module)
        if self.weights:
            return name in self.weights
        if self.tree is None:
            return None
        path = re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)", "#", name)
        if path in self.modules:
            return True
        return None if any(path.startswith(part) for part in self.unsure) else False
