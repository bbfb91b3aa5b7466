"""Names of modules as the model's files have them, where transformers 5 calls them otherwise."""

from __future__ import annotations

import re

from ..facts.servers.architectures import line
from ..facts.servers.loads import Load


def older(load: Load, module: str) -> str:
    """A module by its name in the model's file, where transformers renames it (conversion_mapping.py)."""
    kind = str(load.model.get("model_type"))
    for step in (line("transformers", f":{kind}") or {}).get("renames") or []:
        if step[0] == "rename" and step[2] in f"{module}." and not re.search(r"[\\()\[\]^$*+?|]", step[1] + step[2]):
            renamed = f"{module}.".replace(step[2], step[1], 1).removesuffix(".")
            if not load.base.weights or any(name.startswith(_layer(renamed)) for name in load.base.weights):
                return renamed
    return module


def _layer(module: str) -> str:
    """The beginning of a name up to the part after the layer's number."""
    match = re.match(r"(.*?\.\d+\.[^.]+)\.", module)
    return match[1] if match else module
