"""One file a method of PEFT, as it has `tuners/<method>/`; imported when an adapter is of it."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..record import Method

LORAS = ("LORA", "ADALORA")
"""Those that have rules of their own."""

PROMPTS = frozenset({
    "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING",
})  # fmt: skip
"""Prompt learning, all in prompts.py: nothing is adapted, virtual tokens are put before the input."""


@cache
def names() -> frozenset[str]:
    """The names of all methods that have a record."""
    from pkgutil import iter_modules

    return frozenset(module.name.upper() for module in iter_modules(__path__)) - {"PROMPTS"} | PROMPTS


def record(name: str | None) -> Method | None:
    """The record of a method, or None: LoRA and AdaLoRA have rules of their own, of others nothing is known."""
    return _record(name) if name is not None and name not in LORAS and name in names() else None


@cache
def _record(name: str) -> Method:
    module = import_module(f"{__name__}.{'prompts' if name in PROMPTS else name.lower()}")
    method: Method = getattr(module, name)
    return method
