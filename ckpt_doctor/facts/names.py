"""How modules are named: PEFT's prefix, the numbers of layers and experts, and what a config calls them by."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

from .patterns import of_keys, once, reaches

Names = list[str]
"""Of modules or tensors."""

PREFIX = "base_model.model."
"""What PEFT puts before the names of the base model's modules (peft_model.py: PeftModel)."""

IN_BLOCK = re.compile(r"(.*?)\.(\d+)\.(.*)")
"""A module of a numbered block, behind a dot: what the block is in, its number, and what the module is called there."""

_ALL_LINEAR = "all-linear"


def as_number(digits: str) -> int:
    """A number in a name. One of ten digits or more is past any that a model has; Python refuses those of 4,301."""
    return int(digits) if len(digits) < 10 else 1_000_000_000


@lru_cache(16384)
def numbered(name: str) -> str:
    """A name with `#` for its numbers: `model.layers.0.mlp` → `model.layers.#.mlp`."""
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "#", name)


def stack(name: str) -> str:
    """The encoder or decoder that a name lies in, of which a class may have one alone; "" for what is in neither."""
    found = re.match(r"(.*?\b(?:en|de)coder)\.", name)
    return found[1] if found else ""


def pattern_value(pattern: Any, module: str, default: Any) -> Any:
    """The value of a rank or alpha pattern for a module, as PEFT 0.15 and newer match it (get_pattern_key)."""
    if isinstance(pattern, dict) and pattern:
        key = of_keys(pattern).first(module)
        return default if key is None else pattern[key]
    return default


def targets(target: object, module: str) -> bool:
    """Whether target_modules names a module (tuners/tuners_utils.py: check_target_module_exists)."""
    if isinstance(target, str):
        return reaches(target, module)
    if not isinstance(target, list):
        return False
    names = once(target, "names", lambda: frozenset(map(str, target)))
    return not names.isdisjoint(tails(module))


def is_all_linear(target: object) -> bool:
    """Whether target_modules says "all-linear", in any case: whatever the model has (tuners/tuners_utils.py:
    _maybe_include_all_linear_layers). A target may be of megabytes, so its length is asked first.
    """
    return isinstance(target, str) and len(target) == len(_ALL_LINEAR) and target.lower() == _ALL_LINEAR


def named(names: Iterable[object], modules: Iterable[str]) -> Names:
    """Those of a list's names that name one of some modules."""
    every = [*map(str, names)]
    found = {*every}.intersection(tail for module in modules for tail in tails(module))
    return [name for name in every if name in found]


def tails(module: str) -> Iterator[str]:
    """What a list may call a module by: its name, and what stands behind a dot in it."""
    yield module
    for at, char in enumerate(module):
        if char == ".":
            yield module[at + 1 :]
