"""How modules are named: PEFT's prefix, and the numbers of layers and experts."""

from __future__ import annotations

import re
from functools import lru_cache

PREFIX = "base_model.model."
"""What PEFT puts before the names of the base model's modules (peft_model.py: PeftModel)."""


def as_number(digits: str) -> int:
    """A number in a name. One of ten digits or more is past any that a model has; Python refuses those of 4,301."""
    return int(digits) if len(digits) < 10 else 1_000_000_000


@lru_cache(16384)
def numbered(name: str) -> str:
    """A name with `#` for its numbers: `model.layers.0.mlp` → `model.layers.#.mlp`."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)
